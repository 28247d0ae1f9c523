"""Files and folders are there only when they are whole."""

import json
import os
from pathlib import Path

import pytest

from latf_openmm.errors import ConfigError
from latf_openmm.storage import (
    MANIFEST,
    atomic_file,
    atomic_folder,
    check_output,
    damages,
    make_folder,
    sha256,
    temporary_path,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_name_that_is_not_in_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    check_output(tmp_path / "Läufe 日本", folder=True)
    with pytest.raises(ConfigError, match=r"L\\udce4ufe': this name is not in UTF-8"):
        check_output(tmp_path / os.fsdecode(b"L\xe4ufe"), folder=True)


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert temporary == temporary_path(path)
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["new", "new/file.txt"]
    write_text(path, "other")
    assert path.read_text() == "other"
    write_json(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == []
    write_text(path, "before")
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before"
    with pytest.raises(error), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("half")
        raise error
    assert names(tmp_path) == ["file.txt"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file.txt"):
        pass
    assert names(tmp_path) == []


def test_a_folder_is_there_with_its_manifest(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    temporary_path(path).mkdir(parents=True)
    (temporary_path(path) / "left over").write_text("from an interruption")
    with atomic_folder(path) as temporary:
        (temporary / "a.txt").write_text("alpha")
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b.bin").write_bytes(bytes(range(100)))
        assert not path.exists()
    assert names(path) == ["a.txt", MANIFEST, "sub", "sub/b.bin"]
    files = json.loads((path / MANIFEST).read_text())["files"]
    assert files["a.txt"] == {"size": 5, "sha256": sha256(path / "a.txt")}
    assert list(files) == ["a.txt", "sub/b.bin"]
    assert damages(path) == {}
    with atomic_folder(tmp_path / "bare", manifest=False) as temporary:
        (temporary / "a.txt").write_text("alpha")
    assert names(tmp_path / "bare") == ["a.txt"]
    assert damages(tmp_path / "bare") is None


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(FileExistsError, match="already exists"), atomic_folder(path) as temporary:
        (temporary / "a").write_text("new")
    assert names(tmp_path) == ["folder"]


def test_links_of_a_folder_are_hashed_but_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("data")
    theirs.chmod(0o444)
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "link").symlink_to(theirs)
    assert (tmp_path / "folder" / "link").is_symlink()
    assert damages(tmp_path / "folder") == {}
    theirs.chmod(0o644)
    theirs.write_text("DATA")
    assert list(damages(tmp_path / "folder") or {}) == [tmp_path / "folder" / "link"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a.txt").write_text("alpha")
    return tmp_path / "folder"


def test_each_damage_is_named(folder: Path) -> None:
    file = folder / "a.txt"
    file.write_text("alphA")
    found = damages(folder)
    assert found is not None
    assert found[file].startswith("changed since it was written: sha256 ")
    file.write_text("al")
    assert damages(folder) == {file: "2 bytes; expected 5"}
    file.unlink()
    assert damages(folder) == {file: "missing; expected a file of 5 bytes"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"a.txt": 3}}', "\x00\xff"])
def test_a_damaged_manifest_is_named(text: str, folder: Path) -> None:
    (folder / MANIFEST).write_text(text)
    found = damages(folder)
    assert found is not None
    assert "the manifest cannot be read" in found[folder / MANIFEST]


def test_everything_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("reads /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    make_folder(tmp_path / "one" / "two")
    assert synced == [str(tmp_path / "one"), str(tmp_path)]
    synced.clear()
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a.txt").write_text("alpha")
    assert str(tmp_path / "folder.partial" / "a.txt") in synced
    assert synced[-2:] == [str(tmp_path / "folder.partial"), str(tmp_path)]
