"""A run on disk with its configuration: how each round is simulated, and whether tasks are left."""

from pathlib import Path

from latf_openmm.errors import DataError, first_line
from latf_openmm.run.config import RunConfig
from latf_openmm.run.ending import ended
from latf_openmm.run.paths import RunPaths
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.units import TemperatureScale


class ConfiguredRun(RunPaths):
    """One run on disk with its configuration; `RunFolder` reads its frames and models, too.

    Parameters
    ----------
    path
        The folder.
    config
        Its configuration.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        super().__init__(path)
        self.config = config

    @property
    def scale(self) -> TemperatureScale:
        """Temperature scale of the system."""
        return self.config.system.scale

    @property
    def ended(self) -> bool:
        """True where no task is left, of the rounds and of the validation."""
        return ended(self, self.config.loop, self.config.validation is not None)

    def temperatures(self) -> list[float]:
        """Simulated and generated temperatures, ascending."""
        return sorted({*self.config.simulation.temperatures, *self.config.generate.temperatures})

    def plan(self, index: int) -> tuple[SimulationSettings, frozenset[float]]:
        """Return how one round is simulated, and the temperatures whose walkers feel the bias.

        Raises
        ------
        DataError
            If the round before it has a damaged plan.
        """
        simulation = self.config.simulation
        if index == 0:
            return simulation, frozenset()
        previous = self.round(index - 1)
        decision = previous.read_decision()
        try:
            changed = {**simulation.model_dump(), "temperatures": decision.temperatures}
            if not decision.moving:
                changed["tempering"] = None
            return SimulationSettings.model_validate(changed), frozenset(decision.biased)
        except ValueError as error:
            raise DataError(
                f"{previous.decision}: damaged ({first_line(error)}); expected {decision.content}"
            ) from None
