"""The lag scan: timescales of known chains, the rule on hand-made rows, a real scan, `auto`, the command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from rich.progress import Progress, TaskID
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import ModelSettings
from latf_openmm.report import figures as plots
from latf_openmm.run.config import RunConfig, dump_config
from latf_openmm.settings import validate
from latf_openmm.systems import library_folder
from latf_openmm.training.fit import fit
from latf_openmm.training.kept_lags import lags_beside, lags_done
from latf_openmm.training.lag_scan import (
    LagRow,
    LagScan,
    check_lags,
    default_lags,
    implied_timescales,
    longest_timescales,
    recommend,
    scan_lags,
    transition_counts,
)
from latf_openmm.training.settings import TrainingSettings

RUNNER = CliRunner()
Array = NDArray[np.float64]

# Symmetric, so reversible with equal populations.
CHAIN = np.array([[0.97, 0.03, 0.0], [0.03, 0.87, 0.10], [0.0, 0.10, 0.90]])
EXACT = -1 / np.log(np.linalg.eigvalsh(CHAIN)[1::-1])
CENTRES = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]])

MODEL = ModelSettings(decoder_hidden=[8], flow=FlowSettings(layers=2, hidden=[8], bins=4))
QUICK = TrainingSettings(
    initial_states=8,
    restarts=1,
    refinements=5,
    epochs_states=3,
    epochs_joint=1,
    epochs_flow=1,
    committee=1,
    pairs_per_epoch=1000,
    batch_size=256,
    learning_rate=0.02,
    minimum_population=0.02,
    device="cpu",
)


def sample(chain: Array, walkers: int, frames: int, seed: int = 0) -> NDArray[np.int64]:
    """States of independent walkers from equilibrium, shape (walkers, frames)."""
    rng = np.random.default_rng(seed)
    left = np.linalg.matrix_power(chain, 4096)[0]
    cumulative = np.cumsum(chain, axis=1)
    states = [rng.choice(len(chain), walkers, p=left / left.sum())]
    for _ in range(frames - 1):
        draw = rng.random(walkers)[:, None] > cumulative[states[-1]]
        states.append(np.minimum(draw.sum(axis=1), len(chain) - 1))
    return np.array(states).T


def trajectory(features: Array, temperature: float = 1.0, interval: float = 0.2) -> FeatureTrajectory:
    none = np.zeros(len(features))
    return FeatureTrajectory(features.astype(np.float32), temperature, interval, none, none)


def wells(walkers: int = 6, frames: int = 400) -> list[FeatureTrajectory]:
    """Walkers that jump between three wells by CHAIN, with noise around each."""
    rng = np.random.default_rng(1)
    return [
        trajectory(CENTRES[states] + 0.3 * rng.standard_normal((frames, 2)))
        for states in sample(CHAIN, walkers, frames)
    ]


# Timescales


@pytest.mark.parametrize("lag", [1, 3, 10])
def test_timescales_of_exact_counts_are_exact(lag: int) -> None:
    counts = np.linalg.matrix_power(CHAIN, lag) * 1000
    np.testing.assert_allclose(implied_timescales(counts, lag, 1e6), EXACT, rtol=1e-9)


@pytest.mark.parametrize("lag", [1, 3, 10])
def test_timescales_of_a_sampled_chain_are_within_error(lag: int) -> None:
    states = list(sample(CHAIN, 100, 3000))
    counts = transition_counts(states, [np.ones(3000)] * 100, lag, 3)
    assert counts.sum() == 100 * (3000 - lag)
    np.testing.assert_allclose(implied_timescales(counts, lag, 300_000), EXACT, rtol=0.05)


def test_pairs_have_their_first_frames_weight_and_stay_in_their_trajectory() -> None:
    states = [np.array([0, 1, 1, 0]), np.array([1, 1]), np.array([1])]
    weights = [np.array([1.0, 2.0, 4.0, 8.0]), np.array([16.0, 32.0]), np.array([64.0])]
    np.testing.assert_array_equal(transition_counts(states, weights, 1, 2), [[0, 1], [4, 18]])
    np.testing.assert_array_equal(transition_counts(states, weights, 2, 2), [[0, 1], [2, 0]])


def test_timescales_are_cut_at_all_data_and_exist_for_every_state() -> None:
    assert implied_timescales(np.diag([50.0, 50.0]), 2, 104) == pytest.approx((104.0,))
    # A state that was left once and never entered; one that is not in any pair; one with no memory at all.
    assert 0 < implied_timescales(np.array([[9.0, 1.0], [0.0, 9.0]]), 1, 100)[0] < 100
    for counts in ([[5, 1, 0], [1, 5, 0], [0, 0, 0]], [[0, 5, 0], [5, 0, 5], [0, 5, 0]]):
        found = np.array(implied_timescales(np.array(counts, float), 1, 100))
        assert found.shape == (2,)
        assert np.isfinite(found).all()
        assert (found > 0).all()
        assert (np.diff(found) <= 0).all()
    assert implied_timescales(np.array([[7.0]]), 1, 100) == ()


def test_temperatures_are_not_mixed() -> None:
    """Both relax within 10 frames, but a mixture would remember for ever which is which."""
    cold, hot = (np.array([[1 - a, a], [b, 1 - b]]) for a, b in ((0.01, 0.09), (0.09, 0.01)))
    exact = -1 / np.log(0.9)
    states = [*sample(cold, 40, 1000, 1), *sample(hot, 40, 1000, 2)]
    data = [trajectory(np.zeros((1000, 1)), 1.0 + (i >= 40)) for i in range(80)]
    for lag in (1, 10, 20):
        (slowest,), error = longest_timescales(data, states, lag, 2, np.random.default_rng(0))
        assert slowest == pytest.approx(exact, rel=0.25)
        assert abs(slowest - exact) < 4 * error < 4 * exact
    mixed = transition_counts(states, [np.ones(1000)] * 80, 20, 2)
    assert implied_timescales(mixed, 20, 80_000)[0] > 3 * exact


@pytest.mark.parametrize("walkers", [1, 20])
def test_error_is_the_spread_over_repetitions(walkers: int) -> None:
    found = []
    for seed in range(30):
        states = list(sample(CHAIN, walkers, 8000 // walkers, seed))
        data = [trajectory(np.zeros((len(own), 1))) for own in states]
        timescales, error = longest_timescales(data, states, 2, 3, np.random.default_rng(0))
        found.append((timescales[0], error))
    slowest, errors = np.array(found).T
    assert 0.6 < np.median(errors) / slowest.std() < 1.6
    assert abs(slowest.mean() - EXACT[0]) < slowest.std()


# The rule


def row(lag: int, *timescales: float, settled: bool = True, error: float = 0.0) -> LagRow:
    n = len(timescales) + 1
    return LagRow(lag, 0.2 * lag, n, settled, 0.5, timescales, error, (1 / n,) * n)


RULE = {
    "levels off": ([row(1, 20.0), row(2, 39.0), row(5, 41.0), row(20, 50.0)], 5, r"50 ± 0 frames at lag 20"),
    "flat": (
        [row(1, 48.0, 5.0), row(2, 50.0), row(5, 49.0)],
        1,
        r"80% of the largest \(50 ± 0 frames at lag 2\)",
    ),
    "one state has no timescale": ([row(1), row(2, 30.0), row(5, 31.0)], 2, "80%"),
    "noise grows with the lag": ([row(1, 9.0), row(10, 10.5), row(50, 25.0), row(200, 90.0)], 1, "80%"),
    "largest by chance": (
        [row(1, 44.0, 5.0), row(3, 54.0), row(15, 70.0, error=17.0)],
        1,
        "within its error",
    ),
    "not settled is left out": (
        [row(1, 60.0, 9.0, 5.0, settled=False), row(2, 38.0), row(5, 40.0)],
        2,
        "shortest lag with settled states whose",
    ),
    "nothing settled": ([row(1, 60.0, settled=False), row(2, 38.0, settled=False)], 1, "80%"),
    "no two states": ([row(2), row(5), row(10)], 2, "no lag gives two states"),
    "nothing metastable": ([row(1), row(5, 3.0), row(10, 6.0)], 5, "no state lives longer than its lag"),
}


@pytest.mark.parametrize("case", RULE)
def test_rule(case: str) -> None:
    rows, expected, words = RULE[case]
    lag, reason = recommend(rows)
    assert lag == expected
    assert pd.Series([reason]).str.contains(words).all()
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("frames", "expected"), [(8000, [1, 3, 8, 24, 69, 200]), (100, [1, 2, 3, 4, 5]), (25, [1]), (3, [1])]
)
def test_default_lags(frames: int, expected: list[int]) -> None:
    data = [trajectory(np.zeros((n, 1))) for n in (frames, 10_000)]
    assert default_lags(data) == expected


# A scan


@pytest.fixture(scope="module")
def scan() -> LagScan:
    return scan_lags(wells(), MODEL, QUICK, [10, 1, 3, 3], seed=0)


def test_scan_finds_the_wells(scan: LagScan) -> None:
    assert [row.lag for row in scan.rows] == [1, 3, 10]
    assert [row.time for row in scan.rows] == pytest.approx([0.2, 0.6, 2.0])
    assert scan.recommended in (1, 3, 10)
    for found in scan.rows:
        assert sum(found.populations) == pytest.approx(1.0, abs=1e-5)
        assert len(found.timescales) == found.n_states - 1 == len(found.populations) - 1
        assert 0 < found.information < np.log(found.n_states) + 0.1
    short = scan.rows[0]
    assert short.n_states >= 3
    assert short.timescales[0] == pytest.approx(EXACT[0], rel=0.4)


def test_same_seed_same_scan_and_nothing_else_changed(scan: LagScan) -> None:
    before = torch.get_rng_state()
    again = scan_lags(wells(), MODEL, QUICK, [1], seed=0)
    assert again.rows[0] == scan.rows[0]
    assert torch.equal(before, torch.get_rng_state())


class _CutOff(Progress):
    """A display whose user presses Ctrl-C when lag 3 is told of."""

    def update(self, task_id: TaskID, *, note: str = "", **values: Any) -> None:
        if note.startswith("lag 3:"):
            raise KeyboardInterrupt
        super().update(task_id, note=note, **values)


def test_a_scan_that_was_cut_off_goes_on_with_the_next_lag(scan: LagScan, tmp_path: Path) -> None:
    kept = lags_beside(tmp_path / "model")
    assert lags_done(tmp_path / "model") is None
    with pytest.raises(KeyboardInterrupt):
        scan_lags(wells(), MODEL, QUICK, [10, 1, 3], seed=0, progress=_CutOff(disable=True), kept=kept)
    done = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert sorted(path.name for path in done) == ["lag_0001.json", "lag_0003.json", "plan.json"]
    assert lags_done(tmp_path / "model") == (2, 3)
    assert scan_lags(wells(), MODEL, QUICK, [10, 1, 3], seed=0, kept=kept) == scan
    assert lags_done(tmp_path / "model") == (3, 3)
    assert all(path.stat().st_mtime_ns == time for path, time in done.items() if path.name != "plan.json")


def test_kept_lags_of_other_data_settings_or_seed_are_not_used(scan: LagScan, tmp_path: Path) -> None:
    data, kept = wells(2, 100), tmp_path / "kept"
    other_data = [replace(data[0], features=data[0].features + 1), data[1]]
    weighted = [replace(data[0], log_weights=np.linspace(0, 1, data[0].n_frames)), data[1]]
    scan_lags(data, MODEL, QUICK, [1], seed=0, kept=kept)
    file = kept / "lag_0001.json"
    before = json.loads(file.read_text())["origin"]
    origins = {before}
    for trajectories, settings, seed in [
        (other_data, QUICK, 0),
        (weighted, QUICK, 0),
        (data, QUICK.model_copy(update={"learning_rate": 0.01}), 0),
        (data, QUICK, 1),
    ]:
        scan_lags(trajectories, MODEL, settings, [1], seed=seed, kept=kept)
        origins.add(json.loads(file.read_text())["origin"])
    assert len(origins) == 5
    file.write_text(file.read_text()[:-20])  # damaged, and done again
    scan_lags(data, MODEL, QUICK.model_copy(update={"lag": 7}), [1], seed=0, kept=kept)
    assert json.loads(file.read_text())["origin"] == before  # the lag of the settings does not matter


def test_scan_as_json_and_as_a_figure(scan: LagScan) -> None:
    nothing = LagScan((row(1),), 1, "")
    for one in (scan, nothing):
        figure = plots.lag_scan(one)
        assert len(figure.axes) == 3
        for axis in figure.axes:
            assert any(line.get_xdata()[0] == one.recommended for line in axis.lines if line.get_ls() == "--")


def test_auto_is_the_default_and_goes_through_fit() -> None:
    assert QUICK.lag == "auto"
    data = wells(4, 60)
    result = fit(data, MODEL, QUICK, seed=0)
    assert result.lag_scan is not None
    assert [row.lag for row in result.lag_scan.rows] == default_lags(data) == [1, 2, 3]
    assert result.lag == result.lag_scan.recommended
    given = fit(data, MODEL, QUICK.model_copy(update={"lag": result.lag}), seed=0)
    assert given.lag == result.lag
    assert given.lag_scan is None
    assert given.history == result.history
    # What is biased has no say in the lag.
    biased = [replace(t, log_weights=np.linspace(0, 1, t.n_frames), run="biased") for t in wells(2, 60)]
    more = fit([*data, *biased], MODEL, QUICK, seed=0)
    assert more.lag_scan is not None
    assert more.lag_scan.rows == result.lag_scan.rows


# Bad input


@pytest.mark.parametrize("value", ["two", 0, -3, 2.5, True, None])
def test_a_bad_lag_in_the_settings_is_one_line(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"lag: expected 'auto' or a whole number of frames") as caught:
        validate(TrainingSettings, {"lag": value}, "file")
    assert len(caught.value.problems) == 1


def test_impossible_lags_are_named() -> None:
    data = [trajectory(np.zeros((n, 1))) for n in (50, 30)]
    check_lags(data, [1, 10], "--lag")
    with pytest.raises(DataError, match=r"--lag: 11 frames is too long .* 50 frames; expected 1 to 10"):
        check_lags(data, [1, 11], "--lag")
    with pytest.raises(DataError, match=r"--lag: 0 frames is too short .*expected 1 to 10"):
        check_lags(data, [0], "--lag")
    with pytest.raises(DataError, match="lags: there are none"):
        scan_lags(data, MODEL, QUICK, [], seed=0)
    with pytest.raises(DataError, match="there are no trajectories"):
        fit([], MODEL, QUICK, seed=0)
    with pytest.raises(DataError, match=r"frames every 0\.2 and every 0\.5 ps"):
        check_lags([*data, trajectory(np.zeros((50, 1)), interval=0.5)], [1], "--lag")


# The command


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, with a stage of simulation beside it."""
    folder = tmp_path_factory.mktemp("lags")
    data = yaml.safe_load((library_folder("three_hole") / "fast.yaml").read_text())
    data["simulation"] |= {"walkers": 4, "frames": 80, "equilibration": 100}
    data["training"] = QUICK.model_dump() | {"refinements": 1}
    data["model"] = MODEL.model_dump()
    (folder / "config.yaml").write_text(dump_config(validate(RunConfig, data, "tiny")))
    arguments = ["simulate", str(folder / "config.yaml"), "-o", str(folder / "stage")]
    assert RUNNER.invoke(app, arguments).exit_code == 0
    return folder / "config.yaml"


def lag_scan(config: Path, output: Path, *more: str) -> Any:
    stage = str(config.parent / "stage")
    return RUNNER.invoke(app, ["lag-scan", str(config), "--data", stage, "-o", str(output), *more])


def test_command_writes_and_prints_the_scan(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "scan"
    result = lag_scan(config, output, "--lag", "1", "--lag", "4")
    assert result.exit_code == 0, result.output
    record = json.loads((output / "lag_scan.json").read_text())
    table = pd.read_parquet(output / "lag_scan.parquet")
    assert [row["lag"] for row in record["rows"]] == table["lag"].tolist() == [1, 4]
    assert table["time"].tolist() == pytest.approx([0.2, 0.8])
    for row, timescales in zip(record["rows"], table["timescales"], strict=True):
        assert row["timescales"] == list(timescales)
    assert (output / "lag_scan.png").stat().st_size > 5000
    assert sorted(path.name for path in output.parent.iterdir()) == ["scan"]
    text = " ".join(result.output.split())
    assert f"recommended lag: {record['recommended']} frames, {record['reason']}" in text
    for row in record["rows"]:
        assert f"{row['information']:.3f}" in text


def test_train_with_auto_tells_the_lag(config: Path, tmp_path: Path) -> None:
    stage, output = str(config.parent / "stage"), tmp_path / "model"
    result = RUNNER.invoke(app, ["train", str(config), "--data", stage, "-o", str(output)])
    assert result.exit_code == 0, result.output
    provenance = json.loads((output / "model.json").read_text())["provenance"]
    assert provenance["lag"] == provenance["lag_scan"]["recommended"]
    assert f"lag {provenance['lag']} frames" in " ".join(result.output.split())


def test_command_with_bad_input(config: Path, tmp_path: Path) -> None:
    result = lag_scan(config, tmp_path / "scan", "--lag", "1", "--lag", "17")
    assert isinstance(result.exception, DataError)
    assert "--lag: 17 frames is too long for trajectories of 80 frames; expected 1 to 16" in str(
        result.exception
    )
    assert not (tmp_path / "scan").exists()
    taken = lag_scan(config, tmp_path)
    assert isinstance(taken.exception, ConfigError)
    assert "a scan is never overwritten" in str(taken.exception)
    arguments = ["lag-scan", str(config), "--data", str(tmp_path / "no"), "-o", str(tmp_path / "scan")]
    nothing = RUNNER.invoke(app, arguments)
    assert isinstance(nothing.exception, DataError)
