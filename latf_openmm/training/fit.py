"""fit(trajectories, settings) -> TrainingResult, in three stages that held-out blocks judge.

"states" is the state predictive information bottleneck with its own mixture prior, from several starts of
which the most predictive is kept; "joint" trains encoder, decoder and one flow together under the full
objective with the tilted prior at each frame's temperature (Qiu et al. 2026); "flow" trains a committee of
flows alone on the collective variables that came out, because with a small beta the joint loss settles
before the density has, and on frames reweighted to a ladder of temperatures where their energies are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import Progress
from torch import Tensor

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.progress import bar
from latf_openmm.reweighting.consistency import certificate
from latf_openmm.training.committee import CommitteeData, fit_whitening, train_committee
from latf_openmm.training.lag_scan import LagScan, default_lags, scan_lags
from latf_openmm.training.run import Epoch, Stage, TrainingRun, prepare, seeded
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.training.states import find_states, populations, relabel


@dataclass(frozen=True)
class TrainingResult:
    """A fitted model and how it came about.

    Attributes
    ----------
    model
        In evaluation mode, on the CPU.
    history
        One record for each epoch of all stages.
    populations
        Weighted fraction of the training frames in each state, shape (n_states,).
    settled
        Whether the states stopped changing before the refinements ran out.
    ladder
        Temperatures the frames were reweighted to and the effective sample size at each; empty without energies.
    consistency
        What contradicts that the simulated temperatures are in equilibrium with each other, a sentence each.
    lag
        Lag trained with [frames].
    lag_scan
        The scan that chose it, where the settings left it open.
    """

    model: LatentThermodynamicFlow
    history: list[Epoch]
    populations: list[float]
    settled: bool
    ladder: list[tuple[float, float]]
    consistency: list[str]
    lag: int
    lag_scan: LagScan | None


def fit(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None = None,
    kept_lags: Path | None = None,
) -> TrainingResult:
    """Train a model; the same seed, data and machine give the same model.

    Parameters
    ----------
    trajectories
        Training data; not changed.
    model_settings, settings
        Architecture and training.
    seed
        Seeds the split, the clustering, the initial weights and the noise.
    progress
        Where to draw progress bars.
    kept_lags
        Folder for the lags of a scan that are done, see `scan_lags`; None: none is kept.

    Raises
    ------
    DataError
        If the data are too short for the lag, differ in their features, or do not vary.
    """
    lag, scan = _choose_lag(trajectories, model_settings, settings, seed, progress, kept_lags)
    with seeded(seed, settings.threads):
        run = prepare(trajectories, model_settings, settings, lag, seed)
        states = find_states(run, seed, progress)
        labels, consistency = _density_stages(run, trajectories, progress)
    share = populations(labels, run.weights, run.model.n_states)
    rungs: list[tuple[float, float]] = []
    if run.energies_used:
        rungs = list(zip(run.ladder.temperatures.tolist(), run.ladder.sample_sizes.tolist(), strict=True))
    model = run.model.cpu().eval()
    return TrainingResult(model, run.history, share.tolist(), states.settled, rungs, consistency, lag, scan)


def _choose_lag(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None,
    kept: Path | None,
) -> tuple[int, LagScan | None]:
    """Return the lag of the settings, or the one a scan with one start a lag recommends.

    Of unbiased trajectories where there are any: timescales of biased dynamics say little of the system's.
    """
    if isinstance(settings.lag, int):
        return settings.lag, None
    once = settings.model_copy(update={"restarts": 1})
    free = [t for t in trajectories if np.ptp(t.log_weights) == 0] or list(trajectories)
    scan = scan_lags(free, model_settings, once, default_lags(trajectories), seed, progress, kept)
    return scan.recommended, scan


def _density_stages(
    run: TrainingRun, trajectories: Sequence[FeatureTrajectory], progress: Progress | None
) -> tuple[Tensor, list[str]]:
    """Train everything together, then a committee of flows alone.

    Returns
    -------
    labels, consistency
        Final labels of all frames, and what is wrong with the simulated temperatures.
    """
    s, model = run.settings, run.model
    z = run.encode()
    labels = model.assign(z)
    fit_whitening(model, z, run.weights)
    with bar(progress, "  joint", s.epochs_joint) as advance:
        stage = Stage("joint", None, list(model.parameters()), s.epochs_joint, s.patience)
        run.train(labels, stage, advance)
    z = run.encode()
    labels, _ = relabel(model, z, run.weights, s.minimum_population)
    last = run.evaluate(labels, stage)
    weighting = run.extend_ladder(trajectories, z, labels)
    consistency = [] if weighting is None else certificate(weighting).texts(trajectories[0].scale)
    with bar(progress, "  flow", s.epochs_flow) as advance:
        scores = train_committee(model, CommitteeData(z, run.ladder, run.blocks), s, run.rng, advance)
    for epoch, (train_loss, held_out) in enumerate(scores):
        run.history.append(
            replace(last, stage="flow", epoch=epoch, train_loss=train_loss, divergence=held_out)
        )
    return labels, consistency
