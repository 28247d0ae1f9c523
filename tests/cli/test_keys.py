"""The command that says what the keys of a configuration mean."""

import copy
import re
from typing import Any

import pytest
from conftest import small_config
from typer.testing import CliRunner

from latf_openmm.bias.potentials import BIAS_KINDS
from latf_openmm.cli import app, main
from latf_openmm.ensembles.observables import OBSERVABLES
from latf_openmm.errors import ConfigError
from latf_openmm.features import FEATURE_KINDS
from latf_openmm.run.config import RunConfig
from latf_openmm.run.config_keys import config_places, families, keys_page
from latf_openmm.run.execution import EXECUTION_KINDS
from latf_openmm.run.init_template import KEYS_COMMENT
from latf_openmm.run.strategies import STRATEGY_KINDS
from latf_openmm.sampling.tempering import TEMPERING_KINDS
from latf_openmm.settings import validate
from latf_openmm.systems import SYSTEM_KINDS

FAMILIES = {
    "system": SYSTEM_KINDS,
    "simulation.tempering": TEMPERING_KINDS,
    "features": FEATURE_KINDS,
    "bias": BIAS_KINDS,
    "loop.strategy": STRATEGY_KINDS,
    "execution": EXECUTION_KINDS,
}


def said(place: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the command prints in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, ["keys", *([place] if place else [])])
    assert done.exit_code == 0, (place, done.output, done.exception)
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), place
    [following] = re.findall(r"^Next: latf-openmm keys ?(.*)$", done.stderr, re.MULTILINE)
    keys_page(following)
    return done.stdout


def test_without_a_place_it_lists_sections_kinds_and_observables(monkeypatch: pytest.MonkeyPatch) -> None:
    text = said("", monkeypatch)
    assert families() == FAMILIES
    names = [*RunConfig.model_fields, *(kind for kinds in FAMILIES.values() for kind in kinds)]
    names += [cls.form() for cls in OBSERVABLES.values()]
    assert [name for name in names if not re.search(rf"^  {re.escape(name)} +\S", text, re.MULTILINE)] == []
    assert all(f"\nKinds of {place}\n" in text for place in FAMILIES)
    assert "  training           how the model is trained (required)\n" in text


def test_every_place_fits_a_terminal_and_says_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    places = config_places()
    assert len(places) > 250
    for path, place in places.items():
        text = " ".join(said(path, monkeypatch).split())
        fields = place.section.model_fields if place.section is not None and path else {}
        for name, field in fields.items():
            assert name == "kind" or f" {name} " in text
            assert " ".join((field.description or "").split()) in text or name == "kind"
        assert place.section is not None or place.field is None or (place.field.description or "") in text


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            "simulation",
            "  timestep             number, > 0, <= 10; required\n                       integration step [ps]\n",
        ),
        ("bias.opes", "bias.opes\nchosen by `kind: opes`\n\nOPES, updated while the simulation runs"),
        ("bias.opes", "  barrier                number, > 0; required\n"),
        ("bias.opes.barrier", "number, > 0; required\n\nhighest free-energy barrier to cross [kJ/mol]\n"),
        ("features", "list of kinds of feature, at least 1 item; required\n\ndescriptors, joined in order\n"),
        ("features", "  torsions         Named torsions or explicit quadruples of atoms\n"),
        ("loop.max_simulated_ns", "no new round after so much simulated time of all walkers [ns]"),
        ("model", "  flow            section; all its keys have defaults\n"),
        ("loop.strategy.fixed", "It has no other keys."),
        ("observables", "  energy                   unit: kJ/mol\n"),
        ("observables.rmsd", "rmsd\nunit: nm\n\nRMSD [nm] from the reference after superposition."),
        ("observables.population", "population:STATE\nunit: fraction\n"),
        ("features[0].torsions.angles[2]", "features.torsions.angles\nlist of (phi, psi, "),
        ("tempering", "simulation.tempering\nkind of tempering or null; default null\n"),
        ("max_wall_hours", "loop.max_wall_hours\n"),
        (
            "bias.sum.parts",
            "list of kinds of bias, at least 1 item; required\n\nbiases, each with its kind\n",
        ),
    ],
)
def test_a_place_is_described(place: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert words in said(place, monkeypatch)


@pytest.mark.parametrize(
    ("place", "near"),
    [
        ("bias.opess", "did you mean bias.opes?"),
        ("simulaton", "did you mean simulation?"),
        ("bias.barrier", "did you mean bias.opes.barrier?"),
        ("simulation.step", "did you mean simulation.timestep, "),
        ("walkers", "did you mean simulation.walkers, generate.annealing.walkers or validation.walkers?"),
        ("observables.rmds", "did you mean observables.rmsd?"),
        ("qqqq", "latf-openmm keys lists them"),
    ],
)
def test_an_unknown_place_is_one_line_with_near_ones(
    place: str, near: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["latf-openmm", "keys", place])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith(f"error: {place}: no such place in a configuration; {near}")


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (
            ("features", 0),
            {"kind": "torsions", "angels": ["phi"]},
            "features[0].angels: unknown key; did you mean 'angles'? (see latf-openmm keys features.torsions)",
        ),
        (("extra",), 1, "extra: unknown key (see latf-openmm keys)"),
        (("training",), None, "(see latf-openmm keys training)"),
        (("system", "kind"), "tree", "'trajectories' (see latf-openmm keys system)"),
        (("system",), {}, "system.kind: this key is required (see latf-openmm keys system)"),
        (("loop", "rounds"), 0, "got 0 (see latf-openmm keys loop.rounds)"),
        (("bias", "flavour"), "slow", "got 'slow' (see latf-openmm keys bias.opes.flavour)"),
        (
            ("simulation", "platform_properties"),
            {"Precision": 3},
            "got 3 (see latf-openmm keys simulation.platform_properties)",
        ),
        (("bias", "barrier"), -1, "got -1 (highest free-energy barrier to cross [kJ/mol])"),  # says enough
    ],
)
def test_a_problem_of_a_configuration_names_the_place_to_ask_for(
    place: tuple[Any, ...], value: Any, line: str
) -> None:
    data = copy.deepcopy(small_config().model_dump(mode="json"))
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, data, "my.yaml")
    [problem] = caught.value.problems
    assert problem.endswith(line)
    for asked in re.findall(r"\(see latf-openmm keys (\S+)\)", problem):
        assert keys_page(asked).title == asked


def test_a_missing_section_is_named_with_what_it_is_and_the_place() -> None:
    data = small_config().model_dump(mode="json")
    del data["training"]
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, data, "my.yaml")
    assert caught.value.problems == (
        "my.yaml: training: this key is required (how the model is trained; see latf-openmm keys training)",
    )


def test_settings_made_in_python_name_no_command() -> None:
    with pytest.raises(ConfigError, match=r"^OpesSettings: barier: unknown key; did you mean 'barrier'\?$"):
        BIAS_KINDS["opes"](barrier=3.0, barier=3.0)  # type: ignore[call-arg]


def test_configurations_to_start_from_name_the_command() -> None:
    done = CliRunner().invoke(app, ["systems", "lj7"])
    assert done.stdout.splitlines()[0] == KEYS_COMMENT
    assert "latf-openmm keys bias.opes" in KEYS_COMMENT
