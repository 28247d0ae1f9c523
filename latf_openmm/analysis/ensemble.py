"""Structures with weights at one temperature, from the frames there are: reweighted, or guided by the flow.

``reweighted``
    Every frame of every round, weighted by MBAR over the simulated temperatures. Exact up to sampling where
    enough frames overlap in energy with the temperature wanted.
``flow``
    Where they do not: latent points are drawn from r_T(z), and each stands for its nearest frames, which share its
    weight as exp(-U/kT) over the mixture they were simulated in. Where the basins lie is the flow's word; what is
    inside one is the frames'.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import mdtraj
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from latf_openmm.analysis.free_energy import committee_widening
from latf_openmm.analysis.generate import distance_warning, temperature_warning
from latf_openmm.analysis.pool import Pool
from latf_openmm.data.blocks import FrameBlocks, bootstrap_widening
from latf_openmm.data.estimators import statistical_inefficiency
from latf_openmm.data.ladder import Reweighting, energies_known
from latf_openmm.data.weights import canonical_weights, members_of_runs, normalised_weights
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.units import SCALES

Array = NDArray[np.float64]
Level = Literal["reweighted", "flow"]
Verdict = Literal["good", "fair", "poor"]

_ENOUGH, _FEW = 100.0, 30.0  # independent frames, effectively
_SHARE = 0.3
_DRAWS = 60
_BLOCKS = 20
_SAMPLES = 20_000
_NEIGHBOURS = 24
_HEAVY = 0.05
_DISAGREE = 3.0  # errors
_CHUNK = 2000  # frames of a trajectory at a time


def weighted_variance(weights: Array, values: Array) -> float:
    """Variance of values (n,) under weights (n,) that sum to one."""
    return float(weights @ (values - weights @ values) ** 2)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; twice the error is what two standard errors would cover."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.2g}"


@dataclass(frozen=True)
class StructureEnsemble:
    """Frames of the pool with weights that make them an ensemble at one temperature; made by `ensemble_at`.

    Attributes
    ----------
    temperature
        In the model's scale.
    kT
        Thermal energy [kJ/mol].
    level
        How the weights were made.
    pool
        Where the frames are.
    weights
        Of every frame of the pool; they sum to one; shape (n_frames,).
    replicates
        The same in bootstrap samples of the frames, or by each member of the committee; (n_replicates, n_frames).
    widening
        What the standard deviation over the replicates is multiplied with to be a standard error.
    independent
        Effective number of independent frames: (sum w)^2 / sum g w^2 with the statistical inefficiency g of each
        frame's run.
    warnings
        What a reader has to know before trusting the result.
    verdict
        ``good``: 100 independent frames or more carry it; ``fair``: fewer, or the flow between temperatures that
        frames reach; ``poor``: beyond all of them, a few frames, or the flow and the frames contradict each other.
    """

    temperature: float
    kT: float  # noqa: N815 - the field's own name
    level: Level
    pool: Pool
    weights: Array
    replicates: NDArray[np.float32]
    widening: float
    independent: float
    warnings: tuple[str, ...]
    verdict: Verdict

    @property
    def ess(self) -> float:
        """Kish's effective sample size; correlation in time is not considered."""
        return float(1.0 / (self.weights**2).sum())

    @property
    def largest_weight(self) -> float:
        """Share of the frame that weighs most."""
        return float(self.weights.max())

    def estimate(self, statistic: Callable[[Array], float]) -> Estimate:
        """Return a statistic of the weights with its error.

        Parameters
        ----------
        statistic
            From weights of all frames, which sum to one, to a number.
        """
        return self.with_error(statistic(self.weights), self.over_replicates(statistic))

    def over_replicates(self, statistic: Callable[[Array], float]) -> Array:
        """Return a statistic of the weights in every replicate, shape (n_replicates,)."""
        return np.array([statistic(row.astype(np.float64)) for row in self.replicates])

    def with_error(self, value: float, spread: Array) -> Estimate:
        """Return a value with the error that its values in the replicates (n_replicates,) say."""
        error = self.widening * float(spread.std(ddof=1)) if len(spread) > 1 else float("nan")
        return Estimate(float(value), error)

    def expectation(
        self,
        values: ArrayLike | Callable[[mdtraj.Trajectory], ArrayLike],
        topology: mdtraj.Topology | None = None,
    ) -> Estimate:
        """Return the mean of a quantity with its error.

        Parameters
        ----------
        values
            Of every frame of the pool, shape (n_frames,); or a function of an MDTraj trajectory that returns one
            number for each of its frames.
        topology
            Of one copy of the system, for a function.
        """
        if callable(values):
            if topology is None:
                raise ConfigError("topology: has to be given for a function of trajectories")
            values = self.observe(values, topology)
        x = np.asarray(values, dtype=np.float64)
        if x.shape != self.weights.shape:
            raise DataError(f"values of shape {x.shape} for a pool of {len(self.weights)} frames")
        return self.estimate(lambda weights: float(weights @ x))

    def energy(self) -> Estimate:
        """Mean potential energy [kJ/mol]."""
        return self.expectation(self.energies())

    def heat_capacity(self) -> Estimate:
        """Configurational heat capacity (<U^2> - <U>^2) / (kT)^2, in units of k_B (of R, a mole)."""
        u = self.energies() / self.kT
        return self.estimate(lambda weights: weighted_variance(weights, u))

    def populations(self) -> list[Estimate]:
        """Population of each metastable state."""
        n = int(self.pool.states.max()) + 1
        return [self.expectation(self.pool.states == state) for state in range(n)]

    def observe(self, function: Callable[[mdtraj.Trajectory], ArrayLike], topology: mdtraj.Topology) -> Array:
        """Return a function of an MDTraj trajectory for every frame of the pool, shape (n_frames,).

        Trajectories are read one walker at a time and given in pieces.
        """
        parts = []
        for walker in self.pool.walkers:
            trajectory = walker.load(topology)
            for start in range(0, trajectory.n_frames, _CHUNK):
                piece = trajectory[start : start + _CHUNK]
                values = np.asarray(function(piece), dtype=np.float64)
                if values.shape != (piece.n_frames,):
                    raise DataError(
                        f"the observable returns shape {values.shape} for {piece.n_frames} frames; "
                        "expected one number a frame"
                    )
                parts.append(values)
        return np.concatenate(parts)

    def draw(self, n: int, seed: int = 0) -> NDArray[np.int64]:
        """Indices of `n` frames that stand for the ensemble without weights, by systematic resampling."""
        places = (np.arange(n) + np.random.default_rng(seed).random()) / n
        chosen = np.searchsorted(np.cumsum(self.weights), places)
        return np.minimum(chosen, len(self.weights) - 1).astype(np.int64)

    def trajectory(self, n: int, topology: mdtraj.Topology, seed: int = 0) -> mdtraj.Trajectory:
        """Return `n` structures that stand for the ensemble without weights; some may be there several times."""
        return self.pool.structures(self.draw(n, seed), topology)

    def representatives(self) -> dict[int, int]:
        """One frame for each state: that with the least weighted distance to the others of the state, in z."""
        scale = self.pool.z.std(axis=0) + 1e-12
        found = {}
        for state in np.unique(self.pool.states):
            mine = np.flatnonzero((self.pool.states == state) & (self.weights > 0))
            if len(mine):
                centre = np.average(self.pool.z[mine], axis=0, weights=self.weights[mine])
                off = ((self.pool.z[mine] - centre) / scale) ** 2
                found[int(state)] = int(mine[off.sum(axis=1).argmin()])
        return found

    def energies(self) -> Array:
        """Potential energy of every frame of the pool [kJ/mol].

        Raises
        ------
        DataError
            If it is not known.
        """
        if not energies_known(self.pool.trajectories):
            raise DataError("the potential energies of the frames are not known")
        return np.concatenate([t.potential_energy for t in self.pool.trajectories])


class EnsembleMaker:
    """Makes ensembles at one temperature after the other; what they share is computed once.

    Parameters
    ----------
    trained
        The model.
    pool
        All frames under it.
    seed
        Of the bootstrap, whose samples are the same at every temperature, and of the flow's samples.
    """

    def __init__(self, trained: TrainedModel, pool: Pool, seed: int = 0) -> None:
        self.trained = trained
        self.pool = pool
        self.seed = seed
        self.reweighting: Reweighting | None = None
        if energies_known(pool.trajectories):
            self.reweighting = Reweighting(pool.trajectories, np.random.default_rng(seed))
        self.blocks = FrameBlocks(pool.trajectories, _BLOCKS)
        self.inefficiency = _inefficiency(pool)
        self.enough = _ENOUGH
        if self.reweighting is not None:
            weights = [self.reweighting.log_weights(t) for t in self.reweighting.simulated]
            fewest = min(self._independent(normalised_weights(logs)) for logs in weights)
            self.enough = min(_ENOUGH, _SHARE * fewest)

    def at(self, temperature: float, level: Level | None = None) -> StructureEnsemble:
        """Return the ensemble at a temperature, as `ensemble_at` does."""
        if not temperature > 0:
            raise ConfigError(f"temperature: must be above 0, got {temperature:g}")
        if level == "reweighted" and self.reweighting is None:
            raise ConfigError("level: reweighting needs the potential energies of the frames")
        if self.reweighting is None:
            return self._by_flow(temperature, None, None)
        found = self._reweighted(temperature, self.reweighting)
        if level == "reweighted" or (level is None and found.independent >= self.enough):
            return found
        return self._by_flow(temperature, self.reweighting, found)

    def _kT(self, temperature: float) -> float:  # noqa: N802 - the field's own name
        return SCALES[self.trained.temperature_scale].kT(temperature)

    def _independent(self, weights: Array) -> float:
        """Effective number of independent frames."""
        return float(1.0 / (self.inefficiency * weights**2).sum())

    def _reweighted(self, temperature: float, reweighting: Reweighting) -> StructureEnsemble:
        weights = normalised_weights(reweighting.log_weights(temperature))
        rng = np.random.default_rng([self.seed, 1])
        replicates = np.empty((_DRAWS, len(weights)), np.float32)
        for draw in range(_DRAWS):
            counts = self.blocks.bootstrap(rng)
            replicates[draw] = normalised_weights(reweighting.redrawn(counts, temperature))
        independent = self._independent(weights)
        return StructureEnsemble(
            temperature,
            self._kT(temperature),
            "reweighted",
            self.pool,
            weights,
            replicates,
            bootstrap_widening(self.blocks.groups),
            independent,
            tuple(_weight_warnings(self.trained, temperature, weights, independent)),
            "good" if independent >= _ENOUGH else "fair" if independent >= _FEW else "poor",
        )

    def _by_flow(
        self, temperature: float, reweighting: Reweighting | None, other: StructureEnsemble | None
    ) -> StructureEnsemble:
        trained, pool = self.trained, self.pool
        logs = (
            np.log(np.maximum(np.concatenate(canonical_weights(pool.trajectories)), 1e-300))
            if reweighting is None
            else reweighting.log_weights(temperature)
        )
        members, distance = _near_samples(trained, pool, temperature, logs, self.seed)
        weights = members.mean(axis=0)
        found = StructureEnsemble(
            temperature,
            self._kT(temperature),
            "flow",
            pool,
            weights,
            members.astype(np.float32),
            committee_widening(len(members)) if len(members) > 1 else 1.0,
            self._independent(weights),
            (),
            "fair" if _within_reach(trained, temperature) else "poor",
        )
        verdict = found.verdict
        warnings = _weight_warnings(trained, temperature, weights, np.inf)
        if warning := temperature_warning(trained, temperature):
            warnings.append(warning)
        if other is not None:
            contradictions = _disagreement(found, other) if other.verdict != "poor" else []
            warnings += [*other.warnings[:1], *contradictions]  # that frames are too few
            verdict = "poor" if contradictions else verdict
        if warning := distance_warning(distance):
            warnings.append(warning)
        return replace(found, warnings=tuple(dict.fromkeys(warnings)), verdict=verdict)


def ensemble_at(
    trained: TrainedModel, pool: Pool, temperature: float, level: Level | None = None, seed: int = 0
) -> StructureEnsemble:
    """Return structures with weights at a temperature.

    Parameters
    ----------
    trained
        The model.
    pool
        All frames under it.
    temperature
        In the model's scale.
    level
        How to weight; default: reweighting where it leaves 100 effective independent frames, or 30 % of those that
        the simulated temperatures have; else the flow.
    seed
        Of the bootstrap and of the flow's samples.

    Raises
    ------
    ConfigError
        If the temperature is not positive, or reweighting is asked for without potential energies.
    """
    return EnsembleMaker(trained, pool, seed).at(temperature, level)


def _inefficiency(pool: Pool) -> Array:
    """Statistical inefficiency of each frame's run, shape (n_frames,)."""
    g = np.ones(len(pool.z))
    for members in members_of_runs(pool.trajectories):
        value = statistical_inefficiency([pool.z[pool.of_walker(i)] for i in members])
        for i in members:
            g[pool.of_walker(i)] = value
    return g


@torch.no_grad()
def _near_samples(
    trained: TrainedModel, pool: Pool, temperature: float, logs: Array, seed: int
) -> tuple[Array, Array]:
    """Weights of all frames by each member of the committee, and the distance of each sample to a frame."""
    model = trained.model
    z = model.density(temperature).sample(_SAMPLES, torch.Generator().manual_seed(seed)).double().numpy()
    scale = pool.z.std(axis=0) + 1e-12
    k = min(_NEIGHBOURS, len(pool.z))
    distance, near = cKDTree(pool.z / scale).query(z / scale, k=k)
    distance, near = distance.reshape(len(z), k), near.reshape(len(z), k)
    share = np.exp(logs[near] - logsumexp(logs[near], axis=1, keepdims=True))
    members = []
    for i in range(model.n_members):
        own = slice(i, None, model.n_members)
        counts = np.bincount(near[own].ravel(), share[own].ravel(), len(pool.z))
        members.append(counts / counts.sum())
    return np.array(members), distance[:, 0]


def _weight_warnings(
    trained: TrainedModel, temperature: float, weights: Array, independent: float
) -> list[str]:
    found = []
    if independent < _ENOUGH:
        label = SCALES[trained.temperature_scale].label(temperature)
        found.append(f"only about {independent:.3g} independent frames can be reweighted to {label}")
    if weights.max() > _HEAVY:
        found.append(f"one frame has {100 * weights.max():.0f} % of the weight")
    return found


def _within_reach(trained: TrainedModel, temperature: float) -> bool:
    """Whether frames reach temperatures on both sides, or this one was simulated."""
    ladder = [rung for rung, _ in trained.provenance.get("ladder") or []]
    reached = [*ladder, *trained.temperatures]
    if not trained.model.sees_temperature:
        reached = list(trained.temperatures)
    return min(reached) * (1 - 1e-6) <= temperature <= max(reached) * (1 + 1e-6)


def _disagreement(flow: StructureEnsemble, other: StructureEnsemble) -> list[str]:
    """States whose populations by the flow and by reweighting are further apart than their errors."""
    found = []
    for state, (one, two) in enumerate(zip(flow.populations(), other.populations(), strict=True)):
        if abs(one.value - two.value) > max(0.02, _DISAGREE * float(np.hypot(one.error, two.error))):
            found.append(f"state {state}: the flow says {one}, reweighting says {two}")
    return found
