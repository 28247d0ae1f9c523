"""What the systems read from files have in common: how the force field is applied, and what is checked.

The readers are OpenMM's own, one kind a file beside this one.
"""

import logging
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError, DataError, first_line, warn_once
from latf_openmm.periodic import (
    SystemTopology,
    default_box,
    is_cell,
    longest_cutoff,
    reduced_box,
    whole_positions,
)
from latf_openmm.settings import Settings
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.bonds import add_missing_bonds, check_start, springs
from latf_openmm.systems.copies import masses_of
from latf_openmm.systems.implicit import add_native_obc2, implicit_solvent
from latf_openmm.systems.inspection import inspected
from latf_openmm.systems.water import make_rigid, waters
from latf_openmm.units import KELVIN, TemperatureScale

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
_CONSTRAINTS = {"none": None, "hbonds": app.HBonds, "allbonds": app.AllBonds}
"""OpenMM constraints by their names in the configuration."""
_DROPLET = 30
"""Molecules of water from which a System without a box is taken for one whose box got lost."""
_SPARSE, _AMU_OF_GRAMS = 0.3, 602.214
"""Density below which a periodic box is mostly empty [g/cm^3], and 1 g/cm^3 in amu/nm^3."""
_DENSEST = 300.0
"""Atoms per nm^3 that no molecular system reaches; water has 100, with five sites 170."""
_REPEATED = "WARNING: duplicate atom"
"""How OpenMM's warning of an atom that it drops begins."""
_METHODS = {"none": app.NoCutoff, "pme": app.PME, "cutoff": app.CutoffPeriodic}
"""OpenMM treatments of long-range forces by their names in the configuration."""


class NarrowBoxError(ConfigError):
    """The box is less than twice as wide as the cutoff."""


class TwoSolventsError(ConfigError):
    """An implicit solvent is asked for, and the force field has one already."""


class ForceFieldOptions(Settings):
    """Options for a System made from parameters."""

    method: Literal["auto", "none", "pme", "cutoff"] = Field(
        "auto", description="long-range interactions; auto: PME where there is a periodic box, else no cutoff"
    )
    cutoff: float = Field(1.0, gt=0, le=5, description="of non-bonded interactions, where there is one [nm]")
    constraints: Literal["none", "hbonds", "allbonds"] = Field("hbonds", description="bonds of fixed length")
    rigid_water: bool = Field(True, description="whether water is rigid")
    hydrogen_mass: float | None = Field(
        None,
        ge=1.0,
        le=5.0,
        description="mass of hydrogens, taken from what they are bound to [amu]; none: as it is",
    )
    pressure: float | None = Field(
        None, gt=0, description="of a Monte Carlo barostat at each temperature [bar]; none: constant volume"
    )
    implicit: Literal["none", "obc2"] = Field("none", description="implicit solvent: OpenMM's native OBC2")

    def arguments(self, box: Array | None, files: str, n_waters: int) -> dict[str, Any]:
        """Arguments of OpenMM's `createSystem`.

        Parameters
        ----------
        box
            Shape (3, 3) [nm], or None.
        files
            Where a box was looked for.
        n_waters
            Molecules of water: many of them without a box are a box that got lost.
        """
        method = ("pme" if box is not None else "none") if self.method == "auto" else self.method
        if method != "none" and box is None:
            raise ConfigError(
                f"system.options.method: {method!r} needs a periodic box, and there is none in {files}"
            )
        if self.method == "auto" and box is None and n_waters > _DROPLET:
            raise ConfigError(
                f"system: {n_waters} water molecules and no periodic box in {files}; say the box there, or "
                "system.options.method: none for a droplet in vacuum without a cutoff"
            )
        if self.pressure is not None and method == "none":
            why = "system.options.method is 'none'" if box is not None else f"there is none in {files}"
            raise ConfigError(
                f"system.options.pressure: {self.pressure:g} bar needs a periodic box, and {why}"
            )
        if self.implicit != "none" and method != "none":
            raise ConfigError(
                "system.options.implicit: implicit solvent is for structures without a periodic box; remove the box "
                "or choose method: none"
            )
        keywords: dict[str, Any] = {
            "nonbondedMethod": _METHODS[method],
            "constraints": _CONSTRAINTS[self.constraints],
            "rigidWater": self.rigid_water,
        }
        if method != "none":
            keywords["nonbondedCutoff"] = self.cutoff * unit.nanometer
        if self.hydrogen_mass is not None:
            keywords["hydrogenMass"] = self.hydrogen_mass * unit.amu
        return keywords


@dataclass(frozen=True)
class Molecule:
    """A molecule as read: an OpenMM System, its topology and start positions (n_atoms, 3) [nm].

    `box` (3, 3) [nm] is that of the positions, which a System without periodic boundaries does not use; None: not
    known.
    """

    topology: app.Topology
    system: openmm.System
    positions: Array
    box: Array | None = None


class MoleculeSettings(SystemSettings):
    """A system of the user's own, in kelvin."""

    in_library: ClassVar[bool] = False
    platform: ClassVar[str] = "CPU"
    system_file: ClassVar[str]
    """Key of the file that says most about the System."""

    @property
    def source(self) -> str:
        """Key and file that the System comes from, for messages."""
        return f"system.{self.system_file}: {getattr(self, self.system_file)}"

    @property
    def label(self) -> str:
        """Name of that file."""
        return Path(getattr(self, self.system_file)).name

    @property
    def scale(self) -> TemperatureScale:
        """Kelvin."""
        return KELVIN

    @abstractmethod
    def read(self) -> Molecule:
        """Read the files and make the System."""

    def build(self, copies: int = 1) -> BuiltSystem:
        """Read, check and return the system.

        Raises
        ------
        ConfigError
            If a file is missing or cannot be read, parts do not fit together, the box is too small, the System holds
            what walkers cannot simulate rightly (`latf_openmm.systems.inspection`), or several copies are not possible
            in one System.
        """
        molecule = self.read()
        _check(molecule)
        known = springs(molecule.system)
        add_missing_bonds(molecule.topology, known)
        system, positions = inspected(molecule.system, self.source), _start(molecule)
        if not SystemTopology.of(molecule.topology, system).boundary.infinite:
            check_start(molecule.topology, system, known, positions, self.source)
        return BuiltSystem(self.kind, molecule.topology, system, positions[None], KELVIN).copied(copies)


def _check(molecule: Molecule) -> None:
    numbers = {
        "the topology": molecule.topology.getNumAtoms(),
        "the System": molecule.system.getNumParticles(),
        "the positions": len(molecule.positions),
    }
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{name} has {n} atoms" for name, n in numbers.items())
        raise ConfigError(f"system: its parts do not fit together: {said}")
    if molecule.topology.getNumAtoms() == 0:
        raise ConfigError("system: there are no atoms in it")
    if not np.isfinite(molecule.positions).all():
        atom = int(np.argwhere(~np.isfinite(molecule.positions))[0][0])
        raise ConfigError(f"system: the position of atom {atom} is not a number")


def _start(molecule: Molecule) -> Array:
    """Start positions with whole molecules; the System's default box becomes one that OpenMM takes."""
    system, box = molecule.system, molecule.box
    if system.usesPeriodicBoundaryConditions():
        try:
            box = default_box(system)
        except DataError as error:
            raise ConfigError(f"system: its default box cannot be used: {error}") from None
        system.setDefaultPeriodicBoxVectors(*box)
        _check_box(box, longest_cutoff(system), len(molecule.positions))
    if box is None:
        return molecule.positions
    boundary = SystemTopology.of(molecule.topology, system).boundary
    return np.asarray(whole_positions(molecule.positions[None], box[None], boundary)[0])


def _check_box(box: Array, cutoff: float, n_atoms: int) -> None:
    narrowest, density = float(np.diag(box).min()), n_atoms / float(np.linalg.det(box))
    if 2 * cutoff > narrowest:
        raise NarrowBoxError(
            f"system: the periodic box is {narrowest:.3g} nm wide, which is less than twice the cutoff of "
            f"{cutoff:g} nm; use a larger box, or a shorter system.options.cutoff"
        )
    if density > _DENSEST:
        edges = " x ".join(f"{edge:.3g}" for edge in np.linalg.norm(box, axis=1))
        raise ConfigError(
            f"system: {n_atoms} atoms in a box of {edges} nm are {density:.0f} per nm^3, water has 100; the box of the "
            "System is not that of its positions"
        )


def box_of_files(vectors: Any, key: str, path: Path) -> Array | None:
    """Box of a file in reduced form, shape (3, 3) [nm]; None where it has none, or a dummy one (CRYST1 1 1 1).

    Parameters
    ----------
    vectors
        OpenMM's box vectors, or None.
    key, path
        Of the file, for messages.
    """
    if vectors is None:
        return None
    box = np.array([[x.value_in_unit(unit.nanometer) for x in row] for row in vectors], dtype=np.float64)
    if not is_cell(box):
        return None
    try:
        return reduced_box(box)
    except DataError as error:
        raise ConfigError(f"system.{key}: {path}: {error}") from None


def _warn_of_vacuum(system: openmm.System, box: Array, files: str) -> None:
    """Warn of a periodic box (3, 3) [nm] that is mostly empty, as a molecule in the cell of its crystal."""
    density = float(masses_of(system).sum()) / float(np.linalg.det(box)) / _AMU_OF_GRAMS
    if density < _SPARSE:
        edges = " x ".join(f"{edge:.3g}" for edge in np.linalg.norm(box, axis=1))
        warn_once(
            log,
            f"system: the periodic box of {edges} nm of {files} holds {density:.2g} g/cm^3, liquids about 1: mostly "
            "vacuum; where it is the cell of a crystal, fill it with water, or say system.options.method: none",
        )


def warn_of_droplet(system: openmm.System, topology: app.Topology, source: str) -> None:
    """Warn of a System that was made without a box and holds many molecules of water: one by `createSystem`'s default.

    Parameters
    ----------
    source
        Key and file it comes from, for messages.
    """
    n_waters = len(waters(topology))
    if n_waters > _DROPLET and not system.usesPeriodicBoundaryConditions():
        warn_once(
            log,
            f"{source}: {n_waters} water molecules and no force that is periodic: a droplet in vacuum without a box; "
            "if it should have one, make the System with nonbondedMethod=PME (createSystem's default is NoCutoff)",
        )


def set_box(topology: app.Topology, box: Array | None) -> None:
    """Let an OpenMM topology have this box, or none."""
    topology.setPeriodicBoxVectors(
        None if box is None else [openmm.Vec3(*row) for row in box] * unit.nanometer
    )


def existing(key: str, path: Path) -> str:
    """Return the path as text; raise `ConfigError` if there is no such file."""
    if not path.is_file():
        raise ConfigError(f"system.{key}: {path}: no such file")
    return str(path)


def reading(key: str, path: Path, read: Any, expected: str = "") -> Any:
    """Return what `read(path)` returns; its errors become one line that names key, file and what was expected."""
    name = existing(key, path)
    try:
        return read(name)
    except Exception as error:
        hint = f"; expected {expected}" if expected else ""
        raise ConfigError(f"system.{key}: {path} cannot be read{hint} ({first_line(error)})") from error


def structure(key: str, path: Path) -> Any:
    """Return OpenMM's reader of a PDB or mmCIF file, by the file's name."""
    cif = path.suffix.lower() in (".cif", ".mmcif", ".pdbx")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reader, kind = (app.PDBxFile, "an mmCIF") if cif else (app.PDBFile, "a PDB")
        read = reading(key, path, reader, f"{kind} file with atoms")
    repeated = [text for warning in said if (text := str(warning.message)).startswith(_REPEATED)]
    if repeated:
        atom = repeated[0].removeprefix(_REPEATED).lstrip(" (")[:26].strip()
        raise ConfigError(
            f"system.{key}: {path}: {len(repeated)} atoms have the name of another of their residue, the first is "
            f"{atom!r}; such atoms are dropped: let the names in each residue differ"
        )
    return read


def create_system(
    create: Any, topology: app.Topology, options: ForceFieldOptions, box: Array | None, what: str, files: str
) -> openmm.System:
    """Return the System of OpenMM's `create(**arguments)`, with implicit solvent where it is wanted.

    Parameters
    ----------
    create
        Takes the arguments of `createSystem`.
    topology
        Of the atoms; given the box, if the System is periodic.
    options
        How the System is made.
    box
        That of the files, shape (3, 3) [nm], or None.
    what
        Key of the file that is to blame where no System can be made.
    files
        Where a box was looked for.

    Raises
    ------
    ConfigError
        If no System can be made, or an implicit solvent is wanted and there is one already.
    """
    arguments = options.arguments(box, files, len(waters(topology)))
    periodic = arguments["nonbondedMethod"] is not app.NoCutoff
    set_box(topology, box if periodic else None)
    try:
        system = create(**arguments)
    except Exception as error:
        raise ConfigError(f"system.{what}: no System can be made ({first_line(error)})") from error
    if options.rigid_water and (added := make_rigid(system, topology, f"system.{what}")):
        log.info(
            "%d molecules of water have a constraint between their hydrogens in place of an angle", added
        )
    if box is not None and periodic:
        system.setDefaultPeriodicBoxVectors(*box)
        _warn_of_vacuum(system, box, files)
    if options.pressure is not None:  # its temperature is that of the walkers
        system.addForce(openmm.MonteCarloBarostat(options.pressure * unit.bar, 300.0 * unit.kelvin))
    if options.implicit == "obc2":
        if implicit_solvent(system):
            raise TwoSolventsError(
                f"system.options.implicit: {options.implicit!r} would be a second implicit solvent, system.{what} "
                "brings one; expected 'none'"
            )
        add_native_obc2(system, topology)
    return system


def nanometres(positions: Any) -> NDArray[np.float64]:
    """Positions of an OpenMM quantity, shape (n_atoms, 3) [nm]."""
    return np.array(positions.value_in_unit(unit.nanometer), dtype=np.float64)
