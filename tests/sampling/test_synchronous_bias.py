"""Walkers of several Contexts that share an adaptive bias after each segment: the same results, whoever runs them."""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.stages import HOLES, make_stage, same_results, source, write_model

from latf_openmm.bias.exchange import Exchange
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.bias.potentials.sum import SumSettings
from latf_openmm.errors import DataError
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.sampling.stage import Stage, run_stage
from latf_openmm.sampling.tempering.exchange import ExchangeSettings
from latf_openmm.sampling.walker_set import WalkerSet

OPES = OpesSettings(sigma=0.3, barrier=6.0, pace=5)
SEGMENTS, STEPS = 3, 50
"""Segments of each walker, and steps of a segment."""
UPDATES = STEPS // OPES.pace
"""Moments of a segment at which a walker adds a kernel."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = [CoordinateSettings(axes="xy")]
    return write_model(tmp_path_factory.mktemp("model") / "m", HOLES, features, 1.0)  # type: ignore[arg-type]


def stage(folder: Path, model: Path, bias: Any = OPES, **changes: Any) -> Stage:
    common: dict[str, Any] = {
        "context_walkers": 1,
        "synchronous_bias": True,
        "temperatures": [1.0],
        "walkers": 2,
        "frames": SEGMENTS * 10,
    }
    return make_stage(folder, source(model, bias), **(common | changes))


def last_bias(folder: Path, name: str, segment: int = SEGMENTS - 1) -> dict[str, Any]:
    return torch.load(folder / name / f"segment_{segment:04d}" / "bias.pt", weights_only=True)


TWO: dict[str, Any] = {"temperatures": [1.0, 1.3]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"share_bias": "all", "walkers": 1, **TWO}, marks=pytest.mark.slow),
        pytest.param({"tempering": ExchangeSettings(interval=4), **TWO}, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_gives_the_same(tmp_path: Path, model: Path, changes: dict[str, Any]) -> None:
    alone = stage(tmp_path / "alone", model, **changes)
    run_stage(alone)
    several = stage(tmp_path / "several", model, processes=2, **changes)
    run_stage(several)
    same_results(alone.folder, several.folder)
    elsewhere = stage(tmp_path / "elsewhere", model, **changes)
    executor: Executor
    with ThreadPoolExecutor(1) as executor:  # Contexts of the Reference platform share their random numbers
        run_stage(elsewhere, executor=executor)
    same_results(alone.folder, elsewhere.folder)


def test_others_are_known_up_to_the_last_segment(tmp_path: Path, model: Path) -> None:
    run = stage(tmp_path / "stage", model)
    run_stage(run)
    tasks = {task.names[0]: task for task in run.tasks()}
    assert tasks["T1_w000"].groups[0].peers == ("T1_w001",)
    row = 8 * 4
    for segment in range(SEGMENTS):
        for name, other in (("T1_w000", "T1_w001"), ("T1_w001", "T1_w000")):
            position = last_bias(run.folder, name, segment)["exchange"]
            # The update at the end of a segment is the first thing of the next one.
            assert position[f"{name}.rows"] == row * ((segment + 1) * UPDATES - 1)
            assert position.get(f"{other}.rows", 0) == row * max(segment * UPDATES - 1, 0)


def test_where_it_changes_nothing_all_segments_run_at_once(tmp_path: Path, model: Path) -> None:
    for changes in ({"context_walkers": None}, {"walkers": 1}, {"synchronous_bias": False}):
        tasks = stage(tmp_path, model, **changes).tasks()
        assert all(group.peers == () for task in tasks for group in task.groups)
    parts = [
        {"kind": "harmonic", "centre": [0.0, 0.0], "force_constant": 1.0},
        {"kind": "opes", "barrier": 6.0},
    ]
    for bias, shares in (
        (SumSettings(parts=parts), True),  # type: ignore[arg-type]
        (SumSettings(parts=parts[:1]), False),  # type: ignore[arg-type]
        (MetadynamicsSettings(sigma=0.3, height=1.0), True),
    ):
        tasks = stage(tmp_path, model, bias).tasks()
        assert all(bool(group.peers) == shares for task in tasks for group in task.groups)


@pytest.mark.parametrize(
    "calls", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
def test_an_interrupted_stage_goes_on_as_if_it_had_not_been(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    quiet, cut = stage(tmp_path / "quiet", model), stage(tmp_path / "cut", model)
    run_stage(quiet)
    original: Callable[..., None] = WalkerSet.run_segment
    left = calls

    def interrupted(self: WalkerSet, *arguments: Any) -> None:
        nonlocal left
        original(self, *arguments)  # what it published stays, and more than the segment before knows
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(WalkerSet, "run_segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_stage(cut)
    monkeypatch.setattr(WalkerSet, "run_segment", original)
    run_stage(cut)
    same_results(quiet.folder, cut.folder)


def test_reading_up_to_a_limit(tmp_path: Path) -> None:
    one, two = (Exchange(tmp_path, name, 2) for name in ("one", "two"))
    two.publish(torch.arange(6.0).reshape(3, 2))
    one.limits = {"two.rows": 24}
    np.testing.assert_array_equal(one.collect(), [[0.0, 1.0]])
    assert one.collect().shape == (0, 2)
    one.limits = {"two.rows": 72, "three.rows": 0}
    np.testing.assert_array_equal(one.collect(), [[2.0, 3.0], [4.0, 5.0]])
    one.limits = {"two.rows": 96}
    with pytest.raises(DataError, match=r"two\.rows: 72 bytes; expected 96, which were there"):
        one.collect()
    one.limits = {"three.rows": 24}
    with pytest.raises(DataError, match=r"three\.rows: 0 bytes; expected 24"):
        one.collect()
