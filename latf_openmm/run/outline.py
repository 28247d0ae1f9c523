"""A run in outline: as much of its configuration as a look at its state needs.

Nothing here imports what simulates or learns, so that ``latf-openmm status`` answers at once; `RunFolder` has it all.
"""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from latf_openmm.run.config_file import read_run_config
from latf_openmm.run.ending import ended
from latf_openmm.run.limits import LoopLimits
from latf_openmm.run.paths import RunPaths
from latf_openmm.settings import Settings, validate
from latf_openmm.storage import CONFIG
from latf_openmm.systems import AnySystem
from latf_openmm.units import TemperatureScale


class _Limits(LoopLimits):
    model_config = ConfigDict(extra="ignore")


class _Simulation(Settings):
    model_config = ConfigDict(extra="ignore")
    tempering: Any = None


class _Outline(Settings):
    """The part of a configuration; `RunConfig` has said before that it is valid."""

    model_config = ConfigDict(extra="ignore")
    system: AnySystem
    simulation: _Simulation
    loop: _Limits = Field(_Limits())
    validation: Any = None


class RunOutline(RunPaths):
    """One run on disk, to be looked at.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    ConfigError
        If `path` is not the folder of a run, or one of another schema; `DamagedRunError` if its configuration or record
        is damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._config = validate(_Outline, read_run_config(path), str(path / CONFIG))

    @property
    def system(self) -> str:
        """Name of its system for people."""
        return self._config.system.label

    @property
    def scale(self) -> TemperatureScale:
        """Temperature scale of its system."""
        return self._config.system.scale

    @property
    def limits(self) -> LoopLimits:
        """Number of rounds, and what ends the loop before."""
        return self._config.loop

    @property
    def tempering(self) -> bool:
        """True where walkers may move among temperatures."""
        return self._config.simulation.tempering is not None

    @property
    def validates(self) -> bool:
        """True where validation runs follow on the rounds."""
        return self._config.validation is not None

    @property
    def ended(self) -> bool:
        """True where no task is left, of the rounds and of the validation."""
        return ended(self, self.limits, self.validates)
