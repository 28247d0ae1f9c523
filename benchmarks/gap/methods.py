"""Ways to weight the same frames at a temperature: ours, and what there is beside it."""

import numpy as np
from numpy.typing import NDArray

from latf_openmm.reweighting.blocks import bootstrap_widening
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.reweighting.weights import normalised_weights

Array = NDArray[np.float64]

OURS, STRAIGHT, PLAIN, NEAREST = "latf-openmm", "straight path", "MBAR", "nearest temperature held"
PRIOR, EXCHANGE = "prior-only LaTF", "replica exchange"
DRAWS = 30
"""Bootstrap samples of the other methods."""


class Weights:
    """Weights of the frames at any temperature, by several methods, with errors of shares.

    Parameters
    ----------
    weighting
        Of the frames.
    plain
        MBAR of the same frames that takes every temperature for an equilibrium sample.
    """

    def __init__(self, weighting: TemperatureWeighting, plain: Reweighting) -> None:
        self.weighting, self.plain = weighting, plain
        rng = np.random.default_rng(7)
        self.samples = [weighting.blocks.bootstrap(rng) for _ in range(DRAWS)]
        self.factors = np.array(
            [plain.factors(plain.resample(sample, rng)) for sample in self.samples], np.float32
        )

    def at(self, temperature: float) -> dict[str, Replicates]:
        """Weights at a temperature, with those in bootstrap samples."""
        weighting, mbar = self.weighting, self.weighting.mbar
        replicates = {
            OURS: weighting.replicates(temperature, weighting.mbar_share(temperature)),
            PLAIN: Replicates(self.factors, normalised_weights(self.plain.log_weights(temperature))),
        }
        nearest = mbar.simulated[np.abs(np.log(mbar.simulated / temperature)).argmin()]
        held = np.where(mbar.level == np.searchsorted(mbar.simulated, nearest), np.exp(mbar.log_w), 0.0)
        times = np.array(self.samples, np.float32)
        replicates[NEAREST] = Replicates(times, held / held.sum())
        if weighting.conditional_possible:
            replicates[STRAIGHT] = Replicates(times, weighting.straight_weights(temperature))
        return replicates

    def shares(self, replicates: Replicates, chosen: NDArray[np.bool_]) -> tuple[float, float]:
        """Share of the chosen frames (n_frames,) and its error."""
        return share_of(replicates, chosen, self.weighting.blocks.groups)


def share_of(
    replicates: Replicates, chosen: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Share of the chosen frames (n_frames,) and its error, by samples of blocks of these groups (n_blocks,)."""
    spread = replicates.means(chosen.astype(np.float64)[:, None])[:, 0].std(ddof=1)
    return float(replicates.weights @ chosen), float(bootstrap_widening(groups) * spread)
