"""fit(trajectories, settings) -> TrainingResult, in three stages that held-out blocks judge.

"states" is the state predictive information bottleneck with its own mixture prior, from several starts of
which the most predictive is kept; "joint" trains encoder, decoder and one flow together under the full
objective with the tilted prior at each frame's temperature (Qiu et al. 2025); "flow" trains a committee of
flows alone on the collective variables that came out, because with a small beta the joint loss settles
before the density has, and on frames reweighted to a ladder of temperatures where their energies are known.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from latf_openmm.data.blocks import FrameBlocks
from latf_openmm.data.ladder import TemperatureLadder, build_ladder, own_temperatures
from latf_openmm.data.lagged import LaggedPairs, make_pairs
from latf_openmm.data.trajectory import FeatureTrajectory, check_same_features
from latf_openmm.errors import DataError
from latf_openmm.model.encoder import Encoder, StateDecoder
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.progress import Advance, bar
from latf_openmm.training.committee import CommitteeData, train_committee
from latf_openmm.training.lag_scan import LagScan, default_lags, scan_lags
from latf_openmm.training.objective import Batch, RepresentativePrior, Terms, terms
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.training.states import initial_labels, populations, relabel, representative_inputs

log = logging.getLogger(__name__)
_SMALLEST_BATCH = 64
_BATCHES_PER_EPOCH = 50
"""Where pairs are few, an epoch goes through them several times."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch ended with; the terms are on held-out pairs (nats).

    In the flow stage `divergence` is -log r_T(z) of left-out frames alone, without the entropy of p(z|x).
    """

    stage: str
    refinement: int
    epoch: int
    train_loss: float
    prediction: float
    divergence: float
    n_states: int
    sigma: float


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
    lag: int
    lag_scan: LagScan | None


@dataclass
class _Run:
    """Everything a stage works on."""

    model: LatentThermodynamicFlow
    settings: TrainingSettings
    pairs: LaggedPairs
    features: Tensor
    weights: Tensor
    temperatures: Tensor
    generator: torch.Generator
    rng: np.random.Generator
    ladder: TemperatureLadder
    blocks: FrameBlocks
    energies_used: bool
    history: list[Epoch]

    def new_encoder(self) -> Encoder:
        """An encoder with new random parameters."""
        settings = self.model.settings
        encoder = Encoder(self.model.n_features, settings.latent_dim, settings.encoder_hidden)
        return encoder.to(self.features.device)

    def batch(self, chosen: "_Chosen", labels: Tensor) -> Batch:
        return Batch(
            self.features[chosen.first],
            labels[chosen.first + self.pairs.lag],
            chosen.weights,
            chosen.temperatures,
        )

    @property
    def batch_size(self) -> int:
        """Pairs in a batch: fewer when there are few."""
        return min(self.settings.batch_size, max(_SMALLEST_BATCH, len(self.pairs.train) // 16))

    def order(self, n: int, most: int) -> Tensor:
        """Random passes over n pairs, as many as an epoch has, but at most `most` pairs."""
        wanted = min(most, max(n, _BATCHES_PER_EPOCH * self.batch_size))
        passes = [torch.randperm(n, generator=self.generator) for _ in range(-(-wanted // n))]
        return torch.cat(passes)[:wanted]

    def own(self, first: Tensor) -> "_Chosen":
        """Frames at their own temperatures, with their weights."""
        return _Chosen(first, self.weights[first], self.temperatures[first])


@dataclass(frozen=True)
class _Chosen:
    """First frames of chosen pairs, with weights and temperatures; each of shape (n,)."""

    first: Tensor
    weights: Tensor
    temperatures: Tensor

    def split(self, size: int) -> Iterator["_Chosen"]:
        parts = (self.first.split(size), self.weights.split(size), self.temperatures.split(size))
        for first, weights, temperatures in zip(*parts, strict=True):
            yield _Chosen(first, weights, temperatures)


def fit(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None = None,
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

    Raises
    ------
    DataError
        If the data are too short for the lag, differ in their features, or do not vary.
    """
    lag, scan = _choose_lag(trajectories, model_settings, settings, seed, progress)
    with seeded(seed, settings.threads):
        run = prepare(trajectories, model_settings, settings, lag, seed)
        found = find_states(run, seed, progress)
        labels = _density_stages(run, progress)
    share = populations(labels, run.weights, run.model.n_states)
    rungs: list[tuple[float, float]] = []
    if run.energies_used:
        rungs = list(zip(run.ladder.temperatures.tolist(), run.ladder.sample_sizes.tolist(), strict=True))
    model = run.model.cpu().eval()
    return TrainingResult(model, run.history, share.tolist(), found.settled, rungs, lag, scan)


def _choose_lag(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None,
) -> tuple[int, LagScan | None]:
    """Return the lag of the settings, or the one a scan with one start a lag recommends."""
    if isinstance(settings.lag, int):
        return settings.lag, None
    once = settings.model_copy(update={"restarts": 1})
    scan = scan_lags(trajectories, model_settings, once, default_lags(trajectories), seed, progress)
    return scan.recommended, scan


@contextmanager
def seeded(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and set its number of threads; both are as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def prepare(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    lag: int,
    seed: int,
) -> _Run:
    """Pair and standardise the data for one lag [frames], and make the untrained model."""
    width = check_same_features(trajectories)
    rng = np.random.default_rng(seed)
    pairs = make_pairs(trajectories, lag, settings.held_out, settings.blocks, rng)
    reference = float(min(t.temperature for t in trajectories))
    ladder = None
    if settings.energies == "auto":
        ladder = build_ladder(trajectories, settings.rungs, settings.minimum_overlap, rng)
    decided = model_settings.for_temperatures(1 if ladder is None else len(ladder.temperatures))
    model = LatentThermodynamicFlow(decided, width, 2, reference)
    used = ladder or own_temperatures(trajectories)
    model.set_temperature_range(float(used.temperatures[0]), float(used.temperatures[-1]))
    weights = pairs.weights / pairs.weights.sum()
    mean = weights @ pairs.features
    std = np.sqrt(weights @ (pairs.features - mean) ** 2)
    if not (std > 1e-6).any():
        raise DataError("no feature varies in the training data")
    model.feature_mean.copy_(torch.from_numpy(mean))
    model.feature_scale.copy_(torch.from_numpy(np.where(std > 1e-6, std, 1.0)))
    device = _device(settings.device)
    model.to(device)
    return _Run(
        model,
        settings,
        pairs,
        model.normalise(torch.from_numpy(pairs.features).to(device)),
        torch.from_numpy(pairs.weights).float().to(device),
        torch.from_numpy(pairs.temperatures).float().to(device),
        torch.Generator().manual_seed(seed),
        rng,
        used,
        FrameBlocks(trajectories),
        ladder is not None,
        [],
    )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("training.device is 'cuda', but torch sees no CUDA device")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class _Stage:
    """What is trained under which prior, and what decides that it has settled."""

    name: Literal["states", "joint"]
    prior: RepresentativePrior | None
    parameters: list[torch.nn.Parameter]
    epochs: int
    patience: int
    refinement: int = 0


@dataclass(frozen=True)
class FoundStates:
    """Metastable states of one refinement, or of the best of several.

    Attributes
    ----------
    labels
        State of every frame, shape (n_frames,).
    settled
        Whether they stopped changing before the refinements ran out.
    information
        Predictive information on held-out pairs: entropy of the states one lag later, less what is left of
        it once z is known (nats).
    """

    labels: Tensor
    settled: bool
    information: float


def find_states(run: _Run, seed: int, progress: Progress | None) -> FoundStates:
    """Refine the states from several starts; the model ends as the most predictive of them."""
    s, best, best_state, best_decoder = run.settings, None, None, run.model.decoder
    with bar(progress, "  states", s.restarts * s.refinements * s.epochs_states) as advance:
        for start in range(s.restarts):
            if start:
                run.model.encoder = run.new_encoder()
            found = _refine_states(run, seed + 7919 * start, advance)
            log.info("start %d: %d states, information %.3f", start, run.model.n_states, found.information)
            if best is None or found.information > best.information:
                best, best_decoder = found, run.model.decoder
                best_state = copy.deepcopy(run.model.state_dict())
    assert best is not None and best_state is not None
    run.model.decoder = best_decoder
    run.model.load_state_dict(best_state)
    return best


def _refine_states(run: _Run, seed: int, advance: Advance) -> FoundStates:
    """Refine the states until they stop changing."""
    s, settled = run.settings, False
    clusters = initial_labels(run.features.cpu().numpy(), run.pairs.weights, s.initial_states, seed)
    labels = torch.from_numpy(clusters).to(run.features.device)
    run.model.decoder = _new_decoder(run.model, int(labels.max()) + 1)
    for refinement in range(s.refinements):
        share = populations(labels, run.weights, run.model.n_states)
        inputs = representative_inputs(run.features, labels, run.weights, run.model.n_states)
        prior = RepresentativePrior(inputs, share)
        parameters = [
            *run.model.encoder.parameters(),
            *run.model.decoder.parameters(),
            *prior.parameters(),
        ]
        stage = _Stage("states", prior, parameters, s.epochs_states, 2, refinement)
        _train(run, labels, stage, advance)
        new, dropped = relabel(run.model, run.features, run.weights, s.minimum_population)
        changed = float((run.weights * (new != labels)).sum() / run.weights.sum())
        labels = new
        log.info("refinement %d: %d states, %d dropped", refinement, run.model.n_states, dropped)
        if dropped == 0 and changed < s.label_tolerance:
            settled = True
            break
    return FoundStates(labels, settled, _information(run, labels, stage))


def _information(run: _Run, labels: Tensor, stage: _Stage) -> float:
    """Predictive information of the states on held-out pairs (nats)."""
    first = torch.from_numpy(run.pairs.held_out).to(labels.device)
    share = populations(labels[first + run.pairs.lag], run.weights[first], run.model.n_states)
    entropy = float(-torch.xlogy(share, share).sum())
    return entropy - _evaluate(run, labels, stage).prediction


def _new_decoder(model: LatentThermodynamicFlow, n_states: int) -> StateDecoder:
    settings = model.settings
    return StateDecoder(settings.latent_dim, settings.decoder_hidden, n_states).to(model.feature_mean.device)


def _density_stages(run: _Run, progress: Progress | None) -> Tensor:
    """Train everything together, then a committee of flows alone; return the final labels of all frames."""
    s, model = run.settings, run.model
    labels = _whiten(run)
    with bar(progress, "  joint", s.epochs_joint) as advance:
        stage = _Stage("joint", None, list(model.parameters()), s.epochs_joint, s.patience)
        _train(run, labels, stage, advance)
    with torch.no_grad():
        z = model.encoder(run.features)
    labels, _ = relabel(model, run.features, run.weights, s.minimum_population)
    last = _evaluate(run, labels, stage)
    with bar(progress, "  flow", s.epochs_flow) as advance:
        scores = train_committee(model, CommitteeData(z, run.ladder, run.blocks), s, run.rng, advance)
    for epoch, (train_loss, held_out) in enumerate(scores):
        run.history.append(
            replace(last, stage="flow", epoch=epoch, train_loss=train_loss, divergence=held_out)
        )
    return labels


@torch.no_grad()
def _whiten(run: _Run) -> Tensor:
    """Fit the flow's whitening to the present latents and return their states."""
    z = run.model.encoder(run.features)
    weights = run.weights.unsqueeze(1) / run.weights.sum()
    mean = (weights * z).sum(dim=0)
    run.model.whiten(mean, torch.sqrt((weights * (z - mean) ** 2).sum(dim=0)))
    return run.model.assign(z)


def _train(run: _Run, labels: Tensor, stage: _Stage, advance: Advance) -> None:
    """Epochs until the held-out objective settles; ends with the best epoch's parameters."""
    s = run.settings
    # The flow sees gradients scaled by beta; a tiny epsilon keeps Adam's steps independent of it.
    optimiser = torch.optim.Adam(stage.parameters, lr=s.learning_rate, eps=1e-15, fused=True)
    best, best_state, since = float("inf"), copy.deepcopy(run.model.state_dict()), 0
    for epoch in range(stage.epochs):
        train_loss = _epoch(run, labels, stage, optimiser)
        record = replace(_evaluate(run, labels, stage), train_loss=train_loss, epoch=epoch)
        run.history.append(record)
        score = record.prediction + s.beta * record.divergence
        since = 0 if score < best - 2e-3 else since + 1
        if score < best:
            best, best_state = score, copy.deepcopy(run.model.state_dict())
        advance(1, f"{run.model.n_states} states, held-out {score:.3f}")
        if since >= stage.patience:
            break
    run.model.load_state_dict(best_state)


def _epoch(run: _Run, labels: Tensor, stage: _Stage, optimiser: torch.optim.Optimizer) -> float:
    s = run.settings
    run.model.train()
    # Many short epochs between relabellings need fewer pairs than the one joint stage.
    most = s.pairs_per_epoch // 2 if stage.name == "states" else s.pairs_per_epoch
    order = run.order(len(run.pairs.train), most)
    chosen = run.own(torch.from_numpy(run.pairs.train)[order].to(run.features.device))
    total, n = 0.0, 0
    for part in chosen.split(run.batch_size):
        loss = terms(run.model, run.batch(part, labels), stage.prior, run.generator).loss(
            s.beta, s.decorrelation
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters, 10.0)
        optimiser.step()
        total, n = total + float(loss.detach()) * len(part.first), n + len(part.first)
    return total / n


@torch.no_grad()
def _evaluate(run: _Run, labels: Tensor, stage: _Stage) -> Epoch:
    run.model.eval()
    generator = torch.Generator().manual_seed(0)
    first = torch.from_numpy(run.pairs.held_out).to(run.features.device)
    chosen = run.own(first[:: max(1, len(first) // run.settings.pairs_per_epoch)])
    prediction, divergence, weight = 0.0, 0.0, 0.0
    for part in chosen.split(8192):
        batch = run.batch(part, labels)
        result: Terms = terms(run.model, batch, stage.prior, generator)
        prediction += float(result.prediction) * len(part.first)
        divergence += float(result.divergence) * len(part.first)
        weight += float(batch.weights.sum())
    return Epoch(
        stage=stage.name,
        refinement=stage.refinement,
        epoch=0,
        train_loss=0.0,
        prediction=prediction / weight,
        divergence=divergence / weight,
        n_states=run.model.n_states,
        sigma=float(run.model.encoder.log_sigma.exp()),
    )
