"""The data and the model of one training, and the epochs that the states and the joint stage share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory, check_same_features
from latf_openmm.model.encoder import Encoder, StateDecoder
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.progress import Advance
from latf_openmm.reweighting.blocks import FrameBlocks
from latf_openmm.reweighting.ladder import TemperatureLadder, build_ladder, ladder_of, own_temperatures
from latf_openmm.reweighting.temperatures import Basins
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.threads import torch_threads
from latf_openmm.training.device import training_device
from latf_openmm.training.lagged import LaggedPairs, make_pairs
from latf_openmm.training.objective import Batch, RepresentativePrior, terms
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.training.states_step import StatesStep

_MIN_BATCH = 64
"""Smallest number of pairs in a batch."""
_BATCHES_PER_EPOCH = 50
"""Where pairs are few, an epoch goes through them several times."""
_MANY = 32
"""Pairs for each one drawn in an epoch from which they are drawn without permuting all."""
PART = 65_536
"""Frames whose descriptors are standardised at a time: there is no second copy of all."""
_MIN_RELATIVE_SPREAD = 0.02
"""Least standard deviation that a feature is divided by, over the 90th percentile of all."""

_GATHERED = 2**21
"""Descriptors of several batches that are gathered and standardised at a time, at most."""
_STOPPING_PAIRS = 10_000
"""Held-out pairs that say when to relabel, about; all say which start is the best."""
_BETTER = 2e-3
"""Least change of the held-out objective that is an improvement (nats)."""
_SLOW = 0.9
"""Quantile of the times in which descriptors cross their spread that is a slow descriptor's."""


@dataclass(frozen=True)
class Epoch:
    """Losses at the end of one epoch; the terms are on held-out pairs (nats).

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
class Stage:
    """A stage of training: its parameters and prior, and the test that it has settled."""

    name: Literal["states", "joint"]
    prior: RepresentativePrior | None
    parameters: list[nn.Parameter]
    epochs: int
    patience: int
    refinement: int = 0


@dataclass(frozen=True)
class ChosenPairs:
    """First frames of chosen pairs, with weights and temperatures; each of shape (n,)."""

    first: Tensor
    weights: Tensor
    temperatures: Tensor

    def split(self, size: int) -> Iterator["ChosenPairs"]:
        """The same in parts of `size` pairs, the last one smaller."""
        parts = (self.first.split(size), self.weights.split(size), self.temperatures.split(size))
        for first, weights, temperatures in zip(*parts, strict=True):
            yield ChosenPairs(first, weights, temperatures)


@dataclass
class TrainingRun:
    """Everything a stage works on; `features` are as they were given, batches of them are standardised."""

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

    def new_decoder(self, n_states: int) -> StateDecoder:
        """A state decoder with new random parameters."""
        settings = self.model.settings
        decoder = StateDecoder(settings.latent_dim, settings.decoder_hidden, n_states)
        return decoder.to(self.features.device)

    def batch(self, chosen: ChosenPairs, labels: Tensor) -> Batch:
        """The chosen frames, each with the state one lag later."""
        return Batch(
            self.model.normalise(self.features[chosen.first]),
            labels[chosen.first + self.pairs.lag],
            chosen.weights,
            chosen.temperatures,
        )

    @torch.no_grad()
    def encode(self) -> Tensor:
        """Collective variables of all frames, shape (n_frames, latent_dim)."""
        return torch.cat([self.model.encode(part) for part in self.features.split(PART)])

    def extend_ladder(
        self, trajectories: Sequence[FeatureTrajectory], z: Tensor, labels: Tensor
    ) -> TemperatureWeighting | None:
        """Make the ladder again with what collective variables z and states of all frames say.

        Walkers that do not cross have no vote on the shares of states then, and there are rungs where energies do not
        overlap.

        Returns
        -------
        TemperatureWeighting or None
            Weights of all frames at any temperature; None where energies are not used.
        """
        if not self.energies_used:
            return None
        basins = Basins(
            z.double().cpu().numpy(), labels.cpu().numpy(), self.model.n_states, max(2, self.pairs.lag)
        )
        s = self.settings
        weighting = TemperatureWeighting(trajectories, basins)
        self.ladder = ladder_of(weighting, s.rungs, s.minimum_overlap)
        rungs = self.ladder.temperatures
        self.model.set_temperature_range(float(rungs[0]), float(rungs[-1]))
        return weighting

    @property
    def batch_size(self) -> int:
        """Pairs in a batch: fewer when there are few."""
        return min(self.settings.batch_size, max(_MIN_BATCH, len(self.pairs.train) // 16))

    def order(self, n: int, most: int) -> Tensor:
        """Random passes over n pairs, as many as an epoch has, but at most `most` pairs."""
        wanted = min(most, max(n, _BATCHES_PER_EPOCH * self.batch_size))
        if n > _MANY * wanted:  # hardly any is drawn twice
            return torch.randint(n, (wanted,), generator=self.generator)
        passes = [torch.randperm(n, generator=self.generator) for _ in range(-(-wanted // n))]
        return torch.cat(passes)[:wanted]

    def at_own_temperatures(self, first: Tensor) -> ChosenPairs:
        """Frames at their own temperatures, with their weights."""
        return ChosenPairs(first, self.weights[first], self.temperatures[first])

    def train(self, labels: Tensor, stage: Stage, advance: Advance) -> None:
        """Epochs until the held-out objective settles; ends with the best epoch's parameters."""
        s, step = self.settings, self._step(stage)
        most = _STOPPING_PAIRS if stage.name == "states" else s.pairs_per_epoch
        best, best_values, since = float("inf"), _copied(stage.parameters), 0
        for epoch in range(stage.epochs):
            train_loss = self._epoch(labels, stage, step)
            record = replace(self.evaluate(labels, stage, most), train_loss=train_loss, epoch=epoch)
            self.history.append(record)
            score = self._score(record)
            since = 0 if score < best - _BETTER else since + 1
            if score < best:
                best, best_values = score, _copied(stage.parameters)
            advance(1, f"{self.model.n_states} states, held-out {score:.3f}")
            if since >= stage.patience:
                break
        # Arrays of their own, whatever they shared while they were trained.
        for parameter, value in zip(stage.parameters, best_values, strict=True):
            parameter.data = value

    def _score(self, record: Epoch) -> float:
        return record.prediction + self.settings.beta * record.divergence

    def _step(self, stage: Stage) -> Callable[[Batch], float]:
        """A function that moves the parameters of a stage by one batch and returns its loss."""
        s = self.settings
        if stage.prior is not None:
            written = StatesStep(self.model, stage.prior, s.beta, s.decorrelation, s.learning_rate)
            return lambda batch: written.step(batch, self.generator)
        # The flow sees gradients scaled by beta; a tiny epsilon keeps Adam's steps independent of it.
        optimiser = torch.optim.Adam(stage.parameters, lr=s.learning_rate, eps=1e-15, fused=True)

        def step(batch: Batch) -> float:
            loss = terms(self.model, batch, None, self.generator).loss(s.beta, s.decorrelation)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(stage.parameters, 10.0)
            optimiser.step()
            return float(loss.detach())

        return step

    def _epoch(self, labels: Tensor, stage: Stage, step: Callable[[Batch], float]) -> float:
        s = self.settings
        self.model.train()
        # Many short epochs between relabellings need fewer pairs than the one joint stage.
        most = s.pairs_per_epoch // 2 if stage.name == "states" else s.pairs_per_epoch
        order = self.order(len(self.pairs.train), most)
        chosen = self.at_own_temperatures(torch.from_numpy(self.pairs.train)[order].to(self.features.device))
        size, total = self.batch_size, 0.0
        at_once = max(1, _GATHERED // (size * self.features.shape[1]))
        for part in chosen.split(at_once * size):
            for batch in self.batch(part, labels).split(size):
                total += step(batch) * len(batch.labels)
        return total / len(order)

    @torch.no_grad()
    def evaluate(self, labels: Tensor, stage: Stage, most: int | None = None) -> Epoch:
        """Terms of the objective on held-out pairs, at most about `most`; the same noise every time."""
        self.model.eval()
        generator = torch.Generator().manual_seed(0)
        first = torch.from_numpy(self.pairs.held_out).to(self.features.device)
        chosen = self.at_own_temperatures(
            first[:: max(1, len(first) // (most or self.settings.pairs_per_epoch))]
        )
        prediction, divergence, weight = 0.0, 0.0, 0.0
        for part in chosen.split(2048):
            batch = self.batch(part, labels)
            batch_terms = terms(self.model, batch, stage.prior, generator)
            prediction += float(batch_terms.prediction) * len(part.first)
            divergence += float(batch_terms.divergence) * len(part.first)
            weight += float(batch.weights.sum())
        return Epoch(
            stage=stage.name,
            refinement=stage.refinement,
            epoch=0,
            train_loss=0.0,
            prediction=prediction / weight,
            divergence=divergence / weight,
            n_states=self.model.n_states,
            sigma=float(self.model.encoder.log_sigma.exp()),
        )


def _copied(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


@contextmanager
def seeded(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and set its number of threads; both are as before afterwards."""
    with torch_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def prepare(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    lag: int,
    seed: int,
) -> TrainingRun:
    """Pair and standardise the data for one lag [frames], and make the untrained model."""
    width = check_same_features(trajectories)
    rng = np.random.default_rng(seed)
    pairs = make_pairs(trajectories, lag, settings.held_out, settings.blocks, rng)
    reference = float(min(t.temperature for t in trajectories))
    ladder = None
    if settings.energies == "auto":
        ladder = build_ladder(trajectories, settings.rungs, settings.minimum_overlap)
    decided = model_settings.for_temperatures(1 if ladder is None else len(ladder.temperatures))
    model = LatentThermodynamicFlow(decided, width, 2, reference)
    used = ladder or own_temperatures(trajectories)
    model.set_temperature_range(float(used.temperatures[0]), float(used.temperatures[-1]))
    mean, std = _moments(pairs)
    model.feature_mean.copy_(torch.from_numpy(mean))
    model.feature_scale.copy_(torch.from_numpy(_scales(std, trajectories)))
    device = training_device(settings.device)
    model.to(device)
    return TrainingRun(
        model,
        settings,
        pairs,
        torch.from_numpy(pairs.features).to(device),
        torch.from_numpy(pairs.weights).float().to(device),
        torch.from_numpy(pairs.temperatures).float().to(device),
        torch.Generator().manual_seed(seed),
        rng,
        used,
        FrameBlocks(trajectories),
        ladder is not None,
        [],
    )


def _moments(pairs: LaggedPairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation of every descriptor."""
    parts = [slice(start, start + PART) for start in range(0, len(pairs.features), PART)]
    weights = pairs.weights / pairs.weights.sum()
    mean = np.sum([weights[part] @ pairs.features[part] for part in parts], axis=0)
    squares = np.sum([weights[part] @ (pairs.features[part] - mean) ** 2 for part in parts], axis=0)
    return mean, np.sqrt(squares)


def _scales(std: NDArray[np.float64], trajectories: Sequence[FeatureTrajectory]) -> NDArray[np.float64]:
    """Scales that descriptors are divided by, shape (n_features,).

    Their standard deviation, but of a fast one more: how far thermal motion carries it while slow ones cross their
    spread. Collective variables are slow then, and a bias on them is not stiff for the time step.

    Raises
    ------
    DataError
        If no descriptor varies.
    """
    moves = std > 1e-6
    if not moves.any():
        raise DataError("no feature varies in the training data")
    # One that hardly moves must not become the largest of all when it moves once: a bias would tear at it.
    scales = np.maximum(std, _MIN_RELATIVE_SPREAD * np.quantile(std, 0.9))
    known = [t.square_speeds for t in trajectories if t.square_speeds is not None]
    if len(known) == len(trajectories):
        speeds = np.sqrt(np.mean(known, axis=0))
        known_speed = moves & (speeds > 0)  # not of particles without mass
        if known_speed.any():
            crossing = std[known_speed] / speeds[known_speed]
            scales = np.maximum(scales, np.quantile(crossing, _SLOW) * speeds)
    return np.where(moves, scales, 1.0)
