"""Lags of a scan that are done, on disk, so that a scan that was cut off goes on with the next one."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latf_openmm.errors import DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.model.checkpoint import versions
from latf_openmm.model.latf import ModelSettings
from latf_openmm.storage import PARTIAL, read_record, write_record
from latf_openmm.training.run import PART
from latf_openmm.training.settings import TrainingSettings

_PLAN = "plan.json"
"""File that names the lags of a scan."""


def lags_beside(output: Path) -> Path:
    """Folder of the lags that are done, beside the folder that the model or the scan will be written to."""
    return output.with_name(f"{output.name}.lags{PARTIAL}")


def lags_done(output: Path) -> tuple[int, int] | None:
    """Lags that are done and in all, of a scan whose result is not written yet; None where none was begun."""
    folder = lags_beside(output)
    try:
        plan = read_record(folder / _PLAN)
        lags, origin = list(map(int, plan["lags"])), str(plan["origin"])
    except (DataError, KeyError, TypeError, ValueError):
        return None
    kept = KeptLags(folder, origin)
    return sum(kept.read(lag) is not None for lag in lags), len(lags)


def forget_lags(output: Path) -> None:
    """Remove the lags that are done, when what they are for is written."""
    shutil.rmtree(lags_beside(output), ignore_errors=True)


def origin_of(
    trajectories: Sequence[FeatureTrajectory],
    model_settings: ModelSettings,
    settings: TrainingSettings,
    seed: int,
) -> str:
    """Hash of all that the result at a lag depends on: data, settings but the lag, the seed, versions."""
    digest = hashlib.sha256()
    used = settings.model_dump(mode="json", exclude={"lag"})
    _add(digest, [model_settings.model_dump(mode="json"), used, seed, versions()])
    for trajectory in trajectories:
        stretches = [[stretch.start, stretch.stop] for stretch in trajectory.stretches]
        _add(digest, [trajectory.temperature, trajectory.frame_interval, trajectory.run, stretches])
        _add(digest, trajectory.features.shape)
        for first in range(0, trajectory.n_frames, PART):  # frames of a large run are not in memory
            digest.update(trajectory.features[first : first + PART].tobytes())
        digest.update(trajectory.log_weights.tobytes())
        if trajectory.square_speeds is not None:
            digest.update(trajectory.square_speeds.tobytes())
        if trajectory.windows is not None:
            _add(digest, [trajectory.windows.group, trajectory.windows.index])
            digest.update(trajectory.windows.reduced.tobytes())
    return digest.hexdigest()


def _add(digest: Any, plain: Any) -> None:
    digest.update(json.dumps(plain, sort_keys=True).encode())


class KeptLags:
    """Results of a scan in a folder, one file a lag; those of another origin count as none.

    Parameters
    ----------
    folder
        Where they are; None: nothing is kept.
    origin
        Hash of what they depend on; see `origin_of`.
    """

    def __init__(self, folder: Path | None, origin: str) -> None:
        self._folder, self._origin = folder, origin

    def plan(self, lags: Sequence[int]) -> None:
        """Note which lags [frames] there are to be, for those who watch."""
        if self._folder is not None:
            write_record(self._folder / _PLAN, {"origin": self._origin, "lags": list(lags)})

    def read(self, lag: int) -> dict[str, Any] | None:
        """Return the result at a lag [frames]; None where it is not there, damaged, or of other data or settings."""
        if self._folder is None:
            return None
        try:
            record = read_record(self._folder / _name(lag))
        except DataError:
            return None
        result: dict[str, Any] | None = record.get("result")
        return result if record.get("origin") == self._origin else None

    def write(self, lag: int, result: dict[str, Any]) -> None:
        """Keep the result at a lag [frames]: numbers, texts and lists of them."""
        if self._folder is not None:
            write_record(self._folder / _name(lag), {"origin": self._origin, "result": result})


def _name(lag: int) -> str:
    return f"lag_{lag:04d}.json"
