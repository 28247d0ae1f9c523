"""Objects in a notebook: HTML that is well formed, escaped and right, and short texts; nothing is computed twice."""

import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from helpers.ensembles import plenty, trained
from rich.console import Console

from latf_openmm.display import Table, card, with_error
from latf_openmm.ensembles.curves import energy_curve
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.progress import bar, make_progress
from latf_openmm.reweighting.consistency import Certificate
from latf_openmm.run.explained import explain
from latf_openmm.run.folder import RunFolder


class Text(HTMLParser):
    """Text of a page whose tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def cells(item: object) -> list[str]:
    html = item._repr_html_()  # type: ignore[attr-defined]
    assert "background:#" not in html
    assert "color:#" not in html
    return Text(html).cells


def test_names_of_users_are_escaped_and_long_tables_cut() -> None:
    name = "<script>alert('x')</script> & \"y\""
    html = card(name, {name: name, "left out": ""}, [Table(["a", "b"], [[name, name]] * 40)], [name])
    assert "<script" not in html
    said = Text(html).cells
    assert said.count(name) == 1 + 2 + 2 * 30 + 1
    assert "… 10 more" in said
    assert "left out" not in said


def test_numbers_have_the_digits_of_their_errors() -> None:
    assert with_error(0.0951, 0.00996) == "0.095 ± 0.010"
    assert with_error(1234.5, 99.7) == "1234 ± 100"
    assert with_error(0.0, 0.0) == "0"
    assert with_error(2.0, float("inf")) == "2"


def test_a_run(small_run: RunFolder) -> None:
    said = cells(small_run)
    record = small_run.last_round().summary()
    row = record.populations[0]
    for text in (
        "three_hole",
        "2 of 2 complete",
        f"{record.frames:,}",
        with_error(row.populations[0], row.errors[0]),
    ):
        assert text in said
    assert any(text.startswith("No further round: all 2 rounds") for text in said)
    assert repr(small_run) == f"RunFolder('{small_run.path}': three_hole, 2 of 2 rounds complete)"


def test_a_damaged_run_or_one_that_has_just_begun_is_shown(small_run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "<b>run"
    shutil.copytree(small_run.path, path)
    run = RunFolder.open(path)
    run.last_round().decision.write_text("{}")
    assert any("cannot be read" in text and "decision.json" in text for text in cells(run))
    begun = RunFolder(tmp_path / "empty", small_run.config)
    begun.path.mkdir()
    shutil.copy(small_run.path / "run.json", begun.path)
    record = (begun.path / "run.json").read_text()
    assert "rounds/000" in record
    assert any("cannot be read" in text for text in cells(begun))
    assert "0 of 2 rounds complete" in repr(begun)


def test_a_model(small_run: RunFolder) -> None:
    model = small_run.trained(1)
    said = cells(model)
    assert "2 frames" in said
    assert any(text.startswith("2, of ") for text in said)
    assert "2 in the committee" in said
    assert "2 collective variables" in repr(model)
    assert "T = " in repr(model)
    assert "metastable states" in cells(trained())  # of a script, without provenance


def test_ensembles_certificates_and_curves(small_run: RunFolder) -> None:
    reweighter = Reweighter(trained(), plenty(n=600))
    ensemble = reweighter.at(1.5)
    said = cells(ensemble)
    share = ensemble.populations()[0]
    assert "Ensemble at T = 1.5" in said
    assert with_error(share.value, share.error) in said
    assert any(text.startswith(ensemble.reliability) for text in said)
    assert repr(ensemble).startswith("StructureEnsemble(T = 1.5, reweighted, ")
    warned = cells(replace(ensemble, warnings=("a <b> is here",)))
    assert "Warning: a <b> is here" in warned
    certificate = reweighter.certificate
    said = cells(certificate)
    assert "T = 1" in said
    assert certificate.verdict in said
    assert cells(Certificate((), ()))[-1] == "nothing could be tested"
    assert repr(certificate) == f"Certificate(2 temperatures: {certificate.verdict})"
    curve = energy_curve("energy", [ensemble])
    assert "Energy" in cells(curve)
    assert repr(curve) == "Curve(energy, 1 temperatures)"
    assert len(repr(reweighter.pool)) < 80


@pytest.mark.parametrize("temperature", [1.0])
def test_an_explanation(small_run: RunFolder, temperature: float) -> None:
    explanation = explain(small_run, temperature)
    assert set(explanation.sentences()) <= set(cells(explanation))
    assert len(repr(explanation)) < 160


def test_a_notebook_without_widgets_has_no_bars(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with (
        make_progress(Console(file=StringIO(), force_jupyter=True)) as progress,
        bar(progress, "work", 2) as advance,
    ):
        advance(1, "half")
    assert caplog.messages == [
        "progress bars in a notebook need the package ipywidgets: pip install ipywidgets"
    ]
    assert not make_progress(Console(file=StringIO(), force_jupyter=False, force_terminal=True)).disable


def test_each_value_has_the_digits_that_its_error_leaves() -> None:
    assert with_error(0.2386, 0.0020) == "0.2386 ± 0.0020"
    assert with_error(0.2285, 0.00091) == "0.22850 ± 0.00091"
    assert with_error(12.5, 2.0e-5) == "12.500000 ± 2.0e-05"
    assert with_error(1e-9, 3e-8) == "1.0e-09 ± 3.0e-08"
