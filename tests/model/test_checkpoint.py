"""Saved models: round trip, and one clear `ModelError` for everything that can be wrong with a folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latf_openmm.errors import ModelError
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.model.checkpoint import TrainedModel, load_model, save_model, versions
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.storage import MANIFEST, write_manifest
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings

KEYS = (
    "settings",
    "n_features",
    "n_states",
    "n_members",
    "reference_temperature",
    "features",
    "atoms",
    "temperature_scale",
    "temperatures",
    "provenance",
    "columns",
    "molecules",
)
ATOMS = ("ARG1-N", "ARG1-CA", "ARG1-C")
SETTINGS = ModelSettings(
    latent_dim=3,
    encoder_hidden=[8],
    decoder_hidden=[],
    tau=1.5,
    flow=FlowSettings(layers=2, hidden=[4], bins=3),
)


def make(n_members: int = 1) -> TrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = LatentThermodynamicFlow(SETTINGS, 5, 4, reference_temperature=300.5, n_members=n_members)
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape))
    return TrainedModel(
        model,
        (
            CoordinateSettings(atoms=[0], axes="xyz"),
            DistanceSettings(pairs=[(0, 1), (0, 2)], names=["d01", "d02"]),
        ),
        ATOMS,
        "K",
        (300.5, 412.25),
        {"seed": 3, "versions": versions(), "note": "größer als vorher"},
        (0, 1, 2, 7, 11),
        (0, 0, 1),
    )


@pytest.fixture
def trained() -> TrainedModel:
    return make()


@pytest.fixture
def folder(tmp_path: Path, trained: TrainedModel) -> Path:
    save_model(trained, tmp_path / "round" / "model")
    return tmp_path / "round" / "model"


def change_record(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**record, **changes}.items() if v is not ...}))
    write_manifest(folder)  # as if it had been written so


# Round trip


def test_everything_comes_back(trained, folder):
    loaded = load_model(folder)
    assert loaded.features == trained.features
    assert loaded.atoms == trained.atoms
    assert loaded.temperature_scale == "K"
    assert loaded.temperatures == (300.5, 412.25)
    assert loaded.provenance == trained.provenance
    assert loaded.columns == (0, 1, 2, 7, 11)
    assert loaded.molecules == (0, 0, 1)
    model, before = loaded.model, trained.model
    assert model.settings == SETTINGS
    assert (model.n_features, model.n_states, model.latent_dim) == (5, 4, 3)
    assert model.reference_temperature == 300.5
    assert not model.training
    assert model.state_dict().keys() == before.state_dict().keys()
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_committee_comes_back(tmp_path):
    before = make(n_members=3).model
    before.set_temperature_range(250.0, 480.0)
    save_model(replace(make(), model=before), tmp_path)
    after = load_model(tmp_path).model
    assert after.n_members == 3
    torch.testing.assert_close(after.t_range, torch.tensor([250.0, 480.0]) / 300.5)
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    temperatures = torch.linspace(200.0, 600.0, 20)  # also beyond the range
    with torch.no_grad():
        members = [model.member_log_densities(z, temperatures) for model in (before, after)]
        assert torch.equal(*(model.log_density(z, temperatures) for model in (before, after)))
    assert torch.equal(*members)
    assert (members[0].std(dim=0) > 0).all()  # the members differ, and came back in their order
    samples = [model.density(450.0).sample(7, torch.Generator().manual_seed(1)) for model in (before, after)]
    assert torch.equal(*samples)


def test_a_model_made_by_hand_need_not_know_columns_and_molecules(tmp_path):
    save_model(replace(make(), columns=None, molecules=None), tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.columns, loaded.molecules) == (None, None)


def test_saving_again_replaces_the_model_and_gives_the_same_files(trained, folder, tmp_path):
    other = make()
    with torch.no_grad():
        other.model.encoder.log_sigma.fill_(-1.0)
    save_model(other, folder)
    assert load_model(folder).model.encoder.log_sigma.item() == -1.0
    save_model(trained, folder)
    save_model(load_model(folder), tmp_path / "copy")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_files_hold_no_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "model.json", "model.safetensors"]
    assert json.loads((folder / "model.json").read_text())["format"] == 3


def test_features_are_built_in_double_precision(folder):
    module = load_model(folder).feature_module()
    positions = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0.0, 0.0, 5.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(module(positions, torch.empty(0)), expected)


def test_versions_name_what_a_result_depends_on():
    assert versions().keys() == {"latf_openmm", "torch", "openmm", "mdtraj", "python"}


# Another topology


def test_own_topology_is_accepted(folder):
    load_model(folder).check_atoms(list(ATOMS))


def test_topology_of_another_size_is_refused(trained):
    with pytest.raises(ModelError, match=r"trained for a topology of 3 atoms, this one has 2"):
        trained.check_atoms(ATOMS[:2])


def test_topology_with_another_atom_is_refused(trained):
    with pytest.raises(ModelError, match=r"atom 1 is LYS1-CA, the model was trained with ARG1-CA there"):
        trained.check_atoms(["ARG1-N", "LYS1-CA", "ARG1-C"])


# Folders that hold no usable model


def test_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"no trained model here \(model\.json is missing\)"):
        load_model(tmp_path)
    (tmp_path / "rounds" / "001" / "model").mkdir(parents=True)
    (tmp_path / "rounds" / "001" / "model" / "model.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the last one of this run is .*rounds.001.model$"):
        load_model(tmp_path)
    with pytest.raises(
        ModelError, match=r"002.model: no trained .* the last one of this run is .*001.model$"
    ):
        load_model(tmp_path / "rounds" / "002" / "model")
    with pytest.raises(ModelError, match=r"nowhere: no trained model here"):
        load_model(tmp_path / "nowhere")


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model is damaged .*model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_weights(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match="model is damaged"):
        load_model(folder)


def test_weights_of_another_model(folder):
    save_file({"flows.0.shift": torch.zeros(3)}, folder / "model.safetensors")
    write_manifest(folder)
    with pytest.raises(ModelError, match=r"(?s)model is damaged .*Missing key"):
        load_model(folder)


def test_weights_of_another_shape(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "flows.0.shift": torch.zeros(2)}, folder / "model.safetensors")
    write_manifest(folder)
    with pytest.raises(ModelError, match=r"(?s)model is damaged .*size mismatch for flows\.0\.shift"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "not json", '{"format": 1', "[1, 2]", "3"])
def test_record_that_cannot_be_read(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match="model is damaged"):
        load_model(folder)


def test_record_that_is_no_text(folder):
    (folder / "model.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ModelError, match="model is damaged"):
        load_model(folder)


@pytest.mark.parametrize("number", [0, 1, 2, 4, "3", None])
def test_other_format_version(folder, number):
    change_record(folder, format=number)
    with pytest.raises(
        ModelError, match=rf"format {number!r}, this version reads format 3; .*: train again$"
    ):
        load_model(folder)


@pytest.mark.parametrize("key", KEYS)
def test_missing_key(folder, key):
    change_record(folder, **{key: ...})
    with pytest.raises(ModelError, match=f"model is damaged .*{key}"):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"n_states": "four"},
        {"n_features": None},
        {"n_members": "two"},
        {"n_members": 2},
        {"n_members": 0},
        {"settings": {"latent_dimension": 3}},
        {"settings": [3]},
        {"features": [{"kind": "no such feature"}]},
        {"features": [{"kind": "coordinates", "axes": "w"}]},
        {"features": 3},
        {"temperatures": 300.0},
        {"atoms": 3},
        {"columns": ["first"]},
        {"molecules": "0x2"},
        {"molecules": "0x2 1"},
    ],
    ids=str,
)
def test_wrong_value(folder, change):
    change_record(folder, **change)
    with pytest.raises(ModelError, match="model is damaged"):
        load_model(folder)


def test_topologies_of_openmm_and_mdtraj_are_checked() -> None:
    built = AlanineDipeptideSettings().build()
    names = tuple(str(atom) for atom in built.mdtraj_topology().atoms)
    trained = TrainedModel(nn.Module(), (), names, "K", (300.0,))  # type: ignore[arg-type]
    trained.check_topology(built.topology)
    trained.check_topology(built.mdtraj_topology())
    with pytest.raises(ModelError, match="topology of 22 atoms, this one has 1"):
        trained.check_topology(ThreeHoleSettings().build().topology)
