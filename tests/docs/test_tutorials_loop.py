"""The pages about a run from a configuration do what they say."""

from pathlib import Path

import pytest
from helpers.pages import LOOP, follow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.mark.parametrize("page", LOOP)
def test_a_shortened_page_does_what_it_says(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(page, folder / "short", monkeypatch, whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", LOOP)
def test_a_page_does_what_it_says(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(page, folder / "whole", monkeypatch, whole=True)
