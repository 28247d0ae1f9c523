"""What each part of the model is worth: LJ7 with one part changed at a time, on the frames of the quality benchmark.

python -m benchmarks.quality.ablation --work WORK            # after run.py has made the data there
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.cases import SYSTEMS, Array
from benchmarks.quality.data import training_data, truth
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.reweighting.free_energy import LatentGrid, flow_probability, jensen_shannon
from latf_openmm.training.fit import fit
from latf_openmm.training.settings import TrainingSettings

_ROOT = Path(__file__).resolve().parents[2]
Change = Callable[[TrainingSettings, ModelSettings], tuple[TrainingSettings, ModelSettings]]


def _training(**changes: object) -> Change:
    return lambda training, model: (training.model_copy(update=changes), model)


def _without_context(**changes: object) -> Change:
    def change(training: TrainingSettings, model: ModelSettings) -> tuple[TrainingSettings, ModelSettings]:
        flow = model.flow.model_copy(update={"context": "none"})
        return training.model_copy(update=changes), model.model_copy(update={"flow": flow})

    return change


VARIANTS: dict[str, Change] = {
    "defaults": _training(),
    "one flow, no committee": _training(committee=1),
    "no smoothing": _training(smoothing=0.0),
    "almost no joint stage (one epoch)": _training(epochs_joint=1),
    "energies, but the flow does not see T": _without_context(),
    "the flow sees T, but no energies": _training(energies="ignore"),
    "prior-only, with committee": _without_context(energies="ignore"),
    "prior-only, the paper's form": _without_context(
        energies="ignore", restarts=1, committee=1, decorrelation=0.0
    ),
}


def run_variant(name: str, regime: str, seed: int, work: Path) -> None:
    """Train one variant and write its divergences."""
    file = _file(work, name, regime, seed)
    if file.is_file():
        return
    torch.set_num_threads(1)
    case = SYSTEMS["lj7"]
    data = training_data(case, case.regimes[regime], seed, work)
    training, settings = VARIANTS[name](TrainingSettings(lag=case.regimes[regime].lag), case.model)
    model = fit(data, settings, training, seed).model
    found = {t: truth(case, t, work) for t in case.temperatures}
    with torch.no_grad():
        z = {t: _encode(model, f.features) for t, f in found.items()}
    grid = LatentGrid.around(np.concatenate([own[::10] for own in z.values()]))
    excess = {}
    for t, own in z.items():
        halves = [grid.histogram(own[found[t].half == half]) for half in (0, 1)]
        floor = jensen_shannon(*halves) / 4
        excess[t] = jensen_shannon(flow_probability(model, t, grid), 0.5 * (halves[0] + halves[1])) - floor
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({f"{t:g}": value for t, value in excess.items()}))
    print(f"{name}, {regime}, {seed}", flush=True)


def _encode(model: LatentThermodynamicFlow, features: Array) -> Array:
    return model.encode(torch.from_numpy(features.astype(np.float32))).double().numpy()


def _file(work: Path, name: str, regime: str, seed: int) -> Path:
    return work / "ablation" / f"{name.replace(' ', '_').replace(',', '')}_{regime}_{seed}.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data and truths")
    parser.add_argument("--regime", action="append", help="default: scarce and wide")
    parser.add_argument("--seed", action="append", type=int, help="default: 1 and 2")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    regimes, seeds = arguments.regime or ["scarce", "wide"], arguments.seed or [1, 2]
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        jobs = [
            pool.submit(run_variant, name, regime, seed, arguments.work)
            for regime in regimes
            for seed in seeds
            for name in VARIANTS
        ]
        for job in jobs:
            job.result()
    _write_table(arguments.work)


def _write_table(work: Path) -> None:
    case = SYSTEMS["lj7"]
    kinds = [
        r for r in case.regimes if any(_file(work, n, r, s).is_file() for n in VARIANTS for s in range(1, 6))
    ]
    lines = ["| variant | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name in VARIANTS:
        cells = []
        for regime in kinds:
            means = []
            for seed in range(1, 6):
                file = _file(work, name, regime, seed)
                if file.is_file():
                    excess = {float(t): v for t, v in json.loads(file.read_text()).items()}
                    means.append(
                        np.mean([v for t, v in excess.items() if t not in case.regimes[regime].temperatures])
                    )
            cells.append(f"{np.mean(means):.4f} ({len(means)})" if means else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = f"""# What each part is worth

Written by `python -m benchmarks.quality.ablation --work WORK`. LJ7; mean excess divergence (nats) over the temperatures
that were not simulated, in the latent plane of each variant's own encoder; in brackets the number of seeds.

{chr(10).join(lines)}
"""
    (_ROOT / "docs" / "benchmarks" / "ablation.md").write_text(text)


if __name__ == "__main__":
    main()
