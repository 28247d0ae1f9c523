"""Platforms and their properties: from configurations, from the environment; what is wrong is said."""

import openmm
import pytest

from latf_openmm.errors import ConfigError
from latf_openmm.sampling.contexts import PROPERTIES_VARIABLE, PlatformChoice, parse_properties
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings

SYSTEM = ThreeHoleSettings()
SETTINGS = {
    "temperatures": [1.0],
    "walkers": 1,
    "frames": 10,
    "timestep": 0.01,
    "friction": 1.0,
    "frame_interval": 1,
}


def test_properties_of_the_configuration_reach_the_context() -> None:
    settings = SimulationSettings(**SETTINGS, platform="CPU", platform_properties={"Threads": "1"})
    context = settings.platform_choice(SYSTEM).context(SYSTEM.build(1).system)
    assert context.getPlatform().getName() == "CPU"
    assert context.getPlatform().getPropertyValue(context, "Threads") == "1"


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROPERTIES_VARIABLE, "Threads=2, DeterministicForces=true")
    choice = PlatformChoice.chosen("CPU", {"Threads": "1"})
    assert choice.properties == {"Threads": "2", "DeterministicForces": "true"}
    context = choice.context(SYSTEM.build(1).system)
    assert context.getPlatform().getPropertyValue(context, "DeterministicForces").lower() in ("true", "1")


def test_what_a_platform_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"simulation.platform: OpenMM has no platform 'Abacus' here; it has"
    ):
        PlatformChoice.chosen("Abacus")
    with pytest.raises(
        ConfigError,
        match=r"simulation.platform_properties: platform CPU has no property 'Precision'; it has .*Threads",
    ):
        PlatformChoice.chosen("CPU", {"Precision": "mixed"})
    monkeypatch.setenv(PROPERTIES_VARIABLE, "Precision=mixed")
    with pytest.raises(ConfigError, match=rf"{PROPERTIES_VARIABLE}: platform Reference has no property"):
        PlatformChoice.chosen("Reference")


def test_items_are_names_and_values() -> None:
    assert parse_properties(["Precision=mixed", " DeviceIndex = 0,1 ", ""]) == {
        "Precision": "mixed",
        "DeviceIndex": "0,1",
    }
    with pytest.raises(ConfigError, match="'mixed': expected NAME=VALUE"):
        parse_properties(["mixed"])


def test_an_integrator_is_made_where_none_is_given() -> None:
    context = PlatformChoice("Reference").context(SYSTEM.build(1).system)
    assert isinstance(context.getIntegrator(), openmm.VerletIntegrator)
