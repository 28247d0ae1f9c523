"""Population annealing: walkers carried from one temperature to another, with weights that stay exact.

Walkers that stand for the Boltzmann distribution at one temperature are carried to the next in small steps. At each
step from beta to beta', a walker of potential energy U gains the weight exp(-(beta' - beta) U); walkers are resampled
where few have most of the weight; then Langevin dynamics propagates each at its new temperature. However short the
dynamics, weighted averages tend to those of the Boltzmann distribution as walkers become many (annealed importance
sampling: Neal, Stat. Comput. 2001; population annealing: Hukushima and Iba, AIP Conf. Proc. 2003; Machta, Phys. Rev.
E 2010). At constant pressure U + pV stands for U. What the time step does to the distribution stays in, as in any
simulation.

Resampling may favour walkers by a lookahead (guiding function), any positive function psi of their positions, if they
keep the weight 1 / psi (auxiliary particle filters: Pitt and Shephard, J. Am. Stat. Assoc. 1999). With psi near
p_target(z) / p_T(z) the walkers that the target needs are not lost on the way.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from latf_openmm.sampling.population import Population, changed, next_temperature, resampled
from latf_openmm.sampling.propagator import SETTLE, Propagator
from latf_openmm.settings import Settings

Array = NDArray[np.float64]
Lookahead = Callable[[Array, Array | None, float, float], Array]
"""Log of a lookahead of positions (n, n_atoms, 3), boxes (n, 3, 3) or None, at a temperature on the way to a target."""

_SAME = 1e-9
"""Relative difference of temperatures that are taken for equal."""


class AnnealingSettings(Settings):
    """Settings for walkers that are carried to another temperature."""

    walkers: int = Field(400, ge=10, le=100_000, description="walkers of the population")
    steps: int = Field(
        250, ge=1, description="steps after each change of temperature, and between frames kept at its end"
    )
    frames: int = Field(
        10, ge=1, le=10_000, description="frames kept of each walker at the temperature wanted"
    )
    overlap: float = Field(
        0.7,
        gt=0.05,
        lt=0.99,
        description="share of the walkers effectively left by one change of temperature",
    )


@dataclass(frozen=True)
class Annealed:
    """Walkers at a temperature that was asked for.

    Attributes
    ----------
    population
        The walkers at the end.
    positions
        Frames kept, shape (n_frames, n_walkers, n_atoms, 3) [nm].
    boxes
        Shape (n_frames, n_walkers, 3, 3) [nm], or None.
    energies
        At constant pressure U + pV, shape (n_frames, n_walkers) [kJ/mol].
    """

    population: Population
    positions: Array
    boxes: Array | None
    energies: Array


def anneal(
    propagator: Propagator,
    start: Population,
    targets: Sequence[float],
    settings: AnnealingSettings,
    seed: int,
    lookahead: Lookahead | None = None,
    keep: Path | None = None,
    advance: Callable[[float, str], None] = lambda amount, note: None,
) -> Iterator[Annealed]:
    """Carry walkers from one target to the next; give them at each, after some dynamics there.

    Parameters
    ----------
    targets
        Temperatures in the order in which they are to be reached.
    lookahead
        Log of the lookahead; None: walkers are resampled by their weights only.
    keep
        File that holds the walkers after every change of temperature; where it exists, they continue from there. The
        frames kept at a target stand in the folder of the same name without its ending until the consumer has them.
    advance
        Told of every step of all walkers done, those of an interrupted call at once.

    Yields
    ------
    Annealed
        For each target, in order. The consumer has to keep it before the next one is asked for.
    """
    population, scale = start, propagator.system.scale
    each = (settings.steps + SETTLE) * len(start)
    if keep is not None and keep.is_file():
        population, every = Population.load(keep), len(targets)
        targets = _remaining(start.temperature, population, targets)
        frames_done = settings.frames * (every - len(targets)) + len(_kept_frames(keep, population))
        advance(each * (population.changes + frames_done), f"at {scale.label(population.temperature)}")
    for target in targets:
        while abs(population.temperature / target - 1) > _SAME:
            temperature = next_temperature(population, target, scale, settings.overlap)
            population = changed(population, temperature, scale)
            if lookahead is None:
                log_lookahead = np.zeros(len(population))
            else:
                log_lookahead = lookahead(population.positions, population.boxes, temperature, target)
            rng = np.random.default_rng([seed, population.changes])
            population = resampled(population, log_lookahead, rng)
            population = propagator.propagated(population, settings.steps, _seed(seed, population.changes, 0))
            if keep is not None:
                population.save(keep)
            advance(each, f"at {scale.label(temperature)}")
        frames = [] if keep is None else _kept_frames(keep, population)
        population = frames[-1] if frames else population
        for frame in range(len(frames), settings.frames):
            population = propagator.propagated(
                population, settings.steps, _seed(seed, population.changes, 1 + frame)
            )
            frames.append(population)
            if keep is not None:
                population.save(_frame_file(keep, frame))
            advance(each, f"at {scale.label(target)}")
        yield _annealed(frames)
        if keep is not None:
            replace(population, recorded=True).save(keep)
            _forget_frames(keep)


def forget(keep: Path) -> None:
    """Remove the file of the walkers, and the frames that stand beside it."""
    keep.unlink(missing_ok=True)
    _forget_frames(keep)


def frames_beside(keep: Path) -> list[Path]:
    """Files of the frames that an interrupted call kept, in order."""
    return sorted(keep.with_suffix("").glob("frame_*.npz"))


def _forget_frames(keep: Path) -> None:
    shutil.rmtree(keep.with_suffix(""), ignore_errors=True)


def _frame_file(keep: Path, frame: int) -> Path:
    folder = keep.with_suffix("")
    folder.mkdir(exist_ok=True)
    return folder / f"frame_{frame:05d}.npz"


def _kept_frames(keep: Path, population: Population) -> list[Population]:
    """Frames that an interrupted call kept of these walkers; those of an earlier temperature are removed."""
    frames = [Population.load(path) for path in frames_beside(keep)]
    if frames and frames[0].changes != population.changes:
        _forget_frames(keep)
        return []
    return frames


def _annealed(frames: list[Population]) -> Annealed:
    boxes = [frame.boxes for frame in frames if frame.boxes is not None]
    return Annealed(
        frames[-1],
        np.array([frame.positions for frame in frames]),
        np.array(boxes) if boxes else None,
        np.array([frame.energies for frame in frames]),
    )


def _remaining(start: float, population: Population, targets: Sequence[float]) -> list[float]:
    """Goals whose frames are not kept yet."""
    now, up = population.temperature, targets[0] > start
    reached = [t for t in targets if abs(t / now - 1) <= _SAME and not population.recorded]
    return reached + [t for t in targets if abs(t / now - 1) > _SAME and (t > now) == up]


def _seed(seed: int, change: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, change, part]).generate_state(1)[0])


def expected_changes(start: float, target: float, heat_capacity: float, overlap: float) -> int:
    """Changes of temperature from start to target where energies are Gaussian.

    A change d beta leaves exp(-(d beta)^2 var U) of the walkers, and var U = C (kT)^2.

    Parameters
    ----------
    heat_capacity
        In units of k_B.
    """
    length = abs(math.log(start / target)) * math.sqrt(max(heat_capacity, 1e-9))
    return max(1, math.ceil(length / math.sqrt(-math.log(overlap))))
