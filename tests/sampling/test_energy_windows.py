"""Energies recorded more often than frames: what they are means of, and that nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.stages import (
    DIPEPTIDE,
    HOLES,
    LJ7,
    load,
    make_stage,
    run,
    same_results,
    source,
    table,
    write_model,
)
from pydantic import ValidationError

from latf_openmm.bias.potentials import BiasSettings
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.frames.walkers import read_stage
from latf_openmm.sampling.stage import SimulationSettings, run_stage
from latf_openmm.sampling.tempering import TemperingSettings
from latf_openmm.sampling.tempering.exchange import ExchangeSettings
from latf_openmm.sampling.tempering.expanded import ExpandedSettings
from latf_openmm.systems import SystemSettings
from latf_openmm.systems.python_file import PythonFileSettings

RECORDED = ["energy_recordings", "energy_mean", "energy_variance"]
MOLECULE: dict[str, Any] = {"temperatures": [300.0], "walkers": 1, "timestep": 0.002, "platform": "Reference"}
MOVING: dict[str, Any] = {"temperatures": [1.0, 1.5]}
CASES: dict[str, tuple[SystemSettings, BiasSettings | None, dict[str, Any]]] = {
    "copies": (HOLES, None, {}),
    "copies, harmonic": (HOLES, HarmonicSettings(centre=[0.0, 0.8], force_constant=[1.0, 1.0]), {}),
    "copies, OPES": (HOLES, OpesSettings(barrier=4.0, pace=4), {}),
    "two temperatures in a Context": (HOLES, None, {"temperatures": [1.0, 1.5], "context_walkers": 6}),
    "bias every few steps": (HOLES, OpesSettings(barrier=4.0, pace=4), {"bias_every": 3}),
    "exchange": (HOLES, None, MOVING | {"tempering": ExchangeSettings(interval=4)}),
    "exchange in two Contexts": (
        *(HOLES, HarmonicSettings(centre=[0.0, 0.8], force_constant=[1.0, 1.0])),
        MOVING | {"tempering": ExchangeSettings(interval=4), "context_walkers": 3},
    ),
    "expanded": (HOLES, None, MOVING | {"tempering": ExpandedSettings(interval=4)}),
    "molecule": (DIPEPTIDE, None, MOLECULE),
    "molecule, exchange": (
        *(DIPEPTIDE, None),
        MOLECULE | {"temperatures": [300.0, 330.0], "tempering": ExchangeSettings(interval=4)},
    ),
    "molecule, harmonic": (DIPEPTIDE, HarmonicSettings(centre=[0.4, -0.3], force_constant=20.0), MOLECULE),
    "molecule, OPES": (DIPEPTIDE, OpesSettings(barrier=20.0, pace=4), MOLECULE),
}


def case(name: str, folder: Path) -> dict[str, Any]:
    """Arguments of a stage."""
    system, bias, changes = CASES[name]
    acting = None
    if bias is not None:
        features = (
            CoordinateSettings(atoms=[0], axes="xy")
            if system is HOLES
            else TorsionSettings(angles=["phi", "psi"])
        )
        temperature = changes.get("temperatures", [1.0])[0]
        acting = source(write_model(folder / "model", system, [features], temperature), bias)
    return {"bias": acting, "system": system, "frame_interval": 6, "equilibration": 10} | changes


@pytest.mark.parametrize("name", CASES)
def test_frames_are_the_same_bit_by_bit(tmp_path: Path, name: str) -> None:
    common = case(name, tmp_path)
    plain = run(make_stage(tmp_path / "plain", **common))
    recorded = run(make_stage(tmp_path / "recorded", energy_interval=2, **common))
    more = table(recorded)
    assert not set(RECORDED) & set(table(plain))
    pd.testing.assert_frame_equal(table(plain), more.drop(columns=RECORDED), check_exact=True)
    for a, b in zip(plain, recorded, strict=True):
        for left, right in zip(a.files, b.files, strict=True):
            np.testing.assert_array_equal(load(left).xyz, load(right).xyz)
    # Three recordings: half-way before, at, and half-way after the frame; the last of a segment lacks one.
    # So do frames before walkers move.
    short = more["frame"] % 10 == 9
    if "tempering" in common:
        short |= more["frame"] % 4 == 3
    np.testing.assert_array_equal(more["energy_recordings"], np.where(short, 2, 3))


@pytest.mark.parametrize("name", CASES)
def test_resumes_exactly(tmp_path: Path, name: str) -> None:
    common = case(name, tmp_path) | {"energy_interval": 2}
    run_stage(make_stage(tmp_path / "complete", **common))
    run_stage(make_stage(tmp_path / "parts", frames=10, **common))
    run_stage(make_stage(tmp_path / "parts", **common))
    same_results(tmp_path / "complete", tmp_path / "parts")


@pytest.mark.parametrize(
    "name", ["copies", "two temperatures in a Context", "molecule", "molecule, harmonic"]
)
@pytest.mark.parametrize("recordings", [1, 2, 3, 4])
def test_means_and_variances_are_those_of_frames_written_as_often(
    tmp_path: Path, name: str, recordings: int
) -> None:
    """The same run with a frame at each recording has the energies."""
    n, common = recordings, case(name, tmp_path) | {"equilibration": 0}
    interval = {"frame_interval": 2 * n, "segment_frames": 5, "frames": 10, "energy_interval": 2}
    recorded = table(run(make_stage(tmp_path / "recorded", **(common | interval))))
    often = {"frame_interval": 2, "segment_frames": 5 * n, "frames": 10 * n}
    frames = table(run(make_stage(tmp_path / "often", **(common | often))))
    for walker, rows in recorded.groupby("walker"):
        energies = frames["potential_energy"][frames["walker"] == walker].to_numpy()
        np.testing.assert_array_equal(rows["potential_energy"], energies[n - 1 :: n])
        for i, row in enumerate(rows.itertuples()):
            end = 5 * n * (i // 5 + 1)  # of the segment
            window = energies[(i + 1) * n - 1 - n // 2 : min((i + 1) * n + (n - 1) // 2, end)]
            assert row.energy_recordings == len(window)
            assert row.energy_mean == pytest.approx(window.mean(), rel=1e-9, abs=1e-9)
            assert row.energy_variance == pytest.approx(window.var(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "system", "size"),
    [
        (ExchangeSettings, HOLES, 9),  # in one Context: those of the Reference platform share random numbers
        (ExpandedSettings, HOLES, 9),
        (ExpandedSettings, DIPEPTIDE, None),
    ],
)
@pytest.mark.parametrize("recordings", [1, 2, 3, 4])
def test_windows_end_where_walkers_move(
    tmp_path: Path, kind: type[TemperingSettings], system: SystemSettings, size: int | None, recordings: int
) -> None:
    """The same run with a frame at each recording has the energies; moves are every second frame."""
    n, molecule = recordings, system is DIPEPTIDE
    common: dict[str, Any] = {"system": system, "equilibration": 0, "context_walkers": size}
    common |= MOLECULE if molecule else {}
    common |= {"temperatures": [300.0, 320.0, 340.0] if molecule else [1.0, 1.2, 1.5]}
    often = {
        "frame_interval": 2,
        "segment_frames": 5 * n,
        "frames": 10 * n,
        "tempering": kind(interval=2 * n),
    }
    frames = table(run(make_stage(tmp_path / "often", **(common | often)))).sort_values("frame")
    interval = {"frame_interval": 2 * n, "segment_frames": 5, "frames": 10, "energy_interval": 2}
    stage = make_stage(tmp_path / "recorded", tempering=kind(interval=2), **(common | interval))
    recorded = table(run(stage)).sort_values("frame")
    place = ["temperature", "walker"] if kind is ExchangeSettings else ["replica"]
    energies_at = dict(list(frames.groupby(place)["potential_energy"]))
    for at, rows in recorded.groupby(place):
        energies = energies_at[at].to_numpy()
        np.testing.assert_array_equal(rows["potential_energy"], energies[n - 1 :: n])
        for i, row in enumerate(rows.itertuples()):
            end = n * min(5 * (i // 5 + 1), 2 * (i // 2 + 1))  # of the segment, and before walkers move
            window = energies[(i + 1) * n - 1 - n // 2 : min((i + 1) * n + (n - 1) // 2, end)]
            assert row.energy_recordings == len(window)
            assert row.energy_mean == pytest.approx(window.mean(), rel=1e-9, abs=1e-9)
    assert frames["replica"].nunique() > 1


GAS = """
import numpy as np
import openmm
from openmm import app, unit

def make():
    system, topology = openmm.System(), app.Topology()
    chain = topology.addChain()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.8)
    for i in range(27):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 1.0)
        topology.addAtom("AR", app.element.argon, topology.addResidue("AR", chain))
    system.addForce(force)
    box = 2.0 * np.eye(3)
    system.setDefaultPeriodicBoxVectors(*box)
    topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in box] * unit.nanometer)
    system.addForce(openmm.MonteCarloBarostat(50.0 * unit.bar, 300.0, 2))
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    return system, topology, 0.6 * grid
"""


def test_at_constant_pressure_it_is_the_enthalpy(tmp_path: Path) -> None:
    """The box changes between recordings; frames are the same with and without."""
    (tmp_path / "gas.py").write_text(GAS)
    system = PythonFileSettings(file=tmp_path / "gas.py", function="make")
    common = MOLECULE | {"system": system, "segment_frames": 10, "frames": 20}
    often = common | {"frame_interval": 2, "frames": 60, "segment_frames": 30}
    each = table(run(make_stage(tmp_path / "often", **often)))
    plain = table(run(make_stage(tmp_path / "plain", frame_interval=6, **common)))
    rows = table(run(make_stage(tmp_path / "stage", frame_interval=6, energy_interval=2, **common)))
    pd.testing.assert_frame_equal(plain, rows.drop(columns=RECORDED), check_exact=True)
    enthalpy = (each["potential_energy"] + each["pressure_volume"]).to_numpy()
    for i, mean in enumerate(rows["energy_mean"]):
        end = 30 * (i // 10 + 1)
        assert mean == pytest.approx(enthalpy[3 * i + 1 : min(3 * i + 4, end)].mean(), rel=1e-9)
    assert each["pressure_volume"].nunique() > 10


def test_a_retried_segment_records_at_the_same_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter steps, as many times more of them between recordings."""
    monkeypatch.setattr("latf_openmm.sampling.walker_set._SLOWER", (2,))
    common: dict[str, Any] = {"frames": 10, "segment_frames": 10}
    stage = make_stage(tmp_path / "slow", frame_interval=6, energy_interval=2, **common)
    slow = table(run(stage))
    monkeypatch.undo()
    fast = table(
        run(make_stage(tmp_path / "short", timestep=0.005, frame_interval=12, energy_interval=4, **common))
    )
    # The first velocities are of half a step, whose length is another one.
    np.testing.assert_allclose(slow["energy_mean"], fast["energy_mean"], rtol=2e-3)


def test_the_interval_divides_that_of_frames() -> None:
    few = {"temperatures": [1.0], "frames": 10, "timestep": 0.01, "friction": 1.0, "frame_interval": 10}
    for interval in (1, 2, 5, 10, None):
        assert (
            SimulationSettings.model_validate(few | {"energy_interval": interval}).energy_interval == interval
        )
    for interval in (3, 20):
        with pytest.raises(
            ValidationError, match=f"energy_interval: {interval} does not divide frame_interval"
        ):
            SimulationSettings.model_validate(few | {"energy_interval": interval})


def test_walkers_know_them(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "stage", system=LJ7, energy_interval=1, timestep=0.001, temperatures=[0.3])
    for walker in run(stage):
        recorded = walker.recorded_energies()
        assert recorded is not None
        np.testing.assert_array_equal(recorded.means, walker.table["energy_mean"])
        n = len(walker.table)
        FeatureTrajectory(
            np.zeros((n, 1), np.float32), 0.3, 1.0, recorded.means, np.zeros(n), recorded=recorded
        )
    (first, *_) = run(make_stage(tmp_path / "without"))
    assert first.recorded_energies() is None


def test_frames_of_before_have_none(tmp_path: Path) -> None:
    """A stage that goes on with recordings has some frames with, and some without."""
    run_stage(make_stage(tmp_path / "stage", frames=10))
    run_stage(make_stage(tmp_path / "stage", energy_interval=1))
    for walker in read_stage(tmp_path / "stage"):
        assert walker.table["energy_mean"].notna().sum() == 20
        assert walker.recorded_energies() is None
