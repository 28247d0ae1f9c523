"""Unit conversions, strict settings and the errors users see."""

import math
from dataclasses import FrozenInstanceError
from typing import Any, Literal

import numpy as np
import pytest
from helpers.ensembles import trained
from openmm import unit
from pydantic import Field, ValidationError

from latf_openmm.bias.potentials.base import BiasSettings, bias_context
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.bias.potentials.sum import SumSettings
from latf_openmm.bias.potentials.walls import WallSettings
from latf_openmm.errors import BackendError, ConfigError, DataError, LatfError, ModelError, SimulationError
from latf_openmm.features import FEATURE_KINDS, AnyFeature
from latf_openmm.sampling.umbrella.plan import UmbrellaSettings
from latf_openmm.settings import Settings, differences, validate
from latf_openmm.systems import SYSTEM_KINDS, AnySystem
from latf_openmm.units import GAS_CONSTANT, KELVIN, REDUCED, SCALES, TemperatureScale, plain

# --- units -----------------------------------------------------------------------------------------


def test_gas_constant_is_that_of_the_si() -> None:
    avogadro, boltzmann = 6.02214076e23, 1.380649e-23
    assert pytest.approx(avogadro * boltzmann / 1000, rel=1e-5) == GAS_CONSTANT


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
@pytest.mark.parametrize("temperature", [0.2, 1.0, 300.0])
def test_kelvin_reproduces_the_thermal_energy(scale: TemperatureScale, temperature: float) -> None:
    assert GAS_CONSTANT * scale.kelvin(temperature) == pytest.approx(scale.kT(temperature), rel=1e-12)


def test_temperature_scales() -> None:
    assert SCALES == {"K": KELVIN, "reduced": REDUCED}
    assert KELVIN.kelvin(300.0) == pytest.approx(300.0, rel=1e-12)
    assert KELVIN.kT(300.0) == pytest.approx(2.49434, abs=1e-4)
    assert REDUCED.kT(0.5) == 0.5
    assert REDUCED.kelvin(1.0) == pytest.approx(120.272, abs=1e-2)
    assert KELVIN.label(300.0) == "300 K"
    assert REDUCED.label(0.2) == "T = 0.2"


def test_temperature_scale_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError, match="boltzmann"):
        KELVIN.boltzmann = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "md_unit", "expected"),
    [
        (0.5, unit.picosecond, 0.5),
        (3, unit.nanometer, 3.0),
        (2.0 * unit.femtosecond, unit.picosecond, 0.002),
        (3.0 * unit.angstrom, unit.nanometer, 0.3),
        (1.0 * unit.kilocalorie_per_mole, unit.kilojoule_per_mole, 4.184),
        (4 * unit.dalton, unit.amu, 4.0),
        (1.0 / unit.picosecond, unit.picosecond**-1, 1.0),
    ],
)
def test_plain_takes_numbers_and_quantities(value: Any, md_unit: unit.Unit, expected: float) -> None:
    result = plain(value, md_unit, "value")
    assert type(result) is float
    assert result == pytest.approx(expected, rel=1e-12)


def test_plain_refuses_a_quantity_of_another_dimension() -> None:
    with pytest.raises(ConfigError, match=r"^timestep: expected a number in ps, got the quantity 1.0 nm$"):
        plain(1.0 * unit.nanometer, unit.picosecond, "timestep")


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (DataError, ValueError),
        (ModelError, ValueError),
        (BackendError, RuntimeError),
        (SimulationError, RuntimeError),
    ],
)
def test_errors_are_ours_and_the_builtin_one(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, LatfError)
    assert issubclass(error, builtin)


def test_config_error_keeps_its_problems_apart() -> None:
    error = ConfigError("a: wrong", "b: wrong too")
    assert error.problems == ("a: wrong", "b: wrong too")
    assert str(error) == "a: wrong\nb: wrong too"


# --- settings --------------------------------------------------------------------------------------


class Inner(Settings):
    """A section."""

    kind: Literal["inner"] = "inner"
    time_step: float = Field(0.002, gt=0)


class Demo(Settings):
    """A small file: a required number, a section, and the two families chosen by ``kind``."""

    n_steps: int = Field(gt=0)
    temperatures: list[float] = Field([1.0])
    section: Inner = Inner()
    features: list[AnyFeature] = Field([])
    system: AnySystem | None = None


def problems_of(data: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError, match=r"\Ademo\.yaml: ") as caught:
        validate(Demo, data, "demo.yaml")
    return caught.value.problems


def test_valid_settings_are_read_and_defaults_filled_in() -> None:
    data = {"n_steps": 5, "section": {"time_step": 0.004}, "features": [{"kind": "coordinates"}]}
    settings = validate(Demo, data, "demo.yaml")
    assert (settings.n_steps, settings.section.time_step, settings.temperatures) == (5, 0.004, [1.0])
    assert isinstance(settings.features[0], FEATURE_KINDS["coordinates"])
    assert validate(Demo, settings.model_dump(mode="json"), "again") == settings


@pytest.mark.parametrize("kind", [name for name, kind in SYSTEM_KINDS.items() if kind.in_library])
def test_a_system_is_chosen_by_its_kind(kind: str) -> None:
    settings = validate(Demo, {"n_steps": 1, "system": {"kind": kind}}, "demo.yaml")
    assert type(settings.system) is SYSTEM_KINDS[kind]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"n_stepz": 1, "n_steps": 1}, "demo.yaml: n_stepz: unknown key; did you mean 'n_steps'?"),
        ({"n_steps": 1, "qqq": 1}, "demo.yaml: qqq: unknown key"),
        ({"n_steps": 1, "section": {"timestep": 1.0}}, "did you mean 'time_step'?"),
        ({"n_steps": 1, "system": {"kind": "lj7", "wal_radius": 2.0}}, "did you mean 'wall_radius'?"),
        ({"n_steps": 1, "features": [{"kind": "distances", "pair": [[0, 1]]}]}, "did you mean 'pairs'?"),
        ({}, "demo.yaml: n_steps: this key is required"),
        ({"n_steps": "many"}, "demo.yaml: n_steps: input should be a valid integer"),
        ({"n_steps": "many"}, ", got 'many'"),
        ({"n_steps": 1.5}, "demo.yaml: n_steps: input should be a valid integer"),
        ({"n_steps": None}, "demo.yaml: n_steps: input should be a valid integer"),
        ({"n_steps": 0}, "demo.yaml: n_steps: input should be greater than 0, got 0"),
        ({"n_steps": 1, "temperatures": 3.0}, "demo.yaml: temperatures: input should be a valid list"),
        ({"n_steps": 1, "temperatures": [1.0, "hot"]}, "demo.yaml: temperatures[1]: input should be"),
        ({"n_steps": 1, "temperatures": [math.nan]}, "demo.yaml: temperatures[0]: input should be a finite"),
        ({"n_steps": math.inf}, "demo.yaml: n_steps: input should be a finite number"),
        (
            {"n_steps": 1, "section": {"time_step": -math.inf}},
            "demo.yaml: section.time_step: input should be",
        ),
        ({"n_steps": 1, "section": 4}, "demo.yaml: section: input should be a valid dictionary"),
        ({"n_steps": 1, "system": {"kind": "lj8"}}, ", ".join(map(repr, SYSTEM_KINDS))),
        ({"n_steps": 1, "system": {"wall_radius": 2.0}}, "demo.yaml: system.kind: this key is required"),
        ({"n_steps": 1, "features": [{"kind": "distances", "pairs": [[4, 4]]}]}, "the same atom twice"),
        ({"n_steps": 1, 7: "seven"}, "keys should be strings"),
        ([1, 2], "demo.yaml: expected a mapping of keys to values, got list"),
        (None, "demo.yaml: expected a mapping of keys to values, got NoneType"),
    ],
)
def test_one_problem_is_one_clear_line(data: Any, line: str) -> None:
    problems = problems_of(data)
    assert len(problems) == 1
    assert line in problems[0]


def test_an_unknown_kind_lists_the_kinds_and_does_not_repeat_the_input() -> None:
    pairs = [[0, i] for i in range(1, 200)]
    (problem,) = problems_of({"n_steps": 1, "features": [{"kind": "distance", "pairs": pairs}]})
    assert all(repr(kind) in problem for kind in FEATURE_KINDS)
    assert len(problem) < 250


def test_every_problem_has_its_own_line() -> None:
    problems = problems_of(
        {"n_steps": "a\nb", "section": {"time_step": -1}, "extra": 0, "temperatures": [{}]}
    )
    assert len(problems) == 4
    for problem, where in zip(
        sorted(problems), ["extra", "n_steps", "section.", "temperatures[0]"], strict=True
    ):
        assert problem.startswith(f"demo.yaml: {where}")
        assert "\n" not in problem


@pytest.mark.parametrize(
    ("cls", "data", "line"),
    [
        (OpesSettings, {"barrier": 1, "pase": 3}, "OpesSettings: pase: unknown key; did you mean 'pace'?"),
        (
            OpesSettings,
            {},
            "OpesSettings: barrier: this key is required (highest free-energy barrier to cross",
        ),
        (
            OpesSettings,
            {"barrier": -1},
            "barrier: input should be greater than 0, got -1 (highest free-energy",
        ),
        (
            OpesSettings,
            {"barrier": 25 * unit.kelvin},
            "OpesSettings: barrier: expected a number in kJ/mol, got the quantity 25 K",
        ),
        (
            OpesSettings,
            {"barrier": 1, "pace": 1 * unit.picosecond},
            "OpesSettings: pace: expected a plain number, got the quantity 1 ps",
        ),
        (
            OpesSettings,
            {"barrier": 1, "sigma": 20 * unit.kelvin},
            "OpesSettings: sigma: expected a number, an angle or a length, got the quantity 20 K",
        ),
        (
            HarmonicSettings,
            {"centre": [0.0], "force_constant": 1 * unit.kilojoule_per_mole},
            "force_constant: expected a number in kJ/mol per z^2 with z in rad or nm, got the quantity 1 kJ/mol",
        ),
        (
            OpesSettings,
            {"barrier": 1, "sigma": {}},
            "sigma: input should be a valid number, got {}; or input should be a valid list (widths of the first",
        ),
        (
            OpesSettings,
            {"barrier": 1, "sigma": [0.1, "x"]},
            "OpesSettings: sigma[1]: input should be a valid",
        ),
        (
            Demo,
            {"n_steps": 1, "section": {"time_step": -1}},
            "Demo: section.time_step: input should be greater",
        ),
        (
            Demo,
            {"n_steps": 1, "system": {"kind": "lj7", "wal_radius": 2.0}},
            "Demo: system.wal_radius: unknown key; did you mean 'wall_radius'?",
        ),
        (
            FEATURE_KINDS["distances"],
            {"pairs": [(4, 4)]},
            "DistanceSettings: the pair (4, 4) has the same atom",
        ),
    ],
)
def test_settings_made_in_python_are_refused_in_the_words_of_a_file(
    cls: type[Settings], data: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**data)
    (problem,) = caught.value.problems
    assert line in problem
    with pytest.raises(ConfigError) as of_file:
        validate(cls, data, cls.__name__)
    assert of_file.value.problems == caught.value.problems


@pytest.mark.parametrize(
    ("cls", "given", "expected"),
    [
        (
            OpesSettings,
            {"barrier": 10 * unit.kilocalorie_per_mole, "sigma": 20 * unit.degree},
            {"barrier": 41.84, "sigma": math.radians(20)},
        ),
        (
            MetadynamicsSettings,
            {"sigma": [20 * unit.degree, 1 * unit.angstrom]},
            {"sigma": [math.radians(20), 0.1]},
        ),
        (MetadynamicsSettings, {"sigma": np.array([1.0, 2.0]) * unit.angstrom}, {"sigma": [0.1, 0.2]}),
        (
            HarmonicSettings,
            {"centre": [60 * unit.degree], "force_constant": 2 * unit.kilojoule_per_mole / unit.angstrom**2},
            {"centre": [math.pi / 3], "force_constant": 200.0},
        ),
        (
            WallSettings,
            {
                "low": [1 * unit.angstrom, None],
                "power": 4,
                "force_constant": 1 * unit.kilojoule_per_mole / unit.angstrom**4,
            },
            {"low": [0.1, None], "force_constant": 1e4},
        ),
        (
            UmbrellaSettings,
            {
                **{"pulling": 1, "equilibration": 1, "frames": 10, "frame_interval": 1},
                "timestep": 2 * unit.femtosecond,
                "friction": 1 / unit.picosecond,
            },
            {"timestep": 0.002, "friction": 1.0},
        ),
    ],
)
def test_quantities_become_numbers_in_the_units_of_settings(
    cls: type[Settings], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    settings = cls(**given)
    for name, value in expected.items():
        assert getattr(settings, name) == pytest.approx(value)


def test_walls_refuse_a_force_constant_of_another_power() -> None:
    constant = 1 * unit.kilojoule_per_mole / unit.nanometer**2
    assert WallSettings(low=[0.0], force_constant=constant).force_constant == 1.0
    with pytest.raises(ConfigError, match=r"force_constant: expected a number in kJ/mol per z\^power"):
        WallSettings(low=[0.0], force_constant=constant, power=3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (OpesSettings(barrier=40, sigma=20 * unit.degree), "sigma"),
        (SumSettings(parts=[MetadynamicsSettings(sigma=[20 * unit.degree, 1.0])]), "sigma"),
        (
            HarmonicSettings(
                centre=[0.0, 0.0], force_constant=2 * unit.kilojoule_per_mole / unit.angstrom**2
            ),
            "force_constant",
        ),
    ],
)
def test_learned_variables_have_no_unit(settings: BiasSettings, name: str) -> None:
    refusal = f"^bias.{name}: expected a number, since the learned variables have no unit$"
    with pytest.raises(ConfigError, match=refusal):
        settings.build(bias_context(trained(1, (300.0, 450.0)), 300.0))


def test_numbers_and_energies_fit_learned_variables() -> None:
    settings = OpesSettings(barrier=10 * unit.kilocalorie_per_mole, sigma=0.3)
    settings.build(bias_context(trained(1, (0.7, 1.3)), 1.0))


def test_settings_of_quantities_equal_those_of_numbers() -> None:
    given = OpesSettings(barrier=40 * unit.kilojoule_per_mole, sigma=20 * unit.degree)
    read = OpesSettings.model_validate(given.model_dump(mode="json"))
    assert given == read
    assert hash(given) == hash(read)
    assert "given_units" not in given.model_dump()


def test_settings_are_frozen() -> None:
    settings = Demo(n_steps=1)
    with pytest.raises(ValidationError, match="frozen"):
        settings.n_steps = 2


@pytest.mark.parametrize("kind", SYSTEM_KINDS)
def test_settings_are_keys_of_a_cache_whatever_they_hold(kind: str) -> None:
    """Lists and mappings too: equal settings have one entry, others another."""
    fields: dict[str, dict[str, Any]] = {
        "structure": {"structure": "a.pdb", "force_field": ["amber14-all.xml", "b.xml"]},
        "charmm": {
            "topology": "a.psf",
            "coordinates": "a.crd",
            "parameters": ["a.rtf"],
            "box": [1.0, 2.0, 3.0],
        },
        "amber": {"topology": "a.prmtop", "coordinates": "a.rst7"},
        "gromacs": {"topology": "a.top", "coordinates": "a.gro"},
        "serialized": {"system": "a.xml", "structure": "a.pdb"},
        "python": {"file": "a.py"},
        "trajectories": {"topology": "a.pdb"},
    }
    first, second = (SYSTEM_KINDS[kind](**fields.get(kind, {})) for _ in range(2))
    assert {first: 1}[second] == 1
    others = [cls() for name, cls in SYSTEM_KINDS.items() if name != kind and cls.in_library]
    assert not {first} & set(others)


def test_settings_with_other_entries_of_a_list_are_another_key() -> None:
    structure = SYSTEM_KINDS["structure"]
    first, second = (structure(structure="a.pdb", force_field=["amber14-all.xml", x]) for x in ("b", "c"))  # type: ignore[call-arg]
    assert len({first, second}) == 2
    pairs = FEATURE_KINDS["distances"]
    assert len({pairs(pairs=[(0, 1)]), pairs(pairs=[(0, 1)]), pairs(pairs=[(0, 2)])}) == 2  # type: ignore[call-arg]


def test_differences_are_named_by_their_keys() -> None:
    before = {"system": {"kind": "lj7"}, "features": [{"kind": "x", "n": 1}], "bias": None, "seed": 1}
    assert differences(before, before) == []
    now = {
        "system": {"kind": "three_hole"},
        "features": [{"kind": "x", "n": 2}],
        "bias": {"kind": "opes"},
        "seed": 1,
    }
    assert differences(before, now) == [
        'system: {"kind": "three_hole"}, was {"kind": "lj7"}',
        "features[0].n: 2, was 1",
        'bias: {"kind": "opes"}, was null',
    ]
    [text] = differences({"a": [1]}, {"a": list(range(100))})
    assert text == "a: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1..., was [1]"
