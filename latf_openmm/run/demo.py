"""A first look: a short run of the library's LJ7, and structures at a temperature that it was not simulated at.

::

    DIR/run/                 the run
    DIR/generated/T0.35/     structures with weights, populations, energies
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.errors import DataError
from latf_openmm.run.config import RunConfig, load_config
from latf_openmm.run.ensembles import Choice
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.generated import generate_ensembles
from latf_openmm.run.loop import run_loop
from latf_openmm.settings import validate
from latf_openmm.storage import check_output, damages
from latf_openmm.units import temperature_name

SYSTEM = "lj7/fast"
"""Configuration of the library."""
TEMPERATURE = 0.35
"""Between those that are simulated."""
_TINY: dict[str, dict[str, Any]] = {
    "simulation": {"walkers": 10, "frames": 60, "equilibration": 100, "processes": 1},
    "training": {
        "initial_states": 5,
        "epochs_states": 3,
        "epochs_joint": 1,
        "epochs_flow": 1,
        "refinements": 1,
        "pairs_per_epoch": 500,
    },
    "loop": {"rounds": 1},
    "generate": {"temperatures": [], "samples": 200},
}
"""Changes for a look at whether an installation works."""


@dataclass(frozen=True)
class Demo:
    """Results of the demonstration.

    Attributes
    ----------
    run
        The run, complete.
    generated
        Folder of the structures.
    ensemble
        The structures with weights; None where the folder was there already.
    """

    run: RunFolder
    generated: Path
    ensemble: StructureEnsemble | None


def demo_config(tiny: bool = False) -> RunConfig:
    """Return the configuration; `tiny`: so short that its numbers mean nothing, for tests of an installation."""
    config = load_config(SYSTEM)
    if not tiny:
        return config
    data = config.model_dump(mode="json")
    for section, changes in _TINY.items():
        data[section] |= changes
    data["validation"] = None
    return validate(RunConfig, data, SYSTEM)


def run_demo(output: Path, tiny: bool = False, progress: Progress | None = None) -> Demo:
    """Run the demonstration in a folder, or continue it.

    Parameters
    ----------
    output
        Made if missing.
    tiny
        As for `demo_config`.

    Raises
    ------
    ConfigError
        If the folder is a file, or holds a run with other settings.
    DataError
        If a file of it was damaged.
    """
    check_output(output, folder=True)
    run = run_loop(demo_config(tiny), output / "run", progress)
    parent = output / "generated"
    folder = parent / temperature_name(TEMPERATURE)
    if folder.is_dir():
        for path, text in (damages(folder) or {}).items():
            raise DataError(f"{path}: {text}; remove {folder}, and the same command makes it again")
        return Demo(run, folder, None)
    method: Choice = "reweighted" if tiny else "auto"  # which may simulate
    [result] = generate_ensembles(run, [TEMPERATURE], parent, method=method, progress=progress)
    return Demo(run, folder, result.structures)
