"""Figures: each function draws into the Axes given, with labels in the units of the system."""

from dataclasses import replace
from typing import Literal

import matplotlib
import numpy as np
import pytest
from helpers.ensembles import beyond, plenty, pool_of, trained, walk
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latf_openmm import plotting
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.errors import DataError
from latf_openmm.plotting import Populations
from latf_openmm.reweighting.biased_run import BiasedRun
from latf_openmm.reweighting.free_energy import LatentGrid
from latf_openmm.reweighting.surface import flow_free_energy, free_energy_surface
from latf_openmm.reweighting.weighted import weighted
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.records import DecisionRecord, TemperingRecord
from latf_openmm.units import KELVIN, REDUCED

matplotlib.use("Agg")


def axes() -> Axes:
    return Figure(layout="constrained").subplots()


def labels(ax: Axes) -> tuple[str, str]:
    return ax.get_xlabel(), ax.get_ylabel()


@pytest.fixture(scope="module")
def ensembles() -> list[StructureEnsemble]:
    reweighter = Reweighter(trained(), plenty(n=1500))
    return [reweighter.at(temperature) for temperature in (1.0, 1.5, 2.0)]


def test_a_surface_of_weighted_frames_is_in_kilojoules() -> None:
    z = np.random.default_rng(0).normal(size=(400, 2))
    surface = free_energy_surface(weighted(BiasedRun(z, kT=2.5)), LatentGrid.around(z, points=10))
    ax = plotting.free_energy_surface(surface, names=("phi", "psi"), ax=axes())
    assert labels(ax) == ("phi", "psi")
    image = ax.collections[0]
    assert image.get_clim() == (0.0, 8 * 2.5)
    assert image.colorbar is not None
    assert image.colorbar.ax.get_ylabel() == "F [kJ/mol]"
    errors = plotting.free_energy_error(surface, in_kt=True, ax=axes()).collections[0]
    assert errors.colorbar is not None
    assert errors.colorbar.ax.get_ylabel() == "error of F / kT"
    assert errors.norm.boundaries.tolist() == [0.0, 0.1, 0.3, 1.0, 3.0, 10.0]  # whatever the errors are
    kilojoules = plotting.free_energy_error(surface, ax=axes()).collections[0]
    np.testing.assert_allclose(kilojoules.norm.boundaries, 2.5 * errors.norm.boundaries)


def test_a_profile_of_the_flow_has_the_band_of_its_committee() -> None:
    z = np.random.default_rng(0).normal(size=(400, 2))
    line = LatentGrid(LatentGrid.around(z, points=20).edges[:1])
    surface = flow_free_energy(trained(), 1.0, line)
    ax = plotting.free_energy_profile(surface, label="flow", ax=axes())
    assert labels(ax) == ("z0", "F (reduced)")
    assert len(ax.collections) == 1
    assert ax.get_legend() is not None
    one = flow_free_energy(trained(members=1), 1.0, line)
    assert np.isnan(one.errors).all()
    assert not plotting.free_energy_profile(one, ax=axes()).collections


def test_a_surface_is_not_a_profile(ensembles: list[StructureEnsemble]) -> None:
    with pytest.raises(DataError, match="over 2 variables, expected 1; use"):
        plotting.free_energy_profile(ensembles[0].free_energy(), ax=axes())
    with pytest.raises(DataError, match="over 1 variable, expected 2; use"):
        plotting.free_energy_surface(ensembles[0].free_energy(ensembles[0].pool.z[:, 0]), ax=axes())


def test_a_free_energy_of_an_ensemble_is_that_of_its_temperature(ensembles: list[StructureEnsemble]) -> None:
    """Variable x0 has the variance T, so F(x0) = x0^2 / 2 up to a constant at every temperature."""
    for ensemble in ensembles:
        grid = LatentGrid((np.linspace(-1.5, 1.5, 7),))
        surface = ensemble.free_energy(ensemble.pool.z[:, 0], grid)
        x = surface.grid.centres[0]
        exact = 0.5 * x**2
        off = (surface.values - surface.values.mean()) - (exact - exact.mean())
        assert (np.abs(off) < 5 * surface.errors + 0.02).all()
        assert surface.scale is REDUCED
    with pytest.raises(DataError, match=r"values of shape \(3, 1\) for a pool of"):
        ensembles[0].free_energy(np.zeros(3))


def test_populations_against_temperature(ensembles: list[StructureEnsemble]) -> None:
    ax = plotting.populations(ensembles[::-1], ax=axes())
    assert labels(ax) == ("T (reduced)", "population")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["state 0", "state 1"]
    table = Populations.of_ensembles(ensembles[::-1])
    assert table.temperatures.tolist() == [1.0, 1.5, 2.0]
    exact = np.array([beyond(t) for t in table.temperatures])
    assert (np.abs(table.values[:, 1] - exact) < 5 * table.errors[:, 1]).all()
    plotting.populations(table, states=[1], style="band", show_legend=False, ax=ax)
    assert ax.get_ylim()[0] == 0.0
    assert ax.get_ylim()[1] > table.values.max()


@pytest.mark.parametrize("style", ["points", "band"])
def test_populations_that_rounding_left_above_one(style: Literal["points", "band"]) -> None:
    values = np.array([[1.0 + 4e-16, -1e-17], [0.97, 0.03]])
    table = Populations(np.array([1.0, 2.0]), values, np.array([[0.0, 0.0], [0.02, 0.02]]))
    ax = plotting.populations(table, style=style, ax=axes())
    drawn = np.concatenate(
        [path.vertices[:, 1] for collection in ax.collections for path in collection.get_paths()]
    )
    assert drawn.min() > -1e-15
    assert drawn.max() < 1 + 1e-15


def test_energy_and_heat_capacity(ensembles: list[StructureEnsemble]) -> None:
    ax = plotting.mean_energy(ensembles[::-1], simulated=[1.0, 2.0], ax=axes())
    assert labels(ax) == ("T (reduced)", "energy (reduced)")
    assert ax.lines[0].get_xdata()[0] == 1.0  # type: ignore[index]
    assert plotting.heat_capacity(ensembles, ax=axes()).get_ylabel() == "heat capacity [$k_B$]"
    unknown = pool_of(replace(walk(1.0, 500, 0, 0.0, 0.5), potential_energy=np.zeros(500)))
    with pytest.raises(DataError, match="energies of the frames are not known"):
        plotting.mean_energy([Reweighter(trained(), unknown).at(1.0)], ax=axes())


def test_figures_of_a_run(small_run: RunFolder) -> None:
    history = small_run.last_round().history()
    ax = plotting.training_curve(history, ax=axes())
    assert ax.get_xlabel() == "epoch"
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"states", "joint", "flow"}
    assert plotting.training_curve(history, "n_states", ax=axes()).get_ylim()[0] == 0
    rows = small_run.last_round().summary().populations
    assert plotting.populations(Populations.of_rows(rows, small_run.scale), ax=axes()).get_legend()
    plans = [folder.read_decision() for folder in small_run.complete_rounds()]
    first = small_run.config.simulation.temperatures
    ax = plotting.simulated_temperatures(first, plans, small_run.scale, ax=axes())
    assert labels(ax) == ("round", "T (reduced)")
    assert {float(line.get_xdata()[0]) for line in ax.lines} == set(range(len(plans)))  # the rounds that ran


def test_errors_of_targets_after_each_round() -> None:
    rows = {"targets": [{"temperature": 350.0, "error over tolerance": 2.0}]}
    plan = DecisionRecord(
        strategy="active",
        temperatures=[300],
        biased=[],
        stop=False,
        reasons=[],
        starts={},
        diagnostics=rows,
    )
    ax = plotting.target_errors([plan, plan], KELVIN, ax=axes())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["350 K"]
    assert plotting.target_errors([], KELVIN, ax=axes()).get_xlabel() == "after round"


def test_moves_among_temperatures() -> None:
    temperatures = [300.0, 400.0, 500.0]
    path = np.array([300, 400, 500, 400, 300, 400, 500, 400, 300], dtype=float)
    paths = {0: path, 1: np.full(9, 400.0)}
    assert plotting.temperature_paths(paths, KELVIN, ax=axes()).get_ylabel() == "T [K]"
    shares = plotting.temperature_shares(paths, temperatures, KELVIN, ax=axes())
    np.testing.assert_allclose(shares.lines[2].get_ydata(), np.array([1 / 3, 4 / 9 + 1, 2 / 9]) / 2)
    record = TemperingRecord(kind="exchange", walkers=2, round_trips=2, acceptance=[0.4, None])
    bars = plotting.acceptance(record, temperatures, KELVIN, ax=axes()).patches
    assert bars[0].get_height() == 0.4  # type: ignore[attr-defined]
    trips = plotting.round_trips(paths, temperatures, ax=axes()).patches
    assert [bar.get_height() for bar in trips] == [2, 0]  # type: ignore[attr-defined]


def test_without_axes_a_figure_is_made() -> None:
    from matplotlib import pyplot

    ax = plotting.latent_frames(plenty(n=300))
    assert ax.figure.number in pyplot.get_fignums()  # type: ignore[union-attr]
    pyplot.close(ax.figure)  # type: ignore[arg-type]
