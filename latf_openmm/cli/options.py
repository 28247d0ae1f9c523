"""Arguments and options that several commands have."""

import pkgutil
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import latf_openmm


def _kinds(package: str, *others: str) -> tuple[str, ...]:
    """Members of a family by the names of their files, which are not imported for that."""
    folder = Path(latf_openmm.__file__).parent / package
    return tuple(i.name for i in pkgutil.iter_modules([str(folder)]) if i.name not in ("base", *others))


OBSERVABLE_NAMES = _kinds("ensembles/observables", "python_file")
"""Observables that have a name."""
COMPARABLE_NAMES = tuple(name for name in OBSERVABLE_NAMES if name not in ("free_energy", "population"))
"""Those that are not of states, which differ from run to run."""

Format = Enum("Format", {name.upper(): name for name in _kinds("frames/formats")}, type=str)  # type: ignore[misc]
"""Choices of --format."""
DCD = Format("dcd")
"""Its default."""


class LogFormat(str, Enum):
    """Choices of --log."""

    TEXT = "text"
    JSON = "json"


class Method(str, Enum):
    """Choices of --method."""

    AUTO = "auto"
    REWEIGHTED = "reweighted"
    CONDITIONAL = "conditional"
    ANNEALED = "annealed"
    FLOW = "flow"


ConfigArgument = Annotated[
    str,
    typer.Argument(help="A YAML configuration, or a system of the library: lj7, lj7/fast, three_hole, ..."),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.")]
DataOption = Annotated[
    list[Path], typer.Option("--data", help="Folder of a simulation stage; may be repeated.")
]
RoundOption = Annotated[
    int | None, typer.Option("--round", help="Use this round; default: the last complete one.")
]
ReferenceOption = Annotated[
    Path | None, typer.Option(help="PDB file for rmsd and contacts; default: the system's start.")
]
MethodOption = Annotated[
    Method,
    typer.Option(
        help="How structures get their weights: frames reweighted by MBAR; by the energies of collective "
        "variables, where temperatures do not overlap; walkers annealed from the nearest "
        "temperature that frames reach; frames near the flow's samples; auto: the best of these."
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the code that the configuration in the folder of a run names, from now on: for a run of somebody "
        "else that you trust.",
    ),
]
ForcesOption = Annotated[
    bool,
    typer.Option(
        "--forces",
        help="Correct weights by the forces at the frames, where that lowers errors; not for periodic boxes and sorted "
        "coordination numbers.",
    ),
]
TemperaturesOption = Annotated[
    str, typer.Option("--temperatures", "-T", help="Range FIRST:LAST:STEP, or numbers with commas.")
]
ObservableOption = Annotated[
    list[str],
    typer.Option(
        help=f"One of {', '.join(OBSERVABLE_NAMES)} (population:STATE; free_energy:STATE:STATE, of the second over "
        "the first; those of structures are of the solute alone), or FILE.py:FUNCTION (of an MDTraj trajectory "
        "with all atoms and the box, one number a frame); may be repeated."
    ),
]
ComparableOption = Annotated[
    list[str],
    typer.Option(
        help=f"One of {', '.join(COMPARABLE_NAMES)} (those of structures are of the solute alone), or "
        "FILE.py:FUNCTION (of an MDTraj trajectory with all atoms and the box, one number a frame); may be repeated. "
        "None of states: those of different runs do not correspond."
    ),
]
MinutesOption = Annotated[
    float, typer.Option(min=0.0, help="With --method auto: leave out annealing that would take longer.")
]
