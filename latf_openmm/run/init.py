"""A first configuration for a user's own files: what `latf-openmm init` writes.

It asks nothing: the kind of system follows from the files' names, features from what the molecule is, the platform and
the cost from a few steps on this machine. Every value is a proposal that the user reads and changes.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import openmm
import yaml

from latf_openmm.errors import ConfigError
from latf_openmm.features import FeatureSettings, build_features, resolve_features
from latf_openmm.features.base_vectors import BaseVectorSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.solute import alpha_carbons, heavy_atoms, water_atoms
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.labels import to_mdtraj
from latf_openmm.run.config import RunConfig, check_step, load_config
from latf_openmm.run.init_template import SPACING, fill_template, solvent_of
from latf_openmm.run.platform_speeds import platform_speeds, speeds_text, walkers_at_a_time
from latf_openmm.sampling.dynamics import DynamicsSettings
from latf_openmm.settings import validate
from latf_openmm.storage import atomic_file, check_output
from latf_openmm.systems import SYSTEM_KINDS, BuiltSystem
from latf_openmm.systems.molecule import NarrowBoxError, TwoSolventsError, structure as read_structure
from latf_openmm.systems.structure import force_field_file
from latf_openmm.units import duration

_TOPOLOGIES = {"amber": (".prmtop", ".parm7"), "gromacs": (".top",), "charmm": (".psf",)}
"""File name ends of topologies, by kind of system."""
_COORDINATES = {
    "amber": (".inpcrd", ".rst7", ".rst", ".crd"),
    "gromacs": (".gro",),
    "charmm": (".crd", ".cor", ".pdb"),
}
"""File name ends of coordinates, by kind of system."""
_STRUCTURES = (".pdb", ".cif", ".mmcif", ".pdbx")
"""File name ends of structures."""
_PARAMETERS = (".rtf", ".prm", ".par", ".str", ".inp")
"""File name ends of parameters of CHARMM."""
_MAX_PAIRS = 5000  # training leaves out what is dead or redundant
_PARTICLES = 10
"""Most particles of a model whose coordinates are proposed."""
_SHORTER = 0.9, 0.8  # nm; cutoffs for narrow boxes
_WALKERS = 2
"""Walkers at each temperature in a proposed round."""
_FRAMES = 2000
"""Frames of each walker in a proposed round."""
_FAST, _PLAIN = 0.004, 0.002  # ps; with and without heavy hydrogens


@dataclass(frozen=True)
class Starter:
    """A proposed configuration.

    Attributes
    ----------
    path
        The configuration.
    n_atoms
        Of the system.
    surroundings
        Whether the system is periodic, and what stands for a solvent, for people.
    n_features
        Descriptors.
    platform, steps_per_second
        The OpenMM platform on which a round takes least, and its speed for one walker.
    speeds
        Those of all platforms that were tried, by their names.
    hours
        What one round of simulation will take here, about, without training, where nothing else is at work.
    """

    path: Path
    n_atoms: int
    surroundings: str
    n_features: int
    platform: str
    steps_per_second: float
    speeds: dict[str, float]
    hours: float


def write_starter(
    files: Sequence[Path],
    output: Path,
    force_field: Sequence[str] = (),
    trust: bool = False,
    *,
    timestep: float | None = None,
    frame_interval: int | None = None,
) -> Starter:
    """Write a commented configuration for a system given by its files.

    Parameters
    ----------
    files
        A PDB or mmCIF file; prmtop with inpcrd or rst7; top with gro; psf with crd or PDB and parameters; XML of a
        System with PDB or mmCIF; a Python file.
    output
        The configuration; must not exist.
    force_field
        OpenMM force-field files for a PDB or mmCIF file; default: amber14-all.xml, with TIP3P where there is water.
    trust
        Whether code in an XML file may run.
    timestep
        Integration step [ps]; default: 0.004 where hydrogens are heavy, else 0.002.
    frame_interval
        Steps between frames; default: those of 1 ps.

    Raises
    ------
    ConfigError
        If the time step or the frame interval is not possible, the files do not make a system, or its features cannot
        be chosen.
    """
    check_output(output, folder=False, new="a configuration is never overwritten")
    for path in files:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
    _check_asked(timestep=timestep, frame_interval=frame_interval)
    folder = output.resolve().parent
    system = _system(files, force_field)
    if trust and system["kind"] in ("structure", "serialized"):
        system["trust"] = True
    system, built = _fitting(system)
    if timestep is not None:
        check_step("timestep", timestep, built.scale)
    topology = built.mdtraj_topology()
    features = _features(topology) or _coordinates(built.system)
    if not features:
        raise ConfigError(
            f"{', '.join(map(str, files))}: no features can be proposed: neither protein nor nucleic acid, and "
            f"{len(heavy_atoms(topology))} heavy atoms that are neither water nor ions; write the configuration by "
            "hand, with a selection of your own"
        )
    speeds = platform_speeds(built)
    platform = max(speeds, key=lambda name: speeds[name] * walkers_at_a_time(name))
    solvent = solvent_of(system, built)
    proposal = _Proposal(built, platform, speeds, "options" in system, timestep, frame_interval)
    values = proposal.values() | {
        "system": yaml.safe_dump(_relative(system, folder), sort_keys=False, default_flow_style=None),
        "features": yaml.safe_dump(features, sort_keys=False, default_flow_style=None),
        "solvent": solvent,
    }
    config = _write(output, values)
    n_features = build_features(resolve_features(config.features, topology)).n_features
    box = "periodic" if built.periodic else "not periodic"
    surroundings = f"{box}, {solvent}" if solvent else box
    return Starter(
        output, built.n_atoms, surroundings, n_features, platform, proposal.speed, speeds, proposal.hours
    )


def _check_asked(**asked: float | None) -> None:
    """Raise `ConfigError` where settings of the dynamics are not possible, in the words of a configuration."""
    required = {"timestep": _PLAIN, "friction": 1.0, "frame_interval": 1}
    given = {key: value for key, value in asked.items() if value is not None}
    validate(DynamicsSettings, required | given, "simulation")


@dataclass(frozen=True)
class _Proposal:
    """Temperatures, time step and cost of a round.

    Attributes
    ----------
    built
        The system.
    platform, speeds
        OpenMM platform, and steps a second for one walker of all that were tried.
    repartitioned
        Whether hydrogens are heavy.
    timestep, frame_interval
        Integration step [ps], and steps between frames, where they were asked for.
    """

    built: BuiltSystem
    platform: str
    speeds: dict[str, float]
    repartitioned: bool
    timestep: float | None = None
    frame_interval: int | None = None

    @property
    def speed(self) -> float:
        """Steps a second for one walker."""
        return self.speeds[self.platform]

    @property
    def step(self) -> float:
        """Time step [ps]."""
        return self.timestep or (_FAST if self.repartitioned else _PLAIN)

    @property
    def interval(self) -> int:
        """Steps between frames: those of 1 ps, if no others were asked for."""
        return self.frame_interval or max(1, round(1.0 / self.step))

    @property
    def processes(self) -> int:
        """Walkers that are simulated at a time."""
        return walkers_at_a_time(self.platform)

    @property
    def temperatures(self) -> list[float]:
        """Neighbours whose energies overlap: wide steps without solvent, narrow ones with it."""
        return [300.0, 310.0, 320.0] if self.built.periodic else [300.0, 375.0, 450.0]

    @property
    def hours(self) -> float:
        """Wall time of a round of simulation."""
        steps = _WALKERS * len(self.temperatures) * _FRAMES * self.interval
        return steps / self.speed / self.processes / 3600.0

    def values(self) -> dict[str, Any]:
        """Return what the template says of it."""
        low, second, *_ = self.temperatures
        masses = (
            "hydrogen mass repartitioning (3 amu)" if self.repartitioned else "4 fs where hydrogens are heavy"
        )
        return {
            "temperatures": ", ".join(f"{t:g}" for t in self.temperatures),
            "between": f"{(low + second) / 2:g}",
            "processes": self.processes,
            "platform": self.platform,
            "atoms": self.built.n_atoms,
            "speed": f"{self.speed:.0f}",
            "speeds": speeds_text(self.speeds),
            "day": f"{self.speed * self.step * 86.4:.3g}",
            "timestep": f"{self.step:g}",
            "interval": self.interval,
            "spacing_ps": f"{self.interval * self.step:g}",
            "masses": masses,
            "time": duration(3600.0 * self.hours),
            "spacing": SPACING[self.built.periodic],
        }


def _write(output: Path, values: dict[str, Any]) -> RunConfig:
    """Fill in the template and write it, if it is a valid configuration."""
    with atomic_file(output) as temporary:
        temporary.write_text(fill_template(values), encoding="utf-8")
        try:
            return load_config(temporary)
        except ConfigError as error:
            problems = (problem.replace(str(temporary), str(output)) for problem in error.problems)
            raise ConfigError(*problems) from None


def _first(files: Sequence[Path], suffixes: Sequence[str], but: Path | None = None) -> Path | None:
    """Return the first file with one of these name ends."""
    return next((path for path in files if path.suffix.lower() in suffixes and path != but), None)


def _system(files: Sequence[Path], force_field: Sequence[str]) -> dict[str, Any]:
    """The system section, paths as given."""
    for kind, suffixes in _TOPOLOGIES.items():
        if (topology := _first(files, suffixes)) is not None:
            return _parametrised(kind, topology, files)
    if (python := _first(files, (".py",))) is not None:
        return {"kind": "python", "file": str(python)}
    structure = _first(files, _STRUCTURES)
    if structure is None:
        names = ", ".join(str(path) for path in files)
        raise ConfigError(
            f"{names}: expected a PDB or mmCIF file, prmtop, top, psf, a Python file, or an XML file with a "
            "structure"
        )
    if (xml := _first(files, (".xml",))) is not None:
        return {"kind": "serialized", "system": str(xml), "structure": str(structure)}
    wet = len(water_atoms(to_mdtraj(read_structure("structure", structure).topology))) > 0
    default = ["amber14-all.xml", "amber14/tip3p.xml"] if wet else ["amber14-all.xml"]
    # The cell of a crystal is no box of solvent.
    options: dict[str, Any] = {"hydrogen_mass": 3.0} | ({} if wet else {"method": "none", "implicit": "obc2"})
    return {
        "kind": "structure",
        "structure": str(structure),
        "force_field": list(force_field) or default,
        "options": options,
    }


def _parametrised(kind: str, topology: Path, files: Sequence[Path]) -> dict[str, Any]:
    """The system section of a topology that holds parameters, or has them in files of CHARMM."""
    coordinates = _first(files, _COORDINATES[kind], topology)
    if coordinates is None:
        raise ConfigError(
            f"{topology}: coordinates are missing; expected a file {', '.join(_COORDINATES[kind])}"
        )
    section: dict[str, Any] = {"kind": kind, "topology": str(topology), "coordinates": str(coordinates)}
    if kind == "charmm":
        parameters = [str(path) for path in files if path.suffix.lower() in _PARAMETERS]
        if not parameters:
            raise ConfigError(f"{topology}: parameters are missing; expected files {', '.join(_PARAMETERS)}")
        section["parameters"] = parameters
        section["box"] = None
    return section | {"options": {"hydrogen_mass": 3.0}}


def _fitting(system: dict[str, Any]) -> tuple[dict[str, Any], BuiltSystem]:
    """The system and what it says.

    With a shorter cutoff where the box is narrow, and without an implicit solvent where the force field brings one.
    """
    for cutoff in _SHORTER if "options" in system else ():
        try:
            return system, _build(system)
        except NarrowBoxError:
            system = system | {"options": system["options"] | {"cutoff": cutoff}}
        except TwoSolventsError:
            system = system | {"options": system["options"] | {"implicit": "none"}}
    return system, _build(system)


def _build(system: dict[str, Any]) -> BuiltSystem:
    kind = SYSTEM_KINDS[str(system["kind"])]
    return kind.model_validate(system, context={"folder": Path.cwd()}).build()


def _relative(system: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths as the configuration in `folder` has to say them."""

    def relative(text: str) -> str:
        return os.path.relpath(Path(text).resolve(), folder)

    section = dict(system)
    for key in ("topology", "coordinates", "structure", "system", "file"):
        if key in section:
            section[key] = relative(section[key])
    if "parameters" in section:
        section["parameters"] = [relative(path) for path in section["parameters"]]
    if "force_field" in section:
        section["force_field"] = [
            name if force_field_file(name) else relative(name) for name in section["force_field"]
        ]
    return section


def _features(topology: mdtraj.Topology) -> list[dict[str, Any]]:
    """Distances between what carries the fold, with backbone torsions; where bases are in each other's frames.

    None where there is nothing of these.
    """
    alpha, heavy = len(alpha_carbons(topology)), len(heavy_atoms(topology))
    torsions = _possible(topology, TorsionSettings, [{"angles": [angle]} for angle in ("phi", "psi")])
    backbone = (
        [{"kind": "torsions", "angles": [entry["angles"][0] for entry in torsions]}] if torsions else []
    )
    if alpha < 4 and _possible(topology, BaseVectorSettings, [{}]):
        return [{"kind": "base_vectors"}]
    selection, bonds = ("name CA and protein", 4) if alpha >= 4 else ("heavy", 3)
    wanted = {"selection": selection, "minimum_bonds": bonds}
    few = _pairs(alpha if alpha >= 4 else heavy) <= _MAX_PAIRS
    distances = _possible(topology, DistanceSettings, [wanted]) if few else []
    if not distances and alpha < 4:
        return []
    return [*({"kind": "distances"} | entry for entry in distances), *backbone]


def _coordinates(system: openmm.System) -> list[dict[str, Any]]:
    """Coordinates of the particles of a model in an external field; none where there is no such field."""
    fields = [force for force in system.getForces() if isinstance(force, openmm.CustomExternalForce)]
    in_field = {force.getParticleParameters(i)[0] for force in fields for i in range(force.getNumParticles())}
    return [{"kind": "coordinates"}] if 0 < len(in_field) == system.getNumParticles() <= _PARTICLES else []


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def _possible(
    topology: mdtraj.Topology, kind: type[FeatureSettings], wanted: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Those settings of a feature that the topology has."""
    chosen = []
    for settings in wanted:
        with suppress(ConfigError):
            kind(**settings).resolve(topology)
            chosen.append(settings)
    return chosen
