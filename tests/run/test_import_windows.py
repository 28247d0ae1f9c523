"""Differently biased runs at one temperature, imported and joined by MBAR; against pymbar and quadrature."""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
import pymbar
import pytest
from helpers.wells import WELL
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import logit, ndtr

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.trajectory import FeatureTrajectory, WindowBias
from latf_openmm.reweighting.bias_slopes import bias_steps, ratio_of_calories
from latf_openmm.reweighting.blocks import FrameBlocks, bootstrap_widening
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weights import canonical_weights
from latf_openmm.reweighting.windows import JoinedWindows
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.imported import ImportedTrajectory
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.run import Importer, _Descriptors
from latf_openmm.run.imported.runs import RunsAtTemperature, runs_at
from latf_openmm.run.imported.static_bias import find_static_bias
from latf_openmm.run.imported.walkers import write_imported
from latf_openmm.units import KELVIN

Array = NDArray[np.float64]
T = 300.0
KT = KELVIN.kT(T)
CENTRES, STIFF = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]), 75.0
LINE = np.linspace(-2.0, 2.0, 8001)


def energy(x: Array) -> Array:
    return np.asarray(20 * (x**2 - 1) ** 2 + 3 * x)


def umbrella(x: Array, centre: float) -> Array:
    return np.asarray(0.5 * 2 * STIFF * (x - centre) ** 2)


EXACT = float(np.exp(-energy(LINE) / KT)[LINE < 0].sum() / np.exp(-energy(LINE) / KT).sum())


def draw(centre: float | None, n: int, rng: np.random.Generator) -> Array:
    """Independent frames of a window, by quadrature; None: without bias."""
    u = energy(LINE) + (0.0 if centre is None else umbrella(LINE, centre))
    p = np.exp(-(u - u.min()) / KT)
    return np.asarray(rng.choice(LINE, n, p=p / p.sum()) + rng.uniform(-2.5e-4, 2.5e-4, n))


def biases(x: Array, centres: Array = CENTRES) -> Array:
    return np.stack([umbrella(x, centre) for centre in centres], axis=1)


def correlated(centre: float, n: int, rng: np.random.Generator, rho: float) -> Array:
    """Frames of a window whose normal scores have the correlation `rho` with the frame before."""
    u = energy(LINE) + umbrella(LINE, centre)
    cumulative = np.cumsum(np.exp(-(u - u.min()) / KT))
    noise = rng.normal(size=n)
    y = lfilter([np.sqrt(1 - rho**2)], [1, -rho], noise, zi=[rho * rng.normal()])[0]
    return np.interp(ndtr(y), cumulative / cumulative[-1], LINE)


def trajectories(
    n: int, seed: int, centres: Array = CENTRES, rho: float = 0.0
) -> tuple[list[FeatureTrajectory], Array]:
    rng = np.random.default_rng(seed)
    xs = [correlated(centre, n, rng, rho) if rho else draw(centre, n, rng) for centre in centres]
    found = [
        FeatureTrajectory(
            x[:, None].astype(np.float32),
            T,
            1.0,
            energy(x),
            umbrella(x, centres[k]) / KT,
            run=f"000/T300/run {k}",
            windows=WindowBias("000/T300", k, biases(x, centres) / KT),
        )
        for k, x in enumerate(xs)
    ]
    return found, np.concatenate(xs)


def test_weights_are_those_of_pymbar() -> None:
    found, x = trajectories(300, 0)
    weights = np.concatenate(canonical_weights(found))
    u_kn = np.concatenate([biases(x).T / KT, np.zeros((1, len(x)))])
    expected = pymbar.MBAR(u_kn, [300] * 5 + [0]).weights()[:, 5]
    np.testing.assert_allclose(weights / weights.sum(), expected, rtol=1e-5)
    # Their order, and how many trajectories a run has, do not matter.
    cut = found[3]
    assert cut.windows is not None
    halves = [
        FeatureTrajectory(
            cut.features[part],
            T,
            1.0,
            cut.potential_energy[part],
            cut.log_weights[part],
            run=cut.run,
            windows=WindowBias("000/T300", 3, cut.windows.reduced[part]),
        )
        for part in (slice(0, 100), slice(100, 300))
    ]
    again = canonical_weights([halves[1], *found[4::-1][:1], halves[0], *found[:3]])
    np.testing.assert_allclose(
        np.concatenate([again[2], again[0]]) / weights.sum(), expected[900:1200], rtol=1e-5
    )


def test_frames_that_are_correlated_count_less() -> None:
    found, x = trajectories(300, 1)
    g = np.repeat([1.0, 3.0, 1.0, 10.0, 1.0], 300)
    weights = np.concatenate(canonical_weights(found, np.split(g, 5)))
    joined = weights / g
    counts = np.array([300 / g[300 * k] for k in range(5)])
    u_kn = biases(x).T / KT
    f = np.zeros(5)
    for _ in range(1000):  # the equations of MBAR with frames that count 1/g
        mixture = (counts[:, None] * np.exp(f[:, None] - u_kn)).sum(axis=0)
        f = -np.log((np.exp(-u_kn) / mixture / g).sum(axis=1))
        f -= f[0]
    expected = 1 / mixture / g
    # f_k is solved from frames that all count alike: the same but for noise.
    left = x < 0
    share = joined[left].sum() / joined.sum()
    assert share == pytest.approx(expected[left].sum() / expected.sum(), abs=0.02)


def test_a_bootstrap_sample_joins_runs_again() -> None:
    found, x = trajectories(200, 2)
    reweighting = Reweighting(found)
    sample = FrameBlocks(found, 20).bootstrap(np.random.default_rng(3))
    weights = np.exp(reweighting.log_weights(T)) * reweighting.factors(
        reweighting.resample(sample, np.random.default_rng(0))
    )
    frames = np.repeat(np.arange(len(x)), sample)
    counts = np.bincount(np.repeat(np.arange(5), 200)[frames])
    u_kn = np.concatenate([biases(x[frames]).T / KT, np.zeros((1, len(frames)))])
    expected = np.bincount(frames, pymbar.MBAR(u_kn, [*counts, 0]).weights()[:, 5], len(x))
    np.testing.assert_allclose(weights / weights.sum(), expected / expected.sum(), rtol=1e-4, atol=1e-9)


def test_equations_are_solved_where_runs_hardly_overlap(caplog: pytest.LogCaptureFixture) -> None:
    """Every run has as much of the mixture as it has frames."""
    found, x = trajectories(200, 4, CENTRES[[0, 1, 3, 4]])
    reduced = biases(x, CENTRES[[0, 1, 3, 4]]) / KT
    joined = JoinedWindows(reduced, np.repeat(np.arange(4), 200), np.ones(800))
    assert joined.overlap[1, 2] < 1e-4
    blocks = FrameBlocks(found, 20)
    for seed in range(10):
        times = blocks.bootstrap(np.random.default_rng(seed))
        weights = np.exp(joined.log_weights + joined.change(times)) * times
        terms = np.exp(-reduced) * weights[:, None]
        f = -np.log(terms.sum(axis=0))
        mixture = np.exp(f - reduced)
        expected = (times[:, None] * mixture / mixture.sum(axis=1, keepdims=True)).sum(axis=0)
        np.testing.assert_allclose(expected, 200.0, rtol=1e-5)
    assert not caplog.records


@pytest.mark.parametrize(
    ("n", "rho", "centres"),
    [(150, 0.0, np.linspace(-1, 1, 9)), (200, 0.9, np.linspace(-1, 1, 9)), (200, 0.9, CENTRES)],
    ids=["independent frames", "correlated frames", "correlated frames, little overlap"],
)
def test_errors_cover_the_exact_population(n: int, rho: float, centres: Array) -> None:
    """Of 20 imports of windows; at 300 K and reweighted to 330 K."""
    off: dict[float, list[float]] = {T: [], 330.0: []}
    for seed in range(20):
        found, x = trajectories(n, 100 + seed, centres, rho)
        g = np.repeat([statistical_inefficiency([t.features]) for t in found], n)
        reweighting, blocks = Reweighting(found, g), FrameBlocks(found, 20, g)
        rng = np.random.default_rng(seed)
        samples = [reweighting.resample(blocks.bootstrap(rng), rng) for _ in range(20)]
        factors = np.array([reweighting.factors(sample) for sample in samples])
        for temperature, errors in off.items():
            boltzmann = np.exp(-energy(LINE) / KELVIN.kT(temperature))
            weights = np.exp(reweighting.log_weights(temperature))
            redrawn = factors * weights
            spread = np.std(logit(redrawn @ (x < 0) / redrawn.sum(axis=1)), ddof=1)
            share = logit(weights[x < 0].sum() / weights.sum())
            exact = logit(boltzmann[LINE < 0].sum() / boltzmann.sum())
            errors.append(float((share - exact) / (bootstrap_widening(blocks.groups) * spread)))
    for errors in off.values():  # in units of their error bars
        assert 0.5 < np.std(errors) < 1.5
        assert np.mean(np.abs(errors) < 2) >= 0.8


# --- import ----------------------------------------------------------------------------------------


def settings(folder: Path) -> RunConfig:
    (folder / "well.py").write_text(WELL)
    return RunConfig.model_validate(
        {
            "system": {"kind": "python", "file": folder / "well.py"},
            "simulation": {
                "temperatures": [T],
                "walkers": 1,
                "frames": 300,
                "frame_interval": 10,
                "timestep": 0.01,
                "friction": 1.0,
                "platform": "Reference",
            },
            "features": [{"kind": "coordinates", "atoms": [0], "axes": "x"}],
            "training": {"lag": 2},
        }
    )


def windows(folder: Path, n: int = 300, seed: int = 0, **columns: Any) -> list[ImportedTrajectory]:
    """Files of the windows; `columns`: more columns, by functions of x and the window."""
    rng, found = np.random.default_rng(seed), []
    topology = settings(folder).system.build(1).mdtraj_topology()
    for k, centre in enumerate(CENTRES):
        x = draw(centre, n, rng)
        xyz = np.zeros((n, 1, 3), np.float32)
        xyz[:, 0, 0] = x
        mdtraj.Trajectory(xyz, topology).save(str(folder / f"w{k}.dcd"))
        x = xyz[:, 0, 0].astype(float)
        more = {name: make(x, k) for name, make in columns.items()}
        table = {"potential_energy": energy(x), "bias_energy": umbrella(x, centre), **more}
        table = {name: values for name, values in table.items() if values is not None}
        pd.DataFrame(table).to_csv(folder / f"w{k}.csv", index=False)
        found.append(ImportedTrajectory(folder / f"w{k}.dcd", T, folder / f"w{k}.csv"))
    return found


def joined(
    folder: Path, given: list[ImportedTrajectory], independent: bool = False
) -> tuple[list[ImportedFrames], RunsAtTemperature]:
    config = settings(folder)
    frames = Importer(config, None, False).read(given)
    reader = _Descriptors(RunFolder(folder / "run", config))
    return frames, runs_at(frames, T, KT, reader, independent)


def check_biases(frames: list[ImportedFrames], at: RunsAtTemperature, atol: float = 1e-3) -> None:
    for index, one in enumerate(frames):
        x = np.concatenate([sample.xyz[0, 0, :1] for sample in one.files[0].samples]).astype(float)
        np.testing.assert_allclose(at.bias[index][one.files[0].sample_frames], biases(x), atol=atol)


def test_biases_are_found_from_the_frames(tmp_path: Path) -> None:
    frames, at = joined(tmp_path, windows(tmp_path))
    check_biases(frames, at)
    # What is written is read back as weights.
    config = settings(tmp_path)
    write_imported(config, frames, [at], tmp_path / "run")
    run = RunFolder(tmp_path / "run", config)
    walkers = run.walkers(0)
    assert [walker.run for walker in walkers] == [f"000/T300/run {k}" for k in range(5)]
    found = featurise_walkers(run.config, walkers, run.path)
    weights = np.concatenate(canonical_weights(found))
    x = np.concatenate([t.features[:, 0] for t in found]).astype(float)
    u_kn = np.concatenate([biases(x).T / KT, np.zeros((1, len(x)))])
    expected = pymbar.MBAR(u_kn, [300] * 5 + [0]).weights()[:, 5]
    np.testing.assert_allclose(weights / weights.sum(), expected, rtol=1e-3)


def test_biases_by_columns_and_by_declaration(tmp_path: Path) -> None:
    by_column = {f"bias_energy_{k}": (lambda x, _, k=k: umbrella(x, CENTRES[k])) for k in range(5)}
    check_biases(*joined(tmp_path, windows(tmp_path, **by_column)))
    given = windows(tmp_path, d=lambda x, _: x)
    entries = "\n".join(f"- {{d: {{center: {c}, force_constant: {2 * STIFF}}}}}" for c in CENTRES)
    (tmp_path / "windows.yaml").write_text(entries)
    declared = [ImportedTrajectory(t.path, T, t.table, bias=str(tmp_path / "windows.yaml")) for t in given]
    check_biases(*joined(tmp_path, declared))
    (tmp_path / "v.py").write_text(
        f"import numpy as np\ndef all(t):\n    return {STIFF} * (t.xyz[:, 0, :1] - np.linspace(-1, 1, 5)) ** 2\n"
    )
    functions = [ImportedTrajectory(t.path, T, t.table, bias=f"{tmp_path}/v.py:all") for t in given]
    check_biases(*joined(tmp_path, functions), atol=1e-3)
    (tmp_path / "windows.yaml").write_text(entries.replace("150.0", "170.0"))
    with pytest.raises(DataError, match=r"bias_energy of the table is .* kJ/mol, the bias given for its run"):
        joined(tmp_path, declared)
    (tmp_path / "windows.yaml").write_text("- {phi: {center: 0, force_constant: 1}}\n" * 5)
    with pytest.raises(DataError, match="have no column 'phi' that changes; they have d"):
        joined(tmp_path, declared)
    (tmp_path / "windows.yaml").write_text("- {d: {centre: 0}}\n" * 5)
    with pytest.raises(ConfigError, match="did you mean 'center'"):
        joined(tmp_path, declared)


def test_biases_that_cannot_be_known_are_refused(tmp_path: Path) -> None:
    given = windows(tmp_path, bias_energy=lambda x, k: 10 * np.cos(3 * x + k) + 10)
    with pytest.raises(DataError, match=r"5 differently biased runs .* give --bias FILE.py:FUNCTION"):
        joined(tmp_path, given)
    _, at = joined(tmp_path, given, independent=True)
    assert len(at.runs) == 5
    assert not at.bias
    grown = windows(tmp_path, bias_offset=lambda x, k: np.linspace(0, 5, len(x)))
    with pytest.raises(DataError, match=r"its bias grew .* use --run for walkers that share the bias"):
        joined(tmp_path, grown)
    shared = [ImportedTrajectory(t.path, T, t.table, run="walkers") for t in grown]
    _, one = joined(tmp_path, shared)
    assert [run.members for run in one.runs] == [[0, 1, 2, 3, 4]]
    with pytest.raises(DataError, match="do not overlap enough"):
        joined(tmp_path, [windows(tmp_path, n=60)[0], windows(tmp_path, n=60)[4]])


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_windows_that_are_right_pass_the_test_of_biases(rho: float) -> None:
    for seed in range(10):
        _, x = trajectories(400, 50 + seed, np.linspace(-1, 1, 9), rho)
        reduced = biases(x, np.linspace(-1, 1, 9)) / KT
        run = np.repeat(np.arange(9), 400)
        steps = bias_steps(JoinedWindows(reduced, run, np.ones(len(run))))
        assert len(steps) >= 5
        assert not any(step.off for step in steps)
        assert np.median([step.ratio for step in steps]) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("factor", [1 / 4.184, 4.184])
def test_biases_in_another_unit_are_known_by_how_frames_are_distributed(factor: float) -> None:
    centres = np.linspace(-1, 1, 33)
    _, x = trajectories(400, 7, centres)
    run = np.repeat(np.arange(33), 400)
    steps = bias_steps(JoinedWindows(factor * biases(x, centres) / KT, run, np.ones(len(run))))
    assert ratio_of_calories(steps) == pytest.approx(1 / factor)


def test_biases_in_another_unit_are_refused(tmp_path: Path) -> None:
    given = windows(tmp_path, bias_energy=lambda x, k: umbrella(x, CENTRES[k]) / 4.184)
    with pytest.raises(
        DataError,
        match=r"times what it is .* in kcal/mol, taken for kJ/mol; expected kJ/mol, or a column bias",
    ):
        joined(tmp_path, given)


def test_a_window_whose_table_lacks_the_bias_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = windows(tmp_path)
    joined(tmp_path, given)
    assert "distributed as if" not in caplog.text
    table = pd.read_csv(tmp_path / "w2.csv")
    table.drop(columns="bias_energy").to_csv(tmp_path / "w2.csv", index=False)
    joined(tmp_path, given)
    assert "their frames are distributed as if the difference of their biases were" in caplog.text
    assert "a bias is missing or wrong, or a run is not in equilibrium" in caplog.text
    assert "w2.dcd counts as unbiased" in caplog.text


def test_an_unbiased_run_beside_windows(tmp_path: Path) -> None:
    given = windows(tmp_path)
    free = draw(None, 300, np.random.default_rng(9))
    xyz = np.zeros((300, 1, 3), np.float32)
    xyz[:, 0, 0] = free
    mdtraj.Trajectory(xyz, settings(tmp_path).system.build(1).mdtraj_topology()).save(
        str(tmp_path / "free.dcd")
    )
    _, at = joined(tmp_path, [*given, ImportedTrajectory(tmp_path / "free.dcd", T)])
    assert [run.name for run in at.runs] == ["0", "1", "2", "3", "4", "unbiased"]
    np.testing.assert_array_equal(at.bias[2][:, 5], 0.0)
    np.testing.assert_allclose(at.bias[5][:, :5], biases(xyz[:, 0, 0].astype(float)), atol=1e-3)


def test_periodic_variables() -> None:
    """A restraint of an angle is known across the border; one whose period nobody says is not guessed."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 2000)
    centre = 2.8
    off = angle - centre - 2 * np.pi * np.round((angle - centre) / (2 * np.pi))
    bias = 40 * off**2
    own = np.flatnonzero(np.abs(off) < 0.6)
    found = find_static_bias({"phi": angle}, {"phi": 2 * np.pi}, own, bias[own], KT)
    assert found is not None
    np.testing.assert_allclose(found.energies, bias, rtol=1e-6, atol=1e-6)
    assert find_static_bias({"phi": angle}, {}, own, bias[own], KT) is None
    # Of two variables, and of noise, which is none.
    x, y = rng.normal(size=(2, 500))
    both = find_static_bias(
        {"x": x, "y": y, "n": rng.normal(size=500)}, {}, np.arange(250), (x + y)[:250] ** 2, KT
    )
    assert both is not None
    assert set(both.on.split(" and ")) == {"x", "y"}
    np.testing.assert_allclose(both.energies, (x + y) ** 2, atol=1e-8)
    assert find_static_bias({"x": x}, {}, np.arange(250), rng.normal(size=250), KT) is None
