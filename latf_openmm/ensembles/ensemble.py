"""Structures with weights at one temperature, and what is estimated from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import mdtraj
import numpy as np
from numpy.typing import ArrayLike, NDArray

from latf_openmm.display import Table, card, count, with_error
from latf_openmm.ensembles.pool import Pool
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.trajectory import energies_known
from latf_openmm.reweighting.free_energy import LatentGrid
from latf_openmm.reweighting.reliability import MEANINGS, MIN_SEEN_SAMPLES, Reliability, reliability_text
from latf_openmm.reweighting.replicates import Replicates, Statistic
from latf_openmm.reweighting.surface import FreeEnergySurface, cells_of
from latf_openmm.reweighting.weights import systematic
from latf_openmm.units import TemperatureScale

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_CELLS = 40
"""Cells along each variable of a free energy."""
Method = Literal["reweighted", "conditional", "annealed", "flow"]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; twice the error is what two standard errors would cover."""

    value: float
    error: float

    def __str__(self) -> str:
        return with_error(self.value, self.error)


@dataclass(frozen=True, repr=False)
class StructureEnsemble:
    """Frames with weights that make them an ensemble at one temperature.

    Made by `ensemble_at` from the frames there are, or by `latf_openmm.run.annealed` from new ones.

    Attributes
    ----------
    temperature
        In the model's scale.
    kT
        Thermal energy [kJ/mol].
    method
        How the weights were made.
    description
        The same, for people.
    pool
        Where the frames are.
    weights
        Of every frame of the pool; they sum to one; shape (n_frames,).
    replicates
        The same in bootstrap samples of the frames, or by each member of the committee.
    widening
        What the standard deviation over the replicates is multiplied with to be a standard error.
    clusters
        Frames of one cluster count as one; shape (n_frames,). Of simulated frames each is its own, annealed ones with a
        common ancestor are one.
    inefficiency
        Statistical inefficiency g of each cluster, shape (n_clusters,).
    n_effective
        Number of effective samples: the least of (sum W)^2 / sum g W^2 over the weights W of clusters, and of
        variance / error^2 of energy and populations, since walkers may hardly cross and windows hardly overlap; of
        annealed frames, which forget where they came from, the latter alone.
    warnings
        What a reader has to know before trusting the result; first why the reliability is poor, where it is.
    reliability
        ``good``: 100 effective samples or more carry it; ``fair``: 30 or more, conditional energies beyond the
        simulated temperatures, temperatures that contradict each other, or the flow between temperatures that frames
        reach; ``poor``: beyond all of them, a few frames, or the flow and the frames contradict each other. Three times
        as many are asked for where all come from one trajectory.
    shifted_energies
        Energies of the frames as this ensemble has them [kJ/mol], where weights do not give their distribution, shape
        (n_frames,); None: those of the frames.
    """

    temperature: float
    kT: float  # noqa: N815 - the field's own name
    method: Method
    description: str
    pool: Pool
    weights: Array
    replicates: Replicates
    widening: float
    clusters: NDArray[np.int64]
    inefficiency: Array
    n_effective: float
    warnings: tuple[str, ...]
    reliability: Reliability
    shifted_energies: Array | None = None

    def __repr__(self) -> str:
        n = f"{count(self.n_effective)} effective samples"
        label = self.scale.label(self.temperature)
        return f"StructureEnsemble({label}, {self.method}, {n}, reliability {self.reliability})"

    def _repr_html_(self) -> str:
        words = f"{self.reliability}: {MEANINGS[self.reliability]}"
        facts = {
            "structures": f"{len(self.weights):,} weighted frames: {self.description}",
            "effective samples": count(self.n_effective),
            "reliability": words,
        }
        rows = [[str(state), with_error(p.value, p.error)] for state, p in enumerate(self.populations())]
        table = Table(["state", "population"], rows)
        title = f"Ensemble at {self.scale.label(self.temperature)}"
        return card(title, facts, [table], [f"Warning: {text}" for text in self.warnings])

    @property
    def verdict(self) -> str:
        """Reliability, what it means, and, where it is poor, why."""
        why = self.warnings[:1] if self.reliability == "poor" else ()
        return reliability_text(self.reliability) + "".join(f", since {text}" for text in why)

    @property
    def ess(self) -> float:
        """Kish's effective sample size; correlation in time is not considered."""
        return float(1.0 / (self.weights**2).sum())

    @property
    def largest_weight(self) -> float:
        """Share of the frame that weighs most."""
        return float(self.weights.max())

    def estimate(self, statistic: Statistic | Callable[[Array], float]) -> Estimate:
        """Return a statistic of the weights with its error.

        Parameters
        ----------
        statistic
            A function of weighted means; or, slower with many frames, any function from weights of all frames, which
            sum to one, to a number.
        """
        if isinstance(statistic, Statistic):
            return self.with_error(statistic.of(self.weights), self.replicates.of(statistic))
        spread = np.array([statistic(row) for row in self.replicates.rows()])
        return self.with_error(statistic(self.weights), spread)

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
        if ((x == 0) | (x == 1)).all():
            return self.fraction(x == 1)
        return self.estimate(Statistic.mean(x))

    def n_effective_in(self, chosen: Mask) -> float:
        """Number of effective samples among the chosen ones (n_frames,)."""
        totals = np.bincount(self.clusters, self.weights * chosen, len(self.inefficiency))
        squares = float((self.inefficiency * totals**2).sum())
        return float(totals.sum() ** 2 / squares) if squares > 0 else 0.0

    def seen(self, chosen: Mask) -> bool:
        """Return whether the chosen frames, and the others, are enough effective samples to say how many they are."""
        return min(self.n_effective_in(chosen), self.n_effective_in(~chosen)) >= MIN_SEEN_SAMPLES

    def fraction(self, chosen: Mask) -> Estimate:
        """Return the share of the chosen frames (n_frames,).

        Where they, or the others, are fewer than 3 effective samples, which a bootstrap says little of, the error is at
        least 1 / (n + 4) with n the effective samples of all: twice that is Wilson's bound for what was never seen.
        """
        return self._guarded(self.estimate(Statistic.mean(chosen)), chosen)

    def _guarded(self, estimate: Estimate, chosen: Mask) -> Estimate:
        """Return the share of frames with an error that holds where there are few."""
        if self.seen(chosen):
            return estimate
        return Estimate(estimate.value, max(estimate.error, 1.0 / (self.n_effective + 4.0)))

    def free_energy_difference(self, start: Mask, end: Mask) -> Estimate:
        """Return -kT ln(p_end / p_start) of two sets of frames (n_frames,) [kJ/mol].

        The value is infinite, and the error not a number, where one of them has no weight.
        """
        difference = self.free_energy_statistic(start, end)
        spread = self.replicates.of(difference)
        spread = spread[np.isfinite(spread)]
        value = difference.of(self.weights)
        if not np.isfinite(value) or len(spread) < 0.9 * len(self.replicates):
            return Estimate(value, float("nan"))
        return self.with_error(value, spread)

    def free_energy_statistic(self, start: Mask, end: Mask) -> Statistic:
        """Return the difference of free energy of two sets of frames (n_frames,) as a statistic [kJ/mol]."""

        def difference(means: Array) -> Array:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(-self.kT * (np.log(means[..., 1]) - np.log(means[..., 0])))

        return Statistic(np.stack([start, end], axis=1).astype(np.float64), difference)

    def energy(self) -> Estimate:
        """Mean potential energy [kJ/mol]."""
        return self.expectation(self.energies())

    def heat_capacity(self) -> Estimate:
        """Configurational heat capacity (<U^2> - <U>^2) / (kT)^2, in units of k_B (of R, a mole)."""
        u = self.energies() / self.kT
        return self.estimate(Statistic.variance(u))

    def populations(self) -> list[Estimate]:
        """Population of each metastable state."""
        states = self.pool.states
        inside = states[:, None] == np.arange(self.n_states)
        shares, spreads = self.weights @ inside, self.replicates.means(inside.astype(np.float64))
        return [
            self._guarded(self.with_error(share, spread), states == state)
            for state, (share, spread) in enumerate(zip(shares, spreads.T, strict=True))
        ]

    @property
    def n_states(self) -> int:
        """Metastable states of the model."""
        return self.pool.n_states

    @property
    def scale(self) -> TemperatureScale:
        """Scale of the temperature."""
        return self.pool.trajectories[0].scale

    def free_energy(
        self,
        values: ArrayLike | None = None,
        grid: LatentGrid | None = None,
        periods: Sequence[float] | None = None,
    ) -> FreeEnergySurface:
        """Return the free energy of the collective variables, or of one or two other variables, with errors.

        Parameters
        ----------
        values
            Variables of every frame of the pool, shape (n_frames,) or (n_frames, 2); default: collective variables.
        grid
            Default: 40 cells along each variable, where the frames are.
        periods
            Of the variables; 0: not periodic. Default: none is.

        Raises
        ------
        DataError
            If there is not one value a frame, or no frame is inside the grid.
        """
        z = self.pool.z if values is None else np.asarray(values, dtype=np.float64)
        z = z[:, None] if z.ndim == 1 else z
        if z.ndim != 2 or len(z) != len(self.weights):
            raise DataError(f"values of shape {z.shape} for a pool of {len(self.weights)} frames")
        if grid is None:
            grid = LatentGrid.around(z, points=_CELLS)
        labels, n = cells_of(z, grid, periods or [0.0] * z.shape[1])
        rows = [np.bincount(labels, row, n + 1) for row in (self.weights, *self.replicates.rows())]
        totals = np.array(rows, dtype=np.float64)
        return FreeEnergySurface.of_totals(grid, self.kT, (totals[0], totals[1:]), self.widening, self.scale)

    def observe(self, function: Callable[[mdtraj.Trajectory], ArrayLike], topology: mdtraj.Topology) -> Array:
        """Return a function of an MDTraj trajectory for every frame of the pool, shape (n_frames,).

        Trajectories are read and given in pieces.
        """
        parts = []
        for walker in self.pool.walkers:
            for piece in walker.chunks(topology):
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
        return systematic(self.weights, n, np.random.default_rng(seed))

    def trajectory(self, n: int, topology: mdtraj.Topology, seed: int = 0) -> mdtraj.Trajectory:
        """Return `n` structures that stand for the ensemble without weights; some may be there several times."""
        return self.pool.structures(self.draw(n, seed), topology)

    def representatives(self) -> dict[int, int]:
        """One frame for each state: that with the least weighted distance to the others of the state, in z."""
        scale = self.pool.z.std(axis=0) + 1e-12
        frames = {}
        for state in np.unique(self.pool.states):
            members = np.flatnonzero((self.pool.states == state) & (self.weights > 0))
            if len(members):
                centre = np.average(self.pool.z[members], axis=0, weights=self.weights[members])
                off = ((self.pool.z[members] - centre) / scale) ** 2
                frames[int(state)] = int(members[off.sum(axis=1).argmin()])
        return frames

    def energies(self) -> Array:
        """Potential energy of every frame of the pool [kJ/mol].

        Raises
        ------
        DataError
            If it is not known.
        """
        if not energies_known(self.pool.trajectories):
            raise DataError("the potential energies of the frames are not known")
        return self.pool.energies() if self.shifted_energies is None else self.shifted_energies


def mixture(first: StructureEnsemble, second: StructureEnsemble, share: float) -> StructureEnsemble:
    """Return two ensembles of one temperature as one, of which the first has the given share.

    Their replicates have to come from the same bootstrap samples: so the errors hold what the two have in common.
    """
    n = len(first.inefficiency)
    return replace(
        first,
        pool=first.pool.with_other(second.pool),
        weights=np.concatenate([share * first.weights, (1 - share) * second.weights]),
        replicates=first.replicates.mixture(second.replicates, share),
        clusters=np.concatenate([first.clusters, n + second.clusters]),
        inefficiency=np.concatenate([first.inefficiency, second.inefficiency]),
        shifted_energies=np.concatenate([first.energies(), second.energies()]),
    )
