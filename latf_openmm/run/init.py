"""A first configuration for a user's own files: what `latf-openmm init` writes.

It asks nothing: the kind of system follows from the files' names, features from what the molecule is, the platform and
the cost from a few steps on this machine. Every value is a proposal that the user reads and changes.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import openmm
import yaml
from openmm import unit

from latf_openmm.errors import ConfigError
from latf_openmm.features import FeatureSettings, build_features, resolve_features
from latf_openmm.features.base_vectors import BaseVectorSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.solute import alpha_carbons, heavy_atoms, water_atoms
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.labels import to_mdtraj
from latf_openmm.run.config import load_config
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.storage import atomic_file, check_output
from latf_openmm.systems import SYSTEM_KINDS, BuiltSystem
from latf_openmm.systems.molecule import NarrowBoxError, structure as read_structure
from latf_openmm.systems.structure import force_field_file

_TOPOLOGIES = {"amber": (".prmtop", ".parm7"), "gromacs": (".top",), "charmm": (".psf",)}
_COORDINATES = {
    "amber": (".inpcrd", ".rst7", ".rst", ".crd"),
    "gromacs": (".gro",),
    "charmm": (".crd", ".cor", ".pdb"),
}
_STRUCTURES = (".pdb", ".cif", ".mmcif", ".pdbx")
_PARAMETERS = (".rtf", ".prm", ".par", ".str", ".inp")
_MOST_PAIRS = 5000  # training leaves out what is dead or redundant
_SMALL = 60  # atoms
_SHORTER = 0.9, 0.8  # nm; cutoffs for narrow boxes
_TRIAL = 1.0  # seconds
_FRAMES = 2000
_FAST, _PLAIN = 0.004, 0.002  # ps; with and without heavy hydrogens


@dataclass(frozen=True)
class Starter:
    """What was proposed.

    Attributes
    ----------
    path
        The configuration.
    n_atoms, periodic
        Of the system.
    n_features
        Descriptors.
    platform, steps_per_second
        The fastest OpenMM platform here, and its speed for one walker.
    hours
        What one round of simulation will take here, about.
    """

    path: Path
    n_atoms: int
    periodic: bool
    n_features: int
    platform: str
    steps_per_second: float
    hours: float


def write_starter(
    files: Sequence[Path], output: Path, force_field: Sequence[str] = (), trust: bool = False
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

    Raises
    ------
    ConfigError
        If the files do not make a system, or its features cannot be chosen.
    """
    check_output(output, folder=False, new="a configuration is never overwritten")
    for path in files:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
    folder = output.resolve().parent
    system = _system(files, force_field)
    if trust and system["kind"] in ("structure", "serialized"):
        system["trust"] = True
    system, built = _fitting(system)
    topology = built.mdtraj_topology()
    features = _features(topology)
    platform, speed = _fastest(built)
    temperatures = _temperatures(built)
    processes = 1 if platform in ("CUDA", "OpenCL", "HIP") else max(1, min(4, os.cpu_count() or 1))
    timestep = _FAST if "options" in system else _PLAIN
    interval = round(1.0 / timestep)
    walkers = 2
    steps = walkers * len(temperatures) * _FRAMES * interval
    busy = 1 if platform == "CPU" else processes  # the CPU platform uses all cores for one walker
    hours = steps / speed / busy / 3600.0
    values = {
        "system": yaml.safe_dump(_relative(system, folder), sort_keys=False, default_flow_style=None),
        "features": yaml.safe_dump(features, sort_keys=False, default_flow_style=None),
        "temperatures": ", ".join(f"{t:g}" for t in temperatures),
        "between": f"{(temperatures[0] + temperatures[1]) / 2:g}",
        "processes": 1 if platform == "CPU" else processes,
        "platform": platform,
        "atoms": built.n_atoms,
        "speed": f"{speed:.0f}",
        "day": f"{speed * timestep * 86.4:.3g}",
        "timestep": f"{timestep:g}",
        "interval": interval,
        "masses": "hydrogens weigh 3 amu" if timestep == _FAST else "4 fs where hydrogens are heavy",
        "hours": f"{hours:.2g}",
        "spacing": _SPACING[built.periodic],
    }
    with atomic_file(output) as temporary:
        temporary.write_text(
            _TEMPLATE.format(**{key: _indented(key, value) for key, value in values.items()}),
            encoding="utf-8",
        )
        try:
            config = load_config(temporary)
        except ConfigError as error:
            problems = (problem.replace(str(temporary), str(output)) for problem in error.problems)
            raise ConfigError(*problems) from None
    n_features = build_features(resolve_features(config.features, topology)).n_features
    return Starter(output, built.n_atoms, built.periodic, n_features, platform, speed, hours)


def _system(files: Sequence[Path], force_field: Sequence[str]) -> dict[str, Any]:
    """The system section, paths as given."""
    by_suffix = {path: path.suffix.lower() for path in files}

    def first(suffixes: Sequence[str], but: Path | None = None) -> Path | None:
        return next((path for path, suffix in by_suffix.items() if suffix in suffixes and path != but), None)

    for kind, suffixes in _TOPOLOGIES.items():
        if (top := first(suffixes)) is None:
            continue
        coordinates = first(_COORDINATES[kind], top)
        if coordinates is None:
            raise ConfigError(
                f"{top}: coordinates are missing; expected a file {', '.join(_COORDINATES[kind])}"
            )
        found: dict[str, Any] = {"kind": kind, "topology": str(top), "coordinates": str(coordinates)}
        if kind == "charmm":
            parameters = [str(path) for path, suffix in by_suffix.items() if suffix in _PARAMETERS]
            if not parameters:
                raise ConfigError(f"{top}: parameters are missing; expected files {', '.join(_PARAMETERS)}")
            found["parameters"] = parameters
            found["box"] = None
        return found | {"options": {"hydrogen_mass": 3.0}}
    if (python := first((".py",))) is not None:
        return {"kind": "python", "file": str(python)}
    structure = first(_STRUCTURES)
    if structure is None:
        names = ", ".join(str(path) for path in files)
        raise ConfigError(
            f"{names}: expected a PDB or mmCIF file, prmtop, top, psf, a Python file, or an XML file with a "
            "structure"
        )
    if (xml := first((".xml",))) is not None:
        return {"kind": "serialized", "system": str(xml), "structure": str(structure)}
    topology = to_mdtraj(read_structure("structure", structure).topology)
    wet = len(water_atoms(topology)) > 0
    default = ["amber14-all.xml", "amber14/tip3p.xml"] if wet else ["amber14-all.xml"]
    # The cell of a crystal is no box of solvent.
    options: dict[str, Any] = {"hydrogen_mass": 3.0} | ({} if wet else {"method": "none", "implicit": "obc2"})
    return {
        "kind": "structure",
        "structure": str(structure),
        "force_field": list(force_field) or default,
        "options": options,
    }


def _fitting(system: dict[str, Any]) -> tuple[dict[str, Any], BuiltSystem]:
    """The system and what it says, with a shorter cutoff where the box is narrow."""
    for cutoff in _SHORTER if "options" in system else ():
        try:
            return system, _build(system)
        except NarrowBoxError:
            system = system | {"options": system["options"] | {"cutoff": cutoff}}
    return system, _build(system)


def _build(system: dict[str, Any]) -> BuiltSystem:
    kind = SYSTEM_KINDS[str(system["kind"])]
    return kind.model_validate(system, context={"folder": Path.cwd()}).build()


def _relative(system: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths as the configuration in `folder` has to say them."""

    def one(text: str) -> str:
        return os.path.relpath(Path(text).resolve(), folder)

    found = dict(system)
    for key in ("topology", "coordinates", "structure", "system", "file"):
        if key in found:
            found[key] = one(found[key])
    if "parameters" in found:
        found["parameters"] = [one(path) for path in found["parameters"]]
    if "force_field" in found:
        found["force_field"] = [
            name if force_field_file(name) else one(name) for name in found["force_field"]
        ]
    return found


def _features(topology: mdtraj.Topology) -> list[dict[str, Any]]:
    """Distances between what carries the fold, with backbone torsions; where bases are in each other's frames."""
    alpha, heavy = len(alpha_carbons(topology)), len(heavy_atoms(topology))
    torsions = _possible(topology, TorsionSettings, [{"angles": [angle]} for angle in ("phi", "psi")])
    backbone = [{"kind": "torsions", "angles": [one["angles"][0] for one in torsions]}] if torsions else []
    if alpha < 4 and _possible(topology, BaseVectorSettings, [{}]):
        return [{"kind": "base_vectors"}]
    selection, bonds = ("name CA and protein", 4) if alpha >= 4 else ("heavy", 3)
    wanted = {"selection": selection, "minimum_bonds": bonds}
    few = _pairs(alpha if alpha >= 4 else heavy) <= _MOST_PAIRS
    distances = _possible(topology, DistanceSettings, [wanted]) if few else []
    if not distances and not (alpha >= 4 and backbone):
        raise ConfigError(
            f"no features can be proposed: neither protein nor nucleic acid, and {heavy} heavy atoms that are "
            "neither water nor ions; write the configuration by hand, with a selection of your own"
        )
    return [*({"kind": "distances"} | one for one in distances), *backbone]


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def _possible(
    topology: mdtraj.Topology, kind: type[FeatureSettings], wanted: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Those settings of a feature that the topology has."""
    found = []
    for settings in wanted:
        with suppress(ConfigError):
            kind(**settings).resolve(topology)
            found.append(settings)
    return found


def _temperatures(built: BuiltSystem) -> list[float]:
    """Neighbours whose energies overlap: wide steps without solvent, narrow ones with it."""
    return [300.0, 310.0, 320.0] if built.periodic else [300.0, 375.0, 450.0]


def _fastest(built: BuiltSystem) -> tuple[str, float]:
    """The platform that takes most steps a second, and how many."""
    wanted = ["CUDA", "HIP", "OpenCL", "CPU", *(["Reference"] if built.n_atoms <= _SMALL else [])]
    there = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    speeds = {}
    for name in wanted:
        if name in there:
            try:
                speeds[name] = _speed(built, name)
            except openmm.OpenMMException:
                continue  # a driver without a device
    if not speeds:
        raise ConfigError("no OpenMM platform can simulate this system here; see latf-openmm doctor")
    best = max(speeds, key=lambda name: speeds[name])
    return best, speeds[best]


def _speed(built: BuiltSystem, platform: str) -> float:
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    context = PlatformChoice(platform).context(built.system, integrator)
    context.setPositions(built.positions[0] * unit.nanometer)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 50)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(10)
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < _TRIAL:
        integrator.step(20)
        context.getState(energy=True)
        steps += 20
    return steps / (time.perf_counter() - begin)


def _indented(key: str, value: Any) -> Any:
    if key not in ("system", "features"):
        return value
    return "\n".join("  " + line for line in str(value).strip().splitlines())


_SPACING = {
    True: "  # With solvent, energies overlap between close temperatures only; farther ones are the flow's guess.",
    False: "  # Neighbours should overlap in energy; `latf-openmm generate` says how many frames reach a temperature.",
}

_TEMPLATE = """\
# Written by latf-openmm init. Every value is a proposal: read it, change it, then
#   latf-openmm run THIS_FILE --output RUN
# {atoms} atoms; {platform} takes {speed} steps a second here ({day} ns a day for one walker at {timestep} ps).
# One round of simulation, as proposed, takes about {hours} hours; a biased round takes longer.
system:
{system}
seed: 1
simulation:
  # A few temperatures; others are generated from them.
{spacing}
  temperatures: [{temperatures}]
  walkers: 2              # at each temperature
  frames: 2000            # of each walker; lengthen before you believe anything
  frame_interval: {interval}     # steps: 1 ps
  timestep: {timestep}         # ps; {masses}
  friction: 1.0           # 1/ps
  equilibration: 5000     # steps, not recorded
  segment_frames: 500     # frames between checkpoints
  processes: {processes}
  platform: {platform}
# What the collective variables are made of; MDTraj's selection language, in which solute is what is neither water nor
# ions nor other solvent, and heavy its atoms without hydrogens. Of more than 200 descriptors those that do not move,
# or say what a slower one says, are left out (see RUN/rounds/000/model/descriptors.csv).
features:
{features}
model:
  latent_dim: 2
  encoder_hidden: [32]
training:
  lag: auto               # found by a scan of lag times
# From the second round on walkers are driven along the learned variables.
bias:
  kind: opes
  barrier: 25.0           # kJ/mol
loop:
  rounds: 2
generate:
  temperatures: [{between}]
"""
