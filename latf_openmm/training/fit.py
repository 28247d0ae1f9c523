"""fit(trajectories, settings) -> TrainingResult, in three stages that held-out blocks end.

"states" is the state predictive information bottleneck with its own mixture prior; "joint" trains
encoder, decoder and flow together under the full objective with the tilted prior at each frame's temperature
(Qiu et al. 2025); "flow" polishes the flow alone on the collective variables that came out, because with a
small beta the joint loss settles before the density has, and on frames reweighted to a ladder of temperatures
where their energies are known.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.progress import Progress
from torch import Tensor

from latf_openmm.data.ladder import TemperatureLadder, build_ladder
from latf_openmm.data.lagged import LaggedPairs, make_pairs
from latf_openmm.data.trajectory import FeatureTrajectory, check_same_features
from latf_openmm.errors import DataError
from latf_openmm.model.encoder import StateDecoder
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.progress import Advance, bar
from latf_openmm.settings import Settings
from latf_openmm.training.objective import Batch, RepresentativePrior, Terms, terms
from latf_openmm.training.states import initial_labels, populations, relabel, representative_inputs

log = logging.getLogger(__name__)


class TrainingSettings(Settings):
    """How the model is trained."""

    lag: int = Field(ge=1, description="lag time [frames]")
    beta: float = Field(1e-4, gt=0, description="weight of the information-bottleneck term")
    initial_states: int = Field(60, ge=2, description="k-means clusters that start the state refinement")
    minimum_population: float = Field(0.005, gt=0, lt=0.5, description="states below it are dropped")
    refinements: int = Field(20, ge=1, description="at most this many relabellings")
    label_tolerance: float = Field(0.005, gt=0, description="settled when fewer labels change [fraction]")
    epochs_states: int = Field(15, ge=1, description="at most this many epochs between relabellings")
    epochs_joint: int = Field(20, ge=1, description="at most this many epochs of the joint stage")
    epochs_flow: int = Field(40, ge=1, description="at most this many epochs of the flow stage")
    patience: int = Field(5, ge=1, description="epochs without improvement before a density has settled")
    batch_size: int = Field(1024, ge=8, description="pairs in a batch")
    pairs_per_epoch: int = Field(60_000, ge=8, description="at most this many pairs are drawn an epoch")
    learning_rate: float = Field(3e-3, gt=0, description="of Adam")
    learning_rate_decay: float = Field(0.93, gt=0, le=1, description="factor an epoch, flow stage")
    energies: Literal["auto", "ignore"] = Field(
        "auto",
        description="'auto': where potential energies are known, the flow is trained on frames reweighted (MBAR) "
        "to a ladder of temperatures; 'ignore': only on each frame's own temperature, the paper's form",
    )
    rungs: int = Field(24, ge=2, le=200, description="temperatures of the ladder")
    minimum_overlap: float = Field(
        0.05, gt=0, le=1, description="least effective sample size of a rung, relative to simulated ones"
    )
    held_out: float = Field(0.2, gt=0, lt=0.9, description="fraction of blocks held out")
    blocks: int = Field(10, ge=1, description="blocks a trajectory is cut into for the split")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    threads: int = Field(1, ge=1, description="CPU threads; networks this small are slower on several")


@dataclass(frozen=True)
class Epoch:
    """What one epoch ended with; the terms are on held-out pairs (nats)."""

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
    """

    model: LatentThermodynamicFlow
    history: list[Epoch]
    populations: list[float]
    settled: bool
    ladder: list[tuple[float, float]]


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
    ladder: TemperatureLadder | None
    history: list[Epoch]

    def batch(self, chosen: "_Chosen", labels: Tensor) -> Batch:
        return Batch(
            self.features[chosen.first],
            labels[chosen.first + self.pairs.lag],
            chosen.weights,
            chosen.temperatures,
        )

    def own(self, first: Tensor) -> "_Chosen":
        """Frames at their own temperatures, with their weights."""
        return _Chosen(first, self.weights[first], self.temperatures[first])

    def from_ladder(self, frames: NDArray[np.int64], rng: np.random.Generator) -> "_Chosen":
        """Frames drawn by weight at the ladder's temperatures."""
        assert self.ladder is not None
        n = min(self.settings.pairs_per_epoch, max(len(frames), 4 * self.settings.batch_size))
        index, temperatures = self.ladder.draw(frames, n, rng)
        first = torch.from_numpy(index).to(self.features.device)
        at = torch.from_numpy(temperatures).float().to(self.features.device)
        return _Chosen(first, torch.ones_like(at), at)


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
    with torch.random.fork_rng(devices=[]), _threads(settings.threads):
        torch.manual_seed(seed)
        run = _prepare(trajectories, model_settings, settings, seed)
        settled = _states_stage(run, seed, progress)
        labels = _density_stages(run, progress)
    share = populations(labels, run.weights, run.model.n_states)
    rungs: list[tuple[float, float]] = []
    if run.ladder is not None:
        rungs = list(zip(run.ladder.temperatures.tolist(), run.ladder.sample_sizes.tolist(), strict=True))
    return TrainingResult(run.model.cpu().eval(), run.history, share.tolist(), settled, rungs)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    seed: int,
) -> _Run:
    width = check_same_features(trajectories)
    rng = np.random.default_rng(seed)
    pairs = make_pairs(trajectories, settings.lag, settings.held_out, settings.blocks, rng)
    reference = float(min(t.temperature for t in trajectories))
    ladder = None
    if settings.energies == "auto":
        ladder = build_ladder(trajectories, settings.rungs, settings.minimum_overlap, rng)
    n_temperatures = (
        len({t.temperature for t in trajectories}) if ladder is None else len(ladder.temperatures)
    )
    decided = model_settings.for_temperatures(n_temperatures)
    model = LatentThermodynamicFlow(decided, width, 2, reference)
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
        ladder,
        [],
    )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("training.device is 'cuda', but torch sees no CUDA device")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class _Stage:
    """What is trained under which prior, and what decides that it has settled."""

    name: Literal["states", "joint", "flow"]
    prior: RepresentativePrior | None
    parameters: list[torch.nn.Parameter]
    epochs: int
    patience: int
    decay: float = 1.0
    refinement: int = 0

    def score(self, record: Epoch, beta: float) -> float:
        """Held-out objective of the stage; the flow stage leaves the prediction as it is."""
        if self.name == "flow":
            return record.divergence
        return record.prediction + beta * record.divergence


def _states_stage(run: _Run, seed: int, progress: Progress | None) -> bool:
    """Refine the states until they stop changing; return whether they did."""
    s = run.settings
    clusters = initial_labels(run.features.cpu().numpy(), run.pairs.weights, s.initial_states, seed)
    labels = torch.from_numpy(clusters).to(run.features.device)
    run.model.decoder = _new_decoder(run.model, int(labels.max()) + 1)
    with bar(progress, "  states", s.refinements * s.epochs_states) as advance:
        for refinement in range(s.refinements):
            share = populations(labels, run.weights, run.model.n_states)
            inputs = representative_inputs(run.features, labels, run.weights, run.model.n_states)
            prior = RepresentativePrior(inputs, share)
            parameters = [
                *run.model.encoder.parameters(),
                *run.model.decoder.parameters(),
                *prior.parameters(),
            ]
            stage = _Stage("states", prior, parameters, s.epochs_states, 2, refinement=refinement)
            _train(run, labels, stage, advance)
            new, dropped = relabel(run.model, run.features, run.weights, s.minimum_population)
            changed = float((run.weights * (new != labels)).sum() / run.weights.sum())
            labels = new
            log.info("refinement %d: %d states, %d dropped", refinement, run.model.n_states, dropped)
            if dropped == 0 and changed < s.label_tolerance:
                return True
    return False


def _new_decoder(model: LatentThermodynamicFlow, n_states: int) -> StateDecoder:
    settings = model.settings
    return StateDecoder(settings.latent_dim, settings.decoder_hidden, n_states).to(model.feature_mean.device)


def _density_stages(run: _Run, progress: Progress | None) -> Tensor:
    """Train everything together, then the flow alone; return the final labels of all frames."""
    s, model = run.settings, run.model
    labels = _whiten(run)
    with bar(progress, "  joint", s.epochs_joint) as advance:
        _train(
            run, labels, _Stage("joint", None, list(model.parameters()), s.epochs_joint, s.patience), advance
        )
    flow = _Stage(
        "flow", None, list(model.flow.parameters()), s.epochs_flow, s.patience, s.learning_rate_decay
    )
    with bar(progress, "  flow", s.epochs_flow) as advance:
        _train(run, labels, flow, advance)
    return relabel(model, run.features, run.weights, s.minimum_population)[0]


@torch.no_grad()
def _whiten(run: _Run) -> Tensor:
    """Fit the flow's whitening to the present latents and return their states."""
    z = run.model.encoder(run.features)
    weights = run.weights.unsqueeze(1) / run.weights.sum()
    mean = (weights * z).sum(dim=0)
    run.model.flow.whiten(mean, torch.sqrt((weights * (z - mean) ** 2).sum(dim=0)))
    return run.model.assign(z)


def _train(run: _Run, labels: Tensor, stage: _Stage, advance: Advance) -> None:
    """Epochs until the held-out objective settles; ends with the best epoch's parameters."""
    s = run.settings
    # The flow sees gradients scaled by beta; a tiny epsilon keeps Adam's steps independent of it.
    optimiser = torch.optim.Adam(stage.parameters, lr=s.learning_rate, eps=1e-15, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, stage.decay)
    best, best_state, since = float("inf"), copy.deepcopy(run.model.state_dict()), 0
    for epoch in range(stage.epochs):
        train_loss = _epoch(run, labels, stage, optimiser)
        schedule.step()
        record = replace(_evaluate(run, labels, stage), train_loss=train_loss, epoch=epoch)
        run.history.append(record)
        score = stage.score(record, s.beta)
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
    if stage.name == "flow" and run.ladder is not None:
        chosen = run.from_ladder(run.pairs.train, run.rng)
    else:
        order = torch.randperm(len(run.pairs.train), generator=run.generator)[: s.pairs_per_epoch]
        chosen = run.own(torch.from_numpy(run.pairs.train)[order].to(run.features.device))
    total, n = 0.0, 0
    for part in chosen.split(s.batch_size):
        loss = terms(run.model, run.batch(part, labels), stage.prior, run.generator).loss(s.beta)
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
    if stage.name == "flow" and run.ladder is not None:
        chosen = run.from_ladder(run.pairs.held_out, np.random.default_rng(0))
    else:
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
