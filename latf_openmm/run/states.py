"""The metastable states of a run at a temperature: what ``latf-openmm states`` computes and writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
from rich.progress import Progress

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.files import write_structure
from latf_openmm.ensembles.observables import structure_observable
from latf_openmm.ensembles.state_words import StateWords, describe_states
from latf_openmm.ensembles.states import state_table
from latf_openmm.run.ensembles import Choice, ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.storage import write_text
from latf_openmm.units import TemperatureScale, check_temperature


@dataclass(frozen=True)
class StateSummary:
    """States at one temperature.

    Attributes
    ----------
    ensemble
        Structures with weights.
    table
        One row for each state; see `latf_openmm.ensembles.states.state_table`.
    words
        Ranges of descriptors and observables that tell each state from the others.
    observables
        Names of the observables in the table.
    scale
        Of the temperature.
    topology
        Of the structures.
    """

    ensemble: StructureEnsemble
    table: pd.DataFrame
    words: dict[int, StateWords]
    observables: tuple[str, ...]
    scale: TemperatureScale
    topology: mdtraj.Topology

    def write(self, folder: Path) -> None:
        """Write ``states.csv`` and ``state_N.pdb``, one structure of each state."""
        told = self.table["state"].map({state: str(words) for state, words in self.words.items()})
        write_text(folder / "states.csv", self.table.assign(told_by=told).to_csv(index=False))
        for state, frame in self.ensemble.representatives().items():
            structure = self.ensemble.pool.structures(np.array([frame]), self.topology)
            write_structure(structure, folder / f"state_{state}.pdb")


def summarise_states(
    run: RunFolder,
    temperature: float | None = None,
    observables: Sequence[str] = (),
    *,
    reference: Path | None = None,
    round_index: int | None = None,
    method: Choice = "auto",
    minutes: float = 15.0,
    progress: Progress | None = None,
) -> StateSummary:
    """Return populations and lifetimes of the states, and observables within each.

    Parameters
    ----------
    run
        A run with a complete round.
    temperature
        In the scale of the system; None: the lowest simulated.
    observables
        Functions of single structures, by name or ``FILE.py:FUNCTION``.
    reference, round_index, method, minutes
        As for `latf_openmm.run.observed.observe`.

    Raises
    ------
    ConfigError
        If the temperature or an observable is not possible.
    DataError
        If a file that is used was damaged.
    """
    if temperature is not None:
        check_temperature("--temperature", temperature)
    index = run.chosen_round(round_index)
    structure = run.reference_structure(reference)
    functions = {name.rpartition(":")[2]: structure_observable(name, structure) for name in observables}
    trained, topology = run.trained(index), run.topology()
    reweighter = reweighter_of_round(run, index)
    at = min(trained.temperatures) if temperature is None else temperature
    (ensemble,) = ensembles_at(run, index, [at], method, minutes, progress=progress, reweighter=reweighter)
    values = {name: ensemble.observe(function, topology) for name, function in functions.items()}
    table = state_table(ensemble, reweighter.pool, int(trained.provenance["lag"]), values)
    words = describe_states(ensemble, trained.feature_module(), topology, values, run.config.seed)
    return StateSummary(ensemble, table, words, tuple(values), run.scale, topology)
