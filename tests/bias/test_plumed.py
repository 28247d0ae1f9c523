"""PLUMED gets the same collective variables: plumed.dat is read back by a small interpreter."""

import dataclasses
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mdtraj
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.plumed import export_plumed, plumed_input
from latf_openmm.cli import app
from latf_openmm.errors import ModelError
from latf_openmm.features import Features, FeatureSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.model.checkpoint import TrainedModel, save_model
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.run.config_path import config_path
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.schema import start_record
from latf_openmm.storage import write_record

Array = NDArray[np.float64]
N_ATOMS = 7
BOX = np.diag([1.3, 1.4, 1.5])
FEATURES: dict[str, tuple[FeatureSettings, ...]] = {
    "distances": (DistanceSettings(pairs=[(0, 1), (6, 2)], names=["first", "d(A\n1)"]),),
    "torsions": (TorsionSettings(atoms=[(0, 1, 2, 3), (4, 1, 0, 2)]),),
    "coordination": (CoordinationSettings(atoms=[5, 2, 4, 0], r0=0.35, exponent=6),),
    "coordinates": (CoordinateSettings(atoms=[3, 0], axes="xz"),),
}
FEATURES["all"] = tuple(settings for each in list(FEATURES.values()) for settings in each)
FEATURES["twice"] = (*FEATURES["distances"], *FEATURES["torsions"], *FEATURES["distances"])


def model_for(
    features: tuple[FeatureSettings, ...], scale: str = "K", hidden: tuple[int, ...] = (8,), dim: int = 2
) -> TrainedModel:
    torch.manual_seed(1)
    n_features = sum(settings.build().n_features for settings in features)
    settings = ModelSettings(encoder_hidden=list(hidden), latent_dim=dim)
    model = LatentThermodynamicFlow(settings, n_features, 2, 300.0).eval()
    model.feature_mean.copy_(torch.randn(n_features))
    model.feature_scale.copy_(torch.rand(n_features) + 0.5)
    return TrainedModel(model, features, tuple(f"AR{i}" for i in range(N_ATOMS)), scale, (300.0,))


def frames(n: int = 30) -> Array:
    return np.random.default_rng(0).uniform(-0.2, 1.5, (n, N_ATOMS, 3))


# --- PLUMED, as far as the exported inputs need it ---------------------------------------------------


@dataclass
class Action:
    label: str
    name: str
    keys: dict[str, str]
    flags: set[str]


def actions(text: str) -> list[Action]:
    found = []
    for line in text.splitlines():
        words = re.findall(r"(?:[^\s{]|\{[^}]*\})+", line.split("#")[0])
        if not words:
            continue
        label = words.pop(0)[:-1] if words[0].endswith(":") else ""
        name, *rest = words
        keys = dict(word.split("=", 1) for word in rest if "=" in word)
        found.append(Action(label, name, keys, {word for word in rest if "=" not in word}))
    return found


def atoms_of(text: str) -> list[int]:
    return [int(number) - 1 for number in text.split(",")]


def evaluate(text: str, x: Array, box: Array | None) -> tuple[Array, Action]:
    """Descriptors (n_frames, n) that PYTORCH_MODEL gets, and that action."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(N_ATOMS):
        topology.add_atom("AR", mdtraj.element.argon, residue)
    trajectory = mdtraj.Trajectory(x, topology)
    if box is not None:
        trajectory.unitcell_vectors = np.repeat(box[None], len(x), 0).astype(np.float32)

    values: dict[str, Array] = {}
    for action in actions(text):
        keys = action.keys
        periodic = box is not None and "NOPBC" not in action.flags

        def distances(pairs: list[tuple[int, int]], periodic: bool = periodic) -> Array:
            return np.asarray(mdtraj.compute_distances(trajectory, pairs, periodic, opt=False))

        if action.name == "UNITS":
            assert keys == {"LENGTH": "nm", "ENERGY": "kj/mol", "TIME": "ps"}
        elif action.name == "DISTANCE":
            first, second = atoms_of(keys["ATOMS"])
            values[action.label] = distances([(first, second)])[:, 0]
        elif action.name == "TORSION":
            quadruple = [atoms_of(keys["ATOMS"])]
            angles = mdtraj.compute_dihedrals(trajectory, quadruple, periodic, opt=False)
            values[action.label] = angles[:, 0]
        elif action.name == "CUSTOM":
            assert keys["PERIODIC"] == "NO"
            values[action.label] = function(keys["FUNC"])(values[keys["ARG"]])
        elif action.name == "COORDINATION":
            switch = dict(word.split("=", 1) for word in keys["SWITCH"].strip("{}").split() if "=" in word)
            (centre,) = atoms_of(keys["GROUPA"])
            r = distances([(centre, other) for other in atoms_of(keys["GROUPB"])])
            values[action.label] = function(switch["FUNC"])((r / float(switch["R_0"])) ** 2).sum(1)
        elif action.name == "WHOLEMOLECULES":
            assert set(keys) <= {"ENTITY0", "ENTITY1"}  # the positions here are whole
        elif action.name == "COMBINE":
            assert keys["PERIODIC"] == "NO"
            values[action.label] = np.sum([values[name] for name in keys["ARG"].split(",")], axis=0)
        elif action.name == "SORT":
            ordered = np.sort([values[name] for name in keys["ARG"].split(",")], axis=0)
            values |= {f"{action.label}.{rank}": row for rank, row in enumerate(ordered, start=1)}
        elif action.name == "POSITION":
            assert action.flags == {"NOPBC"}
            (atom,) = atoms_of(keys["ATOM"])
            values |= {f"{action.label}.{axis}": x[:, atom, i] for i, axis in enumerate("xyz")}
        elif action.name == "PYTORCH_MODEL":
            assert action.label == "latent"
            return np.stack([values[name] for name in keys["ARG"].split(",")], 1), action
        else:
            raise AssertionError(f"unknown action {action.name}")
    raise AssertionError("no PYTORCH_MODEL")


def function(text: str) -> Callable[[Array], Array]:
    if text in ("sin(x)", "cos(x)"):
        return np.sin if text == "sin(x)" else np.cos
    found = re.fullmatch(r"1/\(1\+x2\^(\d+)\)", text)
    assert found is not None, text
    return lambda squared: 1.0 / (1.0 + squared ** int(found[1]))


# --- tests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, BOX], ids=["open", "periodic"])
@pytest.mark.parametrize("name", FEATURES)
def test_plumed_has_the_same_variables(name: str, box: Array | None, tmp_path: Path) -> None:
    trained, x = model_for(FEATURES[name]), frames()
    export_plumed(trained, tmp_path / "new" / "folder", periodic=box is not None)
    folder = tmp_path / "new" / "folder"
    descriptors, action = evaluate((folder / "plumed.dat").read_text(), x, box)
    assert action.keys["FILE"] == "model.pt"
    model = torch.jit.load(str(folder / "model.pt"))
    cells = torch.empty(0) if box is None else torch.from_numpy(box).expand(len(x), 3, 3)
    expected = latent_cv(trained)(torch.from_numpy(x), cells)
    assert float(expected.std(0).min()) > 1e-3
    for row, z in zip(descriptors, expected, strict=True):
        given = torch.tensor(row[None], dtype=torch.float32)  # as PLUMED gives them
        torch.testing.assert_close(model(given)[0].double(), z, rtol=1e-5, atol=1e-5)


def test_no_nearest_image_without_a_box(tmp_path: Path) -> None:
    # An engine may have a box where the training had none: the exported input must not look at it.
    trained, x = model_for(FEATURES["all"]), frames()
    text = plumed_input(trained, periodic=False)
    np.testing.assert_array_equal(evaluate(text, x, BOX)[0], evaluate(text, x, None)[0])
    assert not np.allclose(evaluate(plumed_input(trained), x, BOX)[0], evaluate(text, x, None)[0], atol=0.1)


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_model_as_plumed_calls_it(dtype: torch.dtype, hidden: tuple[int, ...], tmp_path: Path) -> None:
    trained = model_for(FEATURES["torsions"], hidden=hidden)
    export_plumed(trained, tmp_path)
    model = torch.jit.load(str(tmp_path / "model.pt")).eval()
    optimised = torch.jit.optimize_for_inference(torch.jit.freeze(model))  # PLUMED 2.10 does
    network = latent_cv(trained).network
    for script in (model, optimised):
        for _ in range(4):  # TorchScript specialises in the first calls
            x = torch.randn(1, 4, dtype=dtype, requires_grad=True)
            z = script(x)
            assert z.shape == (1, 2)
            assert z.dtype == dtype
            for node in range(2):
                (slope,) = torch.autograd.grad(z[:, node : node + 1], x, torch.ones(1, 1), retain_graph=True)
                y = x.detach().double().requires_grad_(True)
                (expected,) = torch.autograd.grad(network(y)[0, node], y)
                torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(script(x[0]), z[0])
            assert script(x.expand(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(
    ("scale", "kelvin", "barrier"), [("K", "300", "29.9"), ("reduced", "36081.7", "3.6e+03")]
)
def test_printed_nodes_and_the_example(scale: str, kelvin: str, barrier: str) -> None:
    text = plumed_input(model_for(FEATURES["distances"], scale, dim=3))
    nodes = "latent.node-0,latent.node-1,latent.node-2"
    assert actions(text)[-1].name == "PRINT"
    assert actions(text)[-1].keys["ARG"] == nodes
    (example,) = re.findall(r"^# (opes: .*)$", text, re.MULTILINE)
    keys = actions(example)[0].keys
    assert (keys["ARG"], keys["TEMP"], keys["BARRIER"]) == (nodes, kelvin, barrier)


def test_labels_are_unique_and_names_are_comments() -> None:
    text = plumed_input(model_for(FEATURES["twice"]))
    labels = [action.label for action in actions(text) if action.label]
    assert len(set(labels)) == len(labels)
    assert "f1_d1: DISTANCE ATOMS=1,2  # first\n" in text
    assert "# d(A 1)\n" in text


class _Unknown(FeatureSettings):
    kind: Literal["moon phase"] = "moon phase"

    def build(self) -> Features:
        return DistanceSettings(pairs=[(0, 1)]).build()


def test_a_kind_without_a_plumed_form(tmp_path: Path) -> None:
    trained = model_for((*FEATURES["distances"], _Unknown()))
    with pytest.raises(ModelError, match="'moon phase' have no PLUMED form"):
        export_plumed(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path: Path) -> None:
    save_model(model_for(FEATURES["all"]), tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), "-o", str(tmp_path / "out"), "--plumed"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "2 collective variables of 7 atoms" in result.output
    descriptors, _ = evaluate((tmp_path / "out" / "plumed.dat").read_text(), frames(3), None)
    assert torch.jit.load(str(tmp_path / "out" / "model.pt"))(torch.from_numpy(descriptors)).shape == (3, 2)
    assert math.isfinite(float(descriptors.sum()))


def test_command_line_on_a_run(tmp_path: Path) -> None:
    # The run knows that its system has no box.
    shutil.copy(config_path("lj7/fast"), tmp_path / "config.yaml")
    start_record(tmp_path, (tmp_path / "config.yaml").read_text())
    folder = RunFolder.open(tmp_path).round(0)
    save_model(model_for(FEATURES["coordination"], "reduced"), folder.model)
    write_record(folder.record, {"files": {}})
    result = CliRunner().invoke(app, ["export", str(tmp_path), "-o", str(tmp_path / "out"), "--plumed"])
    assert result.exit_code == 0, result.output
    found = [action for action in actions((tmp_path / "out" / "plumed.dat").read_text()) if action.flags]
    assert [(action.name, action.flags) for action in found] == [("COORDINATION", {"NOPBC"})] * 4


def test_molecules_are_whole_in_plumed_and_images_are_between_them() -> None:
    molecules = (0, 0, 0, 0, 1, 1, 1)
    settings = (
        DistanceSettings(pairs=[(0, 3), (1, 5)]),
        TorsionSettings(atoms=[(0, 1, 2, 3)]),
        CoordinationSettings(atoms=[0, 3, 4, 6], r0=1.0),
    )
    trained = dataclasses.replace(model_for(settings), molecules=molecules)
    x = frames()
    x[:, 3] += BOX[0]  # a molecule longer than the box
    text = plumed_input(trained)
    assert "WHOLEMOLECULES ENTITY0=1-4 ENTITY1=5-7\n" in text
    cells = torch.from_numpy(BOX).expand(len(x), 3, 3)
    expected = trained.feature_module()(torch.from_numpy(x), cells)
    np.testing.assert_allclose(evaluate(text, x, BOX)[0], expected, rtol=1e-5, atol=1e-5)
    assert "WHOLEMOLECULES" not in plumed_input(trained, periodic=False)
