"""Feature trajectories, lagged pairs and weights."""

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.features import build_features, resolve_features
from latf_openmm.features.base import Features
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames import trajectory as trajectory_module
from latf_openmm.frames.trajectory import (
    FeatureTrajectory,
    check_same_features,
    featurise,
    joined_features,
    new_features,
    thermal_square_speeds,
)
from latf_openmm.reweighting.weights import effective_sample_size, normalised_weights, training_weights
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.training.lagged import make_pairs

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)
LOG_WEIGHTS = st.lists(st.floats(-500.0, 500.0), min_size=1, max_size=30)


def trajectory(n: int, number: int = 0, temperature: float = 1.0, run: str = "run") -> FeatureTrajectory:
    """Frames whose features are the trajectory's number and the frame's number."""
    features = np.stack([np.full(n, number), np.arange(n)], axis=1).astype(np.float32)
    return FeatureTrajectory(features, temperature, 0.1, np.zeros(n), np.zeros(n), run, f"walker {number}")


def weighted(log_weights: Sequence[float], temperature: float = 1.0, run: str = "run") -> FeatureTrajectory:
    return replace(trajectory(len(log_weights), 0, temperature, run), log_weights=np.array(log_weights))


# FeatureTrajectory


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("label", ["features", "potential_energy", "log_weights"])
def test_number_that_is_not_finite_is_named_with_its_frame(label, bad):
    good = trajectory(10, 3)
    values = getattr(good, label).copy()
    values[7] = bad
    values[9] = bad
    with pytest.raises(DataError, match=f"walker 3: {label} is not finite at frame 7"):
        replace(good, **{label: values})


@pytest.mark.parametrize("label", ["potential_energy", "log_weights"])
@pytest.mark.parametrize("n", [0, 9, 11])
def test_lengths_that_differ_are_refused(label, n):
    with pytest.raises(DataError, match=f"walker 0: {label} has {n} frames, expected 10"):
        replace(trajectory(10), **{label: np.zeros(n)})


@pytest.mark.parametrize("label", ["potential_energy", "log_weights"])
def test_per_frame_values_with_a_second_axis_are_refused(label):
    with pytest.raises(DataError, match=f"walker 0: {label} must have shape"):
        replace(trajectory(10), **{label: np.zeros((10, 1))})


@pytest.mark.parametrize("shape", [(0, 2), (10,), (10, 2, 1)])
def test_features_of_another_shape_are_refused(shape):
    n = np.zeros(shape[0])
    with pytest.raises(DataError, match=r"walker 0: features must have shape \(n_frames > 0, n_features\)"):
        replace(trajectory(10), features=np.zeros(shape, np.float32), potential_energy=n, log_weights=n)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(DataError, match="walker 0: temperature must be positive, got"):
        replace(trajectory(10), temperature=temperature)


def test_trajectory_is_frozen():
    with pytest.raises(FrozenInstanceError, match="temperature"):
        trajectory(3).temperature = 2.0
    assert trajectory(3).n_frames == 3


def test_trajectory_with_other_features_is_named():
    other = replace(trajectory(5, 4), features=np.zeros((5, 3), np.float32))
    with pytest.raises(DataError, match="walker 4: 3 features, expected 2 as in walker 1"):
        check_same_features([trajectory(5, 1), trajectory(6, 2), other])
    assert check_same_features([trajectory(5, 1), trajectory(6, 2)]) == 2


def test_no_trajectories_are_refused():
    with pytest.raises(DataError, match="there are no trajectories"):
        check_same_features([])


# Featurising


@pytest.mark.parametrize("batch_size", [1, 7, 50, 8192])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_batches_do_not_change_the_features(monkeypatch, batch_size, periodic, kind):
    rng = np.random.default_rng(0)
    positions = rng.uniform(0.0, 2.0, (50, 4, 3)).astype(kind)
    box = np.stack([np.diag(edges) for edges in rng.uniform(2.0, 3.0, (50, 3))]) if periodic else None
    module = DistanceSettings(pairs=[(0, 1), (2, 3), (0, 3)]).build()
    monkeypatch.setattr(trajectory_module, "_FRAMES_AT_A_TIME", (batch_size, batch_size))
    found = featurise(module, positions, box)
    one_box = [None if box is None else box[i : i + 1] for i in range(50)]
    alone = [featurise(module, positions[i : i + 1], one_box[i]) for i in range(50)]
    assert found.shape == (50, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate(alone))
    delta = (positions[:, [1, 3, 3]] - positions[:, [0, 2, 0]]).astype(np.float64)
    if box is not None:
        edges = np.diagonal(box, axis1=1, axis2=2)[:, None, :]
        delta -= edges * np.round(delta / edges)
    np.testing.assert_allclose(found, np.linalg.norm(delta, axis=2), rtol=1e-6, atol=5e-7)


def test_views_of_positions_are_taken():
    positions = np.random.default_rng(1).normal(size=(3, 5, 20)).transpose(2, 1, 0)[::-1]
    module = CoordinateSettings(atoms=[1, 4], axes="xz").build()
    expected = positions[:, [1, 1, 4, 4], [0, 2, 0, 2]].astype(np.float32)
    np.testing.assert_array_equal(featurise(module, positions), expected)


def test_features_are_computed_in_single_precision_without_gradients(monkeypatch):
    """In a copy: the module of the bias stays what it is."""
    seen = []

    class Spy(Features):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("number", torch.zeros(1, dtype=torch.float64))

        @property
        def names(self) -> list[str]:
            return ["x", "y", "z"]

        def forward(self, positions: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
            seen.append((positions.dtype, box.dtype, box.numel(), len(positions), torch.is_grad_enabled()))
            return positions[:, 0]

    monkeypatch.setattr(trajectory_module, "_FRAMES_AT_A_TIME", (4, 4))
    spy = Spy()
    featurise(spy, np.zeros((5, 2, 3), np.float32))
    assert seen == [(torch.float32, torch.float32, 0, n, False) for n in (4, 1)]
    assert spy.number.dtype == torch.float64


# One array of all descriptors


def test_rows_of_one_array_are_joined_without_a_copy(tmp_path):
    whole = new_features(30, 2, tmp_path)
    whole[:] = np.arange(60).reshape(30, 2)
    parts = [whole[:10], whole[10:25], whole[25:]]
    runs = [replace(trajectory(len(x), i), features=x) for i, x in enumerate(parts)]
    assert joined_features(runs) is whole
    for other in (runs[::-1], runs[:2], [runs[0], runs[2], runs[1]]):
        joined = joined_features(other)
        assert not np.shares_memory(joined, whole)
        np.testing.assert_array_equal(joined, np.concatenate([t.features for t in other]))


def test_many_descriptors_lie_on_the_disk_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(trajectory_module, "_MAX_IN_MEMORY", 100)
    whole = new_features(60, 2, tmp_path / "a model" / "that is not there yet")
    assert isinstance(whole.base, np.memmap)
    assert not list(tmp_path.iterdir())
    whole[:] = 1.5
    runs = [replace(trajectory(30, i), features=whole[30 * i : 30 * (i + 1)]) for i in range(2)]
    joined = joined_features(runs)
    assert np.shares_memory(joined, whole)
    assert joined.shape == (60, 2)
    assert (joined == 1.5).all()


# Pairs


def runs_of(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)


@PROPERTY
@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=5),
    st.integers(1, 15),
    st.integers(1, 12),
    st.floats(0.05, 0.85),
    st.integers(0, 2**32 - 1),
)
def test_pairs_stay_in_their_blocks_and_parts_share_no_frame(lengths, lag, blocks, fraction, seed):
    trajectories = [trajectory(n, number) for number, n in enumerate(lengths)]
    try:
        pairs = make_pairs(trajectories, lag, fraction, blocks, np.random.default_rng(seed))
    except DataError as error:
        assert "at least 2 are needed" in str(error)
        assert sum(max(0, min(blocks, n // (5 * lag))) for n in lengths) < 2
        return
    assert pairs.lag == lag
    first = np.concatenate([pairs.train, pairs.held_out])
    assert len(np.unique(first)) == len(first)
    # Within trajectories: the partner has the same trajectory's number, and a frame's number `lag` higher.
    step = pairs.features[first + lag] - pairs.features[first]
    np.testing.assert_array_equal(step, np.broadcast_to([0.0, float(lag)], step.shape))
    # No frame, as first or as partner, is in both parts.
    used = [set(part) | set(part + lag) for part in (pairs.train, pairs.held_out)]
    assert used[0]
    assert used[1]
    assert not used[0] & used[1]
    # Within blocks: each run of firsts belongs to one part and is `lag` frames from the next.
    runs = runs_of(np.sort(first))
    assert all(b[0] - a[-1] > lag for a, b in pairwise(runs))
    assert all(len(set(np.isin(run, pairs.held_out))) == 1 for run in runs)
    assert all(sum(pairs.features[run[0], 0] == k for run in runs) <= blocks for k in range(len(lengths)))
    # Nothing else is lost.
    assert len(first) == sum(lengths) - sum(
        min(lag, len(block)) for n in lengths for block in expected_blocks(n, lag, blocks)
    )


def expected_blocks(n: int, lag: int, blocks: int) -> list[range]:
    """Nearly equal blocks, as many as asked for, but none shorter than five lags unless it is alone."""
    count = max(1, min(blocks, n // (5 * lag)))
    return [range(a, b) for a, b in pairwise(n * k // count for k in range(count + 1))]


@pytest.mark.parametrize(("fraction", "held"), [(0.01, 1), (0.2, 4), (0.5, 10), (0.89, 18), (0.99, 19)])
def test_share_of_blocks_held_out(fraction, held):
    pairs = make_pairs([trajectory(1000, 0), trajectory(1000, 1)], 3, fraction, 10, np.random.default_rng(0))
    assert len(runs_of(pairs.held_out)) <= held
    assert len(pairs.held_out) == held * 97
    assert len(pairs.train) == (20 - held) * 97


def test_split_depends_on_the_generator_only():
    trajectories = [trajectory(300, 0), trajectory(200, 1)]
    split = [make_pairs(trajectories, 2, 0.3, 10, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(split[0].held_out, split[1].held_out)
    assert not np.array_equal(split[0].held_out, split[2].held_out)


def test_pairs_carry_each_frame_with_its_temperature_and_weight():
    trajectories = [
        weighted([0.0, 1.0, 2.0] * 10, temperature=1.0),
        replace(weighted([0.5] * 20, temperature=2.0), features=np.full((20, 2), 7.0, np.float32)),
    ]
    pairs = make_pairs(trajectories, 1, 0.5, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(pairs.features, np.concatenate([t.features for t in trajectories]))
    np.testing.assert_array_equal(pairs.temperatures, np.repeat([1.0, 2.0], [30, 20]))
    np.testing.assert_array_equal(pairs.weights, np.concatenate(training_weights(trajectories)))
    assert pairs.weights.mean() == pytest.approx(1.0)


@pytest.mark.parametrize(("lengths", "lag"), [([5], 5), ([5, 5, 3], 5), ([40], 10), ([1], 1), ([30, 4], 25)])
def test_data_too_short_for_the_lag_are_refused(lengths, lag):
    trajectories = [trajectory(n, number) for number, n in enumerate(lengths)]
    with pytest.raises(DataError, match=rf"lag {lag} leaves [01] blocks of pairs in {len(lengths)} traj"):
        make_pairs(trajectories, lag, 0.2, 10, np.random.default_rng(0))


# Weights


RUNS = st.lists(
    st.tuples(LOG_WEIGHTS, st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=5,
)


@PROPERTY
@given(RUNS)
def test_training_weights_have_mean_one_and_equal_totals_for_temperatures(runs):
    trajectories = [weighted(*run) for run in runs]
    weights = training_weights(trajectories)
    n_frames = sum(t.n_frames for t in trajectories)
    temperatures = {t.temperature for t in trajectories}
    assert [len(w) for w in weights] == [t.n_frames for t in trajectories]
    assert all((w >= 0).all() for w in weights)
    assert np.concatenate(weights).mean() == pytest.approx(1.0)
    for temperature in temperatures:
        total = sum(
            w.sum() for w, t in zip(weights, trajectories, strict=True) if t.temperature == temperature
        )
        assert total == pytest.approx(n_frames / len(temperatures))


@PROPERTY
@given(RUNS, st.floats(-1e5, 1e5), st.sampled_from(["a", "b"]), st.sampled_from([0.5, 1.0, 2.0]))
def test_constant_in_the_log_weights_of_a_run_does_not_matter(runs, constant, run, temperature):
    before = training_weights([weighted(*r) for r in runs])
    shifted = [
        weighted([v + constant for v in log_w] if (name, t) == (run, temperature) else log_w, t, name)
        for log_w, t, name in runs
    ]
    for a, b in zip(before, training_weights(shifted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)


def test_walkers_of_one_run_share_the_normalisation():
    [a, b] = training_weights([weighted([0.0, 0.0]), weighted([math.log(3.0)])])
    np.testing.assert_allclose(np.concatenate([a, b]), [0.6, 0.6, 1.8])


def test_runs_at_one_temperature_count_by_their_effective_sample_sizes():
    flat, uneven = [0.0] * 6, [0.0, math.log(3.0)]  # effective sizes 6 and 16/10
    [a, b] = training_weights([weighted(flat, run="a"), weighted(uneven, run="b")])
    assert a.sum() / b.sum() == pytest.approx(6 / 1.6)
    assert b[1] / b[0] == pytest.approx(3.0)


def test_same_run_at_two_temperatures_is_two_runs():
    [a, b] = training_weights([weighted([0.0] * 2, 1.0), weighted([1000.0] * 6, 2.0)])
    np.testing.assert_allclose(a, 2.0)
    np.testing.assert_allclose(b, 2 / 3)


def test_weights_do_not_change_their_trajectories():
    original = [weighted([0.0, 1.0, 2.0]), weighted([3.0, 1.0], run="b")]
    training_weights(original)
    np.testing.assert_array_equal(original[0].log_weights, [0.0, 1.0, 2.0])


@PROPERTY
@given(LOG_WEIGHTS, st.floats(-1e5, 1e5))
def test_effective_sample_size_is_between_one_and_the_number_of_frames(log_weights, constant):
    values = np.array(log_weights)
    size = effective_sample_size(values)
    assert 1 - 1e-9 <= size <= len(values) * (1 + 1e-9)
    assert effective_sample_size(values + constant) == pytest.approx(size, rel=1e-6)
    w = normalised_weights(values)
    assert w.sum() == pytest.approx(1.0)
    assert size == pytest.approx(1 / (w**2).sum())


def test_effective_sample_size_at_its_bounds():
    assert effective_sample_size(np.full(25, -4e4)) == pytest.approx(25.0)
    assert effective_sample_size(np.array([0.0, 800.0, 0.0])) == pytest.approx(1.0)


# Thermal speeds


def test_thermal_speeds_are_those_of_the_gradients():
    """kT sum_a |grad_a x|^2 / m_a, by automatic differentiation, within the error of 200 random velocities."""
    built = AlanineDipeptideSettings(hydrogen_mass=3.0).build(1)
    features = build_features(
        resolve_features(
            [TorsionSettings(angles=["phi", "psi"]), DistanceSettings(selection="element != H")],
            built.mdtraj_topology(),
        )
    ).double()
    rng = np.random.default_rng(0)
    positions = built.positions + 0.005 * rng.standard_normal((400, *built.positions.shape[1:]))
    xyz = torch.from_numpy(positions[::2]).requires_grad_()
    x = features(xyz, torch.empty(0))
    gradients = [torch.autograd.grad(column.sum(), xyz, retain_graph=True)[0] for column in x.unbind(1)]
    mobility = 2.5 / torch.from_numpy(built.masses)[:, None]
    expected = [float((mobility * g**2).sum(dim=(1, 2)).mean()) for g in gradients]
    ratio = thermal_square_speeds(features, positions, None, built.masses, 2.5) / expected
    np.testing.assert_allclose(ratio, 1.0, atol=0.5)
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)


def test_thermal_speeds_in_a_box_and_of_atoms_without_mass():
    features = DistanceSettings(pairs=[[0, 1], [0, 2], [1, 2]]).build()
    positions = np.array([[[0.1, 0.0, 0.0], [2.9, 0.0, 0.0], [0.5, 0.0, 0.0]]] * 200, np.float32)
    box = np.array([3.0 * np.eye(3)] * 200, np.float32)
    masses = np.array([2.0, 0.0, 0.0])
    found = thermal_square_speeds(features.double(), positions, box, masses, 3.0)
    assert found[0] == pytest.approx(1.5, rel=0.4)
    assert found[1] == pytest.approx(found[0], rel=1e-6)  # both along x, by the same velocities
    assert found[2] == 0.0
    again = thermal_square_speeds(features, positions, box, masses, 3.0)
    np.testing.assert_array_equal(again, found)


def test_columns_keep_their_speeds():
    whole = replace(trajectory(10), square_speeds=np.array([1.0, 4.0]))
    assert whole.columns([1]).square_speeds.tolist() == [4.0]
    assert trajectory(10).columns([1]).square_speeds is None


@pytest.mark.parametrize("speeds", [[1.0], [1.0, -1.0], [1.0, np.nan], [[1.0, 1.0]]])
def test_speeds_that_do_not_fit_are_refused(speeds):
    with pytest.raises(DataError, match=r"walker 3: square_speeds must have shape \(2,\)"):
        replace(trajectory(10, 3), square_speeds=np.array(speeds))
