"""Umbrella sampling in potentials whose free energies are known, and its order, files and errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import unit
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor, nn

from latf_openmm.bias.cv import CollectiveVariables, FeatureCV, ModuleCV
from latf_openmm.errors import ConfigError, DataError, SimulationError
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.reweighting.free_energy import LatentGrid
from latf_openmm.reweighting.mbar import CombinedRuns, combine
from latf_openmm.reweighting.surface import free_energy_surface
from latf_openmm.sampling.umbrella.plan import UmbrellaSettings, window_centres
from latf_openmm.sampling.umbrella.samples import WindowSamples, window_runs
from latf_openmm.sampling.umbrella.umbrella_windows import UmbrellaWindows
from latf_openmm.units import KELVIN

Array = NDArray[np.float64]
TEMPERATURE = 300.0
KT = KELVIN.kT(TEMPERATURE)
DOUBLE_WELL = "5*(x^2-1)^2 + x + 20*(y^2+z^2)"
TWO_WELLS = "5*(x^2-1)^2 + 6*(y-0.5*x)^2 + 20*z^2"


def particle(potential: str) -> openmm.System:
    system = openmm.System()
    system.addParticle(10.0)
    force = openmm.CustomExternalForce(potential)
    force.addParticle(0, [])
    system.addForce(force)
    return system


def coordinates(axes: str) -> FeatureCV:
    return FeatureCV(CoordinateSettings(atoms=[0], axes=axes).build(), None, 1)  # type: ignore[arg-type]


def settings(**changes: Any) -> UmbrellaSettings:
    values: dict[str, Any] = {
        "timestep": 0.2,
        "friction": 1.5,
        "pulling": 100,
        "equilibration": 100,
        "frames": 20,
        "frame_interval": 6,
        "platform": "Reference",
    }
    return UmbrellaSettings(**values | changes)


def line(folder: Path, centres: Any = (-1.0, 0.0, 1.0), **changes: Any) -> UmbrellaWindows:
    """Windows along x in the double well."""
    force_constant = changes.pop("force_constant", 150.0)
    start = [[-1.0, 0.0, 0.0]]
    return UmbrellaWindows(
        particle(DOUBLE_WELL),
        coordinates("x"),
        start,
        centres,
        force_constant,
        TEMPERATURE,
        settings(**changes),
        folder,
    )


def exact_probability(energy: Callable[..., Array], grid: LatentGrid, points: int = 40) -> Array:
    """Probability of each cell by quadrature over the grid, which holds all but a negligible part."""
    axes = [
        (c[:, None] + (np.arange(points) + 0.5) / points * (e[1] - e[0]) - 0.5 * (e[1] - e[0])).ravel()
        for c, e in zip(grid.centres, grid.edges, strict=True)
    ]
    weight = np.exp(-energy(*np.meshgrid(*axes, indexing="ij")) / KT)
    for axis in range(len(axes)):
        weight = weight.reshape(*weight.shape[:axis], -1, points, *weight.shape[axis + 1 :]).sum(
            axis=axis + 1
        )
    return weight / weight.sum()


def compare(combined: CombinedRuns, grid: LatentGrid, truth: Array, within: float) -> tuple[Array, Array]:
    """Errors and error bars of the cells within so many kT of the minimum, in kT."""
    surface = free_energy_surface(combined, grid)
    cells = truth > truth.max() * np.exp(-within)
    assert np.isfinite(surface.errors[cells]).all()
    return -np.log(surface.probability[cells] / truth[cells]), surface.errors[cells] / KT


# --- free energies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [900, pytest.param(2500, marks=pytest.mark.slow)])
def test_double_well(tmp_path: Path, frames: int, record_property: Callable[[str, object], None]) -> None:
    windows = line(tmp_path, window_centres(-1.4, 1.4, 8), force_constant=30.0, frames=frames).run()
    limit = 0.1 * np.sqrt(2500 / frames)  # errors fall with the root of the number of frames
    combined = combine(window_runs(windows))
    assert (combined.connected == 0).all()
    assert combined.overlap.sum(axis=1) == pytest.approx(np.ones(8))
    assert ((combined.inefficiencies >= 1) & (combined.inefficiencies < 5)).all()
    grid = LatentGrid((np.linspace(-1.8, 1.8, 25),))
    truth = exact_probability(lambda x: 5 * (x**2 - 1) ** 2 + x, grid)
    off, errors = compare(combined, grid, truth, within=4.0)
    record_property("rms_kT", float(np.sqrt((off**2).mean())))
    assert np.sqrt((off**2).mean()) < limit
    assert (np.abs(off) < 2 * errors).mean() > 0.8
    assert np.median(errors) < limit


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "within"), [(500, 2.0), (1400, 3.0)])
def test_two_dimensions(
    tmp_path: Path, frames: int, within: float, record_property: Callable[[str, object], None]
) -> None:
    limit = 0.1 * np.sqrt(1400 / frames)
    centres = window_centres([-1.3, -0.8], [1.3, 0.8], [6, 3])
    task = UmbrellaWindows(
        particle(TWO_WELLS), coordinates("xy"), [[-1.0, -0.5, 0.0]], centres, [30.0, 10.0], TEMPERATURE,
        settings(frames=frames), tmp_path,
    )  # fmt: skip
    combined = combine(window_runs(task.run()))
    assert (combined.connected == 0).all()
    grid = LatentGrid((np.linspace(-1.8, 1.8, 13), np.linspace(-2.4, 2.4, 11)))
    truth = exact_probability(lambda x, y: 5 * (x**2 - 1) ** 2 + 6 * (y - 0.5 * x) ** 2, grid)
    off, errors = compare(combined, grid, truth, within)
    record_property("rms_kT", float(np.sqrt((off**2).mean())))
    assert np.sqrt((off**2).mean()) < limit
    assert (np.abs(off) < 2 * errors).mean() > 0.8
    assert np.median(errors) < limit


class Angle(nn.Module):
    def forward(self, positions: Tensor) -> Tensor:
        return torch.atan2(positions[0, 1:2], positions[0, 0:1])


def test_around_a_period(tmp_path: Path) -> None:
    """A ring with F = 6 cos(phi): the barrier is at the border of the period."""
    ring = particle("60*(sqrt(x^2+y^2)-1)^2 - 6*x/sqrt(x^2+y^2) + 20*z^2")
    cv = ModuleCV(Angle(), [[1.0, 0.0, 0.0]], [2 * np.pi])
    centres = window_centres(-np.pi, np.pi, 9, 2 * np.pi)
    task = UmbrellaWindows(
        ring, cv, [[1.0, 0.1, 0.0]], centres, 8.0, TEMPERATURE, settings(frames=250), tmp_path
    )
    assert all(leg.length < 1.01 for leg in task.legs)
    windows = task.run()
    assert (np.abs(np.concatenate(windows.z)) > 3.0).any()
    combined = combine(window_runs(windows))
    grid = LatentGrid((np.linspace(0.0, 2 * np.pi, 25),))  # another period than the angle's own
    truth = exact_probability(lambda phi: -6 * np.cos(phi), grid)
    off, errors = compare(combined, grid, truth, within=10.0)
    assert np.sqrt((off**2).mean()) < 0.2
    assert (np.abs(off) < 3 * errors).mean() > 0.9


# --- what is recorded ------------------------------------------------------------------------------


def test_positions_energies_and_restraints(tmp_path: Path) -> None:
    """Energies are without the restraint, each window has its own force constant, and frames are in a file."""
    force_constant = np.array([[50.0], [150.0], [600.0]])
    task = line(tmp_path, force_constant=force_constant, positions=True, frames=300)
    windows = task.run()
    for i, (z, energy) in enumerate(zip(windows.z, windows.potential_energy, strict=True)):
        assert z.shape == (300, 1)
        with mdtraj.formats.DCDTrajectoryFile(str(tmp_path / f"window_{i:04d}.dcd")) as file:
            x, y, w = (file.read()[0][:, 0].astype(float) / 10).T
        np.testing.assert_allclose(x, z[:, 0], atol=1e-6)
        expected = 5 * (x**2 - 1) ** 2 + x + 20 * (y**2 + w**2)
        np.testing.assert_allclose(energy, expected, atol=1e-3)
    # Curvatures of the total potential at -1, 0 and 1.
    spread = np.array([z.std() for z in windows.z])
    np.testing.assert_allclose(spread, np.sqrt(KT / (force_constant[:, 0] + [40, -20, 40])), rtol=0.2)
    assert windows.frame_interval == pytest.approx(1.2)
    z = torch.tensor([[0.9]], dtype=torch.float64)
    assert [float(bias(z)) for bias in windows.biases] == pytest.approx([0.5 * 50 * 1.9**2, 75 * 0.81, 3.0])
    assert windows.kT == pytest.approx(2.494339, abs=1e-6)


@pytest.mark.parametrize("backend", ["compiled", "torchforce", "python"])
def test_units_and_backends(tmp_path: Path, backend: str) -> None:
    """Quantities are taken as numbers are, and the backends do the same."""
    start = np.array([[-10.0, 0.0, 0.0]]) * unit.angstrom
    task = UmbrellaWindows(
        particle(DOUBLE_WELL), coordinates("x"), start, [-1.0, -0.8], 150.0, 300 * unit.kelvin,
        settings(backend=backend), tmp_path / "a",
    )  # fmt: skip
    plain = line(tmp_path / "b", [-1.0, -0.8])
    for one, other in zip(task.run().z, plain.run().z, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7)


# --- order -----------------------------------------------------------------------------------------


def test_centres() -> None:
    np.testing.assert_allclose(window_centres(-1, 1, 5)[:, 0], [-1, -0.5, 0, 0.5, 1])
    plane = window_centres([0, 0], [1, 2], [2, 3])
    assert plane.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    np.testing.assert_allclose(window_centres(0, 360, 4, 360)[:, 0], [0, 90, 180, 270])
    np.testing.assert_allclose(window_centres(0, 90, 4, 360)[:, 0], [0, 30, 60, 90])
    with pytest.raises(ConfigError, match="2, 1, 2 and 2 variables"):
        window_centres([0, 0], 1, [2, 2])
    with pytest.raises(ConfigError, match="counts"):
        window_centres(0, 1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_order_is_a_minimum_spanning_tree(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, 2))
    task = UmbrellaWindows(
        particle(TWO_WELLS),
        coordinates("xy"),
        [[0.3, 0.2, 0.0]],
        centres,
        [4.0, 1.0],
        300.0,
        settings(),
        tmp_path,
    )
    assert sorted(leg.window for leg in task.legs) == list(range(30))
    scaled = centres * [2.0, 1.0]
    assert task.legs[0].window == int(((scaled - [0.6, 0.2]) ** 2).sum(axis=1).argmin())
    done, total = {task.legs[0].window}, 0.0
    for leg in task.legs[1:]:
        assert leg.origin in done
        done.add(leg.window)
        total += float(np.linalg.norm(scaled[leg.window] - scaled[leg.origin]))
    distances = np.linalg.norm(scaled[:, None] - scaled, axis=-1)
    assert total == pytest.approx(minimum_spanning_tree(distances).sum())


# --- going on after an interruption ----------------------------------------------------------------


class Interruption:
    """A progress display whose user presses Ctrl-C after so many frames."""

    def __init__(self, frames: int) -> None:
        self.left = frames

    def add_task(self, *_: Any, **__: Any) -> int:
        return 0

    def update(self, _: int, advance: float = 0, **__: Any) -> None:
        self.left -= int(advance)
        if self.left < 0:
            raise KeyboardInterrupt


def same(one: WindowSamples, other: WindowSamples) -> None:
    for a, b in zip(one.z + one.potential_energy, other.z + other.potential_energy, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", ["compiled", "torchforce", "python"])
@pytest.mark.parametrize("frames", [0, 10, 20, 70])
def test_interrupted_is_the_same(tmp_path: Path, frames: int, backend: str) -> None:
    """Before the first window is complete, after it, and where the tree has branched."""
    centres = [-1.0, -0.75, -1.25, -0.5, -1.5]
    whole = line(tmp_path / "whole", centres, backend=backend).run()
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        line(folder, centres, backend=backend).run(Interruption(frames))  # type: ignore[arg-type]
    assert len(list(folder.glob("*.npz"))) == frames // 20
    with pytest.raises(DataError, match="not a finished window"):
        line(folder, centres, backend=backend).samples()
    same(whole, line(folder, centres, backend=backend).run())
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    same(whole, line(folder, centres, backend=backend).run())  # all there: only read
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


def test_without_the_checkpoint_it_goes_on_from_the_structure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path).run(Interruption(30))  # type: ignore[arg-type]
    (path,) = tmp_path.glob("*.npz")
    with np.load(path) as file:
        parts = {name: file[name] for name in file.files}
    np.savez(path, **parts | {"checkpoint": np.zeros(10, dtype=np.uint8)})
    windows = line(tmp_path).run()
    assert all(abs(z.mean() - c) < 0.3 for z, c in zip(windows.z, (-1, 0, 1), strict=True))


def test_seeds_differ(tmp_path: Path) -> None:
    one, other = (line(tmp_path / str(seed), [-1.0], seed=seed).run() for seed in (0, 1))
    assert not np.array_equal(one.z[0], other.z[0])


def test_other_settings_or_a_damaged_file_are_refused(tmp_path: Path) -> None:
    line(tmp_path).run()
    with pytest.raises(ConfigError, match="other settings"):
        line(tmp_path, frames=30).run()
    with pytest.raises(ConfigError, match="other centres"):
        line(tmp_path, [-1.0, 0.1, 1.0]).run()
    path = tmp_path / "window_0001.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"window_0001\.npz: not a finished window"):
        line(tmp_path).run()


# --- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centres", "force_constant", "message"),
    [
        ([[0.0], [1.0]], 1.0, r"centres: expected shape \(n_windows, 2\), got \(2, 1\)"),
        ([0.0, 1.0], 1.0, r"centres: expected shape"),
        (np.empty((0, 2)), 1.0, r"centres: expected shape"),
        ([[0.0, 0.0], [np.nan, 1.0]], 1.0, r"centres: window 1 is not finite"),
        ([[0.0, 0.0]], 0.0, r"force_constant: each window needs"),
        ([[0.0, 0.0]], [1.0, -1.0], r"force_constant: each window needs"),
        ([[0.0, 0.0]], np.inf, r"force_constant: each window needs"),
        (
            [[0.0, 0.0]],
            [1.0, 1.0, 1.0],
            r"force_constant: expected a number or shape \(2,\) or \(1, 2\), got \(3,\)",
        ),
    ],
)
def test_wrong_windows(tmp_path: Path, centres: Any, force_constant: Any, message: str) -> None:
    cv = coordinates("xy")
    with pytest.raises(ConfigError, match=message):
        UmbrellaWindows(
            particle(TWO_WELLS), cv, [[0.0, 0.0, 0.0]], centres, force_constant, 300.0, settings(), tmp_path
        )


@pytest.mark.parametrize(
    ("positions", "temperature", "message"),
    [
        ([[0.0, 0.0]], 300.0, r"positions: expected shape \(1, 3\), got \(1, 2\)"),
        ([[np.nan, 0.0, 0.0]], 300.0, r"positions: their collective variables are not finite"),
        ([[0.0, 0.0, 0.0]], 0.0, r"temperature: must be positive"),
    ],
)
def test_wrong_start(tmp_path: Path, positions: Any, temperature: float, message: str) -> None:
    cv: CollectiveVariables = coordinates("x")
    with pytest.raises(ConfigError, match=message):
        UmbrellaWindows(particle(TWO_WELLS), cv, positions, [0.0], 1.0, temperature, settings(), tmp_path)


def test_an_unstable_window_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SimulationError, match=r"window 0 at \[-1.0\]: .*; lower the timestep or the force constant"
    ):
        line(tmp_path, [-1.0], force_constant=1e6, timestep=0.1).run()
    assert not list(tmp_path.glob("*.npz"))


def test_all_force_groups_in_use(tmp_path: Path) -> None:
    system = particle(DOUBLE_WELL)
    for group in range(1, 32):
        force = openmm.CustomExternalForce("0")
        force.setForceGroup(group)
        system.addForce(force)
    with pytest.raises(ConfigError, match="in all 32 force groups; a bias needs one for itself"):
        UmbrellaWindows(
            system, coordinates("x"), [[-1.0, 0.0, 0.0]], [-1.0], 1.0, 300.0, settings(), tmp_path
        )
