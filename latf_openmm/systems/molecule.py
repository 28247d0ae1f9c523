"""What the systems read from files have in common: how the force field is applied, and what is checked.

The readers are OpenMM's own, one kind a file beside this one.
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from pydantic import Field

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.settings import Settings
from latf_openmm.systems.base import BuiltSystem, SystemSettings
from latf_openmm.systems.implicit import add_native_obc2
from latf_openmm.systems.inspection import inspected
from latf_openmm.units import KELVIN, TemperatureScale

_CONSTRAINTS = {"none": None, "hbonds": app.HBonds, "allbonds": app.AllBonds}
_METHODS = {"none": app.NoCutoff, "pme": app.PME, "cutoff": app.CutoffPeriodic}


class ForceFieldOptions(Settings):
    """How a System is made from parameters."""

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

    def arguments(self, periodic: bool) -> dict[str, Any]:
        """Arguments of OpenMM's `createSystem`."""
        method = ("pme" if periodic else "none") if self.method == "auto" else self.method
        if method != "none" and not periodic:
            raise ConfigError(
                f"system.options.method: {method!r} needs a periodic box, and the structure has none"
            )
        if self.pressure is not None and method == "none":
            raise ConfigError("system.options.pressure: constant pressure needs a periodic box")
        if self.implicit != "none" and method != "none":
            raise ConfigError(
                "system.options.implicit: implicit solvent is for structures without a periodic box; remove the box "
                "or choose method: none"
            )
        found: dict[str, Any] = {
            "nonbondedMethod": _METHODS[method],
            "constraints": _CONSTRAINTS[self.constraints],
            "rigidWater": self.rigid_water,
        }
        if method != "none":
            found["nonbondedCutoff"] = self.cutoff * unit.nanometer
        if self.hydrogen_mass is not None:
            found["hydrogenMass"] = self.hydrogen_mass * unit.amu
        return found


@dataclass(frozen=True)
class Molecule:
    """What was read: an OpenMM System, its topology and start positions (n_atoms, 3) [nm]."""

    topology: app.Topology
    system: openmm.System
    positions: NDArray[np.float64]


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
        found = self.read()
        _check(found)
        system = inspected(found.system, self.source)
        return BuiltSystem(self.kind, found.topology, system, found.positions[None], KELVIN).copied(copies)


def _check(found: Molecule) -> None:
    numbers = {
        "the topology": found.topology.getNumAtoms(),
        "the System": found.system.getNumParticles(),
        "the positions": len(found.positions),
    }
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{name} has {n} atoms" for name, n in numbers.items())
        raise ConfigError(f"system: its parts do not fit together: {said}")
    if found.topology.getNumAtoms() == 0:
        raise ConfigError("system: there are no atoms in it")
    if not np.isfinite(found.positions).all():
        atom = int(np.argwhere(~np.isfinite(found.positions))[0][0])
        raise ConfigError(f"system: the position of atom {atom} is not a number")
    if found.system.usesPeriodicBoundaryConditions():
        _check_box(found.system)


def _check_box(system: openmm.System) -> None:
    box = np.array([v.value_in_unit(unit.nanometer) for v in system.getDefaultPeriodicBoxVectors()])
    narrowest = float(np.diag(box).min())
    for force in system.getForces():
        if not (hasattr(force, "getCutoffDistance") and force.usesPeriodicBoundaryConditions()):
            continue
        cutoff = force.getCutoffDistance().value_in_unit(unit.nanometer)
        if 2 * cutoff > narrowest:
            raise ConfigError(
                f"system: the periodic box is {narrowest:.3g} nm wide, which is less than twice the cutoff of "
                f"{cutoff:g} nm; use a larger box, or a shorter system.options.cutoff"
            )


def existing(key: str, path: Path) -> str:
    """Return the path as text; raise `ConfigError` if there is no such file."""
    if not path.is_file():
        raise ConfigError(f"system.{key}: {path}: no such file")
    return str(path)


def reading(key: str, path: Path, read: Any) -> Any:
    """Return what `read(path)` returns; its errors become one line that names key and file."""
    name = existing(key, path)
    try:
        return read(name)
    except Exception as error:
        raise ConfigError(f"system.{key}: {path} cannot be read ({first_line(error)})") from error


def structure(key: str, path: Path) -> Any:
    """Return OpenMM's reader of a PDB or mmCIF file, by the file's name."""
    cif = path.suffix.lower() in (".cif", ".mmcif", ".pdbx")
    return reading(key, path, app.PDBxFile if cif else app.PDBFile)


def made(
    create: Any, topology: app.Topology, options: ForceFieldOptions, periodic: bool, what: str
) -> openmm.System:
    """Return the System of OpenMM's `create(**arguments)`, with implicit solvent where it is wanted."""
    arguments = options.arguments(periodic)
    try:
        system = create(**arguments)
    except Exception as error:
        raise ConfigError(f"system.{what}: no System can be made ({first_line(error)})") from error
    if options.pressure is not None:  # its temperature is that of the walkers
        system.addForce(openmm.MonteCarloBarostat(options.pressure * unit.bar, 300.0 * unit.kelvin))
    if options.implicit == "obc2":
        add_native_obc2(system, topology)
    return system


def nanometres(positions: Any) -> NDArray[np.float64]:
    """Positions of an OpenMM quantity, shape (n_atoms, 3) [nm]."""
    return np.array(positions.value_in_unit(unit.nanometer), dtype=np.float64)
