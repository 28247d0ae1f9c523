"""The quick start and the strategies do what they say; other pages have files of their own."""

from pathlib import Path

import pytest
from helpers.pages import DOCS, FIRST, LOOP, OWN, follow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.mark.parametrize("page", FIRST)
def test_a_shortened_page_does_what_it_says(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(page, folder / "short", monkeypatch, whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", FIRST)
def test_a_page_does_what_it_says(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(page, folder / "whole", monkeypatch, whole=True)


def test_every_tutorial_is_listed() -> None:
    assert {f"tutorials/{path.name}" for path in (DOCS / "tutorials").glob("*.md")} - {
        "tutorials/index.md"
    } == {page for page in (*FIRST, *LOOP, *OWN) if page.startswith("tutorials/")}
