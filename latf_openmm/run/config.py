"""The configuration of a run: one strict tree, validated whole before any work."""

from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field, model_validator

from latf_openmm.bias.force import choose_backend
from latf_openmm.bias.potentials import AnyBias, BiasContext
from latf_openmm.errors import ConfigError
from latf_openmm.features import AnyFeature, resolve_features
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.run.config_file import read_config
from latf_openmm.run.config_path import config_path
from latf_openmm.run.consent import check_execution, check_system
from latf_openmm.run.execution import AnyExecution
from latf_openmm.run.execution.local import LocalSettings
from latf_openmm.run.limits import LoopLimits
from latf_openmm.run.schema import is_run
from latf_openmm.run.strategies import AnyStrategy
from latf_openmm.run.strategies.fixed import FixedSettings
from latf_openmm.sampling.annealing import AnnealingSettings
from latf_openmm.sampling.stage import SimulationSettings, check_copies
from latf_openmm.settings import Settings, validate
from latf_openmm.systems import AnySystem, shared_system
from latf_openmm.training.device import training_device
from latf_openmm.training.feature_selection import FeatureSelectionSettings
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.units import KELVIN, TemperatureScale

_MAX_TEMPERATURE = {"K": 5000.0, "reduced": 100.0}
"""Highest temperature that is possible, in each scale."""

_MIN_STEP, _MAX_STEP = 1e-5, 0.06
"""Time steps that are possible for molecules [ps]; coarse-grained ones take up to 0.05."""
_MAX_FRICTION = 1e4
"""Friction that is possible for molecules [1/ps], at most."""


class LoopSettings(LoopLimits):
    """Number of rounds, what they are, and the end of the loop."""

    strategy: AnyStrategy = Field(FixedSettings(), description="what decides where the next round simulates")


class GenerateSettings(Settings):
    """Ensembles that are generated after every round."""

    temperatures: list[float] = Field([], description="in the scale of the system")
    samples: int = Field(20_000, ge=100, description="latent samples at each temperature")
    annealing: AnnealingSettings = Field(
        AnnealingSettings(), description="how walkers are annealed to temperatures that frames do not reach"
    )


class ValidationSettings(Settings):
    """Independent unbiased runs, used by the report only and never for training."""

    temperatures: list[float] = Field(min_length=1, description="in the scale of the system")
    walkers: int = Field(1, ge=1, description="walkers at each temperature")
    frames: int = Field(ge=10, description="frames of each walker")


class RunConfig(Settings):
    """Everything `latf-openmm run` needs; `latf-openmm keys` says in a terminal what its sections have in them."""

    reference_command: ClassVar[str] = "latf-openmm keys"

    system: AnySystem = Field(description="what is simulated")
    seed: int = Field(1, ge=0, description="seeds everything")
    simulation: SimulationSettings = Field(description="each round's simulation")
    features: list[AnyFeature] = Field(min_length=1, description="descriptors, joined in order")
    feature_selection: FeatureSelectionSettings = Field(
        FeatureSelectionSettings(), description="when and how descriptors are left out"
    )
    model: ModelSettings = Field(ModelSettings(), description="architecture")
    training: TrainingSettings = Field(description="how the model is trained")
    bias: AnyBias | None = Field(None, description="bias from the second round on; none: unbiased rounds")
    loop: LoopSettings = Field(LoopSettings(), description="rounds")
    generate: GenerateSettings = Field(GenerateSettings(), description="what to generate")
    validation: ValidationSettings | None = Field(None, description="independent runs for the report")
    execution: AnyExecution = Field(LocalSettings(), description="where simulations and trainings run")

    def validation_simulation(self) -> SimulationSettings | None:
        """Return how the independent runs are simulated; None where there are none."""
        if self.validation is None:
            return None
        return SimulationSettings.model_validate(
            {**self.simulation.model_dump(), **self.validation.model_dump(), "tempering": None}
        )

    @model_validator(mode="after")
    def _temperatures(self) -> "RunConfig":
        places: dict[str, list[float]] = {
            "simulation.temperatures": self.simulation.temperatures,
            "generate.temperatures": self.generate.temperatures,
            "validation.temperatures": self.validation.temperatures if self.validation else [],
        }
        scale = self.system.scale
        for place, values in places.items():
            for value in values:
                check_possible(place, value, scale)
            if len(set(values)) != len(values):
                raise ValueError(f"{place}: the same temperature is listed twice: {values}")
        return self

    @model_validator(mode="after")
    def _units(self) -> "RunConfig":
        """Values that only make sense in another unit."""
        friction = self.simulation.friction
        if self.system.scale is not KELVIN or not self.system.simulated:
            return self
        check_step("simulation.timestep", self.simulation.timestep, self.system.scale)
        if friction > _MAX_FRICTION:
            raise ValueError(
                f"simulation.friction: {friction:g} is not possible for a molecule (is it in 1/s?); expected 1/ps, "
                "such as 1"
            )
        return self

    @model_validator(mode="after")
    def _moves(self) -> "RunConfig":
        lag, tempering = self.training.lag, self.simulation.tempering
        if tempering is not None and isinstance(lag, int) and lag >= tempering.interval:
            raise ValueError(
                f"simulation.tempering.interval: {tempering.interval} frames between moves, and training.lag is {lag}: "
                "pairs of frames that far apart do not reach over a move; expected more than the lag"
            )
        return self

    @model_validator(mode="after")
    def _lag(self) -> "RunConfig":
        lag = self.training.lag
        if isinstance(lag, int) and lag * 5 > self.simulation.frames:
            raise ValueError(
                f"training.lag: {lag} frames is too long for simulation.frames: "
                f"{self.simulation.frames}; expected at most a fifth"
            )
        return self


def check_possible(where: str, temperature: float, scale: TemperatureScale) -> None:
    """Raise `ConfigError` where a temperature is not possible in a scale; `where` the user gave it."""
    if not 0 < temperature <= _MAX_TEMPERATURE[scale.name]:
        unit = "K" if scale.name == "K" else "reduced units"
        raise ConfigError(
            f"{where}: {temperature:g} is not a possible temperature; expected above 0 and at most "
            f"{_MAX_TEMPERATURE[scale.name]:g} {unit}"
        )


def check_step(where: str, step: float, scale: TemperatureScale) -> None:
    """Raise `ConfigError` where a time step [ps] is not possible: molecules' bonds vibrate in 0.01 ps, and faster."""
    if scale is KELVIN and not _MIN_STEP <= step <= _MAX_STEP:
        unit = "fs" if step > 0.1 else "s" if step < 1e-12 else "ns" if step < _MIN_STEP else "ps"
        raise ConfigError(
            f"{where}: {step:g} ps is not possible for a molecule (is it in {unit}?); expected picoseconds, such "
            "as 0.002"
        )


def load_config(source: str | Path, trust: bool = False) -> RunConfig:
    """Read and check a configuration: a YAML file, or the name of a system of the library.

    Naming a file is consent to the code that it runs, unless it lies in the folder of a run; see
    `latf_openmm.run.consent`.

    Parameters
    ----------
    trust
        Whether there is consent to what the configuration in the folder of a run runs.

    Raises
    ------
    ConfigError
        One line for each problem, with the file, the key, the value and what was expected.
    """
    path = config_path(source)
    config = validate(RunConfig, read_config(path), str(path), path.parent)
    for folder in path.absolute().parents:
        if is_run(folder):
            check_system(path, folder, config.system, trust)
            check_execution(path, config.execution, trust)
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(*(f"{path}: {problem}" for problem in error.problems)) from None
    return config


def check(config: RunConfig) -> None:
    """Build what is cheap to build, so that nothing fails after hours of simulation.

    Raises
    ------
    ConfigError, BackendError
        If features name atoms that are not there, walkers cannot share a Context, the bias does not fit, or there is no
        such platform or device.
    """
    built = shared_system(config.system)
    check_copies(config.system, config.simulation)
    resolved = resolve_features(config.features, built.mdtraj_topology())
    if config.execution.is_local:
        config.simulation.platform_choice(config.system)
        training_device(config.training.device)
    if config.bias is None or config.loop.rounds < 2:
        return
    choose_backend(config.simulation.backend, config.simulation.forces or "traced")
    n_features = sum(item.build().n_features for item in resolved)
    temperature = config.simulation.temperatures[0]
    model = LatentThermodynamicFlow(config.model, n_features, 2, temperature)
    config.bias.build(BiasContext.of_model(model, temperature, built.scale.kT(temperature)))


def dump_config(config: RunConfig) -> str:
    """YAML text of a configuration, defaults included."""
    data: dict[str, Any] = config.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False)
