"""What is said of an answer: where its weight comes from, what speaks against it, what would improve it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from latf_openmm.cli import app as cli
from latf_openmm.errors import ConfigError
from latf_openmm.reweighting.consistency import Certificate
from latf_openmm.run.explained import Explanation, Remedy, explain
from latf_openmm.run.folder import RunFolder


@pytest.fixture(scope="module")
def explanation(small_run: RunFolder) -> Explanation:
    return explain(small_run, 1.1)


def test_weights_of_all_temperatures(small_run: RunFolder, explanation: Explanation) -> None:
    sources = explanation.sources
    assert {source.temperature for source in sources} == set(explanation.ensemble.pool.temperatures())
    assert sum(source.weight for source in sources) == pytest.approx(1.0)
    assert sum(source.frames for source in sources) == len(explanation.ensemble.weights)
    assert np.all(np.diff([source.weight for source in sources]) <= 0)
    assert explanation.round == small_run.last_round().index


def test_the_remedy_is_a_temperature_with_its_cost(small_run: RunFolder, explanation: Explanation) -> None:
    """Half the error needs three times the frames there are, besides these."""
    remedy, simulation = explanation.remedy, small_run.config.simulation
    assert remedy is not None and remedy.rounds > 0
    assert remedy.configured != bool(np.isclose(simulation.temperatures, remedy.temperature).any())
    steps = simulation.frames * simulation.frame_interval + simulation.equilibration
    each = steps * simulation.timestep * simulation.walkers
    assert remedy.picoseconds == pytest.approx(min(remedy.rounds, 1000) * each)


def test_sentences(explanation: Explanation) -> None:
    ensemble = explanation.ensemble
    good = replace(ensemble, warnings=(), reliability="good", n_effective=250.0)
    remedy = Remedy(2.0, 3.4, 5000.0, 7.0)
    sure = replace(explanation, ensemble=good, certificate=Certificate((), ()), remedy=remedy)
    text = " ".join(sure.sentences())
    assert text.startswith(f"T = 1.1 after round {explanation.round}: {ensemble.description}.")
    for part in (
        "Reliability good: to be relied on within the errors. 250 effective samples stand for it",
        "Nothing is known against it; frames of one temperature cannot contradict each other.",
        "simulate at T = 2: about 4 times the walkers of a round (5,000 time units in all).",
    ):
        assert part in text
    assert "rarest" not in text
    stuck = replace(sure, remedy=replace(remedy, visits=0.2))
    assert "enter its rarest state 0.2 times in a round" in stuck.sentences()[-1]
    assert "active" not in text
    configured = replace(sure, remedy=replace(remedy, configured=True))
    assert "with `strategy: {kind: active}` in its section `loop`" in configured.sentences()[-1]
    far = replace(sure, remedy=replace(remedy, rounds=np.inf))
    assert "Simulate nearer" in far.sentences()[-1]
    poor = replace(sure, ensemble=replace(good, reliability="poor", warnings=("a reason",)), remedy=None)
    assert "not to be relied on" in poor.sentences()[1]
    assert poor.sentences()[-1] == "Against it: a reason."


def test_the_command(small_run: RunFolder, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["explain", str(small_run.path), "-T", "1.1"])
    assert result.exit_code in (0, 3), (result.output, result.exception)
    assert "The weight comes to" in " ".join(result.output.split())
    assert ("not to be relied on" in " ".join(result.output.split())) == (result.exit_code == 3)
    with pytest.raises(ConfigError, match="temperature"):
        explain(small_run, -1.0)
    with pytest.raises(ConfigError, match="round"):
        explain(small_run, 1.1, round_index=7)
