"""The folder of a run is its record: a file or folder is visible only when it is complete and on the disk.

Everything is written beside its place under a name that ends in ``.partial``, made durable, and renamed. A folder gets
a manifest with the size and hash of each of its files, the record of a round those of everything in it, and that of a
run those of its rounds. What is read is compared with them first (`check_file`).
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from latf_openmm.errors import ConfigError, DataError, first_line

PARTIAL = ".partial"
"""Ending of the name of something unfinished."""
MANIFEST = "manifest.json"
"""File of a folder that names its files, with their sizes and hashes."""
CONFIG = "config.yaml"
"""File of a run folder with the configuration it was started with."""
RECORDS = (MANIFEST, "round.json", "complete.json", "run.json", "annealing.json")
"""Files that list others, with their sizes and hashes."""

Facts = dict[str, Any]
_Version = tuple[int, int, int, int]
_TICK = 100_000_000  # nanoseconds; clocks of file systems are coarse
_LOCK = ".lock"  # ending of its name
_PIECE = 1 << 20  # bytes hashed at a time
_SEAL = "sha256_of_the_rest"  # key of a record with the hash of its other keys
_RESTORE = "restore it from a copy, or begin a new run"  # where a file is missing or damaged
_RECORDS_READ: dict[_Version, dict[str, Facts]] = {}  # by record, in this process
_FILES_CHECKED: set[tuple[_Version, str]] = set()  # with their hashes, in this process


def temporary_path(path: Path) -> Path:
    """Path to which something is written until it is complete."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what was written there replaces `path` on leaving, or is removed on an error."""
    make_folder(path.parent)
    temporary = temporary_path(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def atomic_folder(path: Path, manifest: bool = True) -> Iterator[Path]:
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
        If `path` exists when the folder is complete.
    """
    temporary = temporary_path(path)
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
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process, on whichever machine, works on `folder`; keep others out meanwhile."""
    make_folder(folder.parent)
    with FileLock(folder.with_name(f".{folder.name}{_LOCK}"), poll_interval=1.0):
        yield


def remove_locks(parent: Path) -> None:
    """Remove what `exclusive` left beside the folders in `parent`, when nobody works on them any more."""
    for path in parent.glob(f".*{_LOCK}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as NPZ, which has check sums."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(path: Path, wrong: str = "arrays cannot be read") -> dict[str, Any]:
    """Read an NPZ file, without pickles; `wrong` is what is said of one that is damaged.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except Exception as error:  # zipfile, zlib, numpy and the operating system each have their own
        raise DataError(f"{path}: {wrong} ({first_line(error)})") from error


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
    if str(path).encode(errors="ignore").decode() != str(path):  # tables cannot be written there
        raise ConfigError(f"{str(path)!a}: this name is not in UTF-8; expected one that is")
    if new and path.exists():
        raise ConfigError(f"{path}: already exists; {new}")
    if path.exists() and path.is_dir() != folder:
        actual, expected = ("a file", "a folder") if folder else ("a folder", "a file to write")
        raise ConfigError(f"{path}: this is {actual}; expected {expected}")
    for above in path.absolute().parents:
        if above.is_dir():
            return
        if above.exists():
            raise ConfigError(f"{path}: cannot be written; {above} is a file, expected a folder")


def make_folder(path: Path) -> None:
    """Make a folder that outlasts a power cut, and those above it; `ConfigError` if it is a file or below one."""
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
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def facts(path: Path) -> Facts:
    """Size and hash of a file, to be compared later (`check_file`)."""
    version, digest = _version_of(path), sha256(path)
    if version is not None:
        _FILES_CHECKED.add((version, digest))
    return {"size": path.stat().st_size, "sha256": digest}


def facts_below(folder: Path, leave_out: Sequence[str] = ()) -> dict[str, Facts]:
    """Sizes and hashes of all files below a folder, by their paths in it.

    A folder with a manifest counts as one file, its manifest. Locks and what is unfinished are left out, and so are
    folders and files directly in `folder` whose names are in `leave_out`.
    """
    listed: dict[str, Facts] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name in leave_out or PARTIAL in entry.name or entry.name.endswith(_LOCK):
            continue
        if not entry.is_dir():
            listed[entry.name] = facts(entry)
        elif (entry / MANIFEST).is_file():
            listed[f"{entry.name}/{MANIFEST}"] = facts(entry / MANIFEST)
        else:
            listed |= {f"{entry.name}/{name}": value for name, value in facts_below(entry).items()}
    return listed


def write_manifest(folder: Path) -> None:
    """Write names, sizes and hashes of the files in a folder, those in its subfolders too."""
    files = {
        path.relative_to(folder).as_posix(): facts(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and PARTIAL not in path.name
    }
    write_record(folder / MANIFEST, {"files": files})


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON with a hash of its own content, to be read by `read_record`."""
    plain = json.loads(json.dumps(dict(record)))
    write_json(path, plain | {_SEAL: _seal(plain)})


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises
    ------
    DataError
        If the file is missing, is something else, or was changed since.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise TypeError("it is not a mapping")
        if record.pop(_SEAL, None) != _seal(record):
            raise ValueError(f"its content is not what its {_SEAL!r} says")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {_RESTORE}") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: changed since it was written ({first_line(error)}); {_RESTORE}") from None
    return record


def _seal(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def checked_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote, after a comparison with the record above it, as far as that lists it.

    Raises
    ------
    DataError
        As `read_record`, or if it is another record than the one that was written.
    """
    if _listing(path) is not None:
        check_file(path)
    return read_record(path)


def listed_files(record: Path) -> dict[str, Facts]:
    """Files that a manifest or another record lists, by their paths in its folder; read once a process.

    Raises
    ------
    DataError
        If the record is missing or damaged.
    """
    key = _version_of(record)
    if key is None or key not in _RECORDS_READ:
        files = read_record(record).get("files", {})
        if not isinstance(files, dict) or not all(_are_facts(value) for value in files.values()):
            raise DataError(f"{record}: damaged; expected names, sizes and hashes of files")
        if key is None:
            return files
        _RECORDS_READ[key] = files
    return _RECORDS_READ[key]


def _are_facts(value: Any) -> bool:
    return isinstance(value, dict) and [type(value.get(name)) for name in ("size", "sha256")] == [int, str]


def check_file(path: Path) -> None:
    """Raise where a file is not what was written; do so before anything in it is read.

    The nearest record above it that lists it (a manifest, or that of a round or run) is the measure, and is compared
    with the one above that in turn. Every file is hashed once a process, and again when its size or time changes.

    Raises
    ------
    DataError
        If it is missing, was changed, or no record lists it.
    """
    record = _listing(path)
    if record is None:
        raise DataError(f"{path.parent / MANIFEST}: missing, or does not list {path.name}; {_RESTORE}")
    checked_record(record)
    name = path.absolute().relative_to(record.parent).as_posix()
    expected = listed_files(record)[name]
    known = path.is_file() and (_version_of(path), expected["sha256"]) in _FILES_CHECKED
    if not known and (text := _difference(path, expected["size"], expected["sha256"])):
        raise DataError(f"{path}: {text}; {_RESTORE}")


def check_folder(folder: Path, leave_out: Sequence[str] = ()) -> None:
    """Raise `DataError` where a file that the manifest of a folder lists is not what was written; see `check_file`."""
    checked_record(folder / MANIFEST)
    for name in listed_files(folder / MANIFEST):
        if name not in leave_out:
            check_file(folder / name)


def is_listed(path: Path) -> bool:
    """Return whether a record lists a file, which may be missing; raise `DataError` if such a record is damaged."""
    return _listing(path) is not None


def _listing(path: Path) -> Path | None:
    """Return the record that lists a file; None where none does."""
    path = path.absolute()
    root = next((folder for folder in path.parents if (folder / CONFIG).is_file()), path.parent)
    for folder in path.parents:
        records = (folder / name for name in RECORDS if (folder / name) != path)
        for record in (file for file in records if file.is_file()):
            if path.relative_to(folder).as_posix() in listed_files(record):
                return record
        if folder == root:  # what lies above is somebody else's
            return None
    return None


def _version_of(path: Path) -> _Version | None:
    """Numbers that change with a file; None if they may not, because it was written just now."""
    try:
        status = path.stat()
    except OSError:
        return None
    if time.time_ns() - status.st_mtime_ns < _TICK:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def damages(folder: Path) -> dict[Path, str] | None:
    """Return what is wrong with the files of a folder according to its manifest; None if it has no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        expected = listed_files(path)
    except DataError as error:
        text = str(error).removeprefix(f"{path}: ").removesuffix(f"; {_RESTORE}")
        return {path: f"the manifest cannot be read: {text}; expected names, sizes and hashes of files"}
    wrong = {folder / n: _difference(folder / n, v["size"], v["sha256"]) for n, v in expected.items()}
    return {file: text for file, text in wrong.items() if text}


def damage(path: Path) -> str | None:
    """Describe how a file differs from its nearest record; empty if it does not, None if no record lists it."""
    try:
        record = _listing(path)
        if record is None:
            return None
        expected = listed_files(record)[path.absolute().relative_to(record.parent).as_posix()]
    except DataError:  # of the record
        return None
    return _difference(path, expected["size"], expected["sha256"])


def _difference(path: Path, size: int, digest: str) -> str:
    """Describe how a file differs from what was written; empty if it does not."""
    if not path.is_file():
        return f"missing; expected a file of {size} bytes"
    if path.stat().st_size != size:
        return f"{path.stat().st_size} bytes; expected {size}"
    actual = facts(path)["sha256"]
    return "" if actual == digest else f"changed since it was written: sha256 {actual}; expected {digest}"
