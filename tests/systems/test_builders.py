"""The builders of systems: their checks, their first models, and, slow, whole builds."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mdtraj
import numpy as np
import openmm
import pandas as pd
import pytest
from openmm import app, unit

from latf_openmm.systems import library_folder, library_root
from latf_openmm.systems.implicit import native_obc2_system

CHIGNOLIN, FIRST_CHIGNOLIN, RNA = "chignolin", "chignolin_1uao", "rna_tetraloop"
PEPTIDES = (CHIGNOLIN, FIRST_CHIGNOLIN)
FORCE_FIELDS = {**dict.fromkeys(PEPTIDES, "amber14/protein.ff14SB.xml"), RNA: "amber14/RNA.OL3.xml"}
EXTRA = {**dict.fromkeys(PEPTIDES, ("PeptideBuilder", "Bio")), RNA: ("rdkit",)}


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


building = load(library_root() / "building.py", "building")


def builder(name: str) -> ModuleType:
    for module in EXTRA[name]:
        pytest.importorskip(module)
    return load(folder_of(name) / "build.py", f"build_{name}")


def folder_of(name: str) -> Path:
    return library_folder(CHIGNOLIN if name in PEPTIDES else name)


def recipe_of(name: str) -> Any:
    script = builder(name)
    return script.recipe(name) if name in PEPTIDES else script.RECIPE


@pytest.fixture(params=[*PEPTIDES, RNA])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def committed(name: str) -> tuple[app.Topology, np.ndarray]:
    pdb = app.PDBFile(str(folder_of(name) / f"{name}.pdb"))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


def moved_with(topology: app.Topology, start: int, fixed: int) -> Iterator[int]:
    """Atoms on the side of `start` when the bond of `start` and `fixed` is cut."""
    near: dict[int, set[int]] = {}
    for a, b in topology.bonds():
        near.setdefault(a.index, set()).add(b.index)
        near.setdefault(b.index, set()).add(a.index)
    seen, waiting = {fixed, start}, [start]
    while waiting:
        atom = waiting.pop()
        yield atom
        waiting += near[atom] - seen
        seen |= near[atom]


def turned(positions: np.ndarray, atoms: list[int], start: int, end: int, angle: float) -> np.ndarray:
    """Atoms turned about the axis from `start` to `end`."""
    from scipy.spatial.transform import Rotation

    axis = positions[end] - positions[start]
    rotation = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    changed = positions.copy()
    changed[atoms] = rotation.apply(positions[atoms] - positions[end]) + positions[end]
    return changed


def of_kind(found: list[str], word: str) -> list[str]:
    return [problem for problem in found if word in problem]


def test_the_committed_structures_are_in_order(name: str) -> None:
    assert building.problems(*committed(name)) == []


@pytest.mark.parametrize(("name", "centres"), [(CHIGNOLIN, 9), (FIRST_CHIGNOLIN, 7), (RNA, 40)])
def test_a_mirrored_structure_has_every_hand_wrong(name: str, centres: int) -> None:
    topology, positions = committed(name)
    found = building.problems(topology, positions * [1, 1, -1])
    assert len(found) == len(of_kind(found, "wrong hand")) == centres


def test_one_amino_acid_of_the_other_hand_is_found() -> None:
    topology, positions = committed(CHIGNOLIN)
    at = building.atom_indices(topology)
    swapped = positions.copy()
    ca, ha = at[5, "CA"], at[5, "HA"]
    side = moved_with(topology, at[5, "CB"], ca)
    n, c = (positions[at[5, x]] - positions[ca] for x in ("N", "C"))
    normal = np.cross(n, c) / np.linalg.norm(np.cross(n, c))
    for atom in [*side, ha]:
        swapped[atom] -= 2 * ((positions[atom] - positions[ca]) @ normal) * normal
    assert of_kind(building.problems(topology, swapped), "wrong hand") == ["wrong hand at GLU5:CA"]


@pytest.mark.parametrize("centre", ["C1'", "C2'", "C3'", "C4'"])
def test_one_wrong_centre_of_a_sugar_is_found(centre: str) -> None:
    topology, positions = committed(RNA)
    at = building.atom_indices(topology)
    ring = {"C1'": ("O4'", "C2'"), "C2'": ("C1'", "C3'"), "C3'": ("C2'", "C4'"), "C4'": ("C3'", "O4'")}
    outside = {"C1'": "N1", "C2'": "O2'", "C3'": "O3'", "C4'": "C5'"}[centre]
    a, b = (positions[at[5, x]] - positions[at[5, centre]] for x in ring[centre])
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    atom = at[5, outside]
    swapped = positions.copy()
    swapped[atom] -= 2 * ((positions[atom] - positions[at[5, centre]]) @ normal) * normal
    assert f"wrong hand at C5:{centre}" in building.problems(topology, swapped)


def test_a_cis_peptide_bond_is_found() -> None:
    topology, positions = committed(CHIGNOLIN)
    at = building.atom_indices(topology)
    c, n = at[5, "C"], at[6, "N"]
    after = list(moved_with(topology, n, c))
    found = building.problems(topology, turned(positions, after, c, n, np.pi))
    assert of_kind(found, "trans") == ["peptide bond not trans at THR6:N"]
    assert not of_kind(found, "bond THR6") and not of_kind(found, "wrong hand")


def test_a_stretched_bond_is_found(name: str) -> None:
    topology, positions = committed(name)
    at = building.atom_indices(topology)
    first, second = ("P", "OP1") if name == RNA else ("OH", "HH")
    a, b = at[2, first], at[2, second]
    stretched = positions.copy()
    stretched[b] += 0.3 * (positions[b] - positions[a])
    (found,) = building.problems(topology, stretched)
    residue = {RNA: "G2"}.get(name, "TYR2")
    assert found.startswith("bond") and f"{residue}:{first}" in found and f"{residue}:{second}" in found


def test_a_clash_is_found() -> None:
    topology, positions = committed(CHIGNOLIN)
    at = building.atom_indices(topology)
    moved = positions.copy()
    moved[at[1, "OH"]] = positions[at[9, "CZ2"]] + 0.1
    found = of_kind(building.problems(topology, moved), "clash")
    assert any("TYR1:OH" in problem and "TRP9:CZ2" in problem for problem in found)


def test_coordinates_that_are_not_finite_are_found() -> None:
    topology, positions = committed(CHIGNOLIN)
    positions[3, 1] = np.nan
    assert building.problems(topology, positions) == ["coordinates that are not finite"]


@pytest.mark.parametrize(
    ("name", "first_model", "atoms", "charge"),
    [
        (CHIGNOLIN, lambda script: script.extended_chain("YYDPETGTWY"), 166, -2),
        (FIRST_CHIGNOLIN, lambda script: script.extended_chain("GYDPETGTWG"), 138, -2),
        (RNA, lambda script: script.stem_model(1), 325, -9),
    ],
)
def test_the_first_model(name: str, first_model, atoms: int, charge: int) -> None:
    script = builder(name)
    model = first_model(script)
    topology, _ = committed(name)
    assert [r.name for r in model.topology.residues()] == [r.name for r in topology.residues()]
    assert len(model.positions) == atoms
    assert {a.name for a in model.topology.atoms()} == {a.name for a in topology.atoms()}
    system = native_obc2_system(model.topology, FORCE_FIELDS[name], 3.0)
    assert building.total_charge(system) == pytest.approx(charge, abs=1e-3)
    assert not of_kind(building.problems(*model), "wrong hand")


def test_the_committed_structures_are_folded(name: str) -> None:
    frame = building.as_trajectory(*committed(name))
    assert recipe_of(name).folded(frame) == [1]


def test_walls_and_torsions_have_the_energies_of_their_formulas() -> None:
    topology, positions = committed(CHIGNOLIN)
    at = building.atom_indices(topology)
    r = np.linalg.norm(positions[at[3, "N"]] - positions[at[8, "O"]])
    walls = [
        building.Wall((3, "N"), (8, "O"), r - 0.05, 1000.0),
        building.Wall((3, "N"), (8, "O"), r - 0.3, 1000.0),
        building.Wall((3, "N"), (8, "O"), r + 0.1, 1000.0),
    ]
    torsion = ((4, "N"), (4, "CA"), (4, "C"), (5, "N"))
    system = native_obc2_system(topology, FORCE_FIELDS[CHIGNOLIN], 3.0)
    building.add_restraints(system, topology, walls, [building.Torsion(torsion, 100.0, 60.0)])
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    energies = {}
    for scale in (0.0, 0.5, 1.0):
        context.setParameter(building.RESTRAINTS, scale)
        energies[scale] = context.getState(energy=True).getPotentialEnergy()._value
    frame = building.as_trajectory(topology, positions)
    theta = mdtraj.compute_dihedrals(frame, [[at[atom] for atom in torsion]])[0, 0]
    expected = 1000.0 * (0.5 * 0.05**2 + 0.5 * 0.1**2 + 0.1 * 0.2) + 60.0 * (
        1 - np.cos(theta - np.radians(100.0))
    )
    assert energies[1.0] - energies[0.0] == pytest.approx(expected, rel=1e-4)
    assert energies[0.5] - energies[0.0] == pytest.approx(0.5 * expected, rel=1e-4)


def test_the_best_seed_is_folded_without_a_problem_and_of_lowest_energy() -> None:
    table = pd.DataFrame(
        {
            "seed": [1, 2, 3, 4],
            "energy": [-9.0, -5.0, -6.0, -8.0],
            "folded": [0.0, 1.0, 1.0, 1.0],
            "problems": ["", "", "", "clash"],
        }
    )
    assert building.best_seed(table) == 3
    assert building.best_seed(table[table["folded"] == 0]) is None


def test_a_short_build_writes_structures_and_a_table(tmp_path: Path) -> None:
    script = builder(CHIGNOLIN)
    arguments = ["--quick", "--seeds", "3", "--stability", "2", "--output", str(tmp_path)]
    status = building.main(script.RECIPES, arguments)
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(table["seed"]) == [3]
    assert list(table["problems"]) == [""]
    assert len(app.PDBFile(str(tmp_path / "seed_3.pdb")).positions) == 166
    for written in ("chignolin.pdb", "chignolin_unfolded.pdb"):
        assert (tmp_path / written).is_file() == (status == 0)


def test_a_seed_that_fails_is_a_row_of_the_table(tmp_path: Path) -> None:
    def start(seed: int, shorter: int) -> object:
        raise building.BuildError("no coordinates")

    recipe = building.Recipe("none", "", start, (), (), (), {}, None, None)
    assert building.main([recipe], ["--seeds", "1", "--output", str(tmp_path)]) == 1
    (row,) = pd.read_csv(tmp_path / "table.csv").to_dict("records")
    assert (row["seed"], row["folded"], row["problems"]) == (1, 0, "no coordinates")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.slow
def test_a_whole_build(name: str) -> None:
    recipe = recipe_of(name)
    _, row = building.build_seed(recipe, seed=1, stability=10.0, shorter=1, platform="CPU")
    assert row["problems"] == ""
    assert row["folded"] == 1
