"""Metrics of the benchmark of Boltzmann generators have known values, and its page says what was scored."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.boltzmann_generators.methods import LIMIT, METHODS, Case
from benchmarks.boltzmann_generators.metrics import (
    BINS,
    WIDTHS,
    energy_distance,
    fitting_width,
    forward_divergence,
    free_energy_difference,
    ramachandran,
    resampled,
    smoothed,
    torus_distance,
)
from benchmarks.boltzmann_generators.reference import RUNS, folder_of
from benchmarks.boltzmann_generators.run import measure, read_references
from benchmarks.boltzmann_generators.scores import Frames, Reference
from benchmarks.boltzmann_generators.tables import PAGE, root_mean_square, write_page
from benchmarks.boltzmann_generators.target import TEMPERATURES

RNG = np.random.default_rng(0)
CELL = 2 * np.pi / BINS


def centres(columns: int) -> np.ndarray:
    """Centres of the cells of so many columns of phi."""
    axis = -np.pi + CELL * (np.arange(BINS) + 0.5)
    return np.stack(np.meshgrid(axis[:columns], axis, indexing="ij"), -1).reshape(-1, 2)


def basins(n: int, seed: int, share: float = 0.2) -> np.ndarray:
    """Angles in two basins, of which the one at phi = 1 has the share."""
    rng = np.random.default_rng(seed)
    centre = np.where(rng.random(n) < share, 1.0, -1.5)
    return np.stack([rng.vonmises(centre, 20.0), rng.vonmises(3.0, 10.0, n)], -1)


def test_half_of_the_cells_diverge_from_all_by_ln_2() -> None:
    half, everywhere = ramachandran(centres(BINS // 2)), ramachandran(centres(BINS))
    assert everywhere.sum() * CELL**2 == pytest.approx(1.0)
    assert forward_divergence(everywhere, everywhere) == 0.0
    assert forward_divergence(half, everywhere) == pytest.approx(np.log(2), abs=1e-6)
    assert forward_divergence(everywhere, half) > 5.0  # half of it lies where the other has nothing


def test_angles_of_any_period_and_weights_count() -> None:
    angles = basins(1000, 1)
    np.testing.assert_array_equal(ramachandran(angles + 4 * np.pi), ramachandran(angles))
    doubled = ramachandran(np.concatenate([angles, angles[:500]]))
    weighted = ramachandran(angles, np.repeat([2.0, 1.0], 500))
    np.testing.assert_allclose(weighted, doubled)


def test_a_kernel_goes_around_and_keeps_the_total() -> None:
    density = ramachandran(np.array([[np.pi - 0.01, 0.0]]))
    wide = smoothed(density, 2.0)
    assert wide.sum() == pytest.approx(density.sum())
    row = int(np.argmax(wide[-1]))
    assert wide[0, row] == pytest.approx(wide[-2, row])
    assert smoothed(density, 0.0) is density


def test_more_frames_take_a_narrower_kernel() -> None:
    few, many = basins(500, 2), basins(200_000, 3)
    widths = [fitting_width(a, np.ones(len(a)), np.arange(len(a)) % 5) for a in (few, many)]
    assert widths[0] > widths[1]
    assert set(widths) <= set(WIDTHS)


def test_torus_distance_goes_the_short_way_around() -> None:
    a = RNG.normal(0.0, 0.3, (50, 2))
    assert torus_distance(a, a[::-1]) == pytest.approx(0.0, abs=1e-6)
    assert torus_distance(a, a + np.array([2 * np.pi - 0.1, 0.0])) == pytest.approx(0.1)
    assert torus_distance(a, a + np.array([0.3, 0.4])) == pytest.approx(0.5)


def test_energy_distance_of_shifted_and_weighted_numbers() -> None:
    x, equal = RNG.normal(size=1000), np.ones(1000)
    assert energy_distance(x, equal, x[::-1] + 1.5, equal) == pytest.approx(1.5)
    two = np.array([0.0, 1.0])
    # half of the mass moves by one
    assert energy_distance(two, np.array([1.0, 3.0]), two, np.array([3.0, 1.0])) == pytest.approx(
        np.sqrt(0.5)
    )
    assert energy_distance(two, np.ones(2), np.zeros(5), np.ones(5)) == pytest.approx(np.sqrt(0.5))


def test_free_energy_of_the_region() -> None:
    phi = np.array([1.0, -1.0, -2.0, 2.5])
    assert free_energy_difference(phi, np.ones(4)) == pytest.approx(np.log(3))
    assert free_energy_difference(phi, np.array([3.0, 1.0, 1.0, 1.0])) == pytest.approx(0.0)
    assert free_energy_difference(phi[1:], np.ones(3)) == np.inf


def test_drawing_keeps_weights() -> None:
    drawn = resampled(np.array([1.0, 3.0]), 400, 0)
    assert np.bincount(drawn).tolist() == [100, 300]


def frames_of(angles: np.ndarray, weights: np.ndarray | None = None) -> Frames:
    n = len(angles)
    weights = np.ones(n) if weights is None else weights
    energy = 10.0 + 5.0 * np.sin(np.arange(n))
    return Frames(angles, energy, weights / weights.sum(), np.arange(n) % 10)


def test_scores_of_frames_from_the_same_distribution_are_small() -> None:
    reference = Reference(0, (frames_of(basins(50_000, 4)), frames_of(basins(50_000, 5))))
    row = reference.scores(frames_of(basins(20_000, 6)))
    assert row["samples"] == pytest.approx(20_000)
    assert row["smoothed divergence"] < row["divergence"] < 0.4
    assert reference.scores(frames_of(basins(400, 6)), torus=True)["torus"] < 0.3
    assert row["energy"] < 0.1
    assert abs(row["free energy"]) < 0.1
    assert reference.own_divergence < 0.02
    # a wrong share of the basins is seen, and put right by weights
    wrong = basins(20_000, 7, share=0.5)
    right = np.where(wrong[:, 0] > 0, 0.25, 1.0)
    assert reference.scores(frames_of(wrong))["smoothed divergence"] > 0.15
    assert reference.scores(frames_of(wrong, right))["smoothed divergence"] < 0.05


def test_no_method_exceeds_the_limit() -> None:
    assert max(Case(method, 1).evaluations for method in METHODS) <= LIMIT
    assert Case("exchange, one temperature", 1).simulated == Case("exchange", 1)
    simulated = {"fixed", "exchange", "exchange of neighbours", "exchange 2 fs"}
    assert {Case(method, 1).simulated.method for method in METHODS} == simulated


def test_configurations_differ_in_moves_masses_and_time_steps_alone() -> None:
    fixed, exchange, heavy = (
        Case(method, 3).config() for method in ("fixed", "exchange", "exchange 2 fs, one temperature")
    )
    assert fixed.simulation.tempering is None
    assert exchange.simulation.tempering == heavy.simulation.tempering is not None
    assert (exchange.simulation.timestep, heavy.simulation.timestep) == (0.001, 0.002)
    assert fixed.simulation.steps == heavy.simulation.steps <= LIMIT
    assert fixed.system == exchange.system != heavy.system


def write_reference(work: Path) -> None:
    """Two runs of two chunks of made-up frames."""
    for seed, run in enumerate(RUNS):
        folder_of(work, run).mkdir(parents=True)
        for chunk in range(2):
            angles = np.stack([basins(100, 100 + 10 * seed + chunk)] * len(TEMPERATURES))
            torsions = np.concatenate([angles, np.full_like(angles, np.pi)], -1).astype(np.float32)
            energy = RNG.normal(10.0, 5.0, torsions.shape[:2])
            np.savez(folder_of(work, run) / f"chunk_{chunk:05d}.npz", torsions=torsions, energy=energy)


def test_the_page_has_a_row_for_each_method_and_temperature(tmp_path: Path) -> None:
    work, docs = tmp_path / "work", tmp_path / "docs"
    write_reference(work)
    references = read_references(work, left_out=0)
    scores = [references[0].scores(frames_of(basins(300, seed)), torus=True) for seed in (1, 2)]
    for method in ("exchange", "exchange 2 fs"):
        rows = [
            {"method": method, "seed": seed, "evaluations": Case(method, seed).evaluations, "temperature": t}
            | row
            for seed, row in enumerate(scores)
            for t in TEMPERATURES
        ]
        (work / "scores").mkdir(exist_ok=True)
        (work / "scores" / f"{Case(method, 1).name}.json").write_text(json.dumps({"chunks": 2, "rows": rows}))
    docs.mkdir()
    page = write_page(work, references, docs).read_text()
    assert (docs / PAGE).is_file()
    assert "2 and 2 chunks" in page
    assert "13,000,000" in page
    assert "| exchange 2 fs " in page and "| fixed" not in page
    assert all(f"| {t:g} " in page for t in TEMPERATURES)
    text = [line for line in page.splitlines() if not line.startswith("|")]
    assert max(map(len, text)) <= 120


def test_scores_that_are_there_for_this_reference_are_kept(tmp_path: Path) -> None:
    write_reference(tmp_path)
    case = Case("exchange", 1)
    file = tmp_path / "scores" / f"{case.name}.json"
    file.parent.mkdir()
    file.write_text('{"chunks": 2, "rows": []}')
    measure([case], tmp_path, left_out=0)  # simulates nothing
    assert json.loads(file.read_text()) == {"chunks": 2, "rows": []}


def test_errors_over_seeds() -> None:
    assert root_mean_square(pd.Series([3.0])) == "3"
    assert root_mean_square(pd.Series([0.03, 0.03])) == "0.03 ± 0"
    assert root_mean_square(pd.Series([1.0, 7.0])).startswith("5 ± ")
