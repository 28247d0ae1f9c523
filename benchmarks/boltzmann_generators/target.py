"""The target: alanine dipeptide in ff96 and OBC1, nothing constrained, and its temperatures.

That is `AlanineDipeptideImplicit(constraints=None)` of openmmtools, which TA-BG (arXiv 2501.19077) uses, made with the
files of OpenMM: its energies are those of the prmtop of openmmtools to 0.0003 kJ/mol, the digits of that file.
"""

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from benchmarks.boltzmann_generators.solvent import with_compiled_solvent
from latf_openmm.systems.library import library_folder

FORCE_FIELD = ("amber96.xml", "implicit/obc1.xml")
"""Files of OpenMM."""
TEMPERATURES = (300.0, 349.96, 408.24, 476.22, 555.52, 648.04, 755.95, 881.84, 1028.69, 1200.0)
"""The temperatures that TA-BG anneals through (configuration `paper/aldp/annealing_1200K` of its repository) [K]."""
TIMESTEP = 0.001
"""As in the reference runs of boltzkit [ps]."""
FRICTION = 1.0
"""As in the reference runs of boltzkit [1/ps]."""
HYDROGEN_MASS = 3.0
"""Of `make_heavy`, which can take time steps of 2 fs [amu]."""
GAS_CONSTANT = 0.00831446261815324
"""In kJ/mol/K."""
TORSIONS = {"phi": (4, 6, 8, 14), "psi": (6, 8, 14, 16), "omega 1": (1, 4, 6, 8), "omega 2": (8, 14, 16, 18)}
"""Atoms of the torsions of the backbone, in the order of TORSIONS' own names."""

Positions = NDArray[np.float64]


def structure() -> app.PDBFile:
    """Return topology and positions of the package's alanine dipeptide."""
    return app.PDBFile(str(library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))


def positions() -> Positions:
    """Return positions of the package's alanine dipeptide, shape (n_atoms, 3) [nm]."""
    return np.array(structure().positions.value_in_unit(unit.nanometer))


def defined_system(hydrogen_mass: float | None = None) -> openmm.System:
    """Return the System as it is defined, with the solvent as OpenMM has it.

    Parameters
    ----------
    hydrogen_mass
        Mass of hydrogens, taken from what they are bound to [amu]; None: as it is.
    """
    mass = None if hydrogen_mass is None else hydrogen_mass * unit.amu
    return app.ForceField(*FORCE_FIELD).createSystem(
        structure().topology,
        nonbondedMethod=app.NoCutoff,
        constraints=None,
        removeCMMotion=False,
        hydrogenMass=mass,
    )


def make() -> tuple[openmm.System, app.Topology, Positions]:
    """Return System, topology and positions [nm], with the solvent in compiled code: for ``system.kind: python``."""
    return with_compiled_solvent(defined_system()), structure().topology, positions()


def make_heavy() -> tuple[openmm.System, app.Topology, Positions]:
    """Return the same with hydrogens of `HYDROGEN_MASS`: the distribution of positions does not depend on masses."""
    return with_compiled_solvent(defined_system(HYDROGEN_MASS)), structure().topology, positions()
