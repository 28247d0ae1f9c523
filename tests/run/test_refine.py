"""Ensembles by annealing, on a short three-hole run: against the quadrature, and as a command."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.ensembles.annealing_plan import AnnealingPath
from latf_openmm.ensembles.combined import combined
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import ConfigError, SimulationError
from latf_openmm.progress import make_progress
from latf_openmm.reweighting.reliability import FAIR_SAMPLES
from latf_openmm.run.annealed import AnnealedEnsembles
from latf_openmm.run.config import LoopSettings, load_config
from latf_openmm.run.ensembles import ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_rounds
from latf_openmm.run.loop import run_loop
from latf_openmm.sampling.annealing import AnnealingSettings
from latf_openmm.sampling.population import Population
from latf_openmm.sampling.propagator import Propagator
from latf_openmm.systems.three_hole import three_hole_potential

RUNNER = CliRunner()
SETTINGS = AnnealingSettings(walkers=300, steps=40, frames=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = load_config("three_hole/fast")
    config = config.model_copy(
        update={
            "training": config.training.model_copy(  # several states, and little else
                update={"epochs_joint": 2, "epochs_flow": 2, "pairs_per_epoch": 5000}
            ),
            "loop": LoopSettings(rounds=1),
            "validation": None,
            "simulation": config.simulation.model_copy(
                update={"frames": 60, "frame_interval": 50, "walkers": 8}
            ),
            "generate": config.generate.model_copy(update={"annealing": SETTINGS, "temperatures": []}),
        }
    )
    return run_loop(config, tmp_path_factory.mktemp("annealed") / "run")


@pytest.fixture(scope="module")
def reweighter(run: RunFolder) -> Reweighter:
    return Reweighter(run.trained(0), pool_of_rounds(run, 0), run.config.seed)


def exact_energy(run: RunFolder, temperature: float) -> float:
    exact = run.config.system.exact_ensemble(temperature)
    assert exact is not None
    planar = three_hole_potential(exact.positions[:, 0, 0], exact.positions[:, 0, 1])
    return float(exact.weights @ planar + 0.5 * run.scale.kT(temperature))


@pytest.mark.parametrize("temperature", [0.45, 1.0, 1.9])
def test_refined_frames_have_the_energy_of_the_temperature(
    run: RunFolder, reweighter: Reweighter, temperature: float
) -> None:
    (found,) = ensembles_at(run, 0, [temperature], "annealed", reweighter=reweighter)
    assert found.method == "annealed"
    assert found.temperature == temperature
    assert len(found.weights) == SETTINGS.walkers * SETTINGS.frames
    assert found.weights.sum() == pytest.approx(1.0)
    energy = found.energy()
    assert abs(energy.value - exact_energy(run, temperature)) < 3.5 * energy.error
    assert 0 < energy.error < 0.15 * temperature
    assert found.n_effective > 15
    heights = found.observe(lambda t: t.xyz[:, 0, 1], run.topology())
    assert found.expectation(heights).error > 0
    outside = temperature != 1.0
    assert any("is outside the simulated" in text for text in found.warnings) == outside


def test_where_it_starts(run: RunFolder, reweighter: Reweighter) -> None:
    annealed = AnnealedEnsembles(run, 0, reweighter)
    assert annealed.simulated == [0.7, 1.3]
    assert 0.7 <= annealed.start(0.5) < 0.75  # nothing hotter is nearer
    assert 1.0 < annealed.start(1.0) <= 1.3  # from the hotter side
    assert 1.2 < annealed.start(2.0) <= 1.3
    down, up = annealed.paths([0.5, 0.4, 2.0, 3.0])
    assert down.targets == (0.5, 0.4)
    assert up.targets == (2.0, 3.0)
    few = annealed.evaluations(AnnealingPath(0.7, (0.5,)))
    assert (
        few
        < annealed.evaluations(AnnealingPath(0.7, (0.5, 0.4)))
        < annealed.evaluations(AnnealingPath(0.7, (0.5, 0.1)))
    )


def test_what_is_there_is_not_simulated_again(
    run: RunFolder, reweighter: Reweighter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (once,) = ensembles_at(run, 0, [0.55], "annealed", reweighter=reweighter)

    def propagated(self: Propagator, population: Population, steps: int, seed: int) -> Population:
        raise AssertionError("simulated again")

    monkeypatch.setattr(Propagator, "propagated", propagated)
    (again,) = ensembles_at(run, 0, [0.55], "annealed", reweighter=reweighter)
    np.testing.assert_array_equal(once.weights, again.weights)
    np.testing.assert_array_equal(once.pool.z, again.pool.z)


def test_a_flow_that_is_wrong_costs_only_frames(
    run: RunFolder, reweighter: Reweighter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annealed = AnnealedEnsembles(run, 0, reweighter)
    annealed.folder = tmp_path
    monkeypatch.setattr(
        annealed, "_log_lookahead", lambda z, temperature, target: 2.0 * np.sin(3.0 * z[:, 0])
    )
    with annealed.propagator() as propagator:
        (found,) = annealed.at(AnnealingPath(annealed.start(0.5), (0.5,)), propagator)
    energy = found.energy()
    assert abs(energy.value - exact_energy(run, 0.5)) < 3.5 * energy.error


def test_the_best_level_is_chosen(run: RunFolder, reweighter: Reweighter) -> None:
    (best,) = ensembles_at(run, 0, [0.4], reweighter=reweighter)
    assert best.method == "annealed"  # about as many frames reach it as states have walkers
    (left_out,) = ensembles_at(run, 0, [0.37], minutes=0.0, reweighter=reweighter)
    assert left_out.method in ("flow", "reweighted")
    assert any("annealing would take about" in text for text in left_out.warnings)
    (flow,) = ensembles_at(run, 0, [0.4], "flow", reweighter=reweighter)
    assert flow.method == "flow"
    order = ensembles_at(run, 0, [0.4, 0.55], reweighter=reweighter)
    assert [one.temperature for one in order] == [0.4, 0.55]


def test_frames_that_lack_crossings_are_not_annealed(
    run: RunFolder, reweighter: Reweighter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the simulated temperatures frames overlap, and annealing would start from the same few crossings."""

    def at(self: AnnealedEnsembles, *arguments: object) -> list[StructureEnsemble]:
        raise AssertionError("annealed in vain")

    monkeypatch.setattr(AnnealedEnsembles, "at", at)
    (ensemble,) = ensembles_at(run, 0, [1.0], reweighter=reweighter)
    assert ensemble.method == "reweighted"
    assert ensemble.n_effective < 100
    assert "annealing was left out: its walkers would start from" in ensemble.warnings[-1]
    assert "longer simulations help" in ensemble.warnings[-1]


def test_walkers_that_are_worth_less_are_left_out(reweighter: Reweighter) -> None:
    there = reweighter.at(1.0)
    walkers = replace(there, method="annealed", description="10 walkers", n_effective=3.2, reliability="poor")
    assert there.reliability == "fair"
    chosen = combined(there, walkers)
    assert chosen.method == "reweighted"
    assert chosen.warnings[-1] == "10 walkers: they are worth 3 effective samples and were left out"
    assert combined(walkers, there) is there


@pytest.mark.parametrize("temperature", [0.4, 0.5, 1.0])
def test_samples_of_the_flow_count_as_others_do(reweighter: Reweighter, temperature: float) -> None:
    ensemble = reweighter.at(temperature, "flow")
    assert ensemble.reliability == ("fair" if ensemble.n_effective >= FAIR_SAMPLES else "poor")


def test_annealing_costs_no_more_than_asked(run: RunFolder, reweighter: Reweighter) -> None:
    annealed = AnnealedEnsembles(run, 0, reweighter)
    simulation = run.config.simulation
    assert annealed.simulated_evaluations() == pytest.approx(simulation.steps, rel=1e-6)
    paths = annealed.paths([0.5, 0.4, 2.0])
    full = sum(map(annealed.evaluations, paths))
    assert annealed.within(paths, full) is annealed
    half = annealed.within(paths, 0.5 * full)
    assert half.settings.walkers == 150
    assert sum(map(half.evaluations, paths)) == pytest.approx(0.5 * full)
    assert annealed.within(paths, 1.0).settings.walkers == 100


def test_annealing_is_announced_once(run: RunFolder, reweighter: Reweighter) -> None:
    said = StringIO()
    with make_progress(Console(file=said, width=200)) as progress:
        ensembles_at(run, 0, [0.43], progress=progress, reweighter=reweighter)
    assert " walkers are annealed from T = 0.7 to T = 0.43: about " in said.getvalue()
    said = StringIO()
    with make_progress(Console(file=said, width=200)) as progress:
        ensembles_at(run, 0, [0.43], progress=progress, reweighter=reweighter)
    assert "are annealed" not in said.getvalue()  # it is there already


def test_walkers_that_fail_leave_the_other_levels(
    run: RunFolder, reweighter: Reweighter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(self: AnnealedEnsembles, *arguments: object) -> list[StructureEnsemble]:
        raise SimulationError("walkers became unstable")

    monkeypatch.setattr(AnnealedEnsembles, "at", at)
    (found,) = ensembles_at(run, 0, [0.38], reweighter=reweighter)
    assert found.method != "annealed"
    assert "annealing failed: walkers became unstable" in found.warnings
    with pytest.raises(SimulationError):
        ensembles_at(run, 0, [0.38], "annealed", reweighter=reweighter)


def test_no_temperature(run: RunFolder, reweighter: Reweighter) -> None:
    with pytest.raises(ConfigError, match="temperature: must be above 0"):
        ensembles_at(run, 0, [-1.0], reweighter=reweighter)
    with pytest.raises(ConfigError, match="temperature: must be above 0"):
        ensembles_at(run, 0, [-1.0], "annealed", reweighter=reweighter)


def test_the_commands(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["generate", str(run.path), "-T", "0.45", "-T", "1.0", "-o", str(out), "--structures", "50"]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code in (0, 3), result.output
    record = json.loads((out / "T0.45" / "ensemble.json").read_text())
    assert record["method"] == "annealed"
    assert "walkers annealed from T = 0.7" in record["description"]
    table = pd.read_parquet(out / "T0.45" / "frames.parquet")
    assert table["weight"].sum() == pytest.approx(1.0)
    assert (
        mdtraj.load(str(out / "T0.45" / "ensemble.dcd"), top=str(out / "T0.45" / "ensemble.pdb")).n_frames
        == 50
    )
    assert record["source"]["round"] == 0
    assert len(record["source"]["model_sha256"]) == 64
    arguments = ["generate", str(run.path), "-T", "0.45", "-o", str(tmp_path / "xtc"), "--structures", "20"]
    assert RUNNER.invoke(app, [*arguments, "--format", "xtc"]).exit_code in (0, 3)
    assert (tmp_path / "xtc" / "T0.45" / "ensemble.xtc").is_file()
    names = ["--observable", "energy", "--observable", "free_energy:0:1", "--observable", "population:1"]
    result = RUNNER.invoke(
        app, ["observe", str(run.path), "-T", "0.5,0.8,1.1", *names, "-o", str(tmp_path / "curves")]
    )
    assert result.exit_code in (0, 3), result.output
    energy = pd.read_csv(tmp_path / "curves" / "energy.csv")
    for t, value, error in energy[["temperature", "value", "error"]].itertuples(index=False):
        assert abs(value - exact_energy(run, t)) < 4 * error
    table = pd.read_csv(tmp_path / "curves" / "free_energy_0_1.csv")
    assert np.isfinite(table["value"]).all()
    bad = RUNNER.invoke(
        app, ["generate", str(run.path), "-T", "1.0", "-o", str(out / "x"), "--method", "best"]
    )
    assert bad.exit_code == 2


@pytest.mark.parametrize("name", ["population:9", "population:one", "free_energy:0", "free_energy:0:9"])
def test_states_that_are_not_there(run: RunFolder, tmp_path: Path, name: str) -> None:
    arguments = ["observe", str(run.path), "-T", "0.5", "--observable", name, "-o", str(tmp_path / "out")]
    result = RUNNER.invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert f"--observable: {name}: expected" in str(result.exception)


def test_what_never_happens_is_no_confident_number(run: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def far(trajectory):\n    return trajectory.xyz[:, 0, 0] > 100\n")
    out = tmp_path / "out"
    arguments = ["observe", str(run.path), "-T", "1.0", "--observable", f"{mine}:far", "-o", str(out)]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 3
    assert "its value is a limit, not an estimate" in " ".join(result.output.split())
    row = pd.read_csv(out / "mine_far.csv").iloc[0]
    assert row["value"] == 0
    assert row["error"] > 1e-4
    assert row["reliability"] == "poor"
