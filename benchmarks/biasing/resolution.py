"""What variables allow: the frames in each cell of phi and psi once a bias on any variables has converged.

Under a well-tempered bias on z a conformation is visited as often as p(x) / p(z)^(1 - 1/gamma) says: cells that share
their z with lower ones stay rare, whatever makes the bias. Weighted frames of a run on phi and psi give p for any z,
without a simulation.
"""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import latf_openmm as latf
from benchmarks.biasing.samplers import BARRIER, KT, PARTS, Array
from benchmarks.biasing.surfaces import BLUR, CUTOFF, EDGES, reference_surface
from benchmarks.quality.cases import DIPEPTIDE
from latf_openmm.features import build_features, resolve_features

_FRAMES = 90_000
"""Frames of 10 ns without the first tenth."""
_CELLS = {1: 60, 2: 60, 3: 40}
"""Cells along each variable for its density, by the number of variables."""
_SHARED = 4 * np.pi * BLUR**2
"""Cells whose frames the smoothing of the surface puts into one."""
_CORRELATED = 2.5
"""Frames, 0.1 ps apart, that count as one: what was measured for OPES on phi and psi."""


def expected_frames(z: Array, angles: Array, weights: Array) -> Array:
    """Frames in each cell of phi and psi, shape (60, 60), by a converged bias on `z` (n_frames, dim).

    Parameters
    ----------
    z, angles, weights
        Of the same frames: the variables, the torsions [rad], (n_frames, 2), and unbiased weights that sum to one.
    """
    gamma = BARRIER / KT
    density = np.maximum(_density(z, weights), np.exp(-gamma))
    visited = weights * density ** -(1 - 1 / gamma)
    counts = np.histogramdd(angles, bins=[EDGES, EDGES], weights=visited / visited.sum())[0]
    return _FRAMES * np.asarray(gaussian_filter(counts, BLUR, mode="wrap"))


def _density(z: Array, weights: Array) -> Array:
    """Density of z at each frame, relative to the highest; a histogram smoothed by a cell."""
    n = _CELLS[z.shape[1]]
    margin = 0.05 * np.ptp(z, axis=0)
    low, high = z.min(axis=0) - margin, z.max(axis=0) + margin
    edges = [np.linspace(a, b, n + 1) for a, b in zip(low, high, strict=True)]
    smooth = gaussian_filter(np.histogramdd(z, bins=edges, weights=weights)[0], 1.0)
    values = smooth[tuple(((z - low) / (high - low) * n).astype(int).T)]
    return np.asarray(values / values.max())


def row(name: str, frames: Array, reference: Array) -> str:
    """One row of the table: expected error and median of frames by level, and the error of the surface [kcal/mol]."""
    heights = (reference - reference.min()) / 4.184
    variance = (KT / 4.184) ** 2 * _CORRELATED / (_SHARED * np.maximum(frames, 1.0 / _SHARED))
    levels = [(heights >= low) & (heights < low + 1) for low in range(5)]
    cells = [f"{np.sqrt(variance[level].mean()):.2f} ({np.median(frames[level]):.0f})" for level in levels]
    total = np.sqrt(variance[heights < CUTOFF / 4.184].mean())
    return f"| {name} | {' | '.join(cells)} | {total:.2f} |"


def rows(work: Path, run: Path) -> list[str]:
    """Rows of phi and psi, of principal components of the distances, and of models, by the frames of a run."""
    with np.load(run) as data:
        every = round(len(data["angles"]) / len(data["positions"]))
        kept = slice(len(data["positions"]) // 10, None)
        positions = torch.from_numpy(data["positions"][kept].astype(np.float64))
        angles, logs = data["angles"][::every][kept], data[f"log_weights{PARTS}"][::every][kept]
    weights = np.exp(logs.astype(np.float64) - logs.max())
    weights /= weights.sum()
    topology = DIPEPTIDE.settings.build(1).mdtraj_topology()
    distances = build_features(resolve_features([DIPEPTIDE.features[1]], topology)).double()
    none = torch.empty(0)
    with torch.no_grad():
        x = distances(positions, none).numpy()
        x = (x - x.mean(axis=0)) @ np.linalg.svd(np.cov(x.T))[0]
        variables = {"phi psi": angles} | {
            f"{n} principal components of the distances": x[:, :n] for n in (2, 3)
        }
        for model in sorted((work / "biasing").glob("model*")):
            cv = latf.latent_cv(latf.load_model(model))
            variables[f"{cv.dim} learned from distances"] = cv(positions, none).numpy()
    reference, _ = reference_surface(work)
    return [row(name, expected_frames(z, angles, weights), reference) for name, z in variables.items()]


def page(work: Path) -> str:
    """Markdown of the table, from a run of OPES on phi and psi and the models in the work folder."""
    runs = sorted((work / "biasing" / "10ns").glob("latf_OPES,_phi_psi_[0-9]*.npz"))
    kept = next(run for run in runs if "positions" in np.load(run).files)
    return _PAGE.format(rows="\n".join(rows(work, kept)))


_PAGE = """## What the variables allow

Once a bias on variables z has converged, a conformation is visited as often as p(x) / p(z)^(1 - 1/gamma): what shares
its z with lower conformations stays rare, whatever makes the bias. So weighted frames of one run on phi and psi tell
how many frames 10 ns bring to each cell of 6 degrees for any variables, and with that an error to expect [kcal/mol]; in
brackets the frames in the median cell. It leaves out how fast the variables are crossed; in three dimensions it is
rough, as the density of z comes from a histogram of 22,500 frames. On 2026-11-28 models were trained from a quarter of
the frames that the table above had, once instead of three times.

| variables | below 1 | 1 to 2 | 2 to 3 | 3 to 4 | 4 to 5 | all |
|---|---|---|---|---|---|---|
{rows}

One run of OPES on those two learned variables (2026-11-28, seed 1): 0.40, 0.25, 0.14 and 0.09 after 1, 2, 5 and 10 ns;
52, 18, 34, 31 and 18 frames in the median cells; the logarithms of the frames of all cells correlate by 0.97 with those
expected. The 102 of 1676 cells with fewer than 2 frames have 43 % of the squared error. With one frame in 2, 4 and 8 it
is 0.13, 0.16 and 0.22 after 10 ns. The first 5 ns of the same trajectory give 0.14 with a frame every 25 steps and 0.10
with one every 10: on variables that leave cells rare, frames should be kept often.
"""
