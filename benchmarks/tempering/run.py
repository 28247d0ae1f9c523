"""Tempering of walkers beside replica exchange: errors at temperatures that neither simulated.

    python -m benchmarks.tempering.run --work WORK                  # everything; hours on two cores, resumable
    python -m benchmarks.tempering.run --work WORK --system lj7 --seed 1
    python -m benchmarks.tempering.run --work WORK --only-tables    # docs/benchmarks/tempering.md again

All methods have the same temperatures and the same number of force evaluations. Replica exchange is one set that tries
after every frame, weighted by MBAR over all its temperatures. The others are loops of this package, weighted as
`latf-openmm generate --method reweighted` does. WORK may be that of `benchmarks/quality`, whose truths are used.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.active.run import reference
from benchmarks.quality.cases import SYSTEMS
from benchmarks.quality.data import features_of
from benchmarks.quality.replica_exchange import run_replica_exchange
from benchmarks.tempering.cases import (
    EQUILIBRATION,
    FORCES,
    LADDERS,
    METHODS,
    REPLICA_EXCHANGE,
    WITHOUT_FORCES,
    Case,
)
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weights import normalised_weights
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.loop import run_loop
from latf_openmm.run.slopes import reweighter_of_round

Array = NDArray[np.float64]
_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(__file__).parent
_COLUMNS = {"energy": "energy [kT]", "heat capacity": "heat capacity [%]", "population": "population"}


def replica_exchange(case: Case, work: Path) -> list[FeatureTrajectory]:
    """Frames of replica exchange at all its temperatures."""
    system, ladder = case.case, case.ladder
    file = work / "tempering" / f"{case.name}.npz"
    frames = ladder.walkers * (ladder.frames + EQUILIBRATION) - EQUILIBRATION
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        temperatures = list(ladder.temperatures)
        run_replica_exchange(
            system.settings,
            temperatures,
            frames,
            ladder.interval,
            system.timestep,
            system.friction,
            case.seed,
            file,
        )
    module = features_of(system)
    with np.load(file) as data:
        return [
            FeatureTrajectory(
                features=featurise(module, data[f"T{t:g}"]),
                temperature=t,
                frame_interval=system.timestep * ladder.interval,
                potential_energy=data[f"U{t:g}"].astype(np.float64),
                log_weights=np.zeros(frames),
                run=f"T{t:g}",
                scale=system.settings.scale,
            )
            for t in ladder.temperatures
        ]


def rows_of(case: Case, work: Path) -> list[dict[str, Any]]:
    """Errors at all temperatures wanted."""
    exact, temperatures = reference(case.system, work), case.case.temperatures
    if case.method == REPLICA_EXCHANGE:
        trajectories = replica_exchange(case, work)
        energy = np.concatenate([t.potential_energy for t in trajectories])
        mbar = Reweighting(trajectories)
        weights = {t: normalised_weights(mbar.log_weights(t)) for t in temperatures}
    else:
        run = run_loop(case.config(), work / "tempering" / case.simulated.name)
        reweighter = reweighter_of_round(run, case.rounds - 1, case.method.endswith(FORCES))
        pool = reweighter.pool
        trajectories = featurise_walkers(run.config, list(pool.walkers), run.path)
        energy = pool.energies()
        weights = {t: reweighter.at(t, "reweighted").weights for t in temperatures}
    labels = exact.label(np.concatenate([t.features for t in trajectories]))
    return [
        {
            "temperature": t,
            "samples": float(1 / (weights[t] ** 2).sum()),
            "heat capacity": _heat_capacity(weights[t], energy, exact.spread[t]),
            **exact.errors(t, labels, energy, weights[t]),
        }
        for t in temperatures
    ]


def _heat_capacity(weights: Array, energy: Array, spread: float) -> float:
    """Relative error of the heat capacity of the potential energy [%]."""
    mean = weights @ energy
    return 100 * abs(float(weights @ (energy - mean) ** 2) / spread**2 - 1)


def measure(case: Case, work: Path) -> None:
    """Write the rows of one case, unless they are there."""
    torch.set_num_threads(1)
    file = work / "tempering" / f"{case.name}.json"
    if file.is_file():
        return
    rows = [
        {
            "system": case.system,
            "method": case.method,
            "seed": case.seed,
            "evaluations": case.evaluations,
            **row,
        }
        for row in rows_of(case, work)
    ]
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(rows))
    partial.rename(file)
    print(case.name, flush=True)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Root mean square errors over temperatures and seeds with standard errors, and over those of replica exchange."""
    rows = []
    for system in SYSTEMS:
        base: dict[str, float] = {}
        for method in METHODS:
            some = frame[(frame["system"] == system) & (frame["method"] == method)]
            if some.empty:
                continue
            row = {"system": system, "method": method}
            for column, title in _COLUMNS.items():
                squares = some.assign(square=some[column] ** 2).groupby("seed")["square"].mean().to_numpy()
                error = float(np.sqrt(squares.mean()))
                spread = (
                    float(squares.std(ddof=1) / np.sqrt(len(squares)) / (2 * error))
                    if len(squares) > 1
                    else np.nan
                )
                base.setdefault(column, error)
                row[title] = f"{error:.3g} ± {spread:.1g} ({error / base[column]:.2f})"
            row |= {"seeds": str(some["seed"].nunique()), "evaluations": f"{some['evaluations'].iloc[0]:,}"}
            rows.append(row)
    return pd.DataFrame(rows)


def write_tables(work: Path, docs: Path) -> None:
    """Write the page into `docs`, and the table of all numbers beside this file."""
    files = sorted((work / "tempering").glob("*.json"))
    frame = pd.DataFrame([row for file in files for row in json.loads(file.read_text())])
    frame.to_csv(_FOLDER / "tempering.csv", index=False, float_format="%.4g")
    table = summary(frame).to_markdown(index=False, disable_numparse=True)
    intervals = [ladder.lag + 1 for ladder in LADDERS.values()]
    asked = len(SYSTEMS["lj7"].temperatures)
    text = f"""# Walkers that move in temperature

Written by `python -m benchmarks.tempering.run --work WORK`; no GPU. All methods simulate the same temperatures with the
same number of force evaluations, and are asked at {asked} others. Root mean square errors over these temperatures and
all seeds, with standard errors over seeds; in brackets over those of replica exchange. Populations are those of four
regions of a physical plane. Truths are those of [Quality](quality.md).

Standard errors are a fifth to a quarter of the errors with five seeds, and more with fewer: ratios between 0.7 and 1.4
say nothing. Systems and methods with fewer seeds, or none, were not run further. The dipeptide's truth
is itself known to 0.02 kT and, in heat capacities, 0.6 % (standard errors of 40 blocks of 1 ns). There, three seeds do
not tell all pairs from neighbours, nor from walkers that stay.

* **replica exchange**: one set of replicas, neighbours try after every frame; weighted by MBAR over all temperatures.
* **fixed**, **exchange**, **expanded**: loops of this package, a walker for each temperature; weights of `generate`.
  Walkers move after {min(intervals)} to {max(intervals)} frames; neighbours try in turn, or **all pairs** many times.
* **forces**: the frames of the same loops; forces at frames correct their weights (`generate --forces`).
* **+ bias**: half of the evaluations without a bias, then a model is trained, and half with OPES along its variables;
  the dipeptide with 2 fs, in place of 4, and a kernel every ps. While the bias grew, walkers of its expanded ensemble
  were up to 9 % hotter than their thermostats (the log says so), which is in their errors. It is no help there.

{table}
"""
    (docs / "tempering.md").write_text(text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of truths, runs and results")
    parser.add_argument(
        "--system", action="append", choices=list(SYSTEMS), help="may be repeated; default: all"
    )
    parser.add_argument("--method", action="append", choices=METHODS, help="may be repeated; default: all")
    parser.add_argument("--seed", action="append", type=int, help="may be repeated; default: 1 to 5")
    parser.add_argument("--processes", type=int, default=2, help="cases that run at the same time")
    parser.add_argument("--only-tables", action="store_true", help="collect what is there")
    arguments = parser.parse_args()
    if not arguments.only_tables:
        cases = [
            Case(system, method, seed)
            for system in arguments.system or SYSTEMS
            for seed in arguments.seed or range(1, 6)
            for method in arguments.method or METHODS
            if not (method.endswith(FORCES) and system in WITHOUT_FORCES)
        ]
        for name in {case.system for case in cases}:  # so that no two cases make the same truth
            reference(name, arguments.work)
        with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
            for forces in (False, True):  # those with forces are of runs that have to be there
                some = [case for case in cases if case.method.endswith(FORCES) == forces]
                for job in [pool.submit(measure, case, arguments.work) for case in some]:
                    job.result()
    write_tables(arguments.work, _ROOT / "docs" / "benchmarks")


if __name__ == "__main__":
    main()
