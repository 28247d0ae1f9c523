"""BiasEnergy: positions -> bias energy (and forces) of all copies in a System, as one module."""

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from latf_openmm.md.bias import Bias
from latf_openmm.md.latent_cv import LatentCV


class BiasEnergy(nn.Module):
    """Total bias energy of a System of `n_copies` independent copies, by one batched evaluation.

    ``forward(positions, box)`` takes (n_copies * n_atoms, 3) [nm] and the box vectors (3, 3) [nm] or an
    empty tensor, and returns a scalar [kJ/mol].
    """

    def __init__(self, cv: LatentCV, bias: Bias, n_copies: int = 1) -> None:
        super().__init__()
        self.cv = cv
        self.bias = bias
        self.n_copies = n_copies
        self.n_atoms = cv.n_atoms

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return the bias energy, a scalar [kJ/mol]."""
        cell = box if box.numel() == 0 else box.unsqueeze(0).expand(self.n_copies, 3, 3)
        z = self.cv(positions.reshape(self.n_copies, self.n_atoms, 3), cell)
        return self.bias(z).sum()

    def energy_and_forces(self, positions: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy [kJ/mol] and the forces (n, 3) [kJ/mol/nm], by automatic differentiation."""
        x = positions.detach().to(torch.float64).requires_grad_(True)
        energy = self(x, box)
        (gradient,) = torch.autograd.grad(energy, x)
        return energy.detach(), -gradient


class NonPeriodic(nn.Module):
    """Adapts `BiasEnergy` to the call without a box."""

    def __init__(self, energy: BiasEnergy) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, positions: Tensor) -> Tensor:
        """Return the bias energy, a scalar [kJ/mol]."""
        return self.energy(positions, torch.empty(0))


def script_energy(energy: BiasEnergy, periodic: bool) -> torch.jit.ScriptModule:
    """TorchScript of the energy; OpenMM or torch differentiates it at every step."""
    module = energy if periodic else NonPeriodic(energy)
    return torch.jit.script(module.eval())


def trace_forces(energy: BiasEnergy, periodic: bool) -> torch.jit.ScriptModule:
    """TorchScript that returns (energy, forces) from one straight graph, frozen.

    The energy and its gradient are recorded once as plain tensor operations, so nothing is differentiated
    while the simulation runs. The graph is for the CPU and for this number of atoms.
    """
    generator = torch.Generator().manual_seed(0)
    n = energy.n_copies * energy.n_atoms
    positions = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    arguments = (positions, 10.0 * torch.eye(3, dtype=torch.float64)) if periodic else (positions,)

    def with_box(x: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        return energy.energy_and_forces(x, box)

    def without_box(x: Tensor) -> tuple[Tensor, Tensor]:
        return energy.energy_and_forces(x, torch.empty(0))

    record = make_fx(
        with_box if periodic else without_box, decomposition_table={torch.ops.aten.addmm.default: _addmm}
    )
    return torch.jit.freeze(torch.jit.trace(record(*arguments), arguments).eval())


def _addmm(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # torch 2.12: once a module is frozen (which TorchForce does itself), TorchScript's shape analysis gives
    # addmm the shape of its bias, and a batch larger than one then fails.
    return a @ b + bias
