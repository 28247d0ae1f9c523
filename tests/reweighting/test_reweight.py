"""Reweighting against an ideal sampler, which draws from exp(-(F + V) / kT) itself, so that F is known exactly."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from scipy import signal, stats

from latf_openmm.bias.potentials import BiasSettings
from latf_openmm.bias.potentials.base import AdaptiveBias, cv_context
from latf_openmm.bias.potentials.harmonic import Harmonic
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.errors import DataError
from latf_openmm.reweighting import mbar
from latf_openmm.reweighting.biased_run import BiasedRun, Potential
from latf_openmm.reweighting.estimators import reduced_free_energies, statistical_inefficiency
from latf_openmm.reweighting.free_energy import LatentGrid
from latf_openmm.reweighting.mbar import CombinedRuns, combine
from latf_openmm.reweighting.surface import free_energy_difference, free_energy_surface
from latf_openmm.reweighting.weighted import WeightedSample, weighted

Array = NDArray[np.float64]
CONTEXT = cv_context([0.0], 300.0)
KT = CONTEXT.kT
LINE = np.linspace(-2.5, 2.5, 5001)
GRID = LatentGrid((np.linspace(-1.5, 1.5, 31),))


def double_well(x: Array) -> Array:
    return KT * (4 * (x**2 - 1) ** 2 + 0.5 * x)


WELL = double_well(LINE)
TRUTH = np.histogram(LINE, GRID.edges[0], weights=np.exp(-WELL / KT))[0] / np.exp(-WELL / KT).sum()
LOW = TRUTH.max() * np.exp(-5) < TRUTH  # the barrier is 4.5 kT high
DIFFERENCE = -KT * np.log(np.exp(-WELL / KT)[LINE > 0].sum() / np.exp(-WELL / KT)[LINE < 0].sum())


def draw(energy: Array, n: int, rng: np.random.Generator, correlation: float = 0.0, kT: float = KT) -> Array:
    """Points from exp(-energy / kT) on the line, of which each is correlated with the next."""
    weights = np.exp(-(energy - energy.min()) / kT)
    noise = rng.normal(size=n) * np.sqrt(1 - correlation**2)
    noise[0] /= np.sqrt(1 - correlation**2)
    uniform = stats.norm.cdf(signal.lfilter([1.0], [1.0, -correlation], noise))
    cumulative = np.cumsum(weights)
    return np.asarray(np.interp(uniform, cumulative / cumulative[-1], LINE))


def on_line(potential: Potential) -> Array:
    with torch.no_grad():
        return potential(torch.from_numpy(LINE)[:, None]).numpy()


def static_run(seed: int, n: int = 4000, correlation: float = 0.0) -> BiasedRun:
    """A run whose bias takes 0.7 of the barrier away."""
    x = draw(0.3 * WELL, n, np.random.default_rng([seed, n]), correlation)
    return BiasedRun(x[:, None], KT, -0.7 * double_well(x))


def umbrella(centre: float, strength: float = 15 * KT) -> Harmonic:
    return Harmonic(torch.tensor([centre]), torch.tensor([strength]))


def window(centre: float, n: int, seed: int, correlation: float = 0.0, **more: Any) -> BiasedRun:
    bias = umbrella(centre)
    x = draw(WELL + on_line(bias), n, np.random.default_rng([seed, n]), correlation)
    return BiasedRun(x[:, None], KT, bias=bias, name=f"window at {centre:g}", **more)


def off(sample: WeightedSample) -> tuple[Array, Array]:
    """Errors and error bars of the low cells [kT]."""
    surface = free_energy_surface(sample, GRID)
    return -np.log(surface.probability[LOW] / TRUTH[LOW]), surface.errors[LOW] / KT


def close(sample: WeightedSample, rms: float) -> None:
    """Whether the surface is right and says how right it is."""
    errors, bars = off(sample)
    assert np.sqrt((errors**2).mean()) < rms
    assert (np.abs(errors) < 2 * bars).mean() > 0.8
    assert np.median(bars) < rms
    difference = free_energy_difference(sample, sample.z[:, 0] < 0, sample.z[:, 0] > 0)
    assert abs(difference.value - DIFFERENCE) < 3 * difference.error
    assert difference.error < 0.2 * KT


# --- one run ---------------------------------------------------------------------------------------


def test_static_bias() -> None:
    sample = weighted(static_run(0, 20_000))
    close(sample, 0.1)
    assert sample.weights.sum() == pytest.approx(1.0)
    w = np.exp(-0.7 * double_well(sample.z[:, 0]) / KT)
    assert sample.sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert sample.n_effective == pytest.approx(sample.sample_size / sample.runs[0].inefficiency)


def test_no_bias() -> None:
    x = draw(WELL, 5000, np.random.default_rng(0))
    sample = weighted(BiasedRun(x[:, None], KT))
    assert sample.sample_size == pytest.approx(5000)
    surface = free_energy_surface(sample, GRID)
    np.testing.assert_allclose(surface.probability, GRID.histogram(x[:, None]))
    # Multinomial counts: the relative error of p is sqrt((1 - p) / (n p)).
    expected = KT * np.sqrt((1 - TRUTH[LOW]) / (5000 * TRUTH[LOW]))
    assert np.median(surface.errors[LOW] / expected) == pytest.approx(1.0, abs=0.15)
    assert surface.values.min() == 0.0


ADAPTIVE: dict[str, BiasSettings] = {
    "metadynamics": MetadynamicsSettings(
        sigma=0.1, low=[-2.5], high=[2.5], height=0.5 * KT, bias_factor=6.0, pace=1
    ),
    "not tempered": MetadynamicsSettings(
        sigma=0.1, low=[-2.5], high=[2.5], height=0.05 * KT, bias_factor=None, pace=1
    ),
    "opes": OpesSettings(sigma=0.15, barrier=8 * KT, pace=1),
    "opes explore": OpesSettings(sigma=0.15, barrier=8 * KT, pace=1, flavour="explore"),
}


def adaptive_run(kind: str, updates: int = 1000, frames: int = 8) -> BiasedRun:
    """A real adaptive bias over a system that is in equilibrium with it at all times."""
    bias = ADAPTIVE[kind].build(CONTEXT)
    assert isinstance(bias, AdaptiveBias)
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(updates):
        energy = on_line(bias)
        x = draw(WELL + energy, frames, rng)
        parts.append((x, np.interp(x, LINE, energy), np.full(frames, bias.offset())))
        bias.update(torch.tensor([[x[-1]]]))
    x, energy, offset = (np.concatenate(part) for part in zip(*parts, strict=True))
    return BiasedRun(x[:, None], KT, energy, offset, bias)


@pytest.mark.parametrize("kind", list(ADAPTIVE))
def test_adaptive_biases(kind: str) -> None:
    run = adaptive_run(kind)
    close(weighted(run, burn_in=0.2 if kind.startswith("opes") else 0.0), 0.1)
    # The bias still moves, which weights by the last one do not know.
    late = weighted(run, "last", burn_in=0.5)
    assert np.sqrt((off(late)[0] ** 2).mean()) < 0.3
    assert abs(free_energy_difference(late, late.z[:, 0] < 0, late.z[:, 0] > 0).value - DIFFERENCE) < 0.3 * KT


def test_offsets_make_times_comparable() -> None:
    """A bias that grows everywhere alike: only with its offset do early and late frames weigh the same."""
    x = draw(0.3 * WELL, 4000, np.random.default_rng(3))
    growth = np.linspace(0.0, 20 * KT, 4000)
    run = BiasedRun(x[:, None], KT, growth - 0.7 * double_well(x), growth)
    same = weighted(BiasedRun(x[:, None], KT, -0.7 * double_well(x)))
    np.testing.assert_allclose(weighted(run).weights, same.weights, rtol=1e-9)
    without = weighted(BiasedRun(x[:, None], KT, run.bias_energy))
    assert without.sample_size < 0.2 * same.sample_size


def test_burn_in_is_of_each_walker() -> None:
    x = np.arange(40.0)[:, None]
    walker = np.repeat([3, 5], [10, 30])
    run = BiasedRun(x, KT, walker=walker, offset=np.arange(40.0)).without_burn_in(0.2)
    assert run.z[:, 0].tolist() == [*range(2, 10), *range(16, 40)]
    assert run.offset is not None
    assert run.offset.tolist() == run.z[:, 0].tolist()


def test_walkers_are_apart() -> None:
    """Blocks are of one walker each, whatever the order of the frames."""
    x = draw(WELL, 400, np.random.default_rng(0))[:, None]
    walker = np.tile(np.arange(4), 100)
    sample = weighted(BiasedRun(x, KT, walker=walker), blocks=8)
    assert len(sample.groups) == 8
    for number in range(8):
        frames = np.flatnonzero(sample.block == number)
        assert len(set(walker[frames])) == 1
        assert (np.diff(frames) == 4).all()
    assert len(weighted(BiasedRun(x, KT, walker=walker), blocks=2).groups) == 4


def test_error_between_stuck_walkers() -> None:
    """Walkers that never cross: the error of the difference is that between walkers, not between frames."""
    rng = np.random.default_rng(0)
    sides = np.repeat(rng.random(10) < 0.5, 500)
    x = np.where(sides, -1.0, 1.0) + 0.1 * rng.normal(size=5000)
    sample = weighted(BiasedRun(x[:, None], KT, walker=np.repeat(np.arange(10), 500)))
    difference = free_energy_difference(sample, x < 0, x > 0)
    assert difference.error > 0.5 * KT


@pytest.mark.parametrize("correlation", [0.0, 0.8, 0.95])
def test_inefficiency(correlation: float) -> None:
    rng = np.random.default_rng(1)
    walkers = [draw(0.5 * LINE**2, 20_000, rng, correlation, 1.0)[:, None] for _ in range(2)]
    exact = (1 + correlation) / (1 - correlation)
    assert statistical_inefficiency(walkers) == pytest.approx(exact, rel=0.15)
    # The slowest variable counts, and a jump over the border of a period is no jump.
    fast = [np.hstack([rng.normal(size=(20_000, 1)), own, np.ones((20_000, 1))]) for own in walkers]
    assert statistical_inefficiency(fast) == pytest.approx(exact, rel=0.15)
    around = [np.mod(0.3 * own, 2 * np.pi) for own in walkers]
    assert statistical_inefficiency(around, [2 * np.pi]) == pytest.approx(exact, rel=0.15)


# --- several runs ----------------------------------------------------------------------------------

CENTRES = np.linspace(-1.4, 1.4, 9)


def test_windows() -> None:
    combined = combine([window(c, 2000, i) for i, c in enumerate(CENTRES)])
    close(combined, 0.1)
    assert (combined.connected == 0).all()


def test_bootstrap_solves_mbar_again() -> None:
    """The change of f_k in a bootstrap sample is that of pymbar with the frames redrawn."""
    combined = combine([window(c, 200 + 20 * i, i) for i, c in enumerate(CENTRES)])
    redrawn = combined._redraw(3, 0)
    shift = combined._solve_again(redrawn)
    for draw_, change in zip(redrawn.T, shift.T, strict=True):
        frames = np.repeat(combined.chosen, draw_[combined.block[combined.chosen]].astype(int))
        counts = np.bincount(combined.owner[frames])
        f = reduced_free_energies(combined._reduced(frames).T.copy(), counts) - combined.reduced_free_energies
        np.testing.assert_allclose(change - change[0], f - f[0], atol=1e-5)


def test_pieces_and_choice_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [window(c, 500, i, walker=np.repeat([0, 1], 250)) for i, c in enumerate(CENTRES)]
    whole = combine(runs)
    whole_surface = free_energy_surface(whole, GRID)
    monkeypatch.setattr(mbar, "_CHUNK", 1000)
    pieces = combine(runs)
    np.testing.assert_allclose(pieces.log_weights, whole.log_weights, rtol=1e-12)
    np.testing.assert_allclose(free_energy_surface(pieces, GRID).errors[LOW], whole_surface.errors[LOW])
    monkeypatch.setattr(mbar, "_MAX_MBAR_FRAMES", 200)
    few = combine(runs)
    assert len(few.chosen) == 200 * len(CENTRES)
    errors, bars = off(few)
    assert (np.abs(errors) < 3 * bars).all()
    assert np.abs(few.reduced_free_energies - whole.reduced_free_energies).max() < 0.5


def test_biases_of_different_kinds() -> None:
    """An unbiased run, an umbrella, and metadynamics frozen at its end."""
    frozen = adaptive_run("metadynamics", 300, 1).bias
    assert frozen is not None
    x = draw(WELL + on_line(frozen), 4000, np.random.default_rng(1))
    free = BiasedRun(draw(WELL, 4000, np.random.default_rng(2))[:, None], KT)
    runs = [free, window(0.0, 4000, 3), BiasedRun(x[:, None], KT, bias=frozen)]
    combined = combine(runs)
    close(combined, 0.1)
    # Each run helps: more effective frames than the best of them has alone.
    assert combined.sample_size > 1.1 * max(weighted(run).sample_size for run in runs)


def test_correlated_frames_count_less() -> None:
    """A run saved a hundred times as often as its frames become independent is not believed more for it."""
    slow = window(0.0, 20_000, 0, correlation=0.98)
    combined = combine([slow, static_well(4000)])
    assert combined.inefficiencies[0] == pytest.approx(99, rel=0.5)
    assert combined.counts[0] < 500
    assert len(combined.chosen) < 4000 + 1000
    assert combined.n_effective < combined.sample_size
    close(combined, 0.2)


def static_well(n: int) -> BiasedRun:
    def bias(z: torch.Tensor) -> torch.Tensor:
        return -0.7 * torch.from_numpy(double_well(z.numpy()[:, 0]))

    x = draw(0.3 * WELL, n, np.random.default_rng(9))
    return BiasedRun(x[:, None], KT, bias=bias)


def test_several_temperatures() -> None:
    """U = |x|^2 / 2 in four dimensions, z = x_0, from two temperatures with and without bias, at a third."""
    rng = np.random.default_rng(0)
    runs = []
    for kT, strength in ((1.0, 0.0), (2.0, 0.0), (1.0, 2.0)):
        x = rng.normal(size=(5000, 4)) * np.sqrt(kT)
        x[:, 0] /= np.sqrt(1 + strength)
        bias = Harmonic(torch.zeros(1), torch.tensor([strength])) if strength else None
        energy = 0.5 * (x**2).sum(axis=1) - 1e5
        runs.append(BiasedRun(x[:, :1], kT, bias=bias, potential_energy=energy))
    combined = combine(runs, kT=1.4)
    assert combined.weights @ combined.z[:, 0] ** 2 == pytest.approx(1.4, rel=0.03)
    energy = np.concatenate([run.potential_energy for run in runs if run.potential_energy is not None]) + 1e5
    assert combined.weights @ energy == pytest.approx(2 * 1.4, rel=0.03)
    grid = LatentGrid((np.linspace(-2, 2, 17),))
    surface = free_energy_surface(combined, grid)
    exact = np.diff(stats.norm.cdf(grid.edges[0] / np.sqrt(1.4)))
    errors = -1.4 * np.log(surface.probability / exact)
    assert (np.abs(errors) < 3 * surface.errors).all()
    assert np.sqrt((errors**2).mean()) < 0.1


def test_windows_that_do_not_overlap(caplog: pytest.LogCaptureFixture) -> None:
    runs = [window(c, 300, i) for i, c in enumerate([-1.2, -1.0, 1.0, 1.2])]
    combined = combine(runs)
    assert combined.connected.tolist() == [0, 0, 1, 1]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("window at 1 and window at -1 do not overlap")
    caplog.clear()
    combine([*runs, window(0.0, 300, 7, correlation=0.0), static_well(3000)])
    assert not caplog.records


def test_many_windows_that_overlap_with_all_others(caplog: pytest.LogCaptureFixture) -> None:
    """Overlap is judged relative to how many runs share it: here each O_ij is 1/40."""
    combined = combine([static_run_with_bias(i) for i in range(40)])
    assert combined.overlap.max() < 0.03
    assert (combined.connected == 0).all()
    assert "overlap" not in caplog.text


def static_run_with_bias(seed: int) -> BiasedRun:
    x = draw(WELL, 80, np.random.default_rng(seed))
    return BiasedRun(x[:, None], KT, bias=umbrella(0.0, 0.001 * (seed + 1)))


def test_one_run_alone() -> None:
    run = static_well(3000)
    np.testing.assert_allclose(combine([run]).weights, weighted(run).weights, rtol=1e-9)


# --- errors ----------------------------------------------------------------------------------------


def correlated_windows(seed: int) -> CombinedRuns:
    return combine([window(c, 600, 1000 * seed + i, 0.6) for i, c in enumerate(CENTRES)])


CALIBRATED: dict[str, tuple[Callable[[int], WeightedSample], int]] = {
    "independent": (lambda seed: weighted(static_run(seed)), 40),
    "correlated": (lambda seed: weighted(static_run(seed, 6000, 0.9)), 40),
    "few blocks": (lambda seed: weighted(static_run(seed, 6000, 0.9), blocks=5), 40),
    "mbar": (correlated_windows, 12),
}


@pytest.mark.parametrize("case", list(CALIBRATED))
def test_errors_are_calibrated(case: str, record_property: Callable[[str, object], None]) -> None:
    """The truth is within two standard errors in 85 to 99 % of the cells, over repetitions."""
    make, repeats = CALIBRATED[case]
    inside, differences = [], []
    for seed in range(repeats):
        sample = make(seed)
        errors, bars = off(sample)
        inside.append(np.abs(errors) < 2 * bars)
        difference = free_energy_difference(sample, sample.z[:, 0] < 0, sample.z[:, 0] > 0)
        differences.append(abs(difference.value - DIFFERENCE) < 2 * difference.error)
    record_property("coverage", float(np.mean(inside)))
    assert 0.85 < np.mean(inside) < 0.99
    assert np.mean(differences) > 0.8


# --- the grid --------------------------------------------------------------------------------------


def test_cells_are_those_of_the_grid() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 3))
    grid = LatentGrid((np.linspace(-1, 2, 8), np.linspace(-2, 1, 5)))
    z[:8, 0], z[:5, 1] = grid.edges[0], grid.edges[1]  # on the borders, too
    sample = weighted(BiasedRun(z, 1.0, rng.normal(size=2000)))
    surface = free_energy_surface(sample, grid)
    np.testing.assert_allclose(surface.probability, grid.histogram(z, sample.weights), rtol=1e-12)
    assert surface.values.shape == surface.errors.shape == (7, 4)


def test_periodic_variables_are_put_into_the_grid() -> None:
    z = np.array([[-np.pi + 0.1], [np.pi - 0.1], [0.1], [6 * np.pi + 0.1]] * 5)
    grid = LatentGrid((np.linspace(0, 2 * np.pi, 5),))
    surface = free_energy_surface(weighted(BiasedRun(z, 1.0, periods=(2 * np.pi,))), grid)
    np.testing.assert_allclose(surface.probability, [0.5, 0.25, 0.25, 0.0])
    assert surface.errors[3] == surface.values[3] == np.inf


# --- wrong input -----------------------------------------------------------------------------------

X = np.linspace(-1, 1, 20)[:, None]
NOTHING = np.zeros(20)


def test_a_grid_has_all_of_a_periodic_variable() -> None:
    z = np.column_stack([np.linspace(2.0, 3.0, 50), np.linspace(0.2, 0.8, 50)])
    grid = LatentGrid.around(z, points=4, periods=(2 * np.pi, 0.0))
    np.testing.assert_allclose(grid.edges[0], np.linspace(-np.pi, np.pi, 5))
    assert grid.edges[1][0] > 0
    assert grid.edges[1][-1] < 1
    with pytest.raises(DataError, match="periods: 1 for 2 collective variables"):
        LatentGrid.around(z, periods=(0.0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z": X[:, 0]}, r"run: z must have shape \(n_frames, dim\), got \(20,\)"),
        ({"z": X[:9]}, r"9 frames are too few"),
        ({"kT": 0.0}, r"kT must be positive"),
        ({"kT": 300 * unit.kelvin}, r"kT must be a number in kJ/mol, .* got 300 K"),
        ({"bias_energy": NOTHING[1:]}, r"bias_energy has shape \(19,\), expected \(20,\)"),
        ({"offset": np.full(20, np.nan)}, r"offset is not finite at frame 0"),
        ({"periods": (0.0, 1.0)}, r"2 periods for 1 collective variables"),
    ],
)
def test_wrong_runs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BiasedRun(**{"z": X, "kT": 1.0} | arguments)


@pytest.mark.parametrize(
    ("use", "burn_in", "blocks", "message"),
    [
        ("last", 0.0, None, "need that bias"),
        ("recorded", 1.0, None, "burn_in must be from 0 to below 1"),
        ("recorded", 0.8, None, "4 frames are too few"),
        ("recorded", 0.0, 1, "errors need 2 blocks or more"),
    ],
)
def test_wrong_weights(
    use: Literal["recorded", "last"], burn_in: float, blocks: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        weighted(BiasedRun(X, 1.0, X[:, 0]), use, burn_in, blocks)


@pytest.mark.parametrize(
    ("runs", "kT", "message"),
    [
        ([], None, "no runs"),
        ([BiasedRun(X, 1.0), BiasedRun(np.hstack([X, X]), 1.0)], None, "its collective variables are not"),
        ([BiasedRun(X, 1.0, X[:, 0])], None, "was biased, but its bias is not given"),
        ([BiasedRun(X, 1.0), BiasedRun(X, 2.0)], None, "several temperatures"),
        ([BiasedRun(X, 1.0), BiasedRun(X, 2.0)], 1.0, "has no potential energies"),
        ([BiasedRun(X, 1.0)], -1.0, "kT must be positive"),
    ],
)
def test_wrong_combinations(runs: list[BiasedRun], kT: float | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        combine(runs, kT)


def test_wrong_grids_and_regions() -> None:
    sample = weighted(BiasedRun(X, 1.0), blocks=4)
    with pytest.raises(DataError, match="grid of 2 axes does not fit 1"):
        free_energy_surface(sample, LatentGrid((np.linspace(0, 1, 3), np.linspace(0, 1, 3))))
    with pytest.raises(DataError, match="no frame is inside"):
        free_energy_surface(sample, LatentGrid((np.linspace(5, 6, 3),)))
    left = X[:, 0] < 0
    with pytest.raises(DataError, match="share frames"):
        free_energy_difference(sample, left, left)
    with pytest.raises(DataError, match="no frame in one"):
        free_energy_difference(sample, left, X[:, 0] > 5)
    with pytest.raises(DataError, match="regions of shapes"):
        free_energy_difference(sample, left[1:], ~left)


def test_too_short_for_errors_is_said(caplog: pytest.LogCaptureFixture) -> None:
    weighted(static_run(0, 200, 0.95))
    assert "times their statistical inefficiency" in caplog.text
