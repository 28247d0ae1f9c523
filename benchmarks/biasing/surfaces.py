"""Free-energy surface of alanine dipeptide at 300 K by each on-the-fly method, against long flattened runs.

The learned variables come from heavy-atom distances (no torsion is given) of unbiased runs at 400 and 600 K.
Data, reference, model and one file for each run stay in the work folder, which may be that of `benchmarks/quality`;
what is there, or has a row in ``biasing.csv`` beside it, is not made again. Needs the package
openmm-opes for its line; without it the line is left out.
"""

import importlib.util
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

import latf_openmm as latf
from benchmarks.biasing.reference import BUILD_NS, SEEDS, STATIC_NS, reference_file, reference_frames
from benchmarks.biasing.samplers import KT, PACE, PARTS, RECORD, TIMESTEP, Array, Frames, all_methods
from benchmarks.quality.cases import DIPEPTIDE
from benchmarks.quality.data import training_data
from latf_openmm.features import resolve_features
from latf_openmm.model.checkpoint import TrainedModel, save_model
from latf_openmm.training.settings import TrainingSettings

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
FOLDER = Path(__file__).parent
TABLE = FOLDER / "biasing.csv"
REFERENCE = FOLDER / "reference.csv"
"""The reference surface [kJ/mol] of runs of 2026-11-24, phi down and psi across, in steps of 0.13 and up to 33.4."""
FLOOR = 0.02
"""What the two runs of that surface differ by [kcal/mol]."""
COLUMNS = ["method", "seed", "ns", "time_ns", "rmsd_kcal_mol", "effective_fraction", "wall_s", "date"]
EDGES = np.linspace(-np.pi, np.pi, 61)
"""Of the cells along phi and psi [rad]."""
_THINNED = 4
"""One frame in so many is kept with its positions."""
BLUR = 1.0  # cells
CUTOFF = 5.0 * 4.184  # kJ/mol


def surface(angles: Array, log_weights: Array) -> Array:
    """Free energy over phi and psi [kJ/mol] from weighted frames, smoothed by one cell (6 degrees)."""
    weights = np.exp(log_weights - log_weights.max())
    counts = np.histogramdd(angles, bins=[EDGES, EDGES], weights=weights)[0]
    density = gaussian_filter(counts, BLUR, mode="wrap")
    density = density / density.sum()
    return np.asarray(-KT * np.log(np.maximum(density, 0.01 / len(angles))))


def deviation(estimate: Array, reference: Array) -> float:
    """RMSD [kcal/mol] where the reference is below 5 kcal/mol, both with mean zero there."""
    region = reference - reference.min() < CUTOFF
    off = estimate[region] - reference[region]
    return float(np.sqrt(((off - off.mean()) ** 2).mean())) / 4.184


def reference_surface(work: Path) -> tuple[Array, float]:
    """Mean of two independent long runs [kJ/mol], and what they differ by [kcal/mol].

    From the frames of both where they are in the work folder; else from the table beside this module.
    """
    if not all(reference_file(seed, work).is_file() for seed in SEEDS):
        return np.loadtxt(REFERENCE, delimiter=","), FLOOR
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
    runs = [run.columns(range(4, run.features.shape[1])) for run in runs]  # without sine, cosine of phi, psi
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
        date=str(datetime.now(UTC).date()),
        positions=np.array(frames.positions[::_THINNED], dtype=np.float32),
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
        date = str(data["date"])
        whole = data[f"log_weights{PARTS}"].astype(np.float64)
        for part in range(1, PARTS + 1):
            last = part * len(angles) // PARTS
            kept = slice(last // 10 if adaptive else 0, last)
            key = f"log_weights{part}"
            logs = (data[key].astype(np.float64) if key in data else whole[:last])[kept]
            weights = np.exp(logs - logs.max())
            size = weights.sum() ** 2 / (weights**2).sum() / len(weights)
            error = deviation(surface(angles[kept], logs), reference)
            moment = round(part * ns / PARTS, 6)
            rows.append([name, seed, ns, moment, round(error, 4), round(size, 4), round(seconds), date])
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
            f"{end.effective_fraction.mean():.2f} | {end.wall_s.median():.0f} s | {' '.join(sorted(set(end.date)))} |"
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
        rule="|".join(["---"] * (len(moments) + 6)),
        rows="\n".join(lines),
        levels=by_level(work, order, ns, reference),
    )


def by_level(work: Path, order: Sequence[str], ns: float, reference: Array) -> str:
    """Rows of a table of errors by the free energy of the reference, of methods whose runs are in the work folder."""
    heights = (reference - reference.min()) / 4.184
    region = reference - reference.min() < CUTOFF
    lines = []
    for name in order:
        squares, frames = [], []
        for angles, logs in _runs(work, name, ns):
            off = (surface(angles, logs) - reference) / 4.184
            squares.append((off - off[region].mean()) ** 2)
            frames.append(np.histogramdd(angles, bins=[EDGES, EDGES])[0])
        if squares:
            square, count = np.mean(squares, axis=0), np.mean(frames, axis=0)
            cells = [
                f"{np.sqrt(square[level].mean()):.2f} ({np.median(count[level]):.0f})"
                for low in range(5)
                for level in [region & (heights >= low) & (heights < low + 1)]
            ]
            lines.append(f"| {name} | {len(squares)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _runs(work: Path, name: str, ns: float) -> Iterator[tuple[Array, Array]]:
    """Angles and log weights of the frames that count, of each run of a method in the work folder."""
    for file in sorted((work / "biasing" / f"{ns:g}ns").glob(f"{name.replace(' ', '_')}_[0-9]*.npz")):
        if not file.name.endswith(".partial.npz"):
            with np.load(file) as data:
                first = len(data["angles"]) // 10 if bool(data["adaptive"]) else 0
                yield data["angles"][first:], data[f"log_weights{PARTS}"].astype(np.float64)[first:]


def _figure_surfaces(work: Path, order: Sequence[str], ns: float, reference: Array) -> None:
    from matplotlib import pyplot as plt

    shown = {"reference": reference}
    for name in order:
        for run in islice(_runs(work, name, ns), 1):
            shown[name] = surface(*run)
    if len(shown) <= len(order):
        return  # the figure of a time when all runs were at hand says more
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
flatten phi and psi (after {build} ns that make that bias); the two differ by {floor}. Its table, `reference.csv`, was
read back from the colours of an earlier figure, in steps of 0.03 kcal/mol, which adds 0.01 to an error of 0.
Effective sample size (Kish) as a fraction of the frames. Wall time of a run on a machine shared with other work; on
2026-11-28 two to five other processes were on its two cores, and a run of latf OPES on phi and psi took 240 to 260 s of
processor time. Runs of 2026-11-24 had openmm 8.5.2 and torch 2.12.1. Every run is in `benchmarks/biasing/biasing.csv`.
A cell that was never visited counts as a hundredth of a frame: the error of a run that misses a basin grows with its
length.

| method | seeds | {head} | worst | effective fraction | wall time | date |
|{rule}|
{rows}

![RMSD against simulated time](../../benchmarks/biasing/biasing_time.png)

![surfaces](../../benchmarks/biasing/biasing.png)

*Surfaces of the first seed of each, when the runs of all methods were at hand (2026-11-24); a cell that was never
visited is at about 7 kcal/mol.*

### Where the error is

RMSD [kcal/mol] after {ns} ns by the free energy of the reference [kcal/mol], and in brackets the frames in the median
cell of 6 degrees; of the methods whose runs were at hand.

| method | seeds | below 1 | 1 to 2 | 2 to 3 | 3 to 4 | 4 to 5 |
|---|---|---|---|---|---|---|
{levels}

Tried on runs of OPES on phi and psi (2026-11-28): with one frame in 2, 4 and 8 the RMSD is 0.049, 0.064 and 0.086, not
0.043 (3 seeds), so frames closer in time than 0.1 ps would bring little (0.037 by extrapolation). Weights of one
seed, with one frame in 2: exp(V/kT) at the time of the frame 0.050; the last bias instead, which was made of the same
frames, 0.080; the mixture of ten moments' biases (MBAR) 0.052. Leaving out the first 5, 10 or 20 % of the time gives
0.044 with all frames, nothing 0.055.
"""
