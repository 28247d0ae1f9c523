"""States in words: the ranges are those of the frames, and tell what they claim."""

import re
from dataclasses import replace

import mdtraj
import numpy as np
import pytest

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.state_words import StateWords, describe_states
from latf_openmm.features import build_features, resolve_features
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.trajectory import featurise
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.systems import library_folder


@pytest.fixture(scope="module")
def wells(small_run: RunFolder) -> StructureEnsemble:
    """The three-hole potential; its states are the side of y = 0.9 and, below, of x = 0."""
    ensemble = reweighter_of_round(small_run, small_run.chosen_round(None)).at(1.0)
    pool = ensemble.pool
    x, y = pool.structures(np.arange(len(ensemble.weights)), small_run.topology()).xyz[:, 0, :2].T
    return replace(
        ensemble, pool=replace(pool, states=np.where(y > 0.9, 0, np.where(x < 0, 1, 2)), n_states=3)
    )


def described(
    run: RunFolder, ensemble: StructureEnsemble, **observables: np.ndarray
) -> dict[int, StateWords]:
    features = run.trained(run.chosen_round(None)).feature_module()
    return describe_states(ensemble, features, run.topology(), observables)


def test_ranges_of_wells(small_run: RunFolder, wells: StructureEnsemble) -> None:
    """The words against all frames: how many of a state are inside the ranges, and how pure these are."""
    xyz = wells.pool.structures(np.arange(len(wells.weights)), small_run.topology()).xyz[:, 0]
    words = described(small_run, wells)
    told = {state: one for state, one in words.items() if one.ranges}
    assert told
    for state, one in told.items():
        within = np.ones(len(xyz), dtype=bool)
        for text in one.ranges:
            axis, low, high = re.fullmatch(r"(x|y) from (\S+) to (\S+) nm", text).groups()  # type: ignore[union-attr]
            column = xyz[:, "xy".index(axis)]
            within &= (column >= float(low) - 0.006) & (column <= float(high) + 0.006)
        members = wells.pool.states == state
        weight = float(wells.weights[members & within].sum())
        assert weight / wells.weights[members].sum() > 0.9 ** len(one.ranges) - 0.06
        assert weight / wells.weights[within].sum() == pytest.approx(one.share, abs=0.08)


def test_an_observable_that_was_asked_for_is_named_first(
    small_run: RunFolder, wells: StructureEnsemble
) -> None:
    state = max(range(wells.n_states), key=lambda k: wells.populations()[k].value)
    inside = (wells.pool.states == state).astype(np.float64)
    words = described(small_run, wells, inside=inside)[state]
    assert words.ranges == ("inside = 1",)
    assert words.share == 1.0
    assert str(words) == "inside = 1; 100% of all structures in this range are of this state"


def test_few_structures_have_no_words(small_run: RunFolder, wells: StructureEnsemble) -> None:
    words = described(small_run, wells)
    for state, one in words.items():
        assert one.samples == pytest.approx(wells.n_effective_in(wells.pool.states == state))
        if one.samples < 5:
            assert str(one).endswith("fewer than 5 independent structures")
            frames = (wells.weights[wells.pool.states == state] > 0).sum()
            assert bool(one.ranges) <= (frames >= 20)
    assert str(StateWords((), float("nan"), 100.0)) == "no single descriptor tells it from the others"


def test_torsions_are_read_as_angles() -> None:
    structure = mdtraj.load(str(library_folder("chignolin") / "chignolin.pdb"))
    distances = DistanceSettings(selection="name CA", minimum_bonds=4)
    twice = [TorsionSettings(angles=["phi"]), distances, TorsionSettings(angles=["phi"])]
    features = build_features(resolve_features(twice, structure.topology))
    readings = features.readings(featurise(features, structure.xyz))
    phi = np.degrees(mdtraj.compute_phi(structure)[1][0])
    assert len(readings) == 2 * len(phi) + distances.resolve(structure.topology).build().n_features
    assert [reading.name for reading in readings[:2]] == ["phi TYR2", "phi ASP3"]
    assert readings[-1].name == "phi TYR10 #3"
    for several in (readings[: len(phi)], readings[-len(phi) :]):
        assert {(reading.unit, reading.period) for reading in several} == {("degrees", 360.0)}
        assert [reading.values[0] for reading in several] == pytest.approx(phi.tolist(), abs=1e-3)
    assert readings[len(phi)].unit == "nm"
