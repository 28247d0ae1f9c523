"""Record of a complete round: populations, effective sample sizes, change of the distribution, hashes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latf_openmm.ensembles.pool import Pool
from latf_openmm.frames.moves import (
    energy_acceptances,
    exchange_acceptances,
    read_moves,
    round_trips,
    temperature_paths,
)
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.model.checkpoint import TrainedModel, versions
from latf_openmm.reweighting.free_energy import (
    LatentGrid,
    bootstrap_populations,
    flow_probability,
    jensen_shannon,
)
from latf_openmm.reweighting.weights import effective_sample_size, training_weights
from latf_openmm.run.configured import ConfiguredRun
from latf_openmm.run.records import (
    Change,
    Populations,
    RoundRecord,
    SampleSize,
    Seconds,
    TemperingRecord,
)
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.sampling.stage import SimulationSettings, read_dropped
from latf_openmm.storage import facts_below
from latf_openmm.units import TemperatureScale


def summary_of(
    run: ConfiguredRun, folder: RoundFolder, trained: TrainedModel, pool: Pool, seconds: Seconds
) -> RoundRecord:
    """Return the record of a round whose steps have ended.

    Parameters
    ----------
    run, folder
        The run and the round.
    trained, pool
        Its model, and all frames up to it under this model.
    seconds
        Wall time of each step.
    """
    config = run.config
    settings, biased = run.plan(folder.index)
    steps = settings.steps
    if folder.imported():
        steps = sum(len(walker.table) for walker in pool.walkers) * config.simulation.frame_interval
    return RoundRecord(
        round=folder.index,
        temperatures=list(settings.temperatures),
        dropped=read_dropped(folder.simulation),
        biased=bool(biased),
        n_states=trained.model.n_states,
        frames=len(pool.z),
        simulated_ps=steps * config.simulation.timestep,
        seconds=seconds,
        populations=pool_populations(pool, trained, run.config.seed),
        effective_sample_size=_sample_sizes(pool),
        change=_change(folder, trained, pool),
        restarts=_restarts(folder, pool),
        tempering=tempering_record(
            pool.walkers[n_earlier_walkers(folder, pool) :], folder.simulation, settings, run.scale
        ),
        versions=versions(),
        files=facts_below(folder.path, leave_out=(folder.record.name, "annealed")),
    )


def pool_populations(pool: Pool, trained: TrainedModel, seed: int) -> list[Populations]:
    """State populations of the pool's frames at each simulated temperature, with bootstrap errors."""
    weights = training_weights(pool.trajectories)
    rows = []
    for temperature in sorted({t.temperature for t in pool.trajectories}):
        members = [i for i, t in enumerate(pool.trajectories) if t.temperature == temperature]
        share, error = bootstrap_populations(
            [pool.states[pool.of_walker(i)] for i in members],
            [weights[i] for i in members],
            trained.model.n_states,
            np.random.default_rng(seed),
        )
        rows.append(Populations(temperature=temperature, populations=share.tolist(), errors=error.tolist()))
    return rows


def _sample_sizes(pool: Pool) -> list[SampleSize]:
    """Kish's effective sample size of each run's bias weights."""
    rows = []
    for run, temperature in sorted({(t.run, t.temperature) for t in pool.trajectories}):
        logs = np.concatenate([t.log_weights for t in pool.trajectories if t.run == run])
        rows.append(
            SampleSize(
                run=run, temperature=temperature, frames=len(logs), effective=effective_sample_size(logs)
            )
        )
    return rows


def _restarts(folder: RoundFolder, pool: Pool) -> dict[str, int]:
    """Number of times that groups of walkers of this round went on without their checkpoint, where there are any."""
    restarts = {
        walker.run: int(walker.table["restarts"].max())
        for walker in pool.walkers[n_earlier_walkers(folder, pool) :]
        if "restarts" in walker.table  # not of imported ones
    }
    return {run: count for run, count in restarts.items() if count}


def tempering_record(
    walkers: Sequence[WalkerFrames], stage: Path, settings: SimulationSettings, scale: TemperatureScale
) -> TemperingRecord | None:
    """Moves of the walkers of one stage among its temperatures; None where they stay, or there is no frame yet.

    Raises
    ------
    DataError
        If a file is damaged.
    """
    paths = temperature_paths(walkers)
    if settings.tempering is None or not paths:
        return None
    temperatures = sorted(settings.temperatures)
    if settings.tempering.between_walkers:
        acceptance = exchange_acceptances(read_moves(stage), temperatures)
    else:
        acceptance = energy_acceptances(walkers, {t: 1.0 / scale.kT(t) for t in temperatures})
    return TemperingRecord(
        kind=settings.tempering.kind,
        walkers=len(paths),
        round_trips=round_trips(paths, temperatures),
        acceptance=acceptance,
    )


def n_earlier_walkers(folder: RoundFolder, pool: Pool) -> int:
    """Count the walkers of the rounds before this one, which come first in its pool."""
    return sum(not walker.run.startswith(f"{folder.path.name}/") for walker in pool.walkers)


def _change(folder: RoundFolder, trained: TrainedModel, new: Pool) -> list[Change]:
    """Distance by which this round's weighted frames moved the distribution, in this round's latent plane.

    The frames up to the previous round and all frames, each under their own weights, are binned with this
    round's model, so that the two are compared in one plane.
    """
    if folder.index == 0:
        return []
    before = n_earlier_walkers(folder, new)
    old = new.first(before)
    grid = LatentGrid.around(new.z, points=30)
    rows = []
    for temperature in sorted(set(old.temperatures()) & set(new.temperatures()[new.owner >= before])):
        p, q = (_weighted_histogram(pool, temperature, grid) for pool in (old, new))
        flow = flow_probability(trained.model, temperature, grid)
        rows.append(
            Change(
                temperature=temperature, frames=jensen_shannon(p, q), flow_to_frames=jensen_shannon(flow, q)
            )
        )
    return rows


def _weighted_histogram(pool: Pool, temperature: float, grid: LatentGrid) -> NDArray[np.float64]:
    at_temperature = pool.temperatures() == temperature
    weights = np.concatenate(training_weights(pool.trajectories))
    return grid.histogram(pool.z[at_temperature], weights[at_temperature])
