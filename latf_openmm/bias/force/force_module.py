"""The TorchScript that a force calls: bias energy and forces, with the state of an adaptive bias."""

import torch
from torch import Tensor, nn

from latf_openmm.bias import torchscript
from latf_openmm.bias.force.bias_energy import BiasEnergy, trace_forces
from latf_openmm.bias.potentials.base import AdaptiveBias


class TracedForces(nn.Module):
    """Energy and forces from a traced graph; `scale` multiplies the forces.

    The graph is for the CPU and double precision. GPU platforms give positions as they have them: these are brought
    there, and the forces back.
    """

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, positions: Tensor, box: Tensor, state: Tensor, scale: Tensor | None):  # noqa: D102
        with torch.no_grad():  # TorchForce's positions ask for gradients at every step
            if positions.is_cuda or positions.dtype != torch.float64:
                x = positions.to(torch.device("cpu"), torch.float64)
                energy, forces = self.core(x, box.to(x), state.to(x))
                energy, forces = energy.to(positions), forces.to(positions)
            else:
                energy, forces = self.core(positions, box, state)
            if scale is not None:
                forces = forces * scale
            return energy, forces


class Differentiated(nn.Module):
    """The energy, for OpenMM or torch to differentiate at every step; `scale` multiplies it and its gradient."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, positions: Tensor, box: Tensor, state: Tensor, scale: Tensor | None):  # noqa: D102
        energy = self.core(positions, box, state)
        if scale is not None:
            energy = energy * scale
        return energy


class StaticState(nn.Module):
    """The state of a static bias, which does not change and is mostly empty."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state: Tensor
        self.register_buffer("state", state.clone())


class AdaptiveState(nn.Module):
    """The state that the messages of an adaptive bias have made of the first one.

    A force copies its module when it is made; only global parameters reach it afterwards, and each of them
    costs time at every step. So there is one, the number of messages: whenever it has moved, the messages are
    read from the file of the bias, and its `StateUpdate` applies them. The state depends on that number alone.
    """

    def __init__(self, bias: AdaptiveBias) -> None:
        super().__init__()
        self.state_update = bias.state_update
        self.size = bias.message_size
        self.path = str(bias.messages().path)
        self.start = bias.messages().start  # of the file
        self.first = int(bias.sent)  # of this force
        self.count = int(bias.sent)
        self.state: Tensor
        self.initial: Tensor
        self.register_buffer("state", bias.state.clone())
        self.register_buffer("initial", bias.state.clone())

    def forward(self, sent: Tensor) -> None:
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
                    state = self.state_update(state, rows[index])
            self.state = state
            self.count = now


class ForceModule(nn.Module):
    """The module that a force calls.

    Arguments are the positions (n, 3) [nm], then, as far as there are: the box vectors (3, 3) [nm] in a periodic
    System; the number of messages of an adaptive bias; the factor on the forces.
    """

    periodic: torch.jit.Final[bool]
    adaptive: torch.jit.Final[bool]
    scaled: torch.jit.Final[bool]

    def __init__(self, core: nn.Module, state: nn.Module, periodic: bool, scaled: bool) -> None:
        super().__init__()
        self.core = core
        self.bias_state = state
        self.periodic = periodic
        self.adaptive = isinstance(state, AdaptiveState)
        self.scaled = scaled

    def forward(  # noqa: D102
        self,
        positions: Tensor,
        first: Tensor | None = None,
        second: Tensor | None = None,
        third: Tensor | None = None,
    ):
        arguments: list[Tensor] = []
        if first is not None:
            arguments.append(first)
        if second is not None:
            arguments.append(second)
        if third is not None:
            arguments.append(third)
        box = torch.empty(0)
        if self.periodic:
            box = arguments.pop(0)
        if self.adaptive:
            self.bias_state(arguments.pop(0))
        scale: Tensor | None = None
        if self.scaled:
            scale = arguments.pop(0)
        return self.core(positions, box, self.bias_state.state, scale)


def force_module(energy: BiasEnergy, periodic: bool, recorded: bool, scaled: bool) -> torch.jit.ScriptModule:
    """Return TorchScript for a force.

    Parameters
    ----------
    energy
        Collective variables and bias of all copies.
    periodic
        Whether it is given the box.
    recorded
        Whether it returns (energy, forces) from the graph of `trace_forces`, or the energy alone.
    scaled
        Whether it is given a factor on the forces.
    """
    core = TracedForces(trace_forces(energy, periodic)) if recorded else Differentiated(energy)
    bias = energy.bias
    state = AdaptiveState(bias) if isinstance(bias, AdaptiveBias) else StaticState(bias.state)
    scripted: torch.jit.ScriptModule = torchscript.script(ForceModule(core, state, periodic, scaled).eval())
    return scripted
