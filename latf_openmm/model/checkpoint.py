"""A trained model on disk: weights (safetensors) and everything needed to use them (JSON); no pickle."""

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import mdtraj
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from latf_openmm.display import card, count
from latf_openmm.errors import DataError, ModelError
from latf_openmm.features import FEATURE_KINDS, Features, FeatureSettings, build_features
from latf_openmm.labels import to_mdtraj
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.settings import validate
from latf_openmm.storage import check_file, write_manifest
from latf_openmm.units import SCALES

MODEL_RECORD, MODEL_WEIGHTS = "model.json", "model.safetensors"
"""Files of the folder of a model."""
FORMAT = 3
"""Number of the format in which models are written."""
_OTHER_FORMAT = (
    f"format {{!r}}, this version reads format {FORMAT}; models of format 2 and before may compute other "
    "descriptors than they were trained on: train again"
)
"""Message about a model of another format."""
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError)
"""Errors that reading a damaged model may raise."""


@dataclass(frozen=True, repr=False)
class TrainedModel:
    """A fitted model with the features it was trained on.

    Parameters
    ----------
    model
        The fitted model.
    features
        Resolved feature settings, in order.
    atoms
        Names of all atoms of the topology it was trained for (``ALA2-CA``), to refuse another topology.
    temperature_scale
        Name of the temperature scale, ``"K"`` or ``"reduced"``.
    temperatures
        Temperatures of the training data.
    provenance
        Versions, seed and anything else worth keeping.
    columns
        Numbers of the model's descriptors, in their order, in the full list of descriptors of the run it was trained
        in; None where there is no such list.
    molecules
        Index of the molecule of each atom, from `latf_openmm.periodic.molecules_of`; None where it is not known.
    """

    model: LatentThermodynamicFlow
    features: tuple[FeatureSettings, ...]
    atoms: tuple[str, ...]
    temperature_scale: str
    temperatures: tuple[float, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[int, ...] | None = None
    molecules: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return (
            f"TrainedModel({self.model.latent_dim} collective variables, {self.model.n_states} states, "
            f"trained at {self._labels()})"
        )

    def _repr_html_(self) -> str:
        facts, model = self.provenance, self.model
        lag = facts.get("lag")
        texts = [f"{text[0].upper()}{text[1:]}." for text in facts.get("consistency") or ()]
        kinds = ", ".join(dict.fromkeys(str(item.kind) for item in self.features if hasattr(item, "kind")))
        return card(
            "Trained model",
            {
                "collective variables": f"{model.latent_dim}, of {model.n_features} descriptors ({kinds or 'given'})",
                "metastable states": f"{model.n_states}"
                + ("" if facts.get("states_settled", True) else ", not settled when training ended"),
                "lag": "" if lag is None else f"{lag} frames",
                "trained at": self._labels(),
                "frames": f"{facts['frames']:,}" if "frames" in facts else "",
                "frames reach": self._reach(),
                "flows": f"{model.n_members} in the committee",
                "equilibrium": "" if texts or "consistency" not in facts else "nothing contradicts it",
            },
            notes=texts,
        )

    def _reach(self) -> str:
        """Temperatures that frames were reweighted to, for people; empty where there are none."""
        ladder = self.provenance.get("ladder") or ()
        if not ladder:
            return ""
        first, last = (
            SCALES[self.temperature_scale].label(float(f"{t:.3g}")) for t in (ladder[0][0], ladder[-1][0])
        )
        return f"{first} to {last}, {count(min(n for _, n in ladder))} effective samples or more"

    def _labels(self) -> str:
        """Temperatures of the training data, for people."""
        return ", ".join(SCALES[self.temperature_scale].label(t) for t in self.temperatures)

    def feature_module(self) -> Features:
        """Build the features module, in double precision."""
        return build_features(self.features, self.molecules).double()

    def check_atoms(self, atoms: Sequence[str]) -> None:
        """Raise `ModelError` when `atoms` is not the topology the model was trained for."""
        if len(atoms) != len(self.atoms):
            raise ModelError(
                f"the model was trained for a topology of {len(self.atoms)} atoms, this one has {len(atoms)}"
            )
        for index, (expected, other) in enumerate(zip(self.atoms, atoms, strict=True)):
            if expected != other:
                raise ModelError(f"atom {index} is {other}, the model was trained with {expected} there")

    def check_topology(self, topology: Any) -> None:
        """Raise `ModelError` when an OpenMM or MDTraj topology is not the one the model was trained for."""
        if not isinstance(topology, mdtraj.Topology):
            topology = to_mdtraj(topology)
        self.check_atoms([str(atom) for atom in topology.atoms])


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import openmm

    import latf_openmm

    return {
        "latf_openmm": latf_openmm.__version__,
        "torch": torch.__version__,
        "openmm": openmm.__version__,
        "mdtraj": mdtraj.__version__,
        "python": platform.python_version(),
    }


def save_model(trained: TrainedModel, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json`` with a manifest into `folder`, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    model = trained.model
    record = {
        "format": FORMAT,
        "settings": model.settings.model_dump(mode="json"),
        "n_features": model.n_features,
        "n_states": model.n_states,
        "n_members": model.n_members,
        "reference_temperature": model.reference_temperature,
        "features": [item.model_dump(mode="json") for item in trained.features],
        "atoms": list(trained.atoms),
        "temperature_scale": trained.temperature_scale,
        "temperatures": list(trained.temperatures),
        "provenance": dict(trained.provenance),
        "columns": None if trained.columns is None else list(trained.columns),
        "molecules": None if trained.molecules is None else _to_text(trained.molecules),
    }
    weights = save({k: v.contiguous() for k, v in model.state_dict().items()})
    (folder / MODEL_WEIGHTS).write_bytes(weights)
    (folder / MODEL_RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_manifest(folder)


def load_model(folder: str | Path) -> TrainedModel:
    """Read what `save_model` wrote.

    Raises
    ------
    ModelError
        If the folder holds no model, or one that is damaged, was changed, or is of another format.
    """
    folder = Path(folder)
    path = folder / MODEL_RECORD
    if not path.is_file():
        run = folder.parents[2] if folder.parts[-3:-2] == ("rounds",) else folder
        models = sorted(run.glob(f"rounds/*/model/{MODEL_RECORD}"))
        instead = f"; the last one of this run is {models[-1].parent}" if models else ""
        raise ModelError(f"{folder}: no trained model here ({MODEL_RECORD} is missing){instead}")
    _check_format(path)
    try:
        for name in (MODEL_RECORD, MODEL_WEIGHTS):
            check_file(folder / name)
        record = json.loads(path.read_text(encoding="utf-8"))
        model = LatentThermodynamicFlow(
            validate(ModelSettings, record["settings"], f"{path}: settings"),
            record["n_features"],
            record["n_states"],
            record["reference_temperature"],
            record["n_members"],
        )
        model.load_state_dict(load_file(folder / MODEL_WEIGHTS))
        features = tuple(
            validate(FEATURE_KINDS[item["kind"]], item, f"{path}: features") for item in record["features"]
        )
        return TrainedModel(
            model.eval(),
            features,
            tuple(record["atoms"]),
            record["temperature_scale"],
            tuple(record["temperatures"]),
            record["provenance"],
            None if record["columns"] is None else tuple(int(column) for column in record["columns"]),
            None if record["molecules"] is None else _from_text(record["molecules"], len(record["atoms"])),
        )
    except DataError as error:
        raise ModelError(f"{folder}: the model is damaged ({error})") from error
    except _DAMAGE as error:
        raise ModelError(f"{folder}: the model is damaged ({type(error).__name__}: {error})") from error


def _check_format(path: Path) -> None:
    """Raise `ModelError` where a record is of another format; what cannot be read is damaged, and said to be later."""
    record = None
    with suppress(OSError, ValueError):
        record = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(record, dict) and record.get("format") != FORMAT:
        raise ModelError(f"{path}: {_OTHER_FORMAT.format(record.get('format'))}")


def _to_text(molecules: Sequence[int]) -> str:
    """Runs of equal numbers: ``0x138 1x3`` is molecule 0 of 138 atoms, then molecule 1 of 3."""
    return " ".join(f"{molecule}x{len(list(atoms))}" for molecule, atoms in groupby(molecules))


def _from_text(text: str, n_atoms: int) -> tuple[int, ...]:
    runs = [run.split("x") for run in text.split()]
    molecules = tuple(int(molecule) for molecule, n in runs for _ in range(int(n)))
    if len(molecules) != n_atoms:
        raise ValueError(f"molecules of {len(molecules)} atoms, expected {n_atoms}")
    return molecules
