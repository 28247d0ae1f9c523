"""Free-energy surface of alanine dipeptide at 300 K by each on-the-fly method, against replica exchange.

    python benchmarks/biasing/run.py --work WORK                 # 16 seeds; hours on two cores, resumable
    python benchmarks/biasing/run.py --work WORK --seeds 4 --ns 2
    python benchmarks/biasing/run.py --work WORK --only-tables

The learned variables come from heavy-atom distances (no torsion is given) of unbiased runs at 400 and 600 K.
Data, reference, model and one file for each run stay in WORK, which may be that of `benchmarks/quality`; what
is there is not made again. Needs the package openmm-opes for its line; without it the line is left out.
"""

import argparse
import importlib.util
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from samplers import KT, PACE, RECORD, TIMESTEP, Array, all_methods
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quality"))
from cases import DIPEPTIDE
from data import training_data, truth

import latf_openmm as latf
from latf_openmm.features import resolve_features
from latf_openmm.model.checkpoint import TrainedModel, save_model
from latf_openmm.training.settings import TrainingSettings

_ROOT = Path(__file__).resolve().parents[2]
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


def reference_surfaces(work: Path) -> tuple[Array, Array]:
    """Surfaces of two independent replica exchanges."""
    found = truth(DIPEPTIDE, 300.0, work)
    x = found.features.astype(np.float64)
    angles = np.arctan2(x[:, :2], x[:, 2:4])
    halves = [angles[found.half == half] for half in (0, 1)]
    return tuple(surface(half, np.zeros(len(half))) for half in halves)  # type: ignore[return-value]


def train_model(work: Path) -> Path:
    """The model whose variables are biased: trained once, on distances only."""
    folder = work / "biasing" / "model"
    if folder.is_dir():
        return folder
    distances = DIPEPTIDE.features[1]
    topology = DIPEPTIDE.settings.build(1).mdtraj_topology()
    resolved = resolve_features([distances], topology)
    runs = training_data(DIPEPTIDE, DIPEPTIDE.regimes["plentiful"], 1, work)
    runs = [replace(run, features=np.ascontiguousarray(run.features[:, 4:])) for run in runs]
    regime = DIPEPTIDE.regimes["plentiful"]
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
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    seconds = time.perf_counter() - start
    np.savez(partial, angles=frames.angles(), log_weights=np.array(frames.log_weights), seconds=seconds)
    partial.rename(file)
    print(f"{name} {seed}: {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data, reference and runs")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--ns", type=float, default=10.0, help="length of each run")
    parser.add_argument("--method", action="append", help="part of a name; may be repeated; default: all")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only-tables", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = train_model(arguments.work)
    names = [
        name
        for name in all_methods(model)
        if not arguments.method or any(part in name for part in arguments.method)
    ]
    if importlib.util.find_spec("openmm_opes") is None:
        names = [name for name in names if not name.startswith("openmm-opes")]
    folder = arguments.work / "biasing" / f"{arguments.ns:g}ns"
    if not arguments.only_tables:
        steps = round(arguments.ns * 1000 / TIMESTEP)
        with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
            jobs = []
            for seed in range(1, arguments.seeds + 1):
                for name in names:
                    file = folder / f"{name.replace(' ', '_')}_{seed}.npz"
                    if not file.is_file():
                        jobs.append(pool.submit(run_one, name, seed, steps, model, file))
            for job in jobs:
                job.result()
    write_tables(arguments.work, folder, arguments.ns)


def write_tables(work: Path, folder: Path, ns: float) -> None:
    """Markdown table and figure in docs/benchmarks."""
    one, other = reference_surfaces(work)
    reference = -KT * np.log(0.5 * (np.exp(-one / KT) + np.exp(-other / KT)))
    rows, best = [], {}
    for name in all_methods(work / "biasing" / "model"):
        errors, seconds, sizes = [], [], []
        for file in sorted(folder.glob(f"{name.replace(' ', '_')}_[0-9]*.npz")):
            with np.load(file) as data:
                estimate = surface(data["angles"], data["log_weights"])
                logs = data["log_weights"]
                seconds.append(float(data["seconds"]))
            weights = np.exp(logs - logs.max())
            sizes.append(weights.sum() ** 2 / (weights**2).sum() / len(weights))
            errors.append(deviation(estimate, reference))
            best[name] = estimate
        if errors:
            spread = f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
            rows.append(
                f"| {name} | {len(errors)} | {np.mean(errors):.2f}{spread} | {np.max(errors):.2f} | "
                f"{np.mean(sizes):.2f} | {np.median(seconds):.0f} s |"
            )
    floor = deviation(one, other)
    text = _PAGE.format(
        date=datetime.now(UTC).date(),
        machine=platform.machine(),
        openmm=version("openmm"),
        torch=version("torch"),
        ns=f"{ns:g}",
        floor=f"{floor:.2f}",
        pace=PACE,
        record=RECORD,
        rows="\n".join(rows),
    )
    docs = _ROOT / "docs" / "benchmarks"
    (docs / "biasing.md").write_text(text)
    _figure({"replica exchange": reference, **best}, docs / "biasing.png")


def _figure(surfaces: dict[str, Array], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 3
    rows = -(-len(surfaces) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(10, 3.1 * rows), sharex=True, sharey=True, squeeze=False
    )
    image = None
    for axis, (name, values) in zip(axes.ravel(), surfaces.items(), strict=False):
        shown = (values - values.min()).T / 4.184
        image = axis.imshow(shown, origin="lower", extent=(-180, 180, -180, 180), vmax=8, cmap="viridis")
        axis.set_title(name, fontsize=7)
    for axis in axes.ravel()[len(surfaces) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("phi [deg]")
    for axis in axes[:, 0]:
        axis.set_ylabel("psi [deg]")
    if image is not None:
        figure.colorbar(image, ax=axes, label="free energy [kcal/mol]", shrink=0.7)
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)


_PAGE = """# Free energy of alanine dipeptide by each on-the-fly method

Written by `python benchmarks/biasing/run.py --work WORK --ns {ns}` on {date} ({machine}, one thread a run; openmm
{openmm}, torch {torch}). Alanine dipeptide in implicit solvent (OBC2) at 300 K, {ns} ns with 4 fs steps from the same
structure; a kernel every {pace} steps, a frame every {record}. The surface over phi and psi comes from weighted frames
for every method, smoothed by one cell of 6 degrees; the first tenth is left out where the bias is built on the fly. The
learned variables come from a model of heavy-atom distances (no torsions), trained on unbiased runs at 400 and 600 K.

RMSD to replica exchange (2 x 6 x 20 ns) where that is below 5 kcal/mol, mean over seeds and standard deviation; its two
independent halves differ by {floor}. Effective sample size (Kish) as a fraction of the frames. Wall time on a machine
shared with other work.

| method | seeds | RMSD [kcal/mol] | worst | effective fraction | wall time |
|---|---|---|---|---|---|
{rows}

![surfaces](biasing.png)
"""


if __name__ == "__main__":
    main()
