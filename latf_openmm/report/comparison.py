"""How far the flow is from a reference at each temperature, and how many frames speak for the structures there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.reference import Reference, find_reference
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.reweighting.free_energy import (
    Array,
    LatentGrid,
    flow_populations,
    free_energy_rmse,
    jensen_shannon,
)
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import validation_pool


@dataclass(frozen=True)
class Comparison:
    """One temperature of the report.

    Attributes
    ----------
    temperature, label
        The number, and the same for people.
    simulated
        Whether the first round simulated there.
    method, reliability, n_effective
        Of the frames weighted to this temperature, as in `StructureEnsemble`.
    reference
        What the flow is compared with; None where there is nothing.
    jensen_shannon, floor
        Divergence from it, and between two halves of it [nats].
    rmse_kt
        Root mean square difference of the free energies below 5 kT [kT].
    population_error, population_sigma
        Largest difference of a state's population, and the standard error of that difference.
    """

    temperature: float
    label: str
    simulated: bool
    method: str
    reliability: str
    n_effective: float
    reference: str | None = None
    jensen_shannon: float | None = None
    floor: float | None = None
    rmse_kt: float | None = None
    population_error: float | None = None
    population_sigma: float | None = None


def find_references(run: RunFolder, trained: TrainedModel, index: int) -> dict[float, Reference]:
    """References of one round's model, at the temperatures of the run that have one."""
    validation = validation_pool(run, index)
    references = {}
    for temperature in run.temperatures():
        reference = find_reference(run.config.system, trained, validation, temperature)
        if reference is not None:
            references[temperature] = reference
    return references


def compare(
    run: RunFolder,
    trained: TrainedModel,
    grid: LatentGrid,
    flow: Array,
    ensemble: StructureEnsemble,
    references: Mapping[float, Reference],
) -> Comparison:
    """Compare the flow with the reference at the temperature of an ensemble.

    Parameters
    ----------
    flow
        Probability of each cell of the grid.
    """
    temperature = ensemble.temperature
    known = (
        temperature,
        run.scale.label(temperature),
        temperature in run.config.simulation.temperatures,
        ensemble.method,
        ensemble.reliability,
        ensemble.n_effective,
    )
    reference = references.get(temperature)
    if reference is None:
        return Comparison(*known)
    q = reference.probability(grid)
    populations, errors = flow_populations(trained.model, temperature, 20_000)
    off = np.abs(populations - reference.populations)
    sigma = np.sqrt(errors**2 + reference.errors**2)
    return Comparison(
        *known,
        reference=reference.kind,
        jensen_shannon=jensen_shannon(flow, q),
        floor=reference.floor(grid),
        rmse_kt=free_energy_rmse(flow, q),
        population_error=float(off.max()),
        population_sigma=float(sigma[off.argmax()]),
    )
