"""The folder of a run is its record: a file or folder is visible only when it is whole and on the disk.

Everything is written beside its place under a name that ends in ``.partial``, made durable, and renamed. A folder gets
a manifest with the size and hash of each of its files, so that damage is found later (`damages`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from latf_openmm.errors import ConfigError

PARTIAL = ".partial"
"""What the name of something unfinished ends in."""

MANIFEST = "manifest.json"
"""File of a folder that names its files, with their sizes and hashes."""

_LOCK = ".lock"
_PIECE = 1 << 20


def partial(path: Path) -> Path:
    """Where something is written until it is whole."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what was written there replaces `path` on leaving, or is removed on an error."""
    make_folder(path.parent)
    temporary = partial(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def whole_folder(path: Path, manifest: bool = True) -> Iterator[Path]:
    """Yield a new folder to write into; it becomes `path` on leaving, or is removed on an error.

    Parameters
    ----------
    path
        Must not exist.
    manifest
        Whether to add a manifest of its files.

    Raises
    ------
    FileExistsError
        If `path` exists when the folder is whole.
    """
    temporary = partial(path)
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    try:
        yield temporary
        if manifest:
            write_manifest(temporary)
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                if not (Path(folder) / name).is_symlink():  # what it leads to is not ours
                    _sync(Path(folder) / name)
            _sync(Path(folder))
        if path.exists():
            raise FileExistsError(f"{path}: already exists")
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process, on whichever machine, works on `folder`; keep others out meanwhile."""
    make_folder(folder.parent)
    with FileLock(folder.with_name(f".{folder.name}{_LOCK}"), poll_interval=1.0):
        yield


def remove_locks(parent: Path) -> None:
    """Remove what `alone` left beside the folders in `parent`, when nobody works on them any more."""
    for path in parent.glob(f".*{_LOCK}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with whole_file(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def check_output(path: Path, folder: bool, new: str = "") -> None:
    """Raise `ConfigError` where something cannot be written, before any work is done for it.

    Parameters
    ----------
    path
        Where it is to be written.
    folder
        Whether it is a folder, which may be there, or a file.
    new
        Why it must not exist, such as "a model is never overwritten"; empty where it may.
    """
    if new and path.exists():
        raise ConfigError(f"{path}: already exists; {new}")
    if path.exists() and path.is_dir() != folder:
        found, wanted = ("a file", "a folder") if folder else ("a folder", "a file to write")
        raise ConfigError(f"{path}: this is {found}; expected {wanted}")
    for above in path.absolute().parents:
        if above.is_dir():
            return
        if above.exists():
            raise ConfigError(f"{path}: cannot be written; {above} is a file, expected a folder")


def make_folder(path: Path) -> None:
    """Make a folder that is still there after a power cut, and those above it.

    Raises
    ------
    ConfigError
        If it is a file, or below one.
    """
    check_output(path, folder=True)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def write_manifest(folder: Path) -> None:
    """Write names, sizes and hashes of the files in a folder, those in its subfolders too."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"files": files})


def damages(folder: Path) -> dict[Path, str] | None:
    """What is wrong with the files of a folder according to its manifest; None where it has no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        files = json.loads(path.read_text())["files"]
        expected = {folder / name: (int(one["size"]), str(one["sha256"])) for name, one in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {path: f"the manifest cannot be read ({error}); expected names, sizes and hashes of files"}
    found = {file: _difference(file, *wanted) for file, wanted in expected.items()}
    return {file: text for file, text in found.items() if text}


def _difference(path: Path, size: int, digest: str) -> str:
    """How a file differs from what was written; empty where it does not."""
    if not path.is_file():
        return f"missing; expected a file of {size} bytes"
    if path.stat().st_size != size:
        return f"{path.stat().st_size} bytes; expected {size}"
    found = sha256(path)
    return "" if found == digest else f"changed since it was written: sha256 {found}; expected {digest}"
