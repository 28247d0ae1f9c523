"""What is compared: loops of this package that simulate all temperatures with the same number of force evaluations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.boltzmann_generators import target
from benchmarks.boltzmann_generators.scores import FOLDS, Frames
from benchmarks.boltzmann_generators.target import FRICTION, TEMPERATURES, TIMESTEP
from benchmarks.quality.cases import DIPEPTIDE, short_training
from latf_openmm.run.config import LoopSettings, RunConfig
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.loop import run_loop
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.sampling.tempering.exchange import ExchangeSettings
from latf_openmm.systems.python_file import PythonFileSettings

ALONE = ", one temperature"
HEAVY = " 2 fs"
NEIGHBOURS = " of neighbours"
METHODS = (
    f"fixed{ALONE}",
    "fixed",
    f"exchange{ALONE}",
    "exchange",
    f"exchange{NEIGHBOURS}",
    f"exchange{HEAVY}{ALONE}",
    f"exchange{HEAVY}",
)
"""Walkers that exchange temperatures, all pairs or neighbours, or stay, with 1 fs or, with heavier hydrogens, with
2 fs; frames of one temperature by themselves, or of all with the weights of ``generate``. In a first run, forces at
frames changed none of these weights."""
LAG = 5
"""Of the training [frames]; walkers move every `LAG + 1` frames."""
LIMIT = 13_000_000
"""Force evaluations that no method exceeds."""


@dataclass(frozen=True)
class Budget:
    """How much is simulated.

    Attributes
    ----------
    frames, interval
        Of the walker at each temperature, and steps between them.
    equilibration
        Steps of each walker that are left out.
    """

    frames: int = 25_600
    interval: int = 50
    equilibration: int = 20_000

    @property
    def steps(self) -> int:
        """Steps of all walkers."""
        return len(TEMPERATURES) * (self.frames * self.interval + self.equilibration)


@dataclass(frozen=True)
class Case:
    """One run of one method."""

    method: str
    seed: int
    budget: Budget = Budget()

    @property
    def name(self) -> str:
        return f"{self.method.replace(',', '').replace(' ', '_')}_{self.seed}"

    @property
    def simulated(self) -> "Case":
        """The case whose frames are used."""
        return replace(self, method=self.method.partition(",")[0])

    @property
    def evaluations(self) -> int:
        """Force evaluations: one a step."""
        return self.budget.steps

    def config(self) -> RunConfig:
        """The loop of a method."""
        simulated = self.simulated.method
        pairs: Literal["neighbours", "all"] = "neighbours" if simulated.endswith(NEIGHBOURS) else "all"
        exchange = ExchangeSettings(interval=LAG + 1, pairs=pairs) if "exchange" in simulated else None
        heavy = simulated.endswith(HEAVY)
        return RunConfig(
            system=PythonFileSettings(file=Path(target.__file__), function="make_heavy" if heavy else "make"),
            seed=self.seed,
            simulation=SimulationSettings(
                temperatures=list(TEMPERATURES),
                frames=self.budget.frames,
                frame_interval=self.budget.interval,
                timestep=2 * TIMESTEP if heavy else TIMESTEP,
                friction=FRICTION,
                equilibration=self.budget.equilibration,
                platform="Reference",
                tempering=exchange,
            ),
            features=list(DIPEPTIDE.features),
            model=DIPEPTIDE.model,
            training=short_training(LAG),
            loop=LoopSettings(rounds=1),
        )

    def frames(self, work: Path) -> Iterator[Frames]:
        """Weighted frames at each of `TEMPERATURES`, simulated unless they are there."""
        run = run_loop(self.config(), work / "runs" / self.simulated.name)
        reweighter = reweighter_of_round(run, 0)
        pool = reweighter.pool
        trajectories = featurise_walkers(run.config, list(pool.walkers), run.path)
        angles = np.radians(DIPEPTIDE.plane.project(np.concatenate([t.features for t in trajectories])))
        energy = pool.energies()
        folds = np.concatenate([np.arange(t.n_frames) * FOLDS // t.n_frames for t in trajectories])
        owner = np.concatenate([np.full(t.n_frames, t.temperature) for t in trajectories])
        for temperature in TEMPERATURES:
            if self.method.endswith(ALONE):
                rows = np.flatnonzero(owner == temperature)
                weights = np.full(len(rows), 1 / len(rows))
                yield Frames(angles[rows], energy[rows], weights, folds[rows])
            else:
                yield Frames(angles, energy, reweighter.weights(temperature), folds)
