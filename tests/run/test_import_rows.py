"""Tables with more rows than frames, or at other times: rows are found, or one error says what is there."""

import logging
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import pytest
from helpers.dipeptide_runs import dipeptide_config, relaxed_context
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.errors import DataError
from latf_openmm.run.config import RunConfig
from latf_openmm.run.imported import ImportedTrajectory
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.rows import RowFinder
from latf_openmm.run.imported.run import Importer
from latf_openmm.run.imported.tables import Table
from latf_openmm.run.imported.times import Timeline

FRAMES, EVERY, STEPS = 60, 5, 4
SPACING = EVERY * STEPS * 0.002
TIMES = SPACING / EVERY * np.arange(EVERY * FRAMES + 1)
"""Of the rows, from the start on."""


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return dipeptide_config(FRAMES, EVERY * STEPS)


@pytest.fixture(scope="module")
def importer(config: RunConfig) -> Importer:
    return Importer(config, None, False)


@pytest.fixture(scope="module")
def simulated(importer: Importer) -> tuple[mdtraj.Trajectory, NDArray[np.float64]]:
    """Frames, and energies five times as often, from the start on."""
    context = relaxed_context(importer, 2)
    xyz, energies = [], []
    for row in range(EVERY * FRAMES + 1):
        state = context.getState(positions=True, energy=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        if row and row % EVERY == 0:
            xyz.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        context.getIntegrator().step(STEPS)
    frames = mdtraj.Trajectory(np.array(xyz), importer.topology, time=SPACING * np.arange(1, FRAMES + 1))
    return frames, np.array(energies)


class Given:
    """A trajectory and its table, to be imported."""

    def __init__(self, folder: Path, frames: mdtraj.Trajectory, importer: Importer) -> None:
        self.folder, self.frames, self.importer = folder, frames, importer

    def read(self, suffix: str, ignore_times: bool = False, **table: NDArray[np.float64]) -> ImportedFrames:
        path, file = self.folder / f"md{suffix}", self.folder / "energy.csv"
        self.frames.save(str(path))
        pd.DataFrame(table).to_csv(file, index=False)
        importer = Importer(self.importer.config, None, True) if ignore_times else self.importer
        (result,) = importer.read([ImportedTrajectory(path, 300.0, file)])
        return result


@pytest.fixture
def given(
    tmp_path: Path, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], importer: Importer
) -> Given:
    return Given(tmp_path, simulated[0], importer)


@pytest.fixture(scope="module")
def energies(simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]) -> NDArray[np.float64]:
    return simulated[1]


def test_rows_between_frames_are_averaged_around_them(given: Given, energies: NDArray[np.float64]) -> None:
    result = given.read(".nc", time=TIMES[1:], potential_energy=energies[1:] + 50.0)
    np.testing.assert_allclose(result.energy, energies[EVERY::EVERY], atol=0.01)
    assert result.recorded is not None
    assert result.recorded.counts.tolist() == [EVERY] * (FRAMES - 1) + [EVERY // 2 + 1]
    windows = np.stack([energies[EVERY + off :: EVERY][: FRAMES - 1] for off in (-2, -1, 0, 1, 2)])
    np.testing.assert_allclose(result.recorded.means[:-1, 0], windows.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(result.recorded.variances[:-1, 0], windows.var(axis=0), atol=0.01)


def test_energies_with_a_bias_are_not_averaged(given: Given, energies: NDArray[np.float64]) -> None:
    bias = np.abs(np.sin(TIMES))
    result = given.read(".nc", time=TIMES, potential_energy=energies, bias_energy=bias)
    np.testing.assert_allclose(result.bias, bias[EVERY::EVERY])
    assert result.recorded is None


@pytest.mark.parametrize("shift", [SPACING, -SPACING, 0.0123, 500.0], ids="{:g} ps".format)
def test_times_that_are_off_by_a_constant(
    shift: float, given: Given, energies: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    result = given.read(".nc", time=TIMES + shift, potential_energy=energies)
    np.testing.assert_allclose(result.energy, energies[EVERY::EVERY], atol=0.01)
    assert "301 rows, " in caplog.text
    assert "the first frame is row 5 (from 0), and each next one 5 further; its times are " in caplog.text
    assert f"{shift:.4g} ps later" in caplog.text


@pytest.mark.parametrize("suffix", [".dcd", ".xtc"])
@pytest.mark.parametrize("first", [0, 1, 5])
def test_rows_without_times_are_found_by_energies(
    suffix: str, first: int, given: Given, energies: NDArray[np.float64]
) -> None:
    result = given.read(suffix, potential_energy=energies[first:])
    np.testing.assert_array_equal(result.energy, energies[EVERY::EVERY])


def test_wrong_times_can_be_ignored(given: Given, energies: NDArray[np.float64]) -> None:
    numbers = np.arange(len(energies), dtype=float)
    given.frames = mdtraj.Trajectory(given.frames.xyz, given.frames.topology, time=numbers[:FRAMES])
    result = given.read(".nc", True, time=numbers, potential_energy=energies)
    np.testing.assert_array_equal(result.energy, energies[EVERY::EVERY])


def test_as_many_rows_as_frames_but_one_too_early(
    given: Given, energies: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    """The frame that has no row is left out."""
    early = {"time": SPACING * np.arange(FRAMES), "potential_energy": energies[:-1:EVERY]}
    for ignore in (False, True):
        caplog.clear()
        result = given.read(".nc", ignore, **early)
        np.testing.assert_allclose(result.energy, energies[EVERY:-1:EVERY], atol=0.01)
        assert result.timeline.kept.tolist() == list(range(FRAMES - 1))
        assert "1 frames, at the ends, have no row in" in caplog.text


def test_frames_after_the_end_of_the_table_are_left_out(given: Given, energies: NDArray[np.float64]) -> None:
    result = given.read(".nc", time=TIMES[:-12], potential_energy=energies[:-12])
    assert result.n_frames == FRAMES - 3
    np.testing.assert_allclose(result.energy, energies[EVERY:-12:EVERY], atol=0.01)


def test_frames_are_left_out_only_where_energies_say_that_others_have_their_rows(importer: Importer) -> None:
    """Else times may be off by a constant, which is not noticed."""
    every = np.arange(FRAMES)
    times = SPACING * (every + 1.0)
    frames = Timeline(every, times, (every + 1) * EVERY * STEPS, np.zeros(FRAMES, np.int64))
    finder = RowFinder(frames, FRAMES, "md.dcd", importer.config.simulation, None)
    complete = Table(Path("b.csv"), "plain", {"time": TIMES, "bias_energy": np.zeros(len(TIMES))})
    assert finder(complete).rows(np.ones(FRAMES, bool)).tolist() == list(range(EVERY, len(TIMES), EVERY))
    with pytest.raises(DataError, match=r"no row for frame 0, at 0\.04 ps"):
        finder(complete.only(np.arange(2 * EVERY, len(TIMES))))


def test_energies_of_something_else_are_refused(given: Given) -> None:
    other = np.random.default_rng(0).normal(size=len(TIMES))
    with pytest.raises(
        DataError,
        match=r"301 rows \(of 9 to 11\.4 ps\), .* has 60 frames \(of 0\.04 to 2\.4 ps\); no row for frame 0, at 0\.04 "
        r"ps, and no choice of rows has the energies .*Give a row for each frame.* leave out --table",
    ):
        given.read(".nc", time=9.0 + TIMES, potential_energy=other)
    with pytest.raises(DataError, match=r"30 rows, .* has 60 frames .*; there are fewer rows than frames"):
        given.read(".nc", potential_energy=other[:30])


def line(ignored: bool) -> Timeline:
    every = np.arange(FRAMES)
    return Timeline(every, None, (every + 1) * EVERY * STEPS, np.zeros(FRAMES, np.int64), ignored)


@pytest.mark.parametrize(
    ("n_rows", "first", "every"),
    [(5 * FRAMES, 4, 5), (5 * FRAMES + 1, 5, 5), (5 * (FRAMES - 1) + 1, 0, 5), (3 * FRAMES, 2, 3)],
)
def test_numbers_say_which_rows_where_times_are_ignored_and_nothing_can_be_computed(
    n_rows: int, first: int, every: int, importer: Importer, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table(Path("bias.csv"), "plain", {"bias_energy": np.zeros(n_rows)})
    finder = RowFinder(line(True), FRAMES, "md.dcd", importer.config.simulation, None)
    with caplog.at_level(logging.WARNING):
        rows = finder(table)
    assert rows.rows(rows.present).tolist() == list(range(first, n_rows, every))[:FRAMES]
    assert f"row {first} (from 0) and every {every} after it are taken, which nothing checks" in caplog.text


def test_numbers_that_say_nothing_are_refused(importer: Importer) -> None:
    table = Table(Path("bias.csv"), "plain", {"bias_energy": np.zeros(5 * FRAMES + 17)})
    for ignored, reason in (
        (True, "the numbers do not say which rows are the frames'"),
        (False, "a column time or step would say which rows are the frames'"),
    ):
        finder = RowFinder(line(ignored), FRAMES, "md.dcd", importer.config.simulation, None)
        with pytest.raises(DataError, match=f"bias.csv: 317 rows, md.dcd has 60 frames; {reason}") as caught:
            finder(table)
        assert ("--ignore-times" in str(caught.value)) is not ignored
