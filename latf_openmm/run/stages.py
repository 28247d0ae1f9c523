"""Stages of simulation of a run: those of its rounds, and the validation runs."""

import numpy as np
from numpy.typing import NDArray

from latf_openmm.run.configured import ConfiguredRun
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.sampling.dynamics import BiasSource
from latf_openmm.sampling.stage import Stage

Array = NDArray[np.float64]


def round_stage(run: ConfiguredRun, folder: RoundFolder, starts: bool = True) -> Stage:
    """Return the simulation of one round, as the round before it planned it.

    Parameters
    ----------
    starts
        Whether start structures are read; without them a stage says what it is, and cannot be run.

    Raises
    ------
    DataError
        If a file of the round before it is damaged.
    """
    config = run.config
    settings, biased = run.plan(folder.index)
    bias = None
    positions: dict[float, Array] = {}
    boxes: dict[float, Array] = {}
    if folder.index > 0:
        previous = run.round(folder.index - 1)
        if starts:
            positions, boxes = previous.read_starts()
        if config.bias is not None and biased:
            bias = BiasSource(model=previous.model, bias=config.bias)
    seed = config.seed + 100_000 * (folder.index + 1)
    unbiased = frozenset(settings.temperatures) - biased
    return Stage(config.system, settings, bias, positions, seed, folder.simulation, boxes, unbiased)


def validation_stage(run: ConfiguredRun) -> Stage | None:
    """Return the independent unbiased runs for the report; None where there are to be none."""
    settings = run.config.validation_simulation()
    if settings is None:
        return None
    return Stage(run.config.system, settings, None, {}, run.config.seed + 77_000_000, run.validation)
