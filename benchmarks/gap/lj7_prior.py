"""LJ7 by a flow in the paper's form: the prior alone knows the temperature, and energies have no part.

A bath changes nothing of it, so one model serves all. Its own collective variables and density are used: frames are
weighted to its r_T(z), and looked at in the same plane of two moments as those of the other methods.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gap.lj7 import BATHS, FRAMES, REGIME, TEMPERATURES, Reference, model_of, thinned
from benchmarks.gap.methods import PRIOR
from benchmarks.quality.cases import LJ7
from benchmarks.quality.data import training_data
from benchmarks.quality.methods import Frames, train
from latf_openmm.model.transfer import frame_weights


def cases(seed: int) -> list[dict[str, Any]]:
    """Numbers of frames."""
    return [{"frames": frames, "seed": seed} for frames in FRAMES]


def rows(work: Path, frames: int, seed: int) -> list[dict[str, Any]]:
    """Divergence at every temperature, the same for every bath; it reports no errors."""
    runs = training_data(LJ7, REGIME, seed, work)
    chosen = thinned(runs, frames)
    shared = model_of(work, runs, seed)
    model, seconds = train(LJ7, chosen, REGIME.lag, seed, True)
    data = Frames.of(chosen, model, LJ7.plane)
    z, result = data.z.astype(np.float64), []
    for temperature in TEMPERATURES:
        weights = frame_weights(model.density(temperature), z, np.zeros(len(z)))
        row = Reference(temperature, shared, work).row(PRIOR, data, weights, part="lj7", seconds=seconds)
        result += [{**row, "bath": bath} for bath in BATHS]
    return result
