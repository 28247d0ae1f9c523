"""The implicit solvent OBC1 as compiled code: OpenMM has it as a `CustomGBForce`, which is slow for one molecule."""

from functools import cache
from itertools import combinations

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from latf_openmm.bias.compiled.computation import compiled_force
from latf_openmm.bias.compiled.program import Program
from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.force.compiled import program_of
from latf_openmm.bias.potentials import Bias

_COULOMB = 138.935485
"""Of OpenMM's ``implicit/obc1.xml`` [kJ/mol nm/e^2]."""
_DIELECTRIC = 1.0 - 1.0 / 78.5
"""Of a solute of dielectric 1 in a solvent of 78.5."""
_SURFACE = 28.3919551
"""Of the surface term of Schaefer and Karplus (ACE) [kJ/mol/nm^2]."""
_PROBE = 0.14
"""Radius of a water molecule [nm]."""
_OFFSET = 0.009
"""What radii are shortened by [nm]."""


class OBC1(CollectiveVariables):
    """Solvation free energy in OBC1 (Onufriev, Bashford and Case 2004, model I) as a single variable [kJ/mol].

    Parameters
    ----------
    charges
        Shape (n,) [e].
    radii
        Shortened radii of the atoms, shape (n,) [nm].
    scaled
        Shortened radii times what they are scaled by, shape (n,) [nm].
    """

    def __init__(
        self, charges: NDArray[np.float64], radii: NDArray[np.float64], scaled: NDArray[np.float64]
    ) -> None:
        n = len(charges)
        super().__init__(n, [0.0])
        self.charges: Tensor
        self.radii: Tensor
        self.differences: Tensor
        self.first: Tensor
        self.second: Tensor
        self.gather: Tensor
        self.at: Tensor
        self.by: Tensor
        self.pairs: Tensor
        first, second = np.array(list(combinations(range(n), 2))).T
        at, by = np.concatenate([first, second]), np.concatenate([second, first])
        unit_rows = np.eye(n)
        values = {
            "charges": charges,
            "radii": radii,
            "differences": unit_rows[first] - unit_rows[second],
            "first": unit_rows[first],
            "second": unit_rows[second],
            "gather": unit_rows[at].T,
            "at": radii[at],
            "by": scaled[by],
            "pairs": charges[first] * charges[second],
        }
        for name, value in values.items():
            self.register_buffer(name, torch.tensor(np.ascontiguousarray(value)))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return the energy of each frame, shape (n_frames, 1) [kJ/mol]."""
        vectors = torch.matmul(self.differences, positions)
        squares = (vectors * vectors).sum(-1)
        born = self._born_radii(squares.sqrt())
        alone = self.charges**2 / born
        product = torch.matmul(self.first, born[..., None]) * torch.matmul(self.second, born[..., None])
        product = product[..., 0]
        between = self.pairs / torch.sqrt(squares + product * torch.exp(-0.25 * squares / product))
        radius = self.radii + _OFFSET
        surface = _SURFACE * (radius + _PROBE) ** 2 * (radius / born) ** 6
        charged = 0.5 * alone.sum(-1) + between.sum(-1)
        return (surface.sum(-1) - _COULOMB * _DIELECTRIC * charged)[:, None]

    def _born_radii(self, distances: Tensor) -> Tensor:
        """Effective Born radii, shape (n_frames, n_atoms) [nm]."""
        r = torch.cat([distances, distances], dim=-1)
        upper = r + self.by
        lower = torch.maximum(self.at, torch.abs(r - self.by))
        one_lower, one_upper, one_r = 1.0 / lower, 1.0 / upper, 1.0 / r
        terms = one_lower - one_upper + 0.5 * torch.log(lower * one_upper) * one_r
        terms = terms + 0.25 * (r - self.by**2 * one_r) * (one_upper**2 - one_lower**2)
        terms = torch.where(upper > self.at, 0.5 * terms, torch.zeros_like(terms))
        psi = torch.matmul(self.gather, terms[..., None])[..., 0] * self.radii
        bent = torch.tanh(0.8 * psi + 2.909125 * psi**3)
        return 1.0 / (1.0 / self.radii - bent / (self.radii + _OFFSET))


class _Energy(Bias):
    """The variable itself."""

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        return z[:, 0]


def with_compiled_solvent(system: openmm.System) -> openmm.System:
    """Replace the `CustomGBForce` of a System made with ``implicit/obc1.xml`` by one of compiled code.

    The System is one that was just made; it is changed in place, and returned.
    """
    (index,) = [i for i, force in enumerate(system.getForces()) if isinstance(force, openmm.CustomGBForce)]
    atoms = range(system.getNumParticles())
    program = _program(tuple(tuple(system.getForce(index).getParticleParameters(i)) for i in atoms))
    system.removeForce(index)
    force = compiled_force(program, 1, np.zeros(0), periodic=False)
    force.setName("OBC1")
    system.addForce(force)
    return system


@cache
def _program(parameters: tuple[tuple[float, float, float], ...]) -> Program:
    """Program of the solvent around atoms with charge, shortened radius and its scaled one."""
    return program_of(BiasEnergy(OBC1(*np.array(parameters).T), _Energy()), periodic=False)
