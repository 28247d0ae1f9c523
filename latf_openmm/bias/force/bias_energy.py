"""BiasEnergy: positions -> bias energy (and forces) of all copies in a System, as one module."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force.traced_forces import ELEMENTARY, record, recorded
from latf_openmm.bias.potentials import Bias
from latf_openmm.errors import ModelError

_Arguments = tuple[Tensor, Tensor, Tensor]
"""Positions, box and state."""


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


def trace_forces(energy: BiasEnergy, periodic: bool) -> torch.jit.ScriptModule:
    """TorchScript (positions, box, state) -> (energy, forces) from one straight graph.

    The energy and its gradient are recorded once as plain tensor operations, so nothing is differentiated
    while the simulation runs. The graph is for the CPU and for this number of atoms.

    Raises
    ------
    ModelError
        If the collective variables cannot be recorded.
    """
    with _recording():
        return record(_call(energy), _examples(energy, periodic))


def elementary_graph(energy: BiasEnergy, periodic: bool) -> tuple[fx.GraphModule, list[_Arguments]]:
    """Return that graph in few kinds of operation, and the arguments it was recorded with.

    Raises
    ------
    ModelError
        If the collective variables cannot be recorded.
    """
    examples = _examples(energy, periodic)
    with _recording():
        return recorded(_call(energy), examples, ELEMENTARY), examples


def _call(energy: BiasEnergy) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The function that is recorded; torch counts the arguments of a plain one only."""

    def call(positions: Tensor, box: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return energy.energy_and_forces(positions, box, state)

    return call


def _examples(energy: BiasEnergy, periodic: bool) -> list[_Arguments]:
    """Arguments to record the graph with."""
    generator = torch.Generator().manual_seed(0)
    n = energy.n_copies * energy.n_atoms
    positions = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    box = 10.0 * torch.eye(3, dtype=torch.float64) if periodic else torch.empty(0)
    return [(positions, box, state) for state in energy.bias.example_states()]


@contextmanager
def _recording() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelError(
            f"the collective variables cannot be recorded as one graph of operations ({reason}); where they "
            "depend on the positions by more than arithmetic, use forces='autograd' with TorchForce"
        ) from error
