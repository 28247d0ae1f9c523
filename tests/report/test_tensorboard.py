"""Event files hold what the history holds, round by round."""

import shutil
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latf_openmm.errors import ConfigError
from latf_openmm.report.tensorboard import write_events
from latf_openmm.run.folder import RunFolder


def test_events_are_the_history(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run", symlinks=True)
    run = RunFolder.open(tmp_path / "run")
    for _ in range(2):  # a second time replaces the first
        folder = write_events(run)
        assert [path.name for path in sorted(folder.iterdir())] == ["000", "001"]
        for one in run.complete_rounds():
            events = EventAccumulator(str(folder / one.path.name)).Reload()
            history = one.history()
            names = events.Tags()["scalars"]
            assert {name.split("/")[0] for name in names} == set(history["stage"])
            for stage, rows in history.groupby("stage"):
                found = events.Scalars(f"{stage}/divergence")
                assert [event.step for event in found] == rows.index.tolist()
                assert [event.value for event in found] == pytest.approx(rows["divergence"].tolist())


def test_it_is_said_what_is_missing(small_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"latf-openmm\[tensorboard\]"):
        write_events(small_run)
