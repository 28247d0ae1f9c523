"""Blocks of frames: what is resampled together, and that nothing is lost or mixed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from numpy.typing import NDArray

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.blocks import FrameBlocks

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)
# Walkers, frames of each, run, temperature.
GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 40), st.sampled_from("ab"), st.sampled_from([1.0, 2.0])),
    min_size=1,
    max_size=4,
    unique_by=lambda group: group[2:],
)


def trajectory(n: int, run: str = "a", temperature: float = 1.0) -> FeatureTrajectory:
    features = np.arange(n, dtype=np.float32)[:, None]
    return FeatureTrajectory(features, temperature, 1.0, np.zeros(n), np.zeros(n), run)


def walkers(groups: list[tuple[int, int, str, float]]) -> list[FeatureTrajectory]:
    return [trajectory(n, run, temperature) for count, n, run, temperature in groups for _ in range(count)]


def per_block(blocks: FrameBlocks, multiplicity: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each block was taken; all of its frames must have been taken together."""
    ends = np.cumsum(blocks.lengths)
    parts = np.split(multiplicity, ends[:-1])
    assert all((part == part[0]).all() for part in parts)
    return np.array([part[0] for part in parts])


@PROPERTY
@given(GROUPS, st.integers(1, 12))
def test_blocks_are_parts_of_one_walker_and_cover_it(groups, wanted):
    data = walkers(groups)
    blocks = FrameBlocks(data, wanted)
    assert len(blocks) == len(blocks.lengths) == len(blocks.groups)
    assert blocks.lengths.min() >= 1
    # Every walker's end is the end of a block.
    assert set(np.cumsum([t.n_frames for t in data])) <= set(np.cumsum(blocks.lengths))
    # Numbers of groups follow runs and temperatures.
    keys = [(t.run, t.temperature) for t in data for _ in range(t.n_frames)]
    owners = np.repeat(blocks.groups, blocks.lengths)
    assert len(set(zip(keys, owners.tolist(), strict=True))) == len(set(keys)) == len(set(owners.tolist()))


@PROPERTY
@given(GROUPS, st.integers(1, 12))
def test_every_group_has_the_blocks_wanted_and_walkers_are_cut_evenly(groups, wanted):
    data = walkers(groups)
    blocks = FrameBlocks(data, wanted)
    counts = np.bincount(blocks.groups)
    ends = np.cumsum([t.n_frames for t in data])
    for number, (walkers_, n, *_) in enumerate(groups):
        assert counts[number] >= min(wanted, walkers_ * n)
        assert counts[number] < wanted + walkers_  # a walker is not cut where there are enough
    walker = np.searchsorted(ends, np.cumsum(blocks.lengths))
    for index in range(len(data)):
        assert np.ptp(blocks.lengths[walker == index]) <= 1


@PROPERTY
@given(GROUPS, st.integers(1, 12), st.integers(0, 5))
def test_bootstrap_keeps_the_blocks_of_each_group_and_leaves_one_out(groups, wanted, seed):
    blocks = FrameBlocks(walkers(groups), wanted)
    assume(np.bincount(blocks.groups).max() > 1)
    multiplicity = blocks.bootstrap(np.random.default_rng(seed))
    assert len(multiplicity) == blocks.lengths.sum()
    counts = per_block(blocks, multiplicity)
    assert counts.min() == 0
    np.testing.assert_array_equal(np.bincount(blocks.groups, counts), np.bincount(blocks.groups))


@PROPERTY
@given(GROUPS, st.integers(1, 12), st.floats(0.01, 0.99), st.integers(0, 5))
def test_hold_out_takes_whole_blocks_once_and_keeps_some(groups, wanted, fraction, seed):
    blocks = FrameBlocks(walkers(groups), wanted)
    assume(len(blocks) > 1)
    counts = per_block(blocks, blocks.hold_out(fraction, np.random.default_rng(seed)))
    assert set(counts.tolist()) == {0, 1}
    assert abs((counts == 0).sum() - fraction * len(blocks)) <= 1


@pytest.mark.parametrize("wanted", [1, 10])
def test_one_block_is_all_there_is(wanted):
    # One frame cannot be cut, and one block is not asked to be cut.
    blocks = FrameBlocks([trajectory(1 if wanted > 1 else 20)], wanted)
    assert len(blocks) == 1
    rng = np.random.default_rng(0)
    assert (blocks.bootstrap(rng) == 1).all()
    assert (blocks.hold_out(0.5, rng) == 1).all()


def test_few_walkers_are_cut_and_many_are_not():
    few, many = trajectory(100), trajectory(100, "b")
    assert FrameBlocks([few]).lengths.tolist() == [10] * 10
    assert FrameBlocks([few] * 3).lengths.tolist() == [25] * 12
    assert FrameBlocks([many] * 12).lengths.tolist() == [100] * 12
    assert FrameBlocks([few, *[many] * 12]).lengths.tolist() == [10] * 10 + [100] * 12


@pytest.mark.parametrize(
    ("g", "lengths"),
    [(1.0, [10] * 10), (2.0, [10] * 10), (3.0, [17, 17, 17, 17, 16, 16]), (5.0, [20] * 5), (50.0, [20] * 5)],
)
def test_blocks_are_longer_than_frames_are_correlated(g, lengths):
    blocks = FrameBlocks([trajectory(100)], 10, np.full(100, g))
    assert blocks.lengths.tolist() == lengths
    # Walkers of one run share it; another run has its own.
    data = [trajectory(100)] * 2 + [trajectory(200, "b")]
    both = FrameBlocks(data, 10, np.repeat([5.0, 1.0], 200))
    assert both.lengths.tolist() == [25] * 8 + [20] * 10


def test_standard_error_of_correlated_frames():
    """Of 40 runs of 60 correlation times; with blocks that are too short it is half as large."""
    rng = np.random.default_rng(3)
    values = np.empty((40, 600))
    values[:, 0] = rng.normal(size=40)
    for i in range(1, 600):
        values[:, i] = 0.818 * values[:, i - 1] + np.sqrt(1 - 0.818**2) * rng.normal(size=40)
    data, x = [trajectory(600, f"{i}") for i in range(40)], values.ravel()
    exact = np.sqrt(10 / (40 * 600))
    for wanted, g, expected in ((200, None, 0.4), (200, np.full(x.size, 10.0), 0.9)):
        blocks = FrameBlocks(data, wanted, g)
        means = [np.average(x, weights=blocks.bootstrap(rng)) for _ in range(400)]
        assert np.std(means) / exact == pytest.approx(expected, abs=0.15)


def test_same_run_at_another_temperature_is_another_group():
    warm = replace(trajectory(50), temperature=2.0)
    blocks = FrameBlocks([trajectory(50), warm, trajectory(50)], 4)
    assert blocks.groups.tolist() == [0] * 2 + [1] * 4 + [0] * 2


def test_bootstrap_takes_blocks_with_equal_chances():
    """Each block is taken once on average; of many blocks a share (1 - 1/n)^n is left out."""
    blocks = FrameBlocks([trajectory(60)] * 12 + [trajectory(60, "b")] * 20)
    rng = np.random.default_rng(0)
    counts = np.array([per_block(blocks, blocks.bootstrap(rng)) for _ in range(3000)])
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=5 / np.sqrt(3000))
    for group, n in ((0, 12), (1, 20)):
        left_out = (counts[:, blocks.groups == group] == 0).mean()
        assert left_out == pytest.approx((1 - 1 / n) ** n, abs=0.01)


def test_standard_error_from_bootstrap_is_that_of_the_mean():
    """Frames of a walker are all alike, so that the mean's error is sqrt(var/n_walkers), not of the frames."""
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=200), 30)
    blocks = FrameBlocks([trajectory(30)] * 200)
    means = [np.average(values, weights=blocks.bootstrap(rng)) for _ in range(1000)]
    assert np.std(means) == pytest.approx(np.std(values[::30]) / np.sqrt(200), rel=0.1)


def test_samples_follow_their_generator():
    blocks = FrameBlocks([trajectory(60)] * 12)
    a, b, c = (blocks.bootstrap(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_bootstrap_of_groups_of_one_block_each_leaves_one_out():
    blocks = FrameBlocks(walkers([(1, 3, "a", 1.0), (1, 4, "b", 1.0), (1, 5, "c", 1.0)]), 1)
    multiplicity = blocks.bootstrap(np.random.default_rng(0))
    assert sorted(per_block(blocks, multiplicity)) == [0, 1, 1]
