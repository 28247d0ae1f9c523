"""Annealed and reweighted frames of one temperature together, so that errors are least."""

from dataclasses import replace

import numpy as np

from latf_openmm.ensembles.ensemble import StructureEnsemble, mixture
from latf_openmm.reweighting.reliability import worst
from latf_openmm.reweighting.replicates import Statistic

_PRESENT = 0.05
"""Population from which a state counts, and from which the rest does."""


def effective_samples(ensemble: StructureEnsemble, present: float = _PRESENT) -> float:
    """Return the number of effective samples: the least of variance / error^2 over energy and populations.

    Parameters
    ----------
    present
        Population from which a state counts, and from which the rest does.
    """
    variance = Statistic.variance(ensemble.energies()).of(ensemble.weights)
    numbers = [variance / ensemble.energy().error ** 2]
    for population in ensemble.populations():
        if present < population.value < 1 - present:
            numbers.append(population.value * (1 - population.value) / population.error**2)
    return float(min(numbers))


def combined(present: StructureEnsemble, annealed: StructureEnsemble) -> StructureEnsemble:
    """Return both as one ensemble; or the annealed one alone where reweighting has few effective samples.

    Where it is less reliable than what there is, that stays, with a warning.
    """
    if worst(present.reliability, annealed.reliability) != present.reliability:
        text = f"{annealed.description}: they are worth {annealed.n_effective:.0f} effective samples and were left out"
        return replace(present, warnings=(*present.warnings, text))
    if present.method != "reweighted" or present.reliability != "good":
        return annealed
    share = _best_share(annealed, present)
    if share == 0.0:
        return present
    mixed = mixture(annealed, present, share)
    return replace(
        mixed,
        description=f"{annealed.description}; with {100 * (1 - share):.0f} % reweighted frames",
        n_effective=effective_samples(mixed),
    )


def _best_share(annealed: StructureEnsemble, present: StructureEnsemble) -> float:
    """Share of the annealed frames with which the product of the errors of energy and populations is least."""
    spreads = []
    for ensemble in (annealed, present):
        states = [
            ensemble.pool.states == state
            for state, population in enumerate(annealed.populations())
            if _PRESENT < population.value < 1 - _PRESENT
        ]
        spreads.append(ensemble.replicates.means(np.stack([ensemble.energies(), *states], axis=1)).T)
    shares = np.linspace(0.0, 1.0, 21)
    errors = [np.log((s * spreads[0] + (1 - s) * spreads[1]).std(axis=1)).sum() for s in shares]
    return float(shares[int(np.argmin(errors))])
