"""The report: a page that needs no network, curves, structures of the states, costs, references."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL_TRAINING
from helpers.folders import resealed
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.ensembles.curves import Curve
from latf_openmm.ensembles.ensemble import Estimate
from latf_openmm.features.solute import solute_atoms
from latf_openmm.report.citations import works
from latf_openmm.report.cost import Cost, costs
from latf_openmm.report.page import write_report
from latf_openmm.report.solute import chain_traces, solute_of
from latf_openmm.report.structures import StateStructure, scene, state_structures, write_structures
from latf_openmm.report.temperature_curves import Melting
from latf_openmm.reweighting.reliability import Reliability
from latf_openmm.run.config import RunConfig, load_config
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.settings import validate
from latf_openmm.systems import library_folder
from latf_openmm.systems.structure import StructureSettings
from latf_openmm.units import KELVIN, REDUCED

LOADS = ("src", "srcset", "poster", "data", "action", "background")


def tiny(system: str, **changes: dict[str, Any]) -> RunConfig:
    data = load_config(f"{system}/fast").model_dump(mode="json")
    data["simulation"] |= {"frames": 60, "segment_frames": 60, "equilibration": 100, "processes": 1}
    data["training"] |= SMALL_TRAINING
    data["loop"]["rounds"] = 1
    data["validation"] = None
    data["generate"] |= {"samples": 200, "temperatures": data["generate"]["temperatures"][:1]}
    for key, values in changes.items():
        data[key] |= values
    return validate(RunConfig, data, "tiny")


@pytest.fixture(scope="module")
def dipeptide(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    run = run_loop(tiny("alanine_dipeptide"), tmp_path_factory.mktemp("report") / "run")
    write_report(run, 0)
    return run


class Page(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(dipeptide: RunFolder) -> Page:
    return Page(dipeptide.path / "report" / "index.html")


def test_nothing_is_loaded_from_a_network(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in LOADS if tag == "a" else (*LOADS, "href"):
            value = attributes.get(name, "")
            assert not re.match(r"\s*([a-z]+:)?//", value, re.I), f"<{tag} {name}={value}>"
    links = [one["href"] for one in page.all("a") if "://" in one["href"]]
    assert all(link.startswith("https://doi.org/10.") for link in links)
    bare = re.sub(r"<a [^>]*>", "", page.text)
    assert not re.search(r"https?://|@import|url\(|XMLHttpRequest|\bfetch\(|\bimport\(", bare)


def test_what_the_page_names_is_there(page: Page, dipeptide: RunFolder) -> None:
    folder = dipeptide.path / "report"
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for one in page.all("a"):
        href = one["href"]
        if href.startswith("#"):
            assert href[1:] in ids
        elif "://" not in href:
            assert (folder / href).is_file()
    images = page.all("img")
    assert {one["src"] for one in images} >= {"free_energy.png", "populations.png", "curves.png"}
    assert all((folder / one["src"]).is_file() and len(one["alt"]) > 10 for one in images)
    assert ids >= {"summary", "structures", "curves", "cost", "cite"}


def test_tables_and_pictures_scroll_by_themselves(page: Page) -> None:
    within: list[str] = []
    for tag, attributes in page.tags:
        if tag in ("table", "img"):
            assert within[-1] == "scroll", f"<{tag}> outside a container that scrolls"
        if tag == "div":
            within.append(attributes.get("class", ""))


def test_summary_says_what_was_done_and_what_to_trust(page: Page) -> None:
    said = re.search(r'<p class="summary">(.*?)</p>', page.text, re.S)
    assert said is not None
    for words in (
        "alanine_dipeptide (ACE-ALA-NME",
        "simulated at 300 K and 600 K in 1 round",
        "240 frames, without a bias",
        "There is no independent reference",
        "are not to be relied on (reliability poor)",
    ):
        assert words in " ".join(said[1].split())


def test_a_state_is_drawn_where_it_can_be_relied_on(dipeptide: RunFolder) -> None:
    reweighter = reweighter_of_round(dipeptide, 0)
    pool = reweighter.pool
    halves = replace(pool, states=(pool.z[:, 0] > np.median(pool.z[:, 0])).astype(np.int64), n_states=2)
    cold, hot = (replace(reweighter.at(temperature), pool=halves) for temperature in (300.0, 600.0))
    features = reweighter.trained.feature_module()
    more, less = (cold, hot) if cold.populations()[1].value > hot.populations()[1].value else (hot, cold)

    def drawn(*reliabilities: Reliability) -> StateStructure:
        judged = [
            replace(e, reliability=reliability)
            for e, reliability in zip((more, less), reliabilities, strict=True)
        ]
        return state_structures(dipeptide, judged, features, 1)[1]

    structure = drawn("poor", "fair")
    assert (structure.temperature, structure.reliability) == (less.temperature, "fair")
    assert structure.passed_over == (f"{more.temperature:g} K",)
    for reliability in ("fair", "poor"):
        structure = drawn(reliability, reliability)
        assert (structure.temperature, structure.reliability) == (more.temperature, reliability)
        assert structure.passed_over == ()


def test_the_page_says_at_which_temperature_a_state_is_drawn(page: Page, dipeptide: RunFolder) -> None:
    captions = re.findall(r"<figcaption><b>state \d+</b>(.*?)</figcaption>", " ".join(page.text.split()))
    for caption in captions:
        assert re.match(r": population \S+( ± \S+)? at \d+ K( \(poor: not to be relied on\))?\.", caption)
    structure = dipeptide.reference_structure()
    state = StateStructure(
        0, 300.0, Estimate(0.4, 0.1), "state_0.pdb", None, structure, "300 K", "fair", ("350 K", "400 K")
    )
    assert state.where() == (
        "population 0.40 ± 0.10 at 300 K. Not at 350 K and 400 K, where its population is larger but poor: not to be "
        "relied on."
    )
    poor = replace(state, reliability="poor", passed_over=(), population=Estimate(0.4, np.nan))
    assert poor.where() == "population 0.40 at 300 K (poor: not to be relied on)."


def test_another_report_leaves_no_old_structures(dipeptide: RunFolder) -> None:
    folder = dipeptide.path / "report"
    old = folder / "state_77.pdb"
    old.write_text("END\n")
    structure = dipeptide.reference_structure()
    write_structures(
        [StateStructure(0, 300.0, Estimate(1.0, 0.1), "state_0.pdb", None, structure, "300 K")], folder
    )
    assert not old.exists()


def test_unknown_energies_are_said_not_guessed(dipeptide: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(dipeptide.path, copy)
    for path in copy.glob("rounds/000/simulation/*/segment_*/frames.parquet"):
        pd.read_parquet(path).assign(potential_energy=0.0).to_parquet(path)
    text = write_report(RunFolder.open(resealed(copy)), 0).read_text()
    assert "the potential energies of the frames are not known" in text
    assert "Heat capacity:" not in text
    assert "RMSD: to the start structure" in text
    assert "Statistically optimal analysis" not in text  # nothing was reweighted
    arguments = ["-T", "400", "--samples", "100", "--structures", "2", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["generate", str(copy), *arguments])
    assert result.exit_code in (0, 3), (result.output, result.exception)
    assert "state 0: " in result.output
    assert "mean potential energy" not in result.output


def test_cost_adds_up(dipeptide: RunFolder) -> None:
    rows = costs(dipeptide, [dipeptide.round(0).summary()])
    assert [row.name for row in rows] == ["round 0", "total"]
    assert rows[0].evaluations == (60 * 50 + 100) * 2 * 2
    assert rows[0].simulated_ps == pytest.approx(0.002 * rows[0].evaluations)
    assert rows[1].wall == pytest.approx(rows[0].wall)
    assert rows[0].ns_per_day == pytest.approx(rows[0].simulated_ps / rows[0].simulate * 86.4)


def test_cost_and_summary_keep_imported_and_simulated_time_apart() -> None:
    imported = Cost("round 0, imported", False, 0.0, 0, None, 5.0, 1.0, 30.0)
    simulated = Cost("round 1", True, 2000.0, 1_000_000, 60.0, 5.0, 1.0)
    assert imported.time_text(KELVIN) == "none; 30 ps imported"
    assert simulated.time_text(KELVIN) == "2 ns"
    both = replace(simulated, imported_ps=30.0)
    assert both.time_text(KELVIN) == "2 ns, and 30 ps imported"
    assert both.time_text(REDUCED) == "2,000, and 30 imported"


def test_every_figure_and_table_has_a_caption(dipeptide: RunFolder) -> None:
    page = write_report(dipeptide, 0).read_text()
    for figure in re.findall(r"<figure>.*?</figure>", page, re.S):
        caption = re.search(r"<figcaption>(.*?)</figcaption>", figure, re.S)
        assert caption is not None and len(caption[1]) > 60, figure[:200]
    for after in re.findall(r"</table></div>\s*(.{24})", page, re.S):
        assert after.startswith('<p class="small">')
    assert "good is a curve that falls and levels off" in page


@pytest.mark.slow
def test_clusters_are_spheres(tmp_path: Path) -> None:
    run = run_loop(tiny("lj7", simulation={"walkers": 4}), tmp_path / "lj7")
    text = write_report(run, 0).read_text()
    found = re.search(r'id="scene">(.*?)</script>', text, re.S)
    assert found is not None
    drawn = json.loads(found[1])
    assert drawn["kind"] == "particles"
    assert 5.0 < drawn["radius"] < 6.5  # half of 1.12 sigma, sigma = 1 nm
    assert "<th>ns/day" not in text


def library_structures(name: str, frames: int = 2) -> mdtraj.Trajectory:
    structure = mdtraj.load(library_folder(name.partition("_tip3p")[0]) / f"{name}.pdb")
    return structure[np.zeros(frames, dtype=int)]


@pytest.mark.parametrize("name", ["chignolin", "rna_tetraloop"])
def test_chains_have_a_tube_and_no_hydrogens(name: str) -> None:
    structures, residues = library_structures(name), 10
    heavy = len(structures.topology.select("element != H"))
    drawn = scene([StateStructure(0, 300.0, Estimate(1.0, 0.1), "state_0.pdb", None, structures, "300 K")])
    assert drawn.kind == "chains"
    assert [len(piece) for piece in drawn.traces] == [residues]
    assert len(drawn.elements) == heavy == len(drawn.views[0].xyz) // 3
    assert len(drawn.other_bonds) == residues - 1
    assert len(drawn.views[0].others[0]) == 3 * residues


def test_solvent_is_left_out_and_molecules_are_whole() -> None:
    solvated = library_structures("chignolin_tip3p", frames=1)
    atoms = solute_atoms(solvated.topology)
    assert len(atoms) == 166
    expected = solvated.atom_slice(atoms)
    broken = solvated[0]
    half = atoms[len(atoms) // 2 :]
    broken.xyz[0, half] += broken.unitcell_vectors[0][0]
    found = solute_of(broken)
    np.testing.assert_allclose(
        mdtraj.compute_distances(found, [[0, 165]], periodic=False),
        mdtraj.compute_distances(expected, [[0, 165]], periodic=False),
        atol=1e-3,
    )
    assert [len(piece) for piece in chain_traces(found.topology)] == [10]


def test_references_are_those_of_the_citation_file() -> None:
    cff = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    cited = works(["flow_barrier"], energies=True)
    text = "\n".join(f"{work.title} {work.place} {work.bibtex}" for work in cited)
    for reference in cff["references"]:
        assert reference["title"].lower() in text.lower()
        for number in (
            *re.findall(r"arXiv:([\d.]+)", reference.get("notes", "")),
            reference.get("start", ""),
            reference.get("doi", ""),
        ):
            assert number in text
        for author in reference["authors"]:
            assert author["family-names"] in text
    assert len({work.key for work in cited}) == len(cited)
    assert all(work.bibtex.count("{") == work.bibtex.count("}") for work in cited)
    assert len(works([], energies=False)) == len(cited) - 4
    assert "Shirts2013Ensembles" in {work.key for work in cited}
    every = works(["opes", "flow_barrier", "metadynamics", "walls"], energies=True, annealed=True)
    assert len({work.key for work in every}) == len(every) == len(cited) + 4


def test_methods_that_were_not_used_are_not_cited(dipeptide: RunFolder) -> None:
    """The configuration has a bias of OPES's form; in the first round, which is all there is, nobody felt it."""
    assert dipeptide.config.bias is not None
    text = (dipeptide.path / "report/index.html").read_text()
    assert "OpenMM 8: Molecular Dynamics" in text
    assert "From Bias Potentials to Probability Distributions" not in text
    assert "openmm-torch" not in text
    assert "openmm-torch" in next(w.why for w in works([], energies=False, plugin=True) if "OpenMM" in w.key)


def test_hot_walkers_are_named(dipeptide: RunFolder, tmp_path: Path) -> None:
    """In a run whose kinetic temperature was three times too high at one of its temperatures."""
    assert "kinetic temperature" not in (dipeptide.path / "report/index.html").read_text()
    shutil.copytree(dipeptide.path, tmp_path / "run", symlinks=True)
    hottest = max(w.temperature for w in dipeptide.walkers(0))
    for file in (tmp_path / "run").glob(f"rounds/000/simulation/T{hottest:g}*/segment_*/frames.parquet"):
        table = pd.read_parquet(file)
        table["kinetic_temperature"] *= 3.0
        table.to_parquet(file, index=False)
    text = " ".join(write_report(RunFolder.open(resealed(tmp_path / "run")), 0).read_text().split())
    assert f"round 0, {hottest:g} K: the kinetic temperature is" in text
    assert text.count("so energies of these frames are too high") == 1


def heat_capacity(*reliabilities: str) -> Curve:
    """A maximum at the third of five temperatures."""
    rows = [
        (300.0 + 10 * i, value, 0.1, "reweighted", reliability, 50.0)
        for i, (value, reliability) in enumerate(zip((1.0, 2.0, 3.0, 2.0, 1.0), reliabilities, strict=True))
    ]
    columns = ["temperature", "value", "error", "method", "reliability", "effective_samples"]
    table = pd.DataFrame(rows, columns=columns)
    replicates = table["value"].to_numpy()[:, None] + np.array(
        [[0, 0], [0.1, -0.1], [0, 0], [-0.1, 0.1], [0, 0]]
    )
    return Curve("heat_capacity", "k_B", table, replicates)


@pytest.mark.parametrize(
    ("reliabilities", "expected"),
    [
        ("good good good good poor", "good"),
        ("good fair good good good", "fair"),
        ("good good poor fair good", "poor"),
    ],
)
def test_a_maximum_says_whether_it_can_be_relied_on(reliabilities: str, expected: str) -> None:
    [(name, at, reliability)] = Melting((heat_capacity(*reliabilities.split()),), ()).transitions()
    assert name == "heat capacity is largest"
    assert at.value == pytest.approx(320.0)
    assert reliability == expected


def test_only_shares_are_said_to_cross_one_half() -> None:
    peak = heat_capacity(*["good"] * 5)
    assert peak.replicates is not None
    quarter = replace(
        peak, table=peak.table.assign(value=peak.table["value"] / 4), replicates=peak.replicates / 4
    )
    curves = [
        replace(quarter, name=f"mine.py:{name}", is_share=name == "folded") for name in ("folded", "height")
    ]
    [(name, at, _)] = Melting(tuple(curves), ()).transitions()
    assert name == "folded crosses one half"
    assert at.value == pytest.approx(310.0)


def test_the_title_is_the_file_of_a_users_own_system(dipeptide: RunFolder) -> None:
    own = StructureSettings.model_construct(structure=Path("somewhere/protein.pdb"))
    assert own.label == "protein.pdb"
    assert dipeptide.config.system.label == "alanine_dipeptide"
    assert "<h1>alanine_dipeptide</h1>" in (dipeptide.path / "report" / "index.html").read_text()
