"""Temperatures that may have lost a digit are asked about."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.ensembles import trained
from openmm import unit

from latf_openmm.bias.potentials.base import BiasContext, bias_context, cv_context
from latf_openmm.errors import ConfigError
from latf_openmm.run import loop
from latf_openmm.run.config import load_config
from latf_openmm.run.folder import RunFolder


@pytest.mark.parametrize(
    "name, temperatures, said",
    [
        (
            "alanine_dipeptide/fast",
            [35.0, 450.0],
            "simulation.temperatures: 35 K: hardly anything moves there",
        ),
        ("alanine_dipeptide/fast", [300.0, 450.0], ""),
        ("three_hole/fast", [0.7, 1.3], ""),
    ],
)
def test_cold_molecules_are_asked_about(
    name: str, temperatures: list[float], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(name)
    simulation = config.simulation.model_copy(update={"temperatures": temperatures})
    loop._say_cold(RunFolder(tmp_path, config.model_copy(update={"simulation": simulation})))
    assert (said in caplog.text) if said else not caplog.text


@pytest.mark.parametrize(
    "temperature, far", [(1.0, False), (2.5, False), (2.6, True), (0.35, True), (0.05, True), (300.0, True)]
)
def test_a_bias_far_from_its_model_is_asked_about(
    temperature: float, far: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bias_context(trained(1, (0.7, 1.3)), temperature)
    said = f"the bias is for T = {temperature:g}, and the model was trained at T = 0.7 to T = 1.3"
    assert (said in caplog.text) == far


@pytest.mark.parametrize(
    "context", [partial(bias_context, trained(1, (300.0, 450.0))), partial(cv_context, [0.0])]
)
def test_a_temperature_in_units_of_energy_is_refused(context: Callable[[Any], BiasContext]) -> None:
    with pytest.raises(
        ConfigError, match=r"^temperature: expected a number in K, got the quantity 300 kJ/mol$"
    ):
        context(300 * unit.kilojoule_per_mole)


@pytest.mark.parametrize("temperature", [0.0, -310.0, float("nan"), float("inf"), -5 * unit.kelvin])
def test_a_temperature_that_is_none_is_refused(temperature: Any) -> None:
    with pytest.raises(ConfigError, match="temperature: expected a positive number, got"):
        cv_context([0.0], temperature)
    with pytest.raises(ConfigError, match="temperature: expected a positive number, got"):
        bias_context(trained(), temperature)
