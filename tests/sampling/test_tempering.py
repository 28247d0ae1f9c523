"""Stages whose walkers move among temperatures: distributions, resumption, files, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.walkers import read_stage
from latf_openmm.sampling.stage import Stage, run_stage
from latf_openmm.sampling.walker_set import WalkerSet
from tests.helpers.stages import (
    DIPEPTIDE,
    HOLES,
    load,
    make_stage,
    run,
    same_results,
    source,
    table,
    write_model,
)

EXCHANGE: dict[str, Any] = {"kind": "exchange", "interval": 3}
EXPANDED: dict[str, Any] = {"kind": "expanded", "interval": 3}
KINDS = {"exchange": EXCHANGE, "all": {**EXCHANGE, "pairs": "all"}, "expanded": EXPANDED}
LADDER: dict[str, Any] = {"temperatures": [0.7, 1.0, 1.4], "walkers": 2}
MOLECULE: dict[str, Any] = {
    "temperatures": [300.0, 360.0, 430.0],
    "walkers": 2,
    "timestep": 0.002,
    "frames": 20,
    "segment_frames": 8,
}


@pytest.fixture(scope="module")
def holes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("holes") / "model"
    return write_model(folder, HOLES, [CoordinateSettings(axes="xy")], 1.0)


@pytest.fixture(scope="module")
def dipeptide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dipeptide") / "model"
    return write_model(folder, DIPEPTIDE, [TorsionSettings(angles=["phi", "psi"])], 300.0)


def stage_of(kind: str, folder: Path, model: Path, bias: str, molecule: bool) -> Stage:
    settings = {
        "none": None,
        "harmonic": HarmonicSettings(centre=[0.0, 0.0], force_constant=5.0),
        "opes": OpesSettings(sigma=0.3, barrier=5.0, pace=7),
    }[bias]
    acting = None if settings is None else source(model, settings)
    system, options = (DIPEPTIDE, MOLECULE) if molecule else (HOLES, {**LADDER, "frames": 40})
    return make_stage(folder, acting, system, tempering=KINDS[kind], equilibration=20, **options)


RESUMED = [(kind, bias) for kind in ("exchange", "expanded") for bias in ("none", "harmonic", "opes")]


@pytest.mark.parametrize(("kind", "bias"), [*RESUMED, ("all", "none")])
@pytest.mark.parametrize("molecule", [False, True])
def test_an_interrupted_run_resumes_exactly(
    tmp_path: Path, holes_model: Path, dipeptide_model: Path, kind: str, bias: str, molecule: bool
) -> None:
    """After a segment, and where some groups of a set have one segment more than others."""
    model = dipeptide_model if molecule else holes_model
    stages = [stage_of(kind, tmp_path / name, model, bias, molecule) for name in ("whole", "killed")]
    run_stage(stages[0])
    rows = table(read_stage(stages[0].folder))
    assert rows["replica"].nunique() > 1
    moved = rows.sort_values(["walker", "frame"]).groupby("walker")
    column = "temperature" if kind == "expanded" else "replica"
    assert (moved[column].nunique() > 1).any()
    write, calls = WalkerSet._write, []

    def killed(walkers: WalkerSet, index: int, recorded: Any) -> None:
        calls.append(index)
        if len(calls) == 2:  # the first group of the second segment is written
            walkers.groups[0].write(index, recorded[0], walkers._write_moves)
            raise KeyboardInterrupt
        write(walkers, index, recorded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WalkerSet, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stage(stages[1])
    run_stage(stages[1])
    same_results(stages[0].folder, stages[1].folder)


@pytest.mark.parametrize("kind", ["exchange", "expanded"])
def test_results_do_not_depend_on_processes(tmp_path: Path, kind: str) -> None:
    options: dict[str, Any] = {"tempering": KINDS[kind], "equilibration": 20, **MOLECULE}
    for processes in (1, 2):
        run_stage(make_stage(tmp_path / str(processes), None, DIPEPTIDE, processes=processes, **options))
    same_results(tmp_path / "1", tmp_path / "2")


def test_a_set_has_a_walker_at_every_temperature(tmp_path: Path) -> None:
    def sets(**changes: Any) -> list[list[str]]:
        options = {"temperatures": [300.0, 400.0], "walkers": 2, "timestep": 0.002, "tempering": EXCHANGE}
        return [task.names for task in make_stage(tmp_path, None, DIPEPTIDE, **(options | changes)).tasks()]

    assert sets() == [["T300_w000", "T400_w000"], ["T300_w001", "T400_w001"]]
    assert sets(context_walkers=2) == [["T300_w000", "T400_w000"]]
    assert sets(context_walkers=4) == [["T300-400"]]
    assert sets(tempering=EXPANDED) == [[f"T300-400_w00{i}"] for i in range(4)]


def test_frames_follow_on_each_other_between_breaks(tmp_path: Path) -> None:
    """A walker moves a small way between frames of a stretch, and is another one after a break."""
    stage = make_stage(tmp_path, None, HOLES, tempering=EXCHANGE, **LADDER, frames=200, timestep=0.002)
    steps, jumps = [], []
    for walker in run(stage):
        xyz = walker.load(HOLES.build(1).mdtraj_topology()).xyz[:, 0]
        moved = np.linalg.norm(np.diff(xyz, axis=0), axis=1)
        after = np.array(walker.breaks) - 1
        jumps += moved[after].tolist()
        steps += np.delete(moved, after).tolist()
    assert len(jumps) > 100
    assert max(steps) < 0.1
    assert np.median(jumps) > 0.1


def test_walkers_that_visit_are_read_by_temperature(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, None, HOLES, tempering=EXPANDED, **LADDER, frames=60)
    walkers = run(stage)
    assert sum(len(walker.table) for walker in walkers) == 6 * 60
    topology = HOLES.build(1).mdtraj_topology()
    every: dict[int, Any] = {}
    for path in sorted(stage.folder.glob("T*/segment_*/walker_*.dcd")):
        every.setdefault(int(path.stem[-3:]), []).append(load(path).xyz)
    for walker in walkers:
        assert set(walker.table["temperature"]) == {walker.temperature}
        assert walker.run == f"{tmp_path.parent.name}/T{walker.temperature:g}"
        xyz = np.concatenate(every[walker.walker])[walker.table["frame"]]
        np.testing.assert_array_equal(walker.load(topology).xyz, xyz)
        gaps = np.flatnonzero(np.diff(walker.table["frame"]) != 1) + 1
        assert set(gaps) <= set(walker.breaks)
