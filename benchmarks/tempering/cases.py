"""Cases of the tempering benchmark: systems, ladders, and how much is simulated by each method."""

from dataclasses import dataclass, replace

from benchmarks.quality.cases import SYSTEMS, SystemCase, short_training
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.run.config import LoopSettings, RunConfig
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.sampling.tempering import AnyTempering
from latf_openmm.sampling.tempering.exchange import ExchangeSettings
from latf_openmm.sampling.tempering.expanded import ExpandedSettings

REPLICA_EXCHANGE = "replica exchange"
FORCES = ", forces"
METHODS = (
    REPLICA_EXCHANGE,
    "fixed",
    "exchange",
    f"exchange{FORCES}",
    "exchange, all pairs",
    "expanded",
    "exchange + bias",
    "expanded + bias",
)
"""Replica exchange by itself, weighted by MBAR; and loops of this package, some with OPES in the second round. With
forces the frames are those without, weighted otherwise."""
WITHOUT_FORCES = ("lj7",)
"""Systems whose descriptors have kinks."""

BIASED_TIMESTEPS = {"alanine_dipeptide": 0.002}
"""A bias that grows is too stiff for the 4 fs that are right without one: kinetic temperatures rise [ps]."""
EQUILIBRATION = 20
"""Frames of each stage that every method leaves out."""


@dataclass(frozen=True)
class Ladder:
    """Simulated temperatures of a system, and how much is simulated.

    Attributes
    ----------
    temperatures
        Simulated; none of them is asked for.
    walkers
        Sets of walkers of the loops.
    frames, interval
        Of each walker, and steps between them.
    lag
        Of the training [frames]; walkers move every `lag + 1` frames.
    barrier
        Of OPES [kJ/mol].
    pace
        Of OPES [steps].
    """

    temperatures: tuple[float, ...]
    walkers: int
    frames: int
    interval: int
    lag: int
    barrier: float
    pace: int = 100


LADDERS = {
    "three_hole": Ladder((0.45, 0.6, 0.85, 1.15, 1.5, 2.1), 1, 960, 50, 2, 3.0),
    "lj7": Ladder((0.18, 0.25, 0.34, 0.45, 0.55, 0.75), 1, 3200, 100, 1, 3.0),
    "alanine_dipeptide": Ladder(
        (290.0, 325.0, 375.0, 450.0, 550.0, 650.0, 740.0), 1, 3000, 125, 2, 25.0, 500
    ),
}


@dataclass(frozen=True)
class Case:
    """One run of one method."""

    system: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.system}_{self.method.replace(',', '').replace(' ', '_')}_{self.seed}"

    @property
    def simulated(self) -> "Case":
        """The case whose frames are used."""
        return replace(self, method=self.method.removesuffix(FORCES))

    @property
    def case(self) -> SystemCase:
        return SYSTEMS[self.system]

    @property
    def ladder(self) -> Ladder:
        return LADDERS[self.system]

    @property
    def rounds(self) -> int:
        return 2 if self.method.endswith("bias") else 1

    @property
    def evaluations(self) -> int:
        """Force evaluations of one copy."""
        ladder = self.ladder
        frames = ladder.frames + self.rounds * EQUILIBRATION
        return len(ladder.temperatures) * ladder.walkers * frames * ladder.interval

    def config(self) -> RunConfig:
        """The loop of a method."""
        case, ladder = self.case, self.ladder
        interval = ladder.lag + 1
        tempering: dict[str, AnyTempering | None] = {
            "fixed": None,
            "exchange": ExchangeSettings(
                interval=interval, pairs="all" if self.method.endswith("all pairs") else "neighbours"
            ),
            "expanded": ExpandedSettings(interval=interval),
        }
        biased = self.rounds == 2
        frames = ladder.frames // self.rounds
        return RunConfig(
            system=case.settings,
            seed=self.seed,
            simulation=SimulationSettings(
                temperatures=list(ladder.temperatures),
                walkers=ladder.walkers,
                frames=frames,
                frame_interval=ladder.interval,
                timestep=BIASED_TIMESTEPS.get(self.system, case.timestep) if biased else case.timestep,
                friction=case.friction,
                equilibration=EQUILIBRATION * ladder.interval,
                tempering=tempering[self.method.split(" ")[0].strip(",")],
            ),
            features=list(case.features),
            model=case.model,
            training=short_training(ladder.lag),
            bias=OpesSettings(barrier=ladder.barrier, pace=ladder.pace) if biased else None,
            loop=LoopSettings(rounds=self.rounds),
        )
