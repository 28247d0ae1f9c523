"""Names of residues, atoms and descriptors, and that the columns of a model are those it was trained on."""

import io
import string

import mdtraj
import numpy as np
import pytest
from openmm import app

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.features import FeatureSettings, build_features, resolve_features
from latf_openmm.features.base_vectors import BaseVectorSettings
from latf_openmm.features.contacts import ContactSettings, NativeContactSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.hydrogen_bonds import HydrogenBondSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise
from latf_openmm.labels import Labels, to_mdtraj, unique
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.rna_tetraloop import RnaTetraloopSettings
from latf_openmm.training.feature_selection import (
    FeatureSelectionSettings,
    check_columns,
    narrowed,
    select_features,
)


def peptides(chains: list[str], numbers: list[str]) -> mdtraj.Topology:
    """Chains of alanine without hydrogens, each with residues numbered so; bonded as peptides are."""
    topology = app.Topology()
    for chain_id in chains:
        chain, last = topology.addChain(chain_id), None
        for number in numbers:
            digits = number.rstrip(string.ascii_letters)
            residue = topology.addResidue("ALA", chain, digits, number.removeprefix(digits))
            atoms = [
                topology.addAtom(name, app.element.get_by_symbol(name[0]), residue)
                for name in ("N", "CA", "C", "O", "CB")
            ]
            for i, j in ((0, 1), (1, 2), (2, 3), (1, 4)):
                topology.addBond(atoms[i], atoms[j])
            if last is not None:
                topology.addBond(last, atoms[0])
            last = atoms[2]
    return to_mdtraj(topology)


def walk(topology: mdtraj.Topology, n_frames: int = 60) -> mdtraj.Trajectory:
    rng = np.random.default_rng(3)
    start = rng.normal(0, 0.5, (1, topology.n_atoms, 3))
    steps = np.cumsum(rng.normal(0, 0.05, (n_frames, topology.n_atoms, 3)), axis=0)
    return mdtraj.Trajectory((start + steps).astype(np.float32), topology)


TOPOLOGIES = {
    "homodimer": peptides(["A", "B"], ["1", "2", "3", "4"]),
    "insertion codes": peptides(["H"], ["52", "52A", "52B", "53"]),
    "chains without ids": peptides([" ", " ", " "], ["1", "2", "3"]),
    "an id used twice": peptides(["A", "B", "A"], ["1", "2", "3"]),
    "many chains": peptides([*(string.ascii_letters + string.digits), "A", "B"], ["1", "2"]),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_residue_and_atom_has_its_own_name(name: str) -> None:
    topology = TOPOLOGIES[name]
    labels = Labels(topology)
    assert len({labels.atom(i) for i in range(topology.n_atoms)}) == topology.n_atoms
    assert len({labels.residue(i) for i in range(topology.n_residues)}) == topology.n_residues


def test_labels_say_chain_and_insertion_code() -> None:
    assert Labels(TOPOLOGIES["homodimer"]).atom(21) == "B:ALA1-CA"
    assert [Labels(TOPOLOGIES["insertion codes"]).residue(i) for i in range(3)] == [
        "ALA52",
        "ALA52A",
        "ALA52B",
    ]
    assert Labels(TOPOLOGIES["chains without ids"]).residue(8) == "3:ALA3"
    assert Labels(TOPOLOGIES["an id used twice"]).residue(6) == "A#2:ALA1"


def test_a_residue_number_with_letters_is_kept() -> None:
    """CHARMM's files have the insertion code in the number; MDTraj alone would count such residues."""
    topology = app.Topology()
    chain = topology.addChain()
    for number in ("52", "52A", "-3", "A000", "x"):
        topology.addAtom("CA", app.element.carbon, topology.addResidue("LYS", chain, number))
    converted = to_mdtraj(topology)
    assert [residue.resSeq for residue in converted.residues][:4] == [52, 52, -3, 10000]
    names = ["LYS52", "LYS52A", "LYS-3", "LYSA000", "LYSx"]
    assert [Labels(converted).residue(i) for i in range(5)] == names


def test_insertion_codes_of_a_pdb_file() -> None:
    atom = "ATOM  {:5d}  CA  ALA A  52{:1s}   {:8.3f}   0.000   0.000  1.00  0.00           C  \n"
    text = "".join(atom.format(i + 1, code, 4.0 * i) for i, code in enumerate(" AB"))
    topology = to_mdtraj(app.PDBFile(io.StringIO(text + "END\n")).topology)
    assert [Labels(topology).atom(i) for i in range(3)] == ["ALA52-CA", "ALA52A-CA", "ALA52B-CA"]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_reduction_keeps_the_numbers_that_the_features_compute(name: str) -> None:
    topology = TOPOLOGIES[name]
    carbons = "name CA CB" if topology.n_atoms < 100 else "name CA"
    features: list[FeatureSettings] = [
        DistanceSettings(selection=carbons),
        TorsionSettings(angles=["psi"]),
        DistanceSettings(selection="name CA"),
        ContactSettings(selection="protein", minimum_separation=2),
    ]
    resolved, trajectory = resolve_features(features, topology), walk(topology)
    module = build_features(resolved)
    assert len(set(module.names)) == module.n_features
    values = featurise(module, trajectory.xyz)
    full = FeatureTrajectory(values, 300.0, 1.0, np.arange(60.0), np.zeros(60))
    settings = FeatureSelectionSettings(applies_above=5, max_features=25, max_correlation=0.9)
    fewer, (narrow,), selection = select_features(resolved, [full], settings)
    assert 25 <= len(selection.columns) < module.n_features
    computed = featurise(build_features(fewer), trajectory.xyz)
    np.testing.assert_allclose(narrow.features, computed, atol=1e-6)
    np.testing.assert_array_equal(narrow.features, values[:, list(selection.columns)])
    pairs = [pair for item in fewer if isinstance(item, DistanceSettings) for pair in item.pairs or []]
    exact = mdtraj.compute_distances(trajectory, pairs, periodic=False)
    found = [column for column, label in enumerate(build_features(fewer).names) if label.startswith("d(")]
    np.testing.assert_allclose(narrow.features[:, found], exact, atol=1e-5)


def test_features_with_the_same_descriptors_are_told_apart() -> None:
    topology = TOPOLOGIES["homodimer"]
    features = [
        CoordinationSettings(atoms=[0, 5, 10], r0=0.4),
        CoordinationSettings(atoms=[1, 6, 11, 16], r0=0.5),
        NativeContactSettings(pairs=[(0, 20)], lengths=[0.3]),
        NativeContactSettings(pairs=[(0, 25)], lengths=[0.3]),
        DistanceSettings(pairs=[(0, 20)], names=["end"]),
        DistanceSettings(pairs=[(1, 21), (2, 22)], names=["end", "middle"]),
    ]
    resolved = resolve_features(features, topology)
    names = build_features(resolved).names
    assert names[3:7] == [f"coordination {rank} #2" for rank in (1, 2, 3, 4)]
    assert names[7:] == ["Q", "Q #4", "end", "end #6", "middle #6"]
    assert resolve_features(resolved, topology) == resolved
    kept, columns = resolved[5].keep([1])
    assert build_features([kept]).names == ["middle #6"]
    assert columns == [1]


@pytest.mark.parametrize(
    "features",
    [
        [DistanceSettings(pairs=[(0, 1), (0, 2)], names=["end", "end"])],
        [TorsionSettings(atoms=[(0, 1, 2, 3), (0, 1, 2, 4)], names=["end", "end"])],
        [BaseVectorSettings(bases=[(0, 1, 2), (5, 6, 7), (10, 11, 12)], names=["end", "middle", "end"])],
        [DistanceSettings(pairs=[(0, 1), (0, 1)])],
        [
            DistanceSettings(pairs=[(0, 1), (0, 2), (0, 3)], names=["end", "end #2", "x"]),
            DistanceSettings(pairs=[(0, 4)], names=["end"]),
        ],
    ],
)
def test_a_name_given_twice_is_refused(features: list[FeatureSettings]) -> None:
    with pytest.raises(
        ConfigError, match=r"features\[\d\]: two descriptors are called '.*'; expected each once"
    ):
        resolve_features(features, TOPOLOGIES["homodimer"])


def test_torsions_end_where_bonds_do() -> None:
    """Peptides that a file has in one chain, or a chain with a gap."""
    topology = peptides(["A"], ["1", "2", "3", "4"]).copy()
    last = next(atom for atom in topology.residue(1).atoms if atom.name == "C").index
    topology._bonds = [bond for bond in topology.bonds if {last, last + 3} != {bond[0].index, bond[1].index}]
    (resolved,) = resolve_features([TorsionSettings(angles=["psi", "omega"])], topology)
    assert resolved.build().names[:4] == [
        "sin(psi ALA1)",
        "sin(psi ALA3)",
        "sin(omega ALA2)",
        "sin(omega ALA4)",
    ]


def test_names_of_the_library_say_no_chain() -> None:
    topology = ChignolinSettings().build().mdtraj_topology()
    resolved = resolve_features(
        [HydrogenBondSettings(), TorsionSettings(angles=["phi"]), ContactSettings()], topology
    )
    names = build_features(resolved).names
    assert names[0].startswith("hb(TYR1-N,")
    assert "sin(phi TYR2)" in names
    assert "contact(TYR1,PRO4)" in names


def test_descriptors_that_are_made_together_name_all_their_columns() -> None:
    topology = RnaTetraloopSettings().build().mdtraj_topology()
    (resolved,) = resolve_features([BaseVectorSettings()], topology)
    kept, columns = resolved.keep([2, 9])
    assert columns == [0, 1, 2, 3, 8, 9, 10, 11]
    assert kept.build().names == [resolved.build().names[column] for column in columns]
    (torsions,) = resolve_features([TorsionSettings(angles=["alpha", "chi"])], topology)
    n = torsions.build().n_features // 2
    assert torsions.keep([1, n + 3])[1] == [1, 3, n + 1, n + 3]


def test_a_column_that_is_another_descriptor_is_named() -> None:
    trajectory = FeatureTrajectory(
        np.arange(6, dtype=np.float32).reshape(2, 3), 300.0, 1.0, np.zeros(2), np.zeros(2)
    )
    (fewer,) = narrowed([trajectory], ["a", "b", "a"], ["b", "a"], [1, 2])
    np.testing.assert_array_equal(fewer.features, [[1, 2], [4, 5]])
    with pytest.raises(DataError, match="2 descriptors are called 'a'; expected one"):
        narrowed([trajectory], ["a", "b", "a"], ["a"])
    with pytest.raises(DataError, match="descriptor 0 is 'a', the model was trained with 'b' there"):
        check_columns(["a", "b"], ["b"], [0])
    with pytest.raises(DataError, match="descriptor 'b' is said to be column 2 of 2"):
        check_columns(["a", "b"], ["b"], [2])
    with pytest.raises(DataError, match="the model has 1 descriptors and names 2 columns"):
        check_columns(["a", "b"], ["b"], [0, 1])


def test_numbers_are_not_taken_twice() -> None:
    names = unique(["A", "A", "A#1", "", ""])
    assert names == ["A#2", "A#3", "A#1", "#1", "#2"]
