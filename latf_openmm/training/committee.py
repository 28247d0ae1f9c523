"""The flow stage: a committee of flows, each trained on its own bootstrap sample of blocks of frames.

The members are trained at once (one batched evaluation), each on frames drawn by weight at the ladder's
temperatures, and each keeps the parameters that did best on the blocks its sample left out. The mean of
their densities is the model's; their spread says how far data and training leave it undetermined.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.func import stack_module_state

from latf_openmm.model.flow import CouplingFlow
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.model.prior import log_pulled_back
from latf_openmm.progress import Advance
from latf_openmm.reweighting.blocks import FrameBlocks
from latf_openmm.reweighting.ladder import Counts, TemperatureLadder
from latf_openmm.training.coupling import Parameters, mapped
from latf_openmm.training.settings import TrainingSettings

_HELD_OUT_DRAWS = 10_000
"""Draws of left-out frames on which flows are scored."""
_EPOCHS_AT_ONCE = 5
"""Epochs whose frames are drawn at a time: a draw goes through the weights of all frames at all temperatures."""
_PART = 2000
"""Points of each member that are scored at a time: what a layer makes of them fits into a processor's cache."""
_DRAWS_PER_FRAME = 8
"""Largest number of draws in an epoch for each frame."""
_NEIGHBOUR = 10
"""Number of the nearest neighbour whose distance is the width of the noise on a frame."""
_MAX_IN_TREE = 1_000_000
"""Largest number of points in the search tree for neighbours; more are thinned."""
_MAX_GRADIENT = 10.0
"""Largest norm of the gradient of one member; longer ones are shortened."""


@dataclass(frozen=True)
class CommitteeData:
    """Data that the flows are trained on.

    Attributes
    ----------
    z
        Collective variables of all frames, shape (n_frames, latent_dim).
    ladder
        Weights of the frames at each temperature.
    blocks
        What is resampled.
    """

    z: Tensor
    ladder: TemperatureLadder
    blocks: FrameBlocks


@dataclass(frozen=True)
class _Draws:
    """Frames and their temperatures for every member, each of shape (n_members, n)."""

    frames: Tensor
    temperatures: Tensor

    def split(self, size: int) -> Iterator["_Draws"]:
        """The same in parts of `size` for every member, the last one smaller."""
        for frames, t in zip(self.frames.split(size, 1), self.temperatures.split(size, 1), strict=True):
            yield _Draws(frames.contiguous(), t.contiguous())


def train_committee(
    model: LatentThermodynamicFlow,
    data: CommitteeData,
    settings: TrainingSettings,
    rng: np.random.Generator,
    advance: Advance,
) -> list[tuple[float, float]]:
    """Replace the model's flows by a trained committee.

    Returns
    -------
    list of (float, float)
        For each epoch the mean over members of -log r_T(z) on training and on left-out frames (nats).
    """
    model.renew_flows(settings.committee)
    _whiten(model, data)
    if settings.committee == 1:
        samples = [data.blocks.hold_out(settings.held_out, rng)]
    else:
        samples = [data.blocks.bootstrap(rng) for _ in range(settings.committee)]
    trainer = _Trainer(model, data, settings)
    left_out = [(sample == 0).astype(np.int16) for sample in samples]
    test = trainer.draw([s if s.any() else 1 - s for s in left_out], _HELD_OUT_DRAWS, rng)
    n = _draws_per_epoch(len(data.z), settings)
    batch = min(settings.batch_size, max(64, n // 32))
    optimiser = torch.optim.Adam(
        list(trainer.parameters.values()), lr=settings.learning_rate_flow, fused=True
    )
    steps = settings.epochs_flow * -(-n // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate_flow, total_steps=steps + 1, pct_start=0.05
    )
    history = []
    for draws in trainer.draw_epochs(samples, n, settings.epochs_flow, rng):
        train, parts = 0.0, list(draws.split(batch))
        for place, part in enumerate(parts):
            if place == len(parts) // 2:  # where frames say little, flows are best after few steps
                trainer.keep_best(test)
            train += trainer.step(part, optimiser) * part.frames.shape[1] / n
            schedule.step()
        held_out = trainer.keep_best(test)
        history.append((train, held_out))
        advance(1, f"{settings.committee} flows, held-out {held_out:.3f}")
    trainer.finish()
    return history


def _draws_per_epoch(n_frames: int, settings: TrainingSettings) -> int:
    return min(settings.pairs_per_epoch, max(_DRAWS_PER_FRAME * n_frames, 50 * 64))


@torch.no_grad()
def fit_whitening(model: LatentThermodynamicFlow, z: Tensor, weights: Tensor) -> None:
    """Whiten all flows by the weighted mean and standard deviation of z (n, d); weights (n,), of any scale."""
    share = (weights / weights.sum()).unsqueeze(1)
    mean = (share * z).sum(dim=0)
    model.whiten(mean, torch.sqrt((share * (z - mean) ** 2).sum(dim=0)))


def _whiten(model: LatentThermodynamicFlow, data: CommitteeData) -> None:
    """Whiten by the mean over the ladder's temperatures."""
    weights = torch.from_numpy(data.ladder.weights.mean(axis=0)).double()
    fit_whitening(model, data.z.double().cpu(), weights)


class _Trainer:
    """The members' parameters, stacked, and their loss."""

    def __init__(
        self, model: LatentThermodynamicFlow, data: CommitteeData, settings: TrainingSettings
    ) -> None:
        self.model = model
        self.z = data.z
        self.ladder = data.ladder
        self.tau = model.prior.tau
        stacked, _ = stack_module_state(list(model.flows))
        self.parameters: Parameters = {k: v.detach().clone().requires_grad_() for k, v in stacked.items()}
        self.best = {k: v.detach().clone() for k, v in self.parameters.items()}
        self.best_score = torch.full((model.n_members,), float("inf"), device=self.z.device)
        t = torch.from_numpy(data.ladder.temperatures).float() / model.reference_temperature
        self.rungs = t.to(self.z.device)
        self.log_c = model.prior.log_normalisers(self.rungs)
        self.smoothing = settings.smoothing * _neighbour_distance(data.z, model)
        self.flow = cast(CouplingFlow, model.flows[0])  # whitening is the same in all

    def draw(self, samples: Sequence[Counts], n: int, rng: np.random.Generator) -> _Draws:
        """Draw `n` frames with temperatures for every member from its own sample."""
        drawn = [self.ladder.draw(sample, n, rng) for sample in samples]
        frames = torch.from_numpy(np.stack([index for index, _ in drawn]))
        at = torch.from_numpy(np.stack([temperature for _, temperature in drawn])).float()
        return _Draws(frames.to(self.z.device), at.to(self.z.device) / self.model.reference_temperature)

    def draw_epochs(
        self, samples: Sequence[Counts], n: int, epochs: int, rng: np.random.Generator
    ) -> Iterator[_Draws]:
        """The same for each epoch in turn, several at a time."""
        for start in range(0, epochs, _EPOCHS_AT_ONCE):
            several = min(_EPOCHS_AT_ONCE, epochs - start)
            yield from self.draw(samples, several * n, rng).split(n)

    def loss(self, z: Tensor, t: Tensor) -> Tensor:
        """Mean -log r_T(z) of every member, shape (n_members,); z is (n_members, n, d), t (n_members, n)."""
        members, n, d = z.shape
        context = self.model.context(t.reshape(-1))
        u, log_det = mapped(self.flow, self.parameters, z.reshape(-1, d), context)
        log_r = log_pulled_back(u, log_det, self.tau, t.reshape(-1)).reshape(members, n)
        nearest = torch.bucketize(t, 0.5 * (self.rungs[1:] + self.rungs[:-1]))
        return -(log_r - self.log_c[nearest]).mean(dim=1)

    def step(self, draws: _Draws, optimiser: torch.optim.Optimizer) -> float:
        """One step of all members; each one's gradient is clipped by itself."""
        frames = draws.frames
        noise = torch.randn((*frames.shape, self.z.shape[1]), device=self.z.device)
        z = self.z[frames] + self.smoothing[frames] * noise
        loss = self.loss(z, draws.temperatures)
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        _clip_each(self.parameters)
        optimiser.step()
        return float(loss.detach().mean())

    @torch.no_grad()
    def keep_best(self, test: _Draws) -> float:
        """Remember the parameters of every member that has improved; return the mean score."""
        parts = test.split(_PART)
        scores = [self.loss(self.z[p.frames], p.temperatures) * p.frames.shape[1] for p in parts]
        score = torch.stack(scores).sum(dim=0) / test.frames.shape[1]
        better = score < self.best_score
        self.best_score = torch.where(better, score, self.best_score)
        for name, value in self.parameters.items():
            mask = better.reshape(-1, *[1] * (value.dim() - 1))
            self.best[name] = torch.where(mask, value.detach(), self.best[name])
        return float(score.mean())

    @torch.no_grad()
    def finish(self) -> None:
        """Put the best parameters into the model's flows."""
        for index, flow in enumerate(self.model.flows):
            state = flow.state_dict()
            flow.load_state_dict(state | {name: value[index] for name, value in self.best.items()})


def _clip_each(parameters: Parameters) -> None:
    """Clip the gradient norm of every member; a gradient that is not finite counts as zero."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0).sqrt()
    if (norm <= _MAX_GRADIENT).all():
        return  # as nearly always
    scale = torch.where(torch.isfinite(norm), (_MAX_GRADIENT / norm).clamp(max=1.0), torch.zeros_like(norm))
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0).mul_(scale.reshape(-1, *[1] * (gradient.dim() - 1)))


def _neighbour_distance(z: Tensor, model: LatentThermodynamicFlow) -> Tensor:
    """Distance to the tenth neighbour times each variable's standard deviation, shape (n_frames, d).

    Noise of that size makes a sample-point adaptive kernel estimate of the frames: narrow where they are
    dense, wide where they are rare, and nothing where there are very many. Of more than a million, a million say how
    far neighbours are.
    """
    scale = model.flows[0].get_buffer("scale").cpu()
    points = (z.cpu() / scale).numpy()
    every = -(-len(points) // _MAX_IN_TREE)
    tree, k = cKDTree(points[::every]), min(_NEIGHBOUR + 1, len(points))
    distance = tree.query(points, [k])[0].astype(np.float32) * every ** (-1.0 / points.shape[1])
    return torch.from_numpy(distance).float().to(z.device) * scale.to(z.device)
