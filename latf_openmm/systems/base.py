"""What every system is: settings that build an OpenMM System of one or many independent copies."""

import filecmp
import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from latf_openmm.labels import numbered
from latf_openmm.periodic import SystemTopology
from latf_openmm.settings import Settings, changes
from latf_openmm.systems.copies import Copies, many_copies, masses_of
from latf_openmm.units import TemperatureScale


@dataclass(frozen=True)
class BuiltSystem:
    """An OpenMM System ready to run, holding `n_copies` independent copies one after the other.

    Parameters
    ----------
    name
        The system's name.
    topology
        Topology of one copy.
    system
        OpenMM System of all copies.
    positions
        Start positions, shape (n_copies, n_atoms, 3) [nm].
    scale
        The unit of its temperatures.
    copies
        Where copies stand that would feel each other side by side; None where they do not.
    """

    name: str
    topology: app.Topology
    system: openmm.System
    positions: NDArray[np.float64]
    scale: TemperatureScale
    copies: Copies | None = None

    @property
    def n_copies(self) -> int:
        """Number of independent copies in the System."""
        return int(self.positions.shape[0])

    @property
    def n_atoms(self) -> int:
        """Number of particles of one copy."""
        return int(self.positions.shape[1])

    @property
    def masses(self) -> NDArray[np.float64]:
        """Masses of all particles of all copies [amu]."""
        return masses_of(self.system)

    @property
    def periodic(self) -> bool:
        """Return whether any force of the System uses periodic boundary conditions."""
        return bool(self.system.usesPeriodicBoundaryConditions())

    def copied(self, n_copies: int) -> "BuiltSystem":
        """Return copies of this one in one System, each as if it were alone.

        Raises
        ------
        ConfigError
            If that is not possible; see `latf_openmm.many_copies`.
        """
        if n_copies == 1:
            return self
        copies = many_copies(self.system, n_copies)
        positions = np.repeat(self.positions, n_copies, axis=0)
        return replace(self, system=copies.system, positions=positions, copies=copies)

    def placed(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move positions of single copies to their places in the System, shape (n_copies, n_atoms, 3) [nm]."""
        return positions if self.copies is None else self.copies.placed(positions)

    def single(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions of single copies, by those in the System, shapes (n_copies, n_atoms, 3) [nm]."""
        return positions if self.copies is None else positions - self.copies.sites[:, None]

    def mdtraj_topology(self) -> SystemTopology:
        """Topology of one copy as MDTraj's; it knows whether there is a box, and what is bound."""
        return self._mdtraj_topology

    @cached_property
    def _mdtraj_topology(self) -> SystemTopology:
        converted = SystemTopology.of(self.topology, self.system if self.n_copies == 1 else None)
        return numbered(converted, self.topology)

    def with_own_system(self) -> "BuiltSystem":
        """Return the same with a copy of the System, for those who change it."""
        return replace(self, system=deepcopy(self.system))


@dataclass(frozen=True)
class WeightedConfigurations:
    """Configurations with normalised weights, the answer of an exact reference.

    Parameters
    ----------
    positions
        Shape (n, n_atoms, 3) [nm].
    weights
        Shape (n,), summing to one.
    """

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]


class SystemSettings(Settings):
    """Settings of one system; subclasses add a literal ``kind`` and live in one file each."""

    kind: str
    batched: ClassVar[bool] = False
    """Whether copies need not be kept apart, and all of a temperature share a Context unless told otherwise."""
    platform: ClassVar[str] = "Reference"
    """The OpenMM platform this system runs best on when there is no GPU."""
    in_library: ClassVar[bool] = True
    """Whether it has a folder with configurations in the library; systems read from a user's files have none."""
    title: ClassVar[str] = ""
    """One line for people."""
    simulated: ClassVar[bool] = True
    """Whether it has forces, so that it can be simulated."""
    curves: ClassVar[tuple[str, ...]] = ()
    """``FILE.py:FUNCTION`` in its folder of the library: observables that the report draws against temperature."""

    equilibrium_free: ClassVar[tuple[str, ...]] = ("start", "structure", "coordinates", "trust")
    """Keys that leave the equilibrium as it is: where walkers start, and consent to code."""

    @property
    @abstractmethod
    def scale(self) -> TemperatureScale:
        """Temperature scale of this system."""

    @property
    def label(self) -> str:
        """Name for people: the kind of one of the library, the file that one of a user is read from."""
        return self.kind

    def code(self) -> tuple[Path, ...]:
        """Return the files whose code runs when the system is built; see ``docs/trust.md``."""
        return ()

    @abstractmethod
    def build(self, copies: int = 1) -> BuiltSystem:
        """Build the System with `copies` independent copies."""

    def exact_ensemble(self, temperature: float) -> WeightedConfigurations | None:
        """Exact Boltzmann-weighted configurations (by quadrature) where they are known, else None."""
        return None


def shared_system(settings: SystemSettings, copies: int = 1) -> BuiltSystem:
    """Return the System of settings, built once in a process as long as its files do not change.

    Everybody gets the same one, so it is not to be changed; see `BuiltSystem.with_own_system`.

    Parameters
    ----------
    settings
        Of the system.
    copies
        Independent copies in the System.
    """
    stamps = [(path, path.stat()) for path in system_files(settings)]
    return _shared(settings, copies, tuple((str(p), facts.st_mtime_ns, facts.st_size) for p, facts in stamps))


@lru_cache(maxsize=4)
def _shared(settings: SystemSettings, copies: int, stamps: tuple[tuple[str, int, int], ...]) -> BuiltSystem:
    return settings.build(copies)


def system_files(settings: SystemSettings) -> list[Path]:
    """Return the files that a system is made from: those its settings name, as far as they exist, and its code."""
    named = [*_paths(settings.model_dump()), *settings.code()]
    return sorted({path.resolve() for path in named if path.is_file()})


def system_differences(first: SystemSettings, second: SystemSettings) -> list[str]:
    """Return the keys in which the equilibrium of two systems may differ, each with both values, the first's first.

    Files are compared by their content. Of systems of two kinds only the kinds are said.
    """
    if first.kind != second.kind:
        return [f'system.kind: "{first.kind}" against "{second.kind}"']
    plain, other = (
        {key: value for key, value in s.model_dump(mode="json").items() if key not in s.equilibrium_free}
        for s in (first, second)
    )
    files = {*system_files(first), *system_files(second)}

    def same_file(old: Any, new: Any) -> bool:
        if not (isinstance(old, str) and isinstance(new, str)):
            return False
        paths = Path(old).resolve(), Path(new).resolve()
        return files.issuperset(paths) and filecmp.cmp(paths[0], paths[1], shallow=False)

    return [
        f"{key}: {json.dumps(old)} against {json.dumps(new)}"
        for key, old, new in changes(plain, other, "system")
        if not same_file(old, new)
    ]


def _paths(value: Any) -> Iterator[Path]:
    """Every text in settings that is the path of a file."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, (str, Path)):
        with suppress(OSError):  # a text that is no path
            if Path(value).is_file():
                yield Path(value)


def particle_topology(n_particles: int, residue: str) -> app.Topology:
    """Topology of `n_particles` identical particles (argon, so that viewers draw them)."""
    topology = app.Topology()
    group = topology.addResidue(residue, topology.addChain("A"))
    for index in range(n_particles):
        topology.addAtom(f"AR{index + 1}", app.element.argon, group)
    return topology


def flat_force(strength: float, n_particles: int) -> openmm.CustomExternalForce:
    """Energy `strength` * z^2 [kJ/mol, nm] on every particle: keeps a model in the x-y plane."""
    force = openmm.CustomExternalForce("flatness*z^2")
    force.addGlobalParameter("flatness", strength)
    force.setName("Flatness")
    for index in range(n_particles):
        force.addParticle(index, [])
    return force
