"""Structures with weights at any temperature, by the best of the methods."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

from rich.progress import Progress

from latf_openmm.ensembles.annealing_plan import AnnealingPath
from latf_openmm.ensembles.combined import combined
from latf_openmm.ensembles.ensemble import (
    Method,
    StructureEnsemble,
)
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import SimulationError
from latf_openmm.progress import say
from latf_openmm.reweighting.reliability import AMPLE_SAMPLES, ANNEALING_GAIN, MAX_ANNEALING_COST
from latf_openmm.run.annealed import AnnealedEnsembles
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.sampling.propagator import Propagator
from latf_openmm.sampling.stage import check_simulated
from latf_openmm.units import check_temperature, duration

Choice = Literal["auto", Method]
"""Methods that can be asked for."""


def ensembles_at(
    run: RunFolder,
    index: int,
    temperatures: Sequence[float],
    method: Choice = "auto",
    minutes: float = 15.0,
    progress: Progress | None = None,
    reweighter: Reweighter | None = None,
) -> list[StructureEnsemble]:
    """Return structures with weights at each temperature, made in the best way there is.

    Parameters
    ----------
    run, index
        A run, and the round whose model and frames are used.
    temperatures
        In the scale of the system.
    method
        ``auto``: frames reweighted where 1000 effective samples reach the temperature, or where those that annealing
        would start from are worth less than 1.5 times as many; else walkers annealed to it, if
        it is within a factor of two of the simulated ones, that is thought to take at most `minutes`,
        put together with the reweighted ones so that errors are least (with fewer walkers, 100 at least, where all of
        it would cost more than 1.5 times what was simulated); else frames reweighted where there are
        enough, or by conditional energies, or those near the flow's samples. Or one of these.
    minutes
        See `method`.
    reweighter
        Of the same round, if there is one already.

    Raises
    ------
    ConfigError
        If a temperature is not positive, or the method cannot be made.
    DataError
        If a file that is used was damaged.
    SimulationError
        If walkers become unstable and `method` is ``annealed``.
    """
    for temperature in temperatures:
        check_temperature("temperature", temperature)
    if reweighter is None:
        reweighter = reweighter_of_round(run, index)
    if method in ("reweighted", "conditional", "flow"):
        return [reweighter.at(temperature, _plain(method)) for temperature in temperatures]
    if method == "annealed":
        check_simulated(run.config.system)
        return _Annealing(run, index, reweighter, progress).all_of(temperatures)
    if reweighter.weighting is None or not run.config.system.simulated:
        return [reweighter.at(temperature) for temperature in temperatures]
    return _Annealing(run, index, reweighter, progress).where_needed(temperatures, minutes)


class _Annealing:
    """Annealing of the temperatures of one call."""

    def __init__(self, run: RunFolder, index: int, reweighter: Reweighter, progress: Progress | None) -> None:
        self.annealed = AnnealedEnsembles(run, index, reweighter)
        self.reweighter, self.progress = reweighter, progress
        # Few starts serve many temperatures.
        self._effective_at = cache(lambda temperature: reweighter.at(temperature, "reweighted").n_effective)

    def all_of(self, temperatures: Sequence[float]) -> list[StructureEnsemble]:
        """Ensembles by annealing alone."""
        ensembles: dict[float, StructureEnsemble] = {}
        with self.annealed.propagator() as propagator:
            for path in self.annealed.paths(temperatures):
                ensembles |= zip(path.targets, self.annealed.at(path, propagator, self.progress), strict=True)
        return [ensembles[temperature] for temperature in temperatures]

    def where_needed(self, temperatures: Sequence[float], minutes: float) -> list[StructureEnsemble]:
        """Ensembles of the frames there are, with annealed ones where these are too few."""
        ensembles = {temperature: self.reweighter.at(temperature) for temperature in temperatures}
        wanted = []
        for temperature, ensemble in ensembles.items():
            if ensemble.method != "flow" and ensemble.n_effective >= AMPLE_SAMPLES:
                continue
            if far := self.annealed.far(temperature):
                warnings = (far, *ensemble.warnings)  # a slip of the pen is said first
                ensembles[temperature] = replace(ensemble, warnings=warnings, reliability="poor")
            elif vain := self._in_vain(ensemble):
                ensembles[temperature] = _with_warning(ensemble, vain)
            else:
                wanted.append(temperature)
        if wanted:
            paths = self.annealed.paths(wanted)
            self.annealed = self.annealed.within(
                paths, MAX_ANNEALING_COST * self.annealed.simulated_evaluations()
            )
            with self.annealed.propagator() as propagator:
                for path in paths:
                    self._add(ensembles, path, propagator, minutes)
        return [ensembles[temperature] for temperature in temperatures]

    def _in_vain(self, ensemble: StructureEnsemble) -> str | None:
        """Return what to say where annealed walkers would know no more than the frames do; None elsewhere."""
        temperature = ensemble.temperature
        start, label = self.annealed.start(temperature), self.annealed.scale.label
        if ensemble.method == "flow":  # frames hardly reach: do those of the start?
            n, known = self.reweighter.reach(start), self.reweighter.reach(temperature)
        else:
            n, known = self._effective_at(start), ensemble.n_effective
        if n >= ANNEALING_GAIN * known:
            return None
        return (
            f"annealing was left out: its walkers would start from {n:.0f} effective samples at {label(start)}, "
            f"and {label(temperature)} has {known:.0f}; longer simulations help"
        )

    def _add(
        self,
        ensembles: dict[float, StructureEnsemble],
        path: AnnealingPath,
        propagator: Propagator,
        minutes: float,
    ) -> None:
        """Put annealed walkers into the ensembles of a path, or the reason why there are none."""
        seconds = self.annealed.seconds(path, propagator)
        text = f"annealing would take about {duration(seconds)}; it was left out"
        if seconds <= 60 * minutes:
            if seconds > 0:
                say(
                    self.progress,
                    f"{self.annealed.words(path)}: about {duration(seconds)} where nothing else is at "
                    "work; --minutes sets the limit",
                )
            try:
                annealed = self.annealed.at(path, propagator, self.progress)
            except SimulationError as error:  # a damaged file is not passed over
                text = f"annealing failed: {error}"
            else:
                for target, ensemble in zip(path.targets, annealed, strict=True):
                    ensembles[target] = combined(ensembles[target], ensemble)
                return
        ensembles |= {target: _with_warning(ensembles[target], text) for target in path.targets}


def _plain(method: Choice) -> Method:
    assert method != "auto"
    return method


def _with_warning(ensemble: StructureEnsemble, text: str) -> StructureEnsemble:
    return replace(ensemble, warnings=(*ensemble.warnings, text))
