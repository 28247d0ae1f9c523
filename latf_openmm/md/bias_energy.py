"""BiasEnergy: positions -> bias energy (and forces) of all copies in a System, as one module."""

import torch
from torch import Tensor, nn

from latf_openmm.errors import ModelError
from latf_openmm.md.bias import Bias
from latf_openmm.md.bias.base import AdaptiveBias
from latf_openmm.md.cv import CollectiveVariables
from latf_openmm.md.recorded import record


class BiasEnergy(nn.Module):
    """Total bias energy of a System of `n_copies` independent copies, by one batched evaluation.

    ``forward(positions, box, state)`` takes (n_copies * n_atoms, 3) [nm], the box vectors (3, 3) [nm] or an
    empty tensor, and the state of the bias, and returns a scalar [kJ/mol].
    """

    def __init__(self, cv: CollectiveVariables, bias: Bias, n_copies: int = 1) -> None:
        super().__init__()
        self.cv = cv
        self.bias = bias
        self.n_copies = n_copies
        self.n_atoms = cv.n_atoms

    def forward(self, positions: Tensor, box: Tensor, state: Tensor) -> Tensor:
        """Return the bias energy, a scalar [kJ/mol]."""
        cell = box if box.numel() == 0 else box.unsqueeze(0).expand(self.n_copies, 3, 3)
        z = self.cv(positions.reshape(self.n_copies, self.n_atoms, 3), cell)
        return self.bias.evaluate(z, state).sum()

    def energy_and_forces(self, positions: Tensor, box: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy [kJ/mol] and the forces (n, 3) [kJ/mol/nm], by automatic differentiation."""
        x = positions.detach().to(torch.float64).requires_grad_(True)
        energy = self(x, box, state)
        (forces,) = torch.autograd.grad(energy, x, -torch.ones_like(energy))
        return energy.detach(), forces


class WithoutGradients(nn.Module):
    """Calls a core that gives forces by itself: TorchForce's positions ask for gradients at every step."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, positions: Tensor, box: Tensor, state: Tensor):  # noqa: D102
        with torch.no_grad():
            return self.core(positions, box, state)


class Static(nn.Module):
    """Calls a core (positions, box, state) with the state of a bias that has none."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core
        self.state: Tensor
        self.register_buffer("state", torch.empty(0, dtype=torch.float64))


class StaticPeriodic(Static):
    """A static bias as TorchForce calls it in a periodic box."""

    def forward(self, positions: Tensor, box: Tensor):  # noqa: D102
        return self.core(positions, box, self.state)


class StaticOpen(Static):
    """A static bias as TorchForce calls it without a box."""

    def forward(self, positions: Tensor):  # noqa: D102
        return self.core(positions, torch.empty(0), self.state)


class Following(nn.Module):
    """Calls a core with the state that the messages of an adaptive bias have made of the first one.

    A force copies its module when it is made; only global parameters reach it afterwards, and each of them
    costs time at every step. So there is one, the number of messages: whenever it has moved, the messages are
    read from the file of the bias, and the receiver applies them. The state depends on that number alone.
    """

    def __init__(self, core: nn.Module, bias: AdaptiveBias) -> None:
        super().__init__()
        self.core = core
        self.receiver = bias.receiver
        self.size = bias.message_size
        self.path = str(bias.messages().path)
        self.start = bias.messages().start  # of the file
        self.first = int(bias.sent)  # of this force
        self.count = int(bias.sent)
        self.state: Tensor
        self.initial: Tensor
        self.register_buffer("state", bias.state.clone())
        self.register_buffer("initial", bias.state.clone())

    def follow(self, sent: Tensor) -> None:
        """Bring the state to the moment when so many messages had been sent."""
        now = int(sent)
        if now != self.count:
            if now < self.count:
                self.state = self.initial
                self.count = self.first
            if now < self.first:
                raise RuntimeError(
                    "the bias in this Context is a later one: make its System anew with add_bias"
                )
            state = self.state
            if now > self.count:
                known = now - self.start
                rows = torch.from_file(self.path, False, known * self.size, dtype=torch.float64)
                rows = rows.reshape(known, self.size).to(state.device)
                for index in range(self.count - self.start, known):
                    state = self.receiver(state, rows[index])
            self.state = state
            self.count = now


class FollowingPeriodic(Following):
    """An adaptive bias as TorchForce calls it in a periodic box."""

    def forward(self, positions: Tensor, box: Tensor, sent: Tensor):  # noqa: D102
        self.follow(sent)
        return self.core(positions, box, self.state)


class FollowingOpen(Following):
    """An adaptive bias as TorchForce calls it without a box."""

    def forward(self, positions: Tensor, sent: Tensor):  # noqa: D102
        self.follow(sent)
        return self.core(positions, torch.empty(0), self.state)


def script_energy(energy: BiasEnergy, periodic: bool) -> torch.jit.ScriptModule:
    """TorchScript of the energy; OpenMM or torch differentiates it at every step."""
    return _callable(energy, energy.bias, periodic)


def script_forces(energy: BiasEnergy, periodic: bool) -> torch.jit.ScriptModule:
    """TorchScript that returns (energy, forces), from the recorded graph of `trace_forces`."""
    return _callable(WithoutGradients(trace_forces(energy, periodic)), energy.bias, periodic)


def _callable(core: nn.Module, bias: Bias, periodic: bool) -> torch.jit.ScriptModule:
    """The core with the state of the bias, called as a force calls it."""
    module: nn.Module
    if isinstance(bias, AdaptiveBias):
        module = FollowingPeriodic(core, bias) if periodic else FollowingOpen(core, bias)
    else:
        module = StaticPeriodic(core) if periodic else StaticOpen(core)
    return torch.jit.script(module.eval())


def trace_forces(energy: BiasEnergy, periodic: bool) -> torch.jit.ScriptModule:
    """TorchScript (positions, box, state) -> (energy, forces) from one straight graph.

    The energy and its gradient are recorded once as plain tensor operations, so nothing is differentiated
    while the simulation runs. The graph is for the CPU and for this number of atoms.
    """
    generator = torch.Generator().manual_seed(0)
    n = energy.n_copies * energy.n_atoms
    positions = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    box = 10.0 * torch.eye(3, dtype=torch.float64) if periodic else torch.empty(0)
    examples = [(positions, box, state) for state in energy.bias.example_states()]

    def call(positions: Tensor, box: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return energy.energy_and_forces(positions, box, state)

    try:
        return record(call, examples)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelError(
            f"the collective variables cannot be recorded as one graph of operations ({reason}); where they "
            "depend on the positions by more than arithmetic, use forces='autograd' with TorchForce"
        ) from error
