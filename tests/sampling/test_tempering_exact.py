"""Tempering of systems whose energies and populations are known exactly, with and without a bias."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from latf_openmm.bias.potentials import BiasSettings
from latf_openmm.bias.potentials.flow_barrier import FlowBarrierSettings
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.systems.three_hole import three_hole_potential
from tests.helpers.stages import HOLES, make_stage, run, source, write_model

Array = NDArray[np.float64]

TEMPERATURES = [0.7, 1.0, 1.4, 2.0]
KINDS: dict[str, dict[str, Any]] = {
    "exchange": {"kind": "exchange", "interval": 2},
    "all": {"kind": "exchange", "interval": 2, "pairs": "all"},
    "expanded": {"kind": "expanded", "interval": 2, "learning": 0.2},
}
BIASES: dict[str, BiasSettings | None] = {
    "none": None,
    "harmonic": HarmonicSettings(centre=[0.0, 0.0], force_constant=2.0),
    "flow_barrier": FlowBarrierSettings(barrier_kt=3.0),
    "opes": OpesSettings(sigma=0.3, barrier=4.0, pace=100),
}
SETTLED, BLOCKS = 0.25, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("model") / "model", HOLES, [CoordinateSettings(axes="xy")], 1.0
    )


@functools.cache
def exact(temperature: float) -> Array:
    """Mean energy, and the shares of the left half and of the third hole."""
    ensemble = HOLES.exact_ensemble(temperature)
    assert ensemble is not None
    x, y = ensemble.positions[:, 0, 0], ensemble.positions[:, 0, 1]
    energy = three_hole_potential(x, y) + 0.5 * HOLES.scale.kT(temperature)
    return np.array([ensemble.weights @ values for values in (energy, x < 0, y > 1)])


def deviations(table: pd.DataFrame, xy: Array, temperature: float) -> Array:
    """Deviations from the exact values in standard errors, from blocks in time."""
    kT = HOLES.scale.kT(temperature)
    log_w = ((table["bias_energy"] - table["bias_offset"]) / kT).to_numpy()
    values = np.column_stack([table["potential_energy"], xy[:, 0] < 0, xy[:, 1] > 1])
    weights = np.exp(log_w - log_w.max())
    block = (table["frame"].to_numpy() * BLOCKS) // (table["frame"].max() + 1)
    sums = np.array(
        [
            np.append(weights[block == b] @ values[block == b], weights[block == b].sum())
            for b in np.unique(block)
        ]
    )
    means = sums[:, :-1].sum(axis=0) / sums[:, -1].sum()
    # Blocks of a ratio: residuals of each, for the share of the weight that it has.
    residuals = sums[:, :-1] - means * sums[:, -1:]
    error = np.sqrt((residuals**2).sum(axis=0) * BLOCKS / (BLOCKS - 1)) / sums[:, -1].sum()
    return np.asarray((means - exact(temperature)) / error)


def case(folder: Path, model: Path, kind: str, bias: str, seed: int, frames: int = 600) -> Iterator[float]:
    """All deviations of one stage."""
    settings = BIASES[bias]
    acting = None if settings is None else source(model, settings)
    common: dict[str, Any] = {
        "temperatures": TEMPERATURES,
        "walkers": 10,
        "frames": 600,
        "frame_interval": 25,
    }
    stage = make_stage(folder, acting, HOLES, seed, tempering=KINDS[kind], segment_frames=frames, **common)
    walkers = run(stage)
    topology = HOLES.build(1).mdtraj_topology()
    for temperature in TEMPERATURES:
        of = [walker for walker in walkers if walker.temperature == temperature]
        table = pd.concat([walker.table for walker in of])
        xy = np.concatenate([walker.load(topology).xyz[:, 0, :2] for walker in of]).astype(np.float64)
        late = (table["frame"] > SETTLED * frames).to_numpy()
        yield from deviations(table[late], xy[late], temperature)


FEW = [(kind, bias) for kind in ("exchange", "expanded") for bias in ("none", "flow_barrier", "opes")]


@pytest.mark.parametrize(("kind", "bias"), [*FEW, ("all", "none")])
def test_energies_and_populations_are_exact(tmp_path: Path, model: Path, kind: str, bias: str) -> None:
    values = np.array(list(case(tmp_path / "stage", model, kind, bias, 11, 240)))
    assert np.abs(values).max() < 5.0


@pytest.mark.slow
def test_errors_are_what_they_should_be(tmp_path: Path, model: Path) -> None:
    """Of more than 200 cases, 95 % of the values within three standard errors of 12 blocks."""
    found = [
        list(case(tmp_path / f"{kind}{bias}{seed}", model, kind, bias, seed))
        for kind in KINDS
        for bias in BIASES
        for seed in range(20, 38)
    ]
    inside = np.abs(np.array(found)) < 3.0
    each = [float(inside[i : i + 18].mean()) for i in range(0, len(inside), 18)]
    print(f"{inside.mean():.3f} within three standard errors; by kind and bias {np.round(each, 3).tolist()}")
    assert inside.mean() >= 0.95
