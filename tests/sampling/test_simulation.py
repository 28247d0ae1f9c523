"""Stages of simulation: what they write, how they resume and fail, and whether their ensembles are right."""

import copy
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pandas as pd
import pytest
import torch
from helpers.stages import (
    DIPEPTIDE,
    HOLES,
    LJ7,
    Array,
    make_stage,
    run,
    same_results,
    single_energies,
    source,
    table,
    write_model,
)
from openmm import unit
from threadpoolctl import threadpool_limits

from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.potentials import BiasContext, BiasSettings
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.potentials.flow_barrier import FlowBarrierSettings
from latf_openmm.bias.potentials.harmonic import HarmonicSettings, MovingHarmonicSettings
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.errors import ConfigError, DataError, ModelError, SimulationError
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.model.checkpoint import TrainedModel, load_model, save_model
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.reweighting.weights import effective_sample_size, normalised_weights
from latf_openmm.sampling.dynamics import BiasSource
from latf_openmm.sampling.stage import DROPPED, SimulationSettings, read_dropped, run_stage
from latf_openmm.sampling.walker_group import WalkerGroup
from latf_openmm.sampling.walker_set import WalkerSet, run_set
from latf_openmm.systems import SystemSettings
from latf_openmm.systems.three_hole import three_hole_potential

HARMONIC = HarmonicSettings(centre=[0.0, 0.8], force_constant=[1.0, 1.0])
BARRIER = FlowBarrierSettings(barrier_kt=3.0, points=60)
COLUMNS = [
    "walker",
    "frame",
    "step",
    "time_ps",
    "temperature",
    "kinetic_temperature",
    "timestep",
    "timestep_limit",
    "restarts",
    "potential_energy",
    "bias_energy",
    "bias_offset",
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):  # NumPy's linear algebra crawls when its threads wait for each other
        yield
    torch.set_num_threads(before)


# --- models and stages -----------------------------------------------------------------------------


def fit_flow(model: LatentThermodynamicFlow, z: torch.Tensor, steps: int) -> None:
    """Maximum likelihood at the reference temperature."""
    model.flows[0].whiten(z.mean(0), z.std(0))
    optimizer = torch.optim.Adam(model.flows[0].parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = z[torch.randint(len(z), (512,), generator=generator)]
        loss = -model.log_density(batch, torch.full((512,), model.reference_temperature)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def holes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """z = (x, y) of the three-hole particle, with a flow fitted to the exact ensemble at T = 1."""
    folder = tmp_path_factory.mktemp("holes") / "model"
    features = CoordinateSettings(atoms=[0], axes="xy")
    torch.manual_seed(0)
    settings = ModelSettings(flow=FlowSettings(layers=4, hidden=[16]))
    model = LatentThermodynamicFlow(settings, 2, 3, 1.0)
    with torch.no_grad():
        model.encoder.mean[0].weight.copy_(torch.eye(2))  # type: ignore[union-attr,operator]
        model.encoder.mean[0].bias.zero_()  # type: ignore[union-attr,operator]
    exact = HOLES.exact_ensemble(1.0)
    rows = np.random.default_rng(0).choice(len(exact.weights), 5000, p=exact.weights)
    fit_flow(model, torch.from_numpy(exact.positions[rows, 0, :2]).float(), steps=150)
    atoms = tuple(str(atom) for atom in HOLES.build(1).mdtraj_topology().atoms)
    save_model(TrainedModel(model.eval(), (features,), atoms, "reduced", (1.0,)), folder)
    return folder


@pytest.fixture(scope="module")
def dipeptide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dipeptide") / "model"
    return write_model(folder, DIPEPTIDE, [TorsionSettings(angles=["phi", "psi"])], 300.0)


# --- what a stage writes ---------------------------------------------------------------------------


def test_files_and_columns(tmp_path: Path, holes_model: Path) -> None:
    folder = tmp_path / "round_000" / "simulation"
    stage = make_stage(folder, source(holes_model, HARMONIC), temperatures=[0.5, 1.0], frames=25)
    walkers = run(stage)
    assert sorted(path.name for path in folder.iterdir()) == ["T0.5", "T1", "stage.json", "topology.pdb"]
    for group in ("T0.5", "T1"):
        segments = sorted((folder / group).iterdir())
        assert [path.name for path in segments] == ["segment_0000", "segment_0001", "segment_0002"]
        trajectories = [f"walker_{walker:03d}.dcd" for walker in range(3)]
        for segment in segments:
            names = {path.name for path in segment.iterdir()}
            assert names == {"frames.parquet", "checkpoint.bin", "state.xml", "manifest.json", *trajectories}
    record = json.loads((folder / "stage.json").read_text())
    assert record["system"] == HOLES.model_dump()
    assert record["temperature_scale"] == "reduced"
    assert SimulationSettings(**record["settings"]) == stage.settings
    assert record["bias"]["bias"] == HARMONIC.model_dump()
    assert record["seed"] == 3
    assert mdtraj.load_topology(str(folder / "topology.pdb")).n_atoms == 1

    assert [(walker.temperature, walker.walker) for walker in walkers] == [
        (t, w) for t in (0.5, 1.0) for w in (0, 1, 2)
    ]
    assert [walker.run for walker in walkers] == ["round_000/T0.5"] * 3 + ["round_000/T1"] * 3
    for walker in walkers:
        rows = walker.table
        assert list(rows) == [*COLUMNS, "z0", "z1"]
        assert rows["frame"].tolist() == list(range(25))
        assert rows["step"].tolist() == list(range(5, 126, 5))
        np.testing.assert_allclose(rows["time_ps"], rows["step"] * 0.01)
        assert set(rows["walker"]) == {walker.walker}
        assert set(rows["temperature"]) == {walker.temperature}
        assert [path.name for path in walker.files] == [f"walker_{walker.walker:03d}.dcd"] * 3
        assert walker.load(HOLES.build(1).mdtraj_topology()).n_frames == 25


def test_without_bias_there_is_no_z_and_no_bias_energy(tmp_path: Path) -> None:
    rows = table(run(make_stage(tmp_path / "stage")))
    assert list(rows) == COLUMNS
    assert set(rows["bias_energy"]) == {0.0}
    assert json.loads((tmp_path / "stage" / "stage.json").read_text())["bias"] is None


def test_one_folder_for_each_walker_of_a_molecule(tmp_path: Path) -> None:
    stage = make_stage(
        tmp_path / "stage", None, DIPEPTIDE, temperatures=[300.0], walkers=2, frames=10, timestep=0.002
    )
    walkers = run(stage)
    folders = sorted(path.name for path in stage.folder.iterdir() if path.is_dir())
    assert folders == ["T300_w000", "T300_w001"]
    assert [walker.walker for walker in walkers] == [0, 1]
    assert not np.allclose(walkers[0].table["potential_energy"], walkers[1].table["potential_energy"])


# system, features, temperature, time step, tolerance of the energy from single-precision positions [kJ/mol]
MOLECULES: dict[str, tuple[SystemSettings, float, float, float]] = {
    "three_hole": (HOLES, 1.0, 0.01, 1e-4),
    "lj7": (LJ7, 0.4, 0.005, 1e-4),
    "alanine_dipeptide": (DIPEPTIDE, 300.0, 0.002, 0.02),
}


@pytest.mark.parametrize("kind", MOLECULES)
@pytest.mark.parametrize("walkers", [1, 2])
def test_potential_energy_is_that_of_the_written_frames(tmp_path: Path, kind: str, walkers: int) -> None:
    system, temperature, step, tolerance = MOLECULES[kind]
    stage = make_stage(
        tmp_path, None, system, temperatures=[temperature], timestep=step, walkers=walkers, frames=20
    )
    topology = system.build(1).mdtraj_topology()
    for walker in run(stage):
        xyz = walker.load(topology).xyz
        expected = single_energies(system, xyz)
        if kind == "three_hole":
            x, y, z = xyz[:, 0].astype(float).T
            np.testing.assert_allclose(expected, three_hole_potential(x, y) + 100 * z**2, atol=1e-9)
        assert expected.std() > 0.1
        np.testing.assert_allclose(walker.table["potential_energy"], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", ["auto", "python"])
@pytest.mark.parametrize("kind", ["harmonic", "flow_barrier"])
def test_bias_columns_are_those_of_the_written_frames(
    tmp_path: Path, holes_model: Path, kind: str, backend: str
) -> None:
    bias = {"harmonic": HARMONIC, "flow_barrier": BARRIER.model_copy(update={"points": 300})}[kind]
    walkers = run(make_stage(tmp_path / "s", source(holes_model, bias), backend=backend, frames=20))
    trained = load_model(holes_model)
    density = copy.deepcopy(trained.model).double().density(1.0)
    for walker in walkers:
        xy = walker.load(HOLES.build(1).mdtraj_topology()).xyz[:, 0, :2].astype(float)
        np.testing.assert_allclose(walker.table[["z0", "z1"]], xy, rtol=0, atol=1e-5)
        if kind == "harmonic":
            expected = 0.5 * ((xy - [0.0, 0.8]) ** 2).sum(axis=1)
            np.testing.assert_allclose(walker.table["bias_energy"], expected, rtol=0, atol=1e-4)
        else:
            # V - DeltaE = (1 - 1/3) log(r / r_max + eps): 300 points of the table allow 0.03 kT.
            with torch.no_grad():
                grid = density.sample(20_000, torch.Generator().manual_seed(0))
                log_ratio = density.log_prob(torch.from_numpy(xy)) - density.log_prob(grid).max()
            expected = 2 / 3 * np.log(np.exp(log_ratio.numpy()) + np.exp(-4.5)) + 3.0
            np.testing.assert_allclose(walker.table["bias_energy"], expected, rtol=0, atol=0.03)


def test_bias_columns_of_a_molecule(tmp_path: Path, dipeptide_model: Path) -> None:
    bias = HarmonicSettings(centre=[0.4, -0.3], force_constant=[20.0, 30.0])
    stage = make_stage(
        tmp_path,
        source(dipeptide_model, bias),
        DIPEPTIDE,
        temperatures=[300.0],
        walkers=1,
        frames=20,
        timestep=0.002,
    )
    (walker,) = run(stage)
    trajectory = walker.load(DIPEPTIDE.build().mdtraj_topology())
    with torch.no_grad():
        cv = latent_cv(load_model(dipeptide_model))
        z = cv(torch.from_numpy(trajectory.xyz), torch.empty(0)).numpy()
    np.testing.assert_allclose(walker.table[["z0", "z1"]], z, rtol=0, atol=1e-5)
    expected = 0.5 * (np.array([20.0, 30.0]) * (z - [0.4, -0.3]) ** 2).sum(axis=1)
    np.testing.assert_allclose(walker.table["bias_energy"], expected, rtol=1e-4, atol=1e-4)
    # The potential energy does not hold the bias.
    plain = single_energies(DIPEPTIDE, trajectory.xyz)
    assert expected.max() > 0.1
    np.testing.assert_allclose(walker.table["potential_energy"], plain, rtol=0, atol=0.02)


def test_xtc(tmp_path: Path) -> None:
    common: dict[str, Any] = {"temperatures": [300.0], "walkers": 1, "frames": 10, "timestep": 0.002}
    (dcd,) = run(make_stage(tmp_path / "dcd", None, DIPEPTIDE, **common))
    (xtc,) = run(make_stage(tmp_path / "xtc", None, DIPEPTIDE, trajectory="xtc", **common))
    assert xtc.files[0].name == "walker_000.xtc"
    pd.testing.assert_frame_equal(dcd.table, xtc.table, check_exact=True)
    topology = DIPEPTIDE.build().mdtraj_topology()
    # XTC rounds to 0.001 nm.
    np.testing.assert_allclose(xtc.load(topology).xyz, dcd.load(topology).xyz, rtol=0, atol=6e-4)


def test_starts_are_where_walkers_start(tmp_path: Path) -> None:
    starts = np.array([[0.3, -1.0], [1.4, 0.9], [-0.5, 1.1]])
    positions = np.concatenate([starts, np.zeros((3, 1))], axis=1)[:, None, :]
    stage = make_stage(
        tmp_path, starts={1.0: positions}, frame_interval=1, frames=10, minimise=False, timestep=0.001
    )
    topology = HOLES.build(1).mdtraj_topology()
    first = np.array([walker.load(topology).xyz[0, 0, :2] for walker in run(stage)])
    assert np.abs(first - starts).max() < 0.02  # one step of 0.001
    # A strained start is minimised first, when asked for; V(4, 0.3) = 51.
    positions[:, 0] = [4.0, 0.3, 0.0]
    for minimise in (False, True):
        changes: dict[str, Any] = {"frame_interval": 1, "frames": 10, "timestep": 0.001}
        stage = make_stage(tmp_path / f"m{minimise}", starts={1.0: positions}, minimise=minimise, **changes)
        energies = table(run(stage)).groupby("walker")["potential_energy"].first()
        assert ((energies < 10.0) if minimise else (energies > 45.0)).all()


# --- seeds, processes, interruptions ---------------------------------------------------------------


def test_seeds(tmp_path: Path) -> None:
    run(make_stage(tmp_path / "a", seed=5))
    run(make_stage(tmp_path / "b", seed=5))
    same_results(tmp_path / "a", tmp_path / "b")
    other = table(run(make_stage(tmp_path / "c", seed=6)))
    energies = table(read_stage(tmp_path / "a"))["potential_energy"]
    assert (energies != other["potential_energy"]).all()
    # Walkers that start at one point differ, and so do temperatures.
    starts = np.zeros((3, 1, 3))
    stage = make_stage(
        tmp_path / "d", temperatures=[1.0, 1.001], starts={1.0: starts, 1.001: starts}, minimise=False
    )
    series = [walker.table["potential_energy"].to_numpy() for walker in run(stage)]
    for i in range(6):
        for j in range(i):
            assert np.abs(series[i] - series[j]).max() > 0.1


def test_neighbouring_seeds_share_no_walker(tmp_path: Path) -> None:
    # Whoever repeats a run with seed + 1 wants independent walkers.
    changes: dict[str, Any] = {"temperatures": [300.0, 310.0], "timestep": 0.002, "minimise": False}
    seeds = [
        task.seed
        for seed in (1, 2)
        for task in make_stage(tmp_path, None, DIPEPTIDE, seed=seed, walkers=1200, **changes).tasks()
    ]
    assert len(set(seeds)) == len(seeds) == 4800


BIASES: dict[str, BiasSettings | None] = {
    "plain": None,
    "harmonic": HARMONIC,
    "flow_barrier": BARRIER,
    # Every 7 steps: updates fall on frames, between them, and on the ends of segments.
    "metadynamics": MetadynamicsSettings(sigma=0.3, height=0.5, pace=7),
    "opes": OpesSettings(sigma=0.3, barrier=5.0, pace=7),
    "moving": MovingHarmonicSettings(start=[0.0, 0.8], end=[1.0, 0.0], force_constant=5.0, steps=100, pace=7),
}


def bias_of(name: str, model: Path) -> BiasSource | None:
    bias = BIASES[name]
    return None if bias is None else source(model, bias)


@pytest.mark.parametrize("bias", BIASES)
def test_an_interrupted_run_resumes_exactly(tmp_path: Path, holes_model: Path, bias: str) -> None:
    acting = bias_of(bias, holes_model)
    whole = make_stage(tmp_path / "whole", acting, equilibration=20)
    run_stage(whole)
    # Ended after the first segment.
    run_stage(make_stage(tmp_path / "short", acting, equilibration=20, frames=10))
    assert table(read_stage(tmp_path / "short"))["frame"].max() == 9
    run_stage(make_stage(tmp_path / "short", acting, equilibration=20))
    same_results(whole.folder, tmp_path / "short")
    # Later segments lost, and a half-written one left behind.
    lost = make_stage(tmp_path / "lost", acting, equilibration=20)
    shutil.copytree(whole.folder, lost.folder)
    shutil.rmtree(lost.folder / "T1" / "segment_0002")
    partial = (lost.folder / "T1" / "segment_0001").rename(lost.folder / "T1" / "segment_0001.partial")
    (partial / "frames.parquet").write_bytes(b"half a file")
    assert table(read_stage(lost.folder))["frame"].max() == 9  # the partial one does not count
    run_stage(lost)
    assert not partial.exists()
    same_results(whole.folder, lost.folder)


def test_a_run_killed_within_a_segment_resumes_exactly(tmp_path: Path) -> None:
    whole, killed = make_stage(tmp_path / "whole"), make_stage(tmp_path / "killed")
    run_stage(whole)
    told: list[int] = []

    def stop_in_the_second_segment(n: int) -> None:
        told.append(n)
        if sum(told) > 10 * 3:  # of three walkers
            raise KeyboardInterrupt("by the user")

    (task,) = killed.tasks()
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        run_set(task, stop_in_the_second_segment)
    assert task.segment(0).is_dir()
    assert not task.segment(1).exists()
    run_stage(killed)
    same_results(whole.folder, killed.folder)


@pytest.mark.parametrize("bias", ["harmonic", "opes"])
def test_a_bias_every_few_steps_resumes_exactly(tmp_path: Path, holes_model: Path, bias: str) -> None:
    acting = bias_of(bias, holes_model)
    common: dict[str, Any] = {"equilibration": 20, "frame_interval": 7, "bias_every": 3}  # 70 steps a segment
    run_stage(make_stage(tmp_path / "whole", acting, **common))
    run_stage(make_stage(tmp_path / "parts", acting, frames=10, **common))
    run_stage(make_stage(tmp_path / "parts", acting, **common))
    same_results(tmp_path / "whole", tmp_path / "parts")
    always = table(run(make_stage(tmp_path / "always", acting, **(common | {"bias_every": 1}))))
    assert not np.array_equal(always["z0"], table(read_stage(tmp_path / "whole"))["z0"])


def test_a_molecule_resumes_exactly(tmp_path: Path, dipeptide_model: Path) -> None:
    bias = source(dipeptide_model, HarmonicSettings(centre=[0.4, -0.3], force_constant=20.0))
    common: dict[str, Any] = {"temperatures": [300.0], "walkers": 1, "timestep": 0.002}
    run_stage(make_stage(tmp_path / "whole", bias, DIPEPTIDE, frames=20, **common))
    run_stage(make_stage(tmp_path / "parts", bias, DIPEPTIDE, frames=10, **common))
    run_stage(make_stage(tmp_path / "parts", bias, DIPEPTIDE, frames=20, **common))
    same_results(tmp_path / "whole", tmp_path / "parts")


ADAPTIVE = [name for name, bias in BIASES.items() if hasattr(bias, "pace")]


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_an_adaptive_bias_is_recorded_at_the_time_of_each_frame(
    tmp_path: Path, holes_model: Path, kind: str
) -> None:
    acting = bias_of(kind, holes_model)
    rows = table(run(make_stage(tmp_path, acting, frames=30, frame_interval=1, equilibration=20)))
    settings = BIASES[kind]
    assert settings is not None
    bias = settings.build(BiasContext.of_model(load_model(holes_model).model, 1.0, 1.0))
    assert isinstance(bias, AdaptiveBias)
    for _, frame in rows.groupby("frame"):
        z = torch.tensor(frame.sort_values("walker")[["z0", "z1"]].to_numpy())
        # A frame has the bias it was made with; the update follows it.
        np.testing.assert_allclose(bias(z), frame.sort_values("walker")["bias_energy"], atol=1e-8)
        np.testing.assert_allclose(frame["bias_offset"], bias.offset(), atol=1e-8)
        if int(frame["step"].iloc[0]) % 7 == 0:
            bias.update(z)
    assert rows["bias_energy"].nunique() > 60


def test_an_unstable_segment_is_tried_again_with_the_bias_it_began_with(
    tmp_path: Path, holes_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(tmp_path, bias_of("opes", holes_model), equilibration=20)
    original, calls = WalkerSet._frames, []

    def fail_once(self: WalkerSet, index: int, advance: Callable[[int], None]) -> Any:
        result = original(self, index, advance)
        calls.append(index)
        if calls.count(1) == 1 and index == 1:
            raise SimulationError("as if unstable")
        return result

    monkeypatch.setattr(WalkerSet, "_frames", fail_once)
    rows = table(run(stage))
    assert calls == [0, 1, 1, 2]
    saved = torch.load(stage.folder / "T1" / "segment_0002" / "bias.pt", weights_only=True)["bias"]
    # 150 steps and one update at each seventh, the attempt that failed not counted.
    assert int(saved["updates"]) == 21
    assert rows["frame"].nunique() == 30


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_walkers_of_a_molecule_share_the_bias(tmp_path: Path, dipeptide_model: Path, processes: int) -> None:
    bias = source(dipeptide_model, MetadynamicsSettings(sigma=0.3, height=1.0, pace=10))
    common: dict[str, Any] = {"temperatures": [300.0], "walkers": 2, "timestep": 0.002, "frames": 10}
    stage = make_stage(tmp_path / "stage", bias, DIPEPTIDE, processes=processes, **common)
    assert len(run(stage)) == 2
    rows = {path.stem: path.stat().st_size // 32 for path in (stage.folder / "exchange" / "T300").iterdir()}
    assert rows == {"T300_w000": 4, "T300_w001": 4}
    last = torch.load(stage.folder / "T300_w001" / "segment_0000" / "bias.pt", weights_only=True)
    assert int(last["bias"]["updates"]) == 4
    if processes == 1:  # the second walker starts when the first has ended, and knows all of it
        assert int(last["bias"]["sent"]) == 4 + 4
        assert last["exchange"] == {"T300_w000.rows": 128, "T300_w001.rows": 128}


@pytest.mark.parametrize("processes", [1, 2])
def test_walkers_at_several_temperatures_share_the_bias(
    tmp_path: Path, holes_model: Path, processes: int
) -> None:
    bias = source(holes_model, OpesSettings(sigma=0.3, barrier=6.0, pace=10))
    common: dict[str, Any] = {"temperatures": [1.3, 0.7], "walkers": 2, "frames": 10, "frame_interval": 10}
    stage = make_stage(tmp_path / "stage", bias, processes=processes, share_bias="all", **common)
    walkers = run(stage)
    assert len(walkers) == 4
    rows = {path.stem: path.stat().st_size // 32 for path in (stage.folder / "exchange" / "all").iterdir()}
    assert set(rows) == {"T0.7", "T1.3"}
    assert len(set(rows.values())) == 1
    if processes == 2:
        return  # how much each knew of the other depends on their speed
    # The second temperature knows what the first one added, and both have the bias of the lower temperature.
    last = torch.load(stage.folder / "T0.7" / "segment_0000" / "bias.pt", weights_only=True)
    assert last["exchange"]["T1.3.rows"] == 32 * rows["T1.3"]
    assert float(last["bias"]["counter"]) == 1 + rows["T0.7"] + rows["T1.3"]
    added = np.fromfile(stage.folder / "exchange" / "all" / "T1.3.rows").reshape(-1, 4)[:, :3]
    first = float(np.exp(-6.0 / (1 - 0.7 / 6.0) / 0.7))  # eps of the bias at T = 0.7, while P = 0
    kT = 1.3
    assert added[0, 2] == pytest.approx(first ** ((1 - 0.7 / 6.0) * 0.7 / kT), rel=1e-6)


def test_a_complete_stage_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_stage(tmp_path)
    before = table(run(stage))

    def fail(*_: Any) -> None:
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr(WalkerGroup, "__init__", fail)
    pd.testing.assert_frame_equal(table(run(stage)), before, check_exact=True)


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda data: b"",
    "another machine's": lambda data: b"x" * 8 + data[8:],
    "garbage": lambda data: np.random.default_rng(0).bytes(len(data)),
    "cut within the positions": lambda data: data[:100],
    "cut in half": lambda data: data[: len(data) // 2],
    "missing": lambda data: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_portable_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    stage = make_stage(tmp_path, frames=10, frame_interval=1, minimise=False)
    run_stage(stage)
    path = tmp_path / "T1" / "segment_0000" / "checkpoint.bin"
    data = DAMAGE[damage](path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    state = openmm.XmlSerializer.deserialize((path.parent / "state.xml").read_text())
    last = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    velocity = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
    with caplog.at_level(logging.WARNING, logger="latf_openmm"):
        walkers = run(make_stage(tmp_path, frames=20, frame_interval=1, minimise=False))
    assert "continued from the portable state, because the checkpoint cannot be used" in caplog.text
    assert "checkpoint.bin" in caplog.text
    assert walkers[0].table["restarts"].tolist() == [0] * 10 + [1] * 10
    topology = HOLES.build(1).mdtraj_topology()
    for index, walker in enumerate(walkers):
        xyz = walker.load(topology).xyz[:, 0]
        assert len(xyz) == 20
        np.testing.assert_allclose(xyz[9], last[index], atol=1e-6)
        # One step of 0.01 further: friction and force change the velocity by a tenth or so.
        np.testing.assert_allclose(xyz[10], last[index] + 0.01 * velocity[index], atol=0.02)


def test_the_fallback_does_not_repeat_the_noise(tmp_path: Path) -> None:
    # Free of forces to speak of, a step is friction and noise; the same noise twice shows as a correlation.
    stage = make_stage(tmp_path, frames=10, frame_interval=1, walkers=200, friction=100.0, minimise=False)
    run_stage(stage)
    (tmp_path / "T1" / "segment_0000" / "checkpoint.bin").write_bytes(b"")
    walkers = run(make_stage(tmp_path, frames=20, frame_interval=1, walkers=200, friction=100.0))
    topology = HOLES.build(1).mdtraj_topology()
    xyz = np.array([walker.load(topology).xyz[:, 0, :2] for walker in walkers])
    steps = np.diff(xyz, axis=1)  # steps[:, i] leads from frame i to i + 1
    # The first segment's step into frame 1 is the second of its noise; likewise of the second segment's.
    together = np.corrcoef(steps[:, 0].ravel(), steps[:, 10].ravel())[0, 1]
    assert abs(together) < 0.25  # 5 standard deviations of 400 independent pairs


def test_processes_make_no_difference(tmp_path: Path) -> None:
    """One group of three fails in both; the others' results are kept and are the same."""
    nowhere = np.full((2, 7, 3), np.nan)
    stages = [
        make_stage(
            tmp_path / str(processes),
            None,
            LJ7,
            temperatures=[0.3, 0.5, 0.7],
            starts={0.7: nowhere},
            walkers=2,
            frames=10,
            timestep=0.005,
            minimise=False,
            processes=processes,
        )
        for processes in (1, 2)
    ]
    for stage in stages:
        with pytest.raises(SimulationError, match=r"T0\.7: unstable in segment 0") as caught:
            run_stage(stage)
        assert "T0.3" not in str(caught.value)
        assert "T0.5" not in str(caught.value)
        assert {walker.temperature for walker in read_stage(stage.folder)} == {0.3, 0.5}
        assert not list((stage.folder / "T0.7").glob("segment_*"))
    same_results(stages[0].folder, stages[1].folder)


# --- failures --------------------------------------------------------------------------------------


def test_an_absurd_timestep_is_tried_again_and_then_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = make_stage(tmp_path, None, LJ7, temperatures=[0.3, 0.5], timestep=10.0, friction=1e-3, frames=10)
    with pytest.raises(SimulationError, match=r"unstable in segment 0 after 4 attempts") as caught:
        run_stage(stage)
    for group in ("T0.3", "T0.5"):
        assert f"{tmp_path / group}: unstable" in str(caught.value)
        warnings = [line for line in caplog.messages if line.startswith(f"{tmp_path / group}: segment 0")]
        assert [f"attempt {n}" in line for n, line in enumerate(warnings, 1)] == [True] * 4
    with pytest.raises(DataError, match="no complete segment"):
        read_stage(tmp_path)


def test_a_second_attempt_with_other_velocities_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    untouched = table(run(make_stage(tmp_path / "untouched")))
    frames, calls = WalkerSet._frames, []

    def fail_once(walkers: WalkerSet, index: int, advance: Callable[[int], None]) -> Any:
        result = frames(walkers, index, advance)
        calls.append(index)
        if calls == [0, 1]:
            walkers.groups[0].context.setPositions(np.full((3, 3), 50.0))
            raise SimulationError("far away")
        return result

    monkeypatch.setattr(WalkerSet, "_frames", fail_once)
    walkers = run(make_stage(tmp_path / "second"))
    assert calls == [0, 1, 1, 2]
    assert "segment 1, attempt 1" in caplog.text
    rows = table(walkers)
    assert rows["frame"].tolist() == untouched["frame"].tolist()
    early = rows["frame"] < 10
    pd.testing.assert_frame_equal(rows[early], untouched[early], check_exact=True)
    assert (rows.loc[~early, "potential_energy"] != untouched.loc[~early, "potential_energy"]).all()
    # It goes on from where the segment began, not from where the first attempt ended.
    topology = HOLES.build(1).mdtraj_topology()
    xyz = np.array([walker.load(topology).xyz[:, 0] for walker in walkers])
    assert np.abs(np.diff(xyz, axis=1)).max() < 0.5


def test_later_attempts_take_shorter_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, steps = WalkerSet._frames, []

    def fail_thrice(walkers: WalkerSet, index: int, advance: Callable[[int], None]) -> Any:
        group = walkers.groups[0]
        before = group.context.getTime()._value
        result = frames(walkers, index, advance)
        steps.append((index, group.context.getIntegrator().getStepSize()._value))
        assert group.context.getTime()._value - before == pytest.approx(0.01 * 5 * 10, rel=1e-4)
        if len(steps) < 4:
            raise SimulationError("far away")
        return result

    monkeypatch.setattr(WalkerSet, "_frames", fail_thrice)
    rows = table(run(make_stage(tmp_path, timestep=0.01, frame_interval=5)))
    assert steps == [
        (0, pytest.approx(0.01)),
        (0, pytest.approx(0.01)),
        (0, pytest.approx(0.005)),
        (0, pytest.approx(0.0025)),
        (1, pytest.approx(0.01)),
        (2, pytest.approx(0.01)),
    ]
    np.testing.assert_allclose(np.diff(rows.loc[rows["walker"] == 0, "time_ps"]), 0.05)


@pytest.mark.parametrize(("system", "temperature"), [(DIPEPTIDE, 400.0), (LJ7, 0.4), (HOLES, 1.0)])
def test_the_kinetic_temperature_is_that_of_the_thermostat(
    tmp_path: Path, system: SystemSettings, temperature: float
) -> None:
    """Of each copy: degrees of freedom are less by constraints."""
    molecule = system is DIPEPTIDE
    options: dict[str, Any] = {
        "timestep": 0.002 if molecule else 0.005,
        "frame_interval": 100,
        "friction": 5.0,
    }
    stage = make_stage(
        tmp_path,
        None,
        system,
        temperatures=[temperature],
        walkers=3,
        frames=60,
        equilibration=1000,
        **options,
    )
    rows = table(run(stage))
    means = rows.groupby("walker")["kinetic_temperature"].mean()
    assert means.to_numpy() == pytest.approx(temperature, rel=0.35)
    freedom = {22: 3 * 22 - 12, 7: 21, 1: 3}[system.build(1).n_atoms]
    spread = rows["kinetic_temperature"].std() / temperature
    assert spread == pytest.approx(np.sqrt(2 / freedom), rel=0.25)
    assert rows["kinetic_temperature"].mean() == pytest.approx(temperature, rel=0.1)
    assert set(rows["timestep"]) == set(rows["timestep_limit"]) == {stage.settings.timestep}


def test_hot_segments_take_shorter_steps_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At twice the thermostat's temperature with full steps; resumed in the middle it goes on with shorter ones."""
    tried, measure, write = [], WalkerGroup.kinetic_temperatures, WalkerSet._write

    def hot(group: WalkerGroup, state: openmm.State) -> Any:
        step = group.context.getIntegrator().getStepSize()._value
        if not tried or tried[-1] != step:
            tried.append(step)
        return measure(group, state) * (2.5 if step > 0.006 else 1.0)

    class KilledError(Exception):
        pass

    def killed(walkers: WalkerSet, index: int, recorded: Any) -> None:
        if index == 1:
            raise KilledError
        write(walkers, index, recorded)

    monkeypatch.setattr(WalkerGroup, "kinetic_temperatures", hot)
    stage = make_stage(tmp_path, timestep=0.01, frame_interval=100)
    monkeypatch.setattr(WalkerSet, "_write", killed)
    with pytest.raises(KilledError):
        run(stage)
    monkeypatch.setattr(WalkerSet, "_write", write)
    rows = table(run(stage))
    assert tried == [pytest.approx(0.01), pytest.approx(0.005)]
    assert set(rows["timestep"]) == set(rows["timestep_limit"]) == {0.005}
    np.testing.assert_allclose(np.diff(rows.loc[rows["walker"] == 0, "time_ps"]), 1.0)
    assert "where the thermostat has T = 1, with time steps of 0.01 ps" in caplog.text


def test_hot_segments_are_kept_where_shorter_steps_do_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One with full steps and one with half of them are as hot; the next segment begins with full ones again."""

    def hot(group: WalkerGroup, _state: openmm.State) -> Any:
        return np.full(group.built.n_copies, 2.5 * group.kelvin)

    monkeypatch.setattr(WalkerGroup, "kinetic_temperatures", hot)
    rows = table(run(make_stage(tmp_path, timestep=0.01, frame_interval=100)))
    assert set(rows["timestep"]) == {0.005}
    assert set(rows["timestep_limit"]) == {0.01}
    tried = [r.getMessage().split("with ")[1] for r in caplog.records if "thermostat" in r.getMessage()]
    assert len(tried) > 2
    assert tried == ["time steps of 0.01 ps", "time steps of 0.005 ps"] * (len(tried) // 2)
    assert "shorter time steps do not help, and there is no bias" in caplog.text


def test_a_walker_that_stays_unstable_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = DIPEPTIDE.build().positions[0]
    starts = np.array([good, np.full_like(good, np.nan)])
    stage = make_stage(
        tmp_path,
        None,
        DIPEPTIDE,
        temperatures=[300.0],
        starts={300.0: starts},
        walkers=2,
        timestep=0.002,
        frames=10,
    )
    walkers = run(stage)
    assert [walker.walker for walker in walkers] == [0]
    assert list(read_dropped(tmp_path)) == ["T300_w001"]
    assert "T300_w001: unstable" in caplog.text
    assert "dropped, the others go on" in caplog.text
    caplog.clear()
    run_stage(stage)  # it is not tried again
    assert "unstable" not in caplog.text
    (tmp_path / DROPPED).write_text("[]")
    with pytest.raises(DataError, match=r"dropped\.json: damaged"):
        run_stage(stage)


def test_an_explosion_is_not_a_result(tmp_path: Path) -> None:
    # Particles a hair apart fly off to 1e40 nm, where every number is still finite.
    starts = np.random.default_rng(0).normal(0.0, 1e-4, (1, 7, 3))
    stage = make_stage(tmp_path, None, LJ7, starts={1.0: starts}, walkers=1, minimise=False, timestep=0.005)
    with pytest.raises(SimulationError, match=r"T1: unstable in segment 0"):
        run_stage(stage)


@pytest.mark.parametrize("equilibration", [0, 50])
def test_an_unstable_biased_group_does_not_stop_the_others(
    tmp_path: Path, holes_model: Path, equilibration: int
) -> None:
    # A wall of a potential: x^4 from far outside; the tabulated bias refuses positions that are not finite.
    far = np.full((3, 1, 3), 1e6)
    stage = make_stage(
        tmp_path,
        source(holes_model, BARRIER),
        temperatures=[0.5, 1.0],
        starts={0.5: far},
        minimise=False,
        equilibration=equilibration,
        frames=10,
    )
    with pytest.raises(SimulationError, match=r"T0\.5: unstable") as caught:
        run_stage(stage)
    assert f"{tmp_path / 'T1'}:" not in str(caught.value)
    assert {walker.temperature for walker in read_stage(tmp_path)} == {1.0}


def test_unknown_platform(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no platform 'Abacus' here; it has .*Reference.*CPU"):
        run_stage(make_stage(tmp_path, platform="Abacus"))


def test_a_model_of_another_system(tmp_path: Path, holes_model: Path) -> None:
    stage = make_stage(tmp_path, source(holes_model, HARMONIC), LJ7)
    with pytest.raises(ModelError, match="topology of 1 atoms, this one has 7"):
        run_stage(stage)


def test_a_folder_without_a_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no complete segment of a simulation here"):
        read_stage(tmp_path)


def cut(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


# How much of the file is left; 1.0 stands for a file that is something else.
@pytest.mark.parametrize("left", [0.0, 0.1, 0.6, 0.95, 1.0, None])
@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def test_a_damaged_trajectory_file_is_named(tmp_path: Path, kind: str, left: float | None) -> None:
    walker = run(make_stage(tmp_path, trajectory=kind, walkers=2))[1]
    path = walker.files[1]
    if left is None:
        path.unlink()
    elif left == 1.0:
        path.write_bytes(b"something else " * 100)
    else:
        cut(path, left)
    with pytest.raises(DataError, match=f"segment_0001/walker_001.{kind}"):
        walker.load(HOLES.build(1).mdtraj_topology())


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    run_stage(make_stage(tmp_path))
    cut(tmp_path / "T1" / "segment_0001" / "frames.parquet", 0.5)
    with pytest.raises(DataError, match=r"segment_0001/frames\.parquet"):
        read_stage(tmp_path)


# --- ensembles -------------------------------------------------------------------------------------

SAMPLING: dict[str, Any] = {
    "walkers": 96,
    "equilibration": 1500,
    "frames": 150,
    "segment_frames": 150,
    "frame_interval": 50,
    "timestep": 0.01,
}


def bootstrap_error(estimate: Callable[[Array], Array], n_walkers: int) -> Array:
    """Standard error of an estimate from rows of walkers, which are independent of each other."""
    rng = np.random.default_rng(0)
    return np.std([estimate(rng.integers(n_walkers, size=n_walkers)) for _ in range(200)], axis=0, ddof=1)


@pytest.fixture(scope="module")
def unbiased(tmp_path_factory: pytest.TempPathFactory) -> list[WalkerFrames]:
    folder = tmp_path_factory.mktemp("unbiased")
    return run(make_stage(folder, temperatures=[1.0, 2.0], **SAMPLING))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_temperature(
    unbiased: list[WalkerFrames], temperature: float, record_property: Callable[[str, object], None]
) -> None:
    """Mean potential energy against quadrature; the z^2 restraint adds half a kT."""
    exact = HOLES.exact_ensemble(temperature)
    energy = three_hole_potential(exact.positions[:, 0, 0], exact.positions[:, 0, 1])
    expected = float((exact.weights * energy).sum()) + 0.5 * temperature
    means = np.array([w.table["potential_energy"].mean() for w in unbiased if w.temperature == temperature])
    error = means.std(ddof=1) / np.sqrt(len(means))
    record_property("deviation_in_standard_errors", float((means.mean() - expected) / error))
    assert error < 0.04 * temperature
    assert abs(means.mean() - expected) < 4 * error


def test_the_restraint_in_z_is_at_the_temperature(unbiased: list[WalkerFrames]) -> None:
    # <z^2> = kT / 200; z is fast, so frames are almost independent.
    topology = HOLES.build(1).mdtraj_topology()
    for temperature in (1.0, 2.0):
        z = np.array([w.load(topology).xyz[:, 0, 2] for w in unbiased if w.temperature == temperature])
        means = (200 * z.astype(float) ** 2).mean(axis=1)
        error = means.std(ddof=1) / np.sqrt(len(means))
        assert error < 0.03 * temperature
        assert abs(means.mean() - temperature) < 4 * error


EDGES = np.array([-3.0, -1.2, -0.8, -0.3, 0.3, 0.8, 1.2, 3.0])


def wells(xy: Array) -> Array:
    """Membership of points (..., 2) in the left, right and upper well and in bins along x; shape (..., k)."""
    x, y = xy[..., 0], xy[..., 1]
    upper = y > 1.0
    regions = [(x < 0) & ~upper, (x >= 0) & ~upper, upper]
    bins = [(x >= a) & (x < b) for a, b in pairwise(EDGES)]
    return np.stack([*regions, *bins], axis=-1).astype(float)


@pytest.mark.parametrize("bias", ["plain", "harmonic", "flow_barrier"])
def test_reweighting_recovers_the_exact_free_energies(
    tmp_path: Path,
    holes_model: Path,
    unbiased: list[WalkerFrames],
    bias: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Populations p of wells and bins, and free energies -kT log p, within 4 standard errors."""
    acting = bias_of(bias, holes_model)
    if acting is None:
        walkers = [walker for walker in unbiased if walker.temperature == 1.0]
    else:
        walkers = run(make_stage(tmp_path / "run", acting, **SAMPLING))
    topology = HOLES.build(1).mdtraj_topology()
    inside = wells(np.array([walker.load(topology).xyz[:, 0, :2] for walker in walkers]))
    log_weights = np.array([walker.table["bias_energy"].to_numpy() for walker in walkers])  # kT = 1
    exact = HOLES.exact_ensemble(1.0)
    expected = exact.weights @ wells(exact.positions[:, 0, :2])
    assert expected.min() > 0.01

    def free_energies(rows: Array) -> Array:
        weights = normalised_weights(log_weights[rows].ravel())
        return -np.log(weights @ inside[rows].reshape(-1, inside.shape[-1]))

    everyone = np.arange(len(walkers))
    error = bootstrap_error(free_energies, len(walkers))
    deviation = (free_energies(everyone) + np.log(expected)) / error
    record_property("deviations_in_standard_errors", [round(float(d), 2) for d in deviation])
    record_property("standard_errors_kT", [round(float(e), 3) for e in error])
    assert error.max() < 0.25
    assert np.abs(deviation).max() < 4.0

    n = log_weights.size
    ess = effective_sample_size(log_weights.ravel())
    record_property("ess", [float(ess), int(n)])
    if acting is None:
        assert ess == pytest.approx(n)
        return
    assert 1.0 < 0.1 * n < ess < 0.95 * n
    # Without the weights the answer is wrong: the test can tell.
    log_weights[:] = 0.0
    naive = (free_energies(everyone) + np.log(expected)) / error
    assert np.abs(naive).max() > 6.0
