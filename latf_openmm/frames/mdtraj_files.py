"""Files given to MDTraj's code in C."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def ascii_path(path: Path) -> Iterator[str]:
    """Yield a name for a file that MDTraj's C code can open: it takes ASCII only."""
    if str(path).isascii():
        yield str(path)
        return
    with TemporaryDirectory(prefix="latf_") as folder:
        link = Path(folder) / f"file{path.suffix}"
        link.symlink_to(path.absolute())
        yield str(link)


@contextmanager
def without_stdout() -> Iterator[None]:
    """Silence the remarks MDTraj's DCD reader prints from C for every file."""
    sys.stdout.flush()
    keep = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(keep, 1)
        os.close(keep)
