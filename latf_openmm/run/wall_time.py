"""Wall time of the steps of a run over all its starts: what a start that was interrupted took counts too.

It is kept in a small file in the folder of the run, and removed with the last step that is not in a record yet. Nothing
but numbers for people rests on it, so that what cannot be read or written counts as none.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latf_openmm.run.heartbeat import repeated
from latf_openmm.storage import temporary_path

FILE = ".wall_time.json"
"""File in the folder of a run."""


class WallTimes:
    """Wall times of the steps that are in no record yet.

    Parameters
    ----------
    folder
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._seconds = _read(self._path)

    def seconds(self, step: str) -> float:
        """Wall time of a step so far [s]."""
        return self._seconds.get(step, 0.0)

    def begun(self, step: str) -> bool:
        """Return whether a step has begun, and is in no record yet."""
        return step in self._seconds

    @contextmanager
    def counting(self, step: str) -> Iterator[None]:
        """Count what is done meanwhile to a step, and note it every few seconds."""
        before, begin = self.seconds(step), time.perf_counter()

        def note() -> None:
            self._seconds[step] = before + time.perf_counter() - begin
            self._write()

        try:
            with repeated(note):
                yield
        finally:
            note()

    def forget(self, prefix: str) -> None:
        """Leave out the steps whose names begin so, since a record has them."""
        self._seconds = {step: value for step, value in self._seconds.items() if not step.startswith(prefix)}
        self._write()

    def _write(self) -> None:
        with suppress(OSError):  # a full disk is said by those who need it
            temporary = temporary_path(self._path)
            if not self._seconds:
                temporary.unlink(missing_ok=True)
                self._path.unlink(missing_ok=True)
                return
            temporary.write_text(json.dumps(self._seconds) + "\n", encoding="utf-8")
            temporary.replace(self._path)


def _read(path: Path) -> dict[str, float]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(step): max(0.0, float(value)) for step, value in values.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
