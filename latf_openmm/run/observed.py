"""Observables of a run against temperature: what ``latf-openmm observe`` computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import pandas as pd
from rich.progress import Progress

from latf_openmm.ensembles.curves import Curve, curve
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.observables import check_observable
from latf_openmm.reweighting.reliability import MEANINGS, Reliability
from latf_openmm.run.ensembles import Choice, ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.sentences import condensed
from latf_openmm.units import TemperatureScale


@dataclass(frozen=True)
class ObservedCurves:
    """Curves of observables, and the ensembles they are of.

    Attributes
    ----------
    curves
        One for each observable; each has a table.
    ensembles
        One for each temperature.
    scale
        Of the temperatures.
    simulated
        Temperatures of the simulations.
    """

    curves: list[Curve]
    ensembles: list[StructureEnsemble]
    scale: TemperatureScale
    simulated: list[float]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that a reader must know, each subject once."""
        label = self.scale.label
        remarks = [
            (text, label(e.temperature))
            for e in self.ensembles
            if e.reliability != "good"
            for text in e.warnings
        ]
        remarks += [(text, item.name) for item in self.curves for text in item.warnings]
        return tuple(condensed(remarks))

    @property
    def poor(self) -> list[float]:
        """Temperatures at which a value is not to be relied on, ascending."""
        rows = pd.concat([item.table for item in self.curves])
        return sorted({float(t) for t in rows.loc[rows["reliability"] == "poor", "temperature"]})

    @property
    def reliabilities(self) -> list[Reliability]:
        """Reliabilities that values have, the best first."""
        present = {word for item in self.curves for word in item.table["reliability"]}
        return [word for word in MEANINGS if word in present]


def observe(
    run: RunFolder,
    temperatures: Sequence[float],
    observables: Sequence[str],
    *,
    reference: Path | mdtraj.Trajectory | None = None,
    round_index: int | None = None,
    method: Choice = "auto",
    minutes: float = 15.0,
    forces: bool = False,
    progress: Progress | None = None,
) -> ObservedCurves:
    """Return curves of observables against temperature, with errors.

    Parameters
    ----------
    run
        A run with a complete round.
    temperatures
        In the scale of the system.
    observables
        As for `latf_openmm.ensembles.observables.named_observable`.
    reference
        PDB file or structure for RMSD and contacts; None: where the system starts.
    round_index
        Round whose model and frames are used; None: the last complete one.
    method, minutes
        As for `latf_openmm.ensembles_at`.
    forces
        Whether forces at the frames correct weights where that lowers errors.

    Raises
    ------
    ConfigError
        If an observable or a temperature is not possible.
    DataError
        If a file that is used was damaged.
    """
    index = run.chosen_round(round_index)
    structure = reference if isinstance(reference, mdtraj.Trajectory) else run.reference_structure(reference)
    trained = run.trained(index)
    for name in observables:
        check_observable(name, structure, trained.model.n_states)
    reweighter = reweighter_of_round(run, index, forces)
    ensembles = ensembles_at(
        run, index, temperatures, method, minutes, progress=progress, reweighter=reweighter
    )
    curves = [curve(name, ensembles, run.topology(), structure) for name in observables]
    return ObservedCurves(curves, ensembles, run.scale, list(run.config.simulation.temperatures))
