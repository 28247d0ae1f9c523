"""Free-energy surface of alanine dipeptide at 300 K by each on-the-fly method, against long flattened runs.

The learned variables come from heavy-atom distances (no torsion is given) of unbiased runs at 400 and 600 K.
Data, reference, model and one file for each run stay in the work folder, which may be that of `benchmarks/quality`;
what is there, or has a row in ``biasing.csv`` beside it, is not made again. Needs the package
openmm-opes for its line; without it the line is left out.
"""

import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

import latf_openmm as latf
from benchmarks.biasing.reference import BUILD_NS, SEEDS, STATIC_NS, reference_frames
from benchmarks.biasing.samplers import KT, PACE, PARTS, RECORD, TIMESTEP, Array, Frames, all_methods
from benchmarks.quality.cases import DIPEPTIDE
from benchmarks.quality.data import training_data
from latf_openmm.features import resolve_features
from latf_openmm.model.checkpoint import TrainedModel, save_model
from latf_openmm.training.settings import TrainingSettings

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
FOLDER = Path(__file__).parent
TABLE = FOLDER / "biasing.csv"
COLUMNS = ["method", "seed", "ns", "time_ns", "rmsd_kcal_mol", "effective_fraction", "wall_s"]
_CELLS = 60
_BLUR = 1.0  # cells
_CUTOFF = 5.0 * 4.184  # kJ/mol


def surface(angles: Array, log_weights: Array) -> Array:
    """Free energy over phi and psi [kJ/mol] from weighted frames, smoothed by one cell (6 degrees)."""
    weights = np.exp(log_weights - log_weights.max())
    edges = np.linspace(-np.pi, np.pi, _CELLS + 1)
    counts = np.histogramdd(angles, bins=[edges, edges], weights=weights)[0]
    density = gaussian_filter(counts, _BLUR, mode="wrap")
    density = density / density.sum()
    return np.asarray(-KT * np.log(np.maximum(density, 0.01 / len(angles))))


def deviation(estimate: Array, reference: Array) -> float:
    """RMSD [kcal/mol] where the reference is below 5 kcal/mol, both with mean zero there."""
    region = reference - reference.min() < _CUTOFF
    off = estimate[region] - reference[region]
    return float(np.sqrt(((off - off.mean()) ** 2).mean())) / 4.184


def reference_surface(work: Path) -> tuple[Array, float]:
    """Mean of two independent long runs, and what they differ by [kcal/mol]."""
    one, other = (surface(*reference_frames(seed, work)) for seed in SEEDS)
    return -KT * np.log(0.5 * (np.exp(-one / KT) + np.exp(-other / KT))), deviation(one, other)


def train_model(work: Path) -> Path:
    """The model whose variables are biased: trained once, on distances only."""
    folder = work / "biasing" / "model"
    if folder.is_dir():
        return folder
    distances = DIPEPTIDE.features[1]
    topology = DIPEPTIDE.settings.build(1).mdtraj_topology()
    resolved = resolve_features([distances], topology)
    regime = DIPEPTIDE.regimes["plentiful"]
    runs = training_data(DIPEPTIDE, regime, 1, work)
    runs = [replace(run, features=np.ascontiguousarray(run.features[:, 4:])) for run in runs]
    result = latf.fit(runs, DIPEPTIDE.model, TrainingSettings(lag=regime.lag), 1)
    print(f"model: {result.model.n_states} states", flush=True)
    atoms = tuple(str(atom) for atom in topology.atoms)
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_model(TrainedModel(result.model, tuple(resolved), atoms, "K", regime.temperatures), folder)
    return folder


def run_one(name: str, seed: int, steps: int, model: Path, file: Path) -> None:
    """Run one method once and write its frames."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    frames = all_methods(model)[name](seed, steps)
    seconds = time.perf_counter() - start
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    weights = {
        f"log_weights{part}": frames.weights_until(part).astype(np.float32) for part in _moments(frames)
    }
    np.savez(
        partial,
        angles=frames.angles().astype(np.float32),
        seconds=seconds,
        adaptive=frames.adaptive,
        **weights,
    )
    partial.rename(file)
    print(f"{name} {seed}: {seconds:.0f} s", flush=True)


def _moments(frames: Frames) -> Sequence[int]:
    """Tenths of a run whose weights are kept: all where they depend on the moment, else the whole."""
    return range(1, PARTS + 1) if frames.hindsight else [PARTS]


def run_all(work: Path, seeds: Sequence[int], ns: float, only: Sequence[str], processes: int) -> None:
    """Run what is missing; write the table and the figures."""
    model = train_model(work)
    names = [name for name in all_methods(model) if not only or any(part in name for part in only)]
    if importlib.util.find_spec("openmm_opes") is None:
        names = [name for name in names if not name.startswith("openmm-opes")]
    known = read_table()
    done = set(zip(known.method, known.seed, known.ns, strict=True))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        jobs = []
        for seed in seeds:
            for name in names:
                file = run_file(work, name, seed, ns)
                if not file.is_file() and (name, seed, ns) not in done:
                    steps = round(ns * 1000 / TIMESTEP)
                    jobs.append(pool.submit(run_one, name, seed, steps, model, file))
        for job in jobs:
            job.result()


def run_file(work: Path, name: str, seed: int, ns: float) -> Path:
    return work / "biasing" / f"{ns:g}ns" / f"{name.replace(' ', '_')}_{seed}.npz"


def read_table() -> pd.DataFrame:
    return pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)


def rows_of(file: Path, name: str, seed: int, ns: float, reference: Array) -> list[list[object]]:
    """One row of the table for each tenth of a run."""
    rows: list[list[object]] = []
    with np.load(file) as data:
        angles, adaptive, seconds = data["angles"], bool(data["adaptive"]), float(data["seconds"])
        whole = data[f"log_weights{PARTS}"].astype(np.float64)
        for part in range(1, PARTS + 1):
            last = part * len(angles) // PARTS
            kept = slice(last // 10 if adaptive else 0, last)
            key = f"log_weights{part}"
            logs = (data[key].astype(np.float64) if key in data else whole[:last])[kept]
            weights = np.exp(logs - logs.max())
            size = weights.sum() ** 2 / (weights**2).sum() / len(weights)
            error = deviation(surface(angles[kept], logs), reference)
            rows.append(
                [name, seed, ns, round(part * ns / PARTS, 6), round(error, 4), round(size, 4), round(seconds)]
            )
    return rows


def write_table(work: Path, ns: float) -> pd.DataFrame:
    """Add the runs in `work` to the table; return its rows for this length."""
    reference, _ = reference_surface(work)
    table = read_table()
    for name in all_methods(work / "biasing" / "model"):
        for file in sorted((work / "biasing" / f"{ns:g}ns").glob(f"{name.replace(' ', '_')}_[0-9]*.npz")):
            if file.name.endswith(".partial.npz"):
                continue
            seed = int(file.stem.rsplit("_", 1)[1])
            new = pd.DataFrame(rows_of(file, name, seed, ns, reference), columns=COLUMNS)
            old = (table.method == name) & (table.seed == seed) & (table.ns == ns)
            table = pd.concat([table[~old], new]) if len(table) else new
    table.sort_values(["ns", "method", "seed", "time_ns"]).to_csv(TABLE, index=False)
    return table[table.ns == ns]


def page(work: Path, ns: float) -> str:
    """Markdown of the comparison; draws its figures."""
    table = write_table(work, ns)
    reference, floor = reference_surface(work)
    order = [name for name in all_methods(work / "biasing" / "model") if name in set(table.method)]
    moments = [0.1 * ns, 0.2 * ns, 0.5 * ns, ns]
    lines = []
    for name in order:
        own = table[table.method == name]
        end = own[np.isclose(own.time_ns, ns)]
        cells = []
        for moment in moments:
            errors = own[np.isclose(own.time_ns, moment)].rmsd_kcal_mol
            cells.append(f"{errors.mean():.2f}" + (f" ± {errors.std():.2f}" if len(errors) > 1 else ""))
        lines.append(
            f"| {name} | {len(end)} | {' | '.join(cells)} | {end.rmsd_kcal_mol.max():.2f} | "
            f"{end.effective_fraction.mean():.2f} | {end.wall_s.median():.0f} s |"
        )
    _figure_surfaces(work, order, ns, reference)
    _figure_times(table, order)
    return _PAGE.format(
        ns=f"{ns:g}",
        pace=PACE,
        record=RECORD,
        floor=f"{floor:.2f}",
        build=f"{BUILD_NS:g}",
        static=f"{STATIC_NS:g}",
        head=" | ".join(f"{moment:g} ns" for moment in moments),
        rule="|".join(["---"] * (len(moments) + 5)),
        rows="\n".join(lines),
    )


def _figure_surfaces(work: Path, order: Sequence[str], ns: float, reference: Array) -> None:
    from matplotlib import pyplot as plt

    shown = {"reference": reference}
    for name in order:
        files = sorted((work / "biasing" / f"{ns:g}ns").glob(f"{name.replace(' ', '_')}_[0-9]*.npz"))
        if files:
            with np.load(files[0]) as data:
                first = len(data["angles"]) // 10 if bool(data["adaptive"]) else 0
                logs = data[f"log_weights{PARTS}"].astype(np.float64)[first:]
                shown[name] = surface(data["angles"][first:], logs)
    if len(shown) == 1:
        return
    columns = 3
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(10, 3.1 * rows), sharex=True, sharey=True, squeeze=False
    )
    image = None
    for axis, (name, values) in zip(axes.ravel(), shown.items(), strict=False):
        energies = (values - values.min()).T / 4.184
        image = axis.imshow(energies, origin="lower", extent=(-180, 180, -180, 180), vmax=8, cmap="viridis")
        axis.set_title(name, fontsize=7)
    for axis in axes.ravel()[len(shown) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("phi [deg]")
    for axis in axes[:, 0]:
        axis.set_ylabel("psi [deg]")
    if image is not None:
        figure.colorbar(image, ax=axes, label="free energy [kcal/mol]", shrink=0.7)
    figure.savefig(FOLDER / "biasing.png", dpi=100, bbox_inches="tight")
    plt.close(figure)


def _figure_times(table: pd.DataFrame, order: Sequence[str]) -> None:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2))
    for name in order:
        groups = table[table.method == name].groupby("time_ns").rmsd_kcal_mol
        mean, error = groups.mean(), groups.sem().fillna(0.0)
        style = "-" if name.startswith("latf") else "--"
        axis.errorbar(mean.index, mean, error, ls=style, marker="o", ms=3, lw=1.3, label=name)
    axis.set(
        xlabel="simulated time [ns]", ylabel="RMSD to the reference [kcal/mol]", xscale="log", yscale="log"
    )
    axis.set_xticks(sorted({1, 2, 5, round(table.time_ns.max())}), minor=False)
    axis.get_xaxis().set_major_formatter("{x:g}")
    axis.set_yticks([0.05, 0.1, 0.2, 0.5, 1.0])
    axis.get_yaxis().set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.grid(alpha=0.3)
    figure.savefig(FOLDER / "biasing_time.png", dpi=110, bbox_inches="tight")
    plt.close(figure)


_PAGE = """## Free energy of alanine dipeptide over phi and psi

Alanine dipeptide in implicit solvent (OBC2) at 300 K, {ns} ns with 4 fs steps from the same structure; a kernel every
{pace} steps, a frame every {record}. The surface comes from weighted frames for every method, smoothed by one cell of 6
degrees; the first tenth of the time is left out where the bias is built on the fly. The learned variables come from a
model of heavy-atom distances (no torsions), trained on unbiased runs at 400 and 600 K.

RMSD to the reference [kcal/mol] where that is below 5 kcal/mol, after several times: mean over seeds and standard
deviation; the worst seed at the end. The reference is the mean of two runs of {static} ns in which OpenMM's own forces
flatten phi and psi (after {build} ns that make that bias); the two differ by {floor}. Effective sample size (Kish) as a
fraction of the frames. Wall time of a run on a machine shared with other work. Every run is in
`benchmarks/biasing/biasing.csv`. A cell that was never visited counts as a hundredth of a frame: the error of a run
that misses a basin grows with its length.

| method | seeds | {head} | worst | effective fraction | wall time |
|{rule}|
{rows}

![RMSD against simulated time](../../benchmarks/biasing/biasing_time.png)

![surfaces](../../benchmarks/biasing/biasing.png)

*Surfaces of the first seed of each; a cell that was never visited is at about 7 kcal/mol.*
"""
