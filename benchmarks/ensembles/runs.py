"""The runs of the ensembles benchmark: one round of the loop for each case, in a folder as a user's.

Cases and truths are those of `benchmarks/quality`, whose work folder may be used again.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.cases import SYSTEMS, Regime, SystemCase
from latf_openmm.model.checkpoint import TrainedModel, load_model
from latf_openmm.run.config import LoopSettings, RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.loop import run_loop
from latf_openmm.run.trainings import train_model
from latf_openmm.training.settings import TrainingSettings


@dataclass(frozen=True)
class Run:
    """One case: a system, how much of it was simulated, and the seed.

    Attributes
    ----------
    system, regime
        Names, as in `benchmarks/quality/cases.py`.
    seed
        Of simulation and training.
    """

    system: str
    regime: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.system}_{self.regime}_{self.seed}"

    @property
    def case(self) -> SystemCase:
        return SYSTEMS[self.system]

    @property
    def settings(self) -> Regime:
        return self.case.regimes[self.regime]

    @property
    def evaluations(self) -> int:
        """Force evaluations of one copy that its simulation took, equilibration included."""
        regime = self.settings
        steps = regime.frames * regime.interval + self.case.equilibration
        return len(regime.temperatures) * regime.walkers * steps

    def config(self) -> RunConfig:
        case, regime = self.case, self.settings
        return RunConfig(
            system=case.settings,
            seed=self.seed,
            simulation=case.simulation(regime, 1),
            features=list(case.features),
            model=case.model,
            training=TrainingSettings(lag=regime.lag),
            loop=LoopSettings(rounds=1),
        )

    def folder(self, work: Path) -> Path:
        return work / "ensembles" / self.name

    def simulated(self, work: Path) -> RunFolder:
        """Simulate and train, or what is left of it."""
        return run_loop(self.config(), self.folder(work))

    def prior_only(self, work: Path) -> TrainedModel:
        """Return the model in the paper's form, trained on the same frames."""
        run = self.simulated(work)
        folder = run.path / "prior_only"
        if not folder.is_dir():
            config = run.config
            paper = {"energies": "ignore", "restarts": 1, "committee": 1, "decorrelation": 0.0}
            flow = config.model.flow.model_copy(update={"context": "none"})
            changed = config.model_copy(
                update={
                    "training": config.training.model_copy(update=paper),
                    "model": config.model.model_copy(update={"flow": flow}),
                }
            )
            shutil.rmtree(folder.with_name("prior_only.partial"), ignore_errors=True)
            train_model(changed, featurise_walkers(run.config, run.walkers(0), run.path), folder, self.seed)
        return load_model(folder)


def chosen(systems: list[str] | None, regimes: list[str] | None, seeds: list[int] | None) -> list[Run]:
    """All cases wanted, the cheap ones first."""
    known = {
        "three_hole": ["scarce", "wide"],
        "lj7": ["scarce", "wide", "plentiful"],
        "alanine_dipeptide": ["scarce", "wide", "plentiful"],
    }
    return [
        Run(system, regime, seed)
        for plentiful in (False, True)
        for seed in seeds or range(1, 6)
        for system in systems or known
        for regime in known[system]
        if (regime == "plentiful") == plentiful and (regimes is None or regime in regimes)
    ]


def boltzmann_energy(run: Run, temperature: float) -> float:
    """Thermal energy [kJ/mol]."""
    return float(run.case.settings.scale.kT(np.float64(temperature)))
