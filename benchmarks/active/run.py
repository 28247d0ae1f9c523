"""Error at the temperatures wanted against force evaluations: the active strategy beside simpler ones.

    python -m benchmarks.active.run --work WORK                  # everything; hours on two cores, resumable
    python -m benchmarks.active.run --work WORK --system lj7 --seed 1
    python -m benchmarks.active.run --work WORK --only-tables    # docs/benchmarks/active.md again

Each case is one loop. After every round the frames there are (reweighted, or guided by the flow) are compared with the
truth at six temperatures. Fixed and active begin with the same round at both ends of the range; walkers that move
begin at four temperatures between them. Replica exchange over the six temperatures has as many force evaluations. WORK
may be that of `benchmarks/quality`, whose truths are used.
Means and populations of the dipeptide's truth, which takes most of an hour, are beside this file.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans

from benchmarks.quality.cases import SYSTEMS, Regime, SystemCase, short_training
from benchmarks.quality.data import features_of, truth
from benchmarks.quality.replica_exchange import run_replica_exchange
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.frames.trajectory import featurise
from latf_openmm.run.config import GenerateSettings, LoopSettings, RunConfig
from latf_openmm.run.frames import featurise_walkers, pool_of_rounds
from latf_openmm.run.loop import run_loop
from latf_openmm.run.strategies import STRATEGY_KINDS
from latf_openmm.sampling.tempering.exchange import ExchangeSettings

Array = NDArray[np.float64]
_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(__file__).parent
_REGIONS = 4
_ROUNDS = {
    "three_hole": Regime((0.5, 2.0), 10, 20, 100, 1),
    "lj7": Regime((0.2, 0.7), 20, 20, 500, 1),
    "alanine_dipeptide": Regime((300.0, 700.0), 2, 200, 250, 1),
}
_MOVING = {
    "three_hole": Regime((0.5, 0.8, 1.26, 2.0), 5, 20, 100, 1),
    "lj7": Regime((0.2, 0.3, 0.46, 0.7), 10, 20, 500, 1),
    "alanine_dipeptide": Regime((300.0, 400.0, 530.0, 700.0), 1, 200, 250, 1),
}
"""Rounds of walkers that may move in temperature, with as many force evaluations."""
_EQUILIBRATION = {"three_hole": 500, "lj7": 2000, "alanine_dipeptide": 2500}
_EXCHANGE = {"three_hole": 20, "lj7": 100, "alanine_dipeptide": 125}
_OPES = "alanine_dipeptide_opes"
_OPES_TIMESTEP = 0.002
"""Without a bias, 4 fs."""
_NAMES = (*SYSTEMS, _OPES)
_ACTIVE_MOVING = "active, moving"
_COLOURS = {
    "fixed": "tab:blue",
    "uniform": "tab:orange",
    "active": "tab:red",
    _ACTIVE_MOVING: "tab:purple",
    "replica exchange": "tab:green",
}


@dataclass(frozen=True)
class Case:
    """One loop."""

    system: str
    strategy: str
    seed: int
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.system}_{self.strategy}_{self.seed}"

    @property
    def base(self) -> str:
        """The system, whether with OPES or without."""
        return "alanine_dipeptide" if self.system == _OPES else self.system

    @property
    def case(self) -> SystemCase:
        return SYSTEMS[self.base]

    @property
    def regime(self) -> Regime:
        """Data of a round."""
        return (_MOVING if self.strategy == _ACTIVE_MOVING else _ROUNDS)[self.base]

    @property
    def each(self) -> int:
        """Force evaluations of one copy in a round."""
        regime = self.regime
        steps = regime.frames * regime.interval + _EQUILIBRATION[self.base]
        return len(regime.temperatures) * regime.walkers * steps

    def config(self) -> RunConfig:
        case, regime = self.case, self.regime
        moves = ExchangeSettings(interval=regime.lag + 1) if self.strategy == _ACTIVE_MOVING else None
        simulation = case.simulation(regime, 1).model_copy(
            update={"equilibration": _EQUILIBRATION[self.base], "tempering": moves}
        )
        if self.system == _OPES:
            simulation = simulation.model_copy(update={"timestep": _OPES_TIMESTEP})
        kind = self.strategy.partition(",")[0]
        settings = STRATEGY_KINDS[kind](**({"stop": False} if kind == "active" else {}))
        return RunConfig(
            system=case.settings,
            seed=self.seed,
            simulation=simulation,
            features=list(case.features),
            model=case.model,
            training=short_training(regime.lag),
            bias=OpesSettings(barrier=25.0) if self.system == _OPES else None,
            loop=LoopSettings(rounds=self.rounds, strategy=settings),
            generate=GenerateSettings(temperatures=list(case.temperatures), samples=300),
        )


class Reference:
    """The truth: mean energies, and populations of regions of a plane that the model did not choose."""

    def __init__(self, case: SystemCase, centres: Array) -> None:
        self.case, self.centres = case, centres
        self.energy: dict[float, float] = {}
        self.spread: dict[float, float] = {}
        self.populations: dict[float, Array] = {}

    @classmethod
    def of_samples(cls, case: SystemCase, work: Path) -> "Reference":
        """Make it of the samples in WORK, which are simulated where they are missing."""
        samples = {t: truth(case, t, work) for t in case.temperatures}
        rng = np.random.default_rng(0)
        some = [sample.features[rng.choice(len(sample.features), 3000)] for sample in samples.values()]
        planes = plane_of(case, np.concatenate(some))
        made = cls(case, KMeans(_REGIONS, n_init=10, random_state=0).fit(planes).cluster_centers_)
        for t, sample in samples.items():
            made.energy[t], made.spread[t] = float(sample.energy.mean()), float(sample.energy.std())
            counts = np.bincount(made.label(sample.features), minlength=_REGIONS)
            made.populations[t] = counts / len(sample.features)
        return made

    @classmethod
    def read(cls, case: SystemCase, file: Path) -> "Reference":
        """Read what `write` wrote."""
        data = json.loads(file.read_text())
        made = cls(case, np.array(data["centres"]))
        for row in data["temperatures"]:
            t = row["temperature"]
            made.energy[t], made.spread[t] = row["energy"], row["spread"]
            made.populations[t] = np.array(row["populations"])
        return made

    def write(self, file: Path) -> None:
        """Write centres of regions, and of each temperature mean and spread of energies and the populations."""
        rows = [
            {
                "temperature": t,
                "energy": self.energy[t],
                "spread": self.spread[t],
                "populations": self.populations[t].tolist(),
            }
            for t in self.energy
        ]
        file.write_text(json.dumps({"centres": self.centres.tolist(), "temperatures": rows}, indent=1) + "\n")

    def label(self, features: Array) -> NDArray[np.int64]:
        """Return the region of each frame, that of the nearest centre."""
        return np.asarray(cKDTree(self.centres).query(plane_of(self.case, features))[1], dtype=np.int64)

    def errors(
        self, temperature: float, labels: NDArray[np.int64], energy: Array, weights: Array
    ) -> dict[str, float]:
        """Error of the mean energy in kT, and the root mean square error of the populations."""
        kT = self.case.settings.scale.kT(temperature)
        shares = np.bincount(labels, weights, _REGIONS)
        return {
            "energy": abs(float(weights @ energy) - self.energy[temperature]) / kT,
            "population": float(np.sqrt(((shares - self.populations[temperature]) ** 2).mean())),
        }


def plane_of(case: SystemCase, features: Array) -> Array:
    """Return points in the physical plane of a system, angles as cosines and sines."""
    points = case.plane.project(np.asarray(features, dtype=np.float64))
    if not case.plane.periodic:
        return points
    angles = np.radians(points)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


@lru_cache
def reference(system: str, work: Path) -> Reference:
    """Return the truth of a system; where WORK has no samples of it, that of the file beside this one, if any."""
    case, file = SYSTEMS[system], _FOLDER / f"{system}.json"
    if file.is_file() and not (work / case.name).is_dir():
        return Reference.read(case, file)
    return Reference.of_samples(case, work)


def loop_rows(case: Case, work: Path) -> list[dict[str, Any]]:
    """Errors after every round of one loop."""
    exact = reference(case.base, work)
    run = run_loop(case.config(), work / "active" / case.name)
    rows = []
    for index in range(case.rounds):
        pool = pool_of_rounds(run, index)
        reweighter = Reweighter(run.trained(index), pool, case.seed)
        features = np.concatenate(
            [t.features for t in featurise_walkers(run.config, list(pool.walkers), run.path)]
        )
        labels = exact.label(features)
        for temperature in case.case.temperatures:
            found = reweighter.at(temperature)
            rows.append(
                {
                    "round": index,
                    "evaluations": (index + 1) * case.each,
                    "temperature": temperature,
                    "level": found.method,
                    "simulated": run.round(index).summary().temperatures,
                    **exact.errors(temperature, labels, found.energies(), found.weights),
                }
            )
    return rows


def exchange_rows(case: Case, work: Path) -> list[dict[str, Any]]:
    """Errors of replica exchange with the evaluations of each round."""
    system, exact, interval = case.case, reference(case.base, work), _EXCHANGE[case.base]
    temperatures, file = (
        list(system.temperatures),
        work / "active" / f"{case.base}_{case.strategy}_{case.seed}.npz",
    )
    frames = case.rounds * case.each // (len(temperatures) * interval) - 20
    if not file.is_file():
        run_replica_exchange(
            system.settings, temperatures, frames, interval, system.timestep, system.friction, case.seed, file
        )
    module, rows = features_of(system), []
    with np.load(file) as data:
        for temperature in temperatures:
            labels = exact.label(featurise(module, data[f"T{temperature:g}"]))
            energy = data[f"U{temperature:g}"]
            for index in range(case.rounds):
                n = max(5, (index + 1) * case.each // (len(temperatures) * interval) - 20)
                weights = np.full(min(n, len(energy)), 1.0 / min(n, len(energy)))
                rows.append(
                    {
                        "round": index,
                        "evaluations": (index + 1) * case.each,
                        "temperature": temperature,
                        "level": "exchange",
                        "simulated": temperatures,
                        **exact.errors(temperature, labels[:n], energy[:n], weights),
                    }
                )
    return rows


def measure(case: Case, work: Path) -> Path:
    """Write the rows of one case, unless they are there."""
    torch.set_num_threads(1)
    file = work / "active" / f"{case.name}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = exchange_rows(case, work) if case.strategy == "replica exchange" else loop_rows(case, work)
        named = [{"system": case.system, "strategy": case.strategy, "seed": case.seed, **row} for row in rows]
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(named))
        partial.rename(file)
    return file


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Root mean square error over temperatures and seeds, by system, strategy and evaluations, with its standard error.

    Seeds are independent of each other, temperatures are not.
    """
    by, what = ["system", "strategy", "evaluations"], ["energy", "population"]
    squares = frame.assign(energy=frame["energy"] ** 2, population=frame["population"] ** 2)
    seeds = squares.groupby([*by, "seed"])[what].mean().groupby(by)
    found = seeds.mean() ** 0.5
    errors = (seeds.sem() / (2.0 * found)).add_suffix(" ±")
    counts = frame.groupby(by)["seed"].nunique().rename("seeds")
    joined = found.join(errors).join(counts).reset_index()
    return joined[[*by, "energy", "energy ±", "population", "population ±", "seeds"]]


def needed(curve: pd.DataFrame, what: str, error: float) -> float:
    """Evaluations after which an error is not exceeded any more, between rounds by a power law; nan if never."""
    x, y = np.log(curve["evaluations"].to_numpy()), np.log(curve[what].to_numpy())
    above = np.flatnonzero(y > np.log(error))
    if len(above) == 0:
        return float(np.exp(x[0]))
    last = int(above[-1])
    if last == len(y) - 1:
        return float("nan")
    share = (y[last] - np.log(error)) / (y[last] - y[last + 1])
    return float(np.exp(x[last] + share * (x[last + 1] - x[last])))


def _ratio_table(ratios: list[dict[str, Any]]) -> str:
    """Table of force evaluations over those of fixed temperatures."""
    columns = ["system", "quantity", "error of fixed at the end", *_COLOURS]
    return pd.DataFrame(ratios)[columns].fillna("–").to_markdown(index=False, disable_numparse=True)


def write_tables(work: Path, docs: Path) -> None:
    """Write the page into `docs`; the table of all numbers and the figure beside this file."""
    rows = [row for file in sorted((work / "active").glob("*.json")) for row in json.loads(file.read_text())]
    frame = pd.DataFrame(rows)
    frame.drop(columns="simulated").to_csv(_FOLDER / "active.csv", index=False, float_format="%.5g")
    table = summary(frame)
    systems = [name for name in _NAMES if name in set(table["system"])]
    figure, axes = plt.subplots(
        2, len(systems), figsize=(4 * len(systems), 6.4), layout="constrained", squeeze=False
    )
    labels = {"energy": "RMS error of the mean energy (kT)", "population": "RMS error of populations"}
    ratios = []
    for column, system in enumerate(systems):
        curves = {s: table[(table["system"] == system) & (table["strategy"] == s)] for s in _COLOURS}
        for row, what in enumerate(labels):
            axis = axes[row, column]
            for strategy, curve in curves.items():
                axis.loglog(
                    curve["evaluations"], curve[what], "o-", ms=4, color=_COLOURS[strategy], label=strategy
                )
            axis.set(title=system if row == 0 else "", ylabel=labels[what] if column == 0 else "")
            axis.set_xlabel("force evaluations" if row else "")
            goal = float(curves["fixed"][what].iloc[-1])
            cost = {s: needed(curve, what, goal) for s, curve in curves.items() if len(curve)}
            ratios.append(
                {"system": system, "quantity": labels[what], "error of fixed at the end": f"{goal:.3g}"}
                | {
                    s: f"{value / cost['fixed']:.2f}" if np.isfinite(value) else "not reached"
                    for s, value in cost.items()
                }
            )
    axes[0, 0].legend(fontsize=8)
    figure.savefig(_FOLDER / "active.png", dpi=110)
    last = (
        table.sort_values("evaluations")
        .groupby(["system", "strategy"])
        .tail(1)
        .sort_values(["system", "strategy"])
    )
    text = f"""# Active learning: error against force evaluations

Made by `python -m benchmarks.active.run --work WORK`; two CPU cores, no GPU. Errors are root mean squares over six
temperatures and all seeds, against the truths of `benchmarks/quality`; populations are those of {_REGIONS} regions of a
physical plane. Each round simulates at two temperatures; the first round of `fixed` and `active` is the same, at both
ends of the range. `{_ACTIVE_MOVING}` has half of the walkers at each of four temperatures in that range, among
which they exchange in the first round; later it decides whether they move or stay, and where. `{_OPES}`,
where it was run, is the dipeptide with OPES in all loops, where `active` decides where, and with steps of 2 fs; replica
exchange has neither. Loops of the three holes and of LJ7 were run before weights of states with few crossings changed
([which pages are older](index.md)).

Standard errors are from the spread over seeds: errors at neighbouring temperatures go together.

## Force evaluations for the error that fixed temperatures end with, over theirs

After so many an error is not exceeded any more; fixed temperatures may have had it before their end. A dash: not run.

{_ratio_table(ratios)}

## Errors at the end

{last.to_markdown(index=False, floatfmt=".3g")}

![Error against force evaluations](../../benchmarks/active/active.png)
"""
    (docs / "active.md").write_text(text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--system", nargs="+", choices=_NAMES, default=list(_NAMES))
    parser.add_argument("--seed", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--strategy", nargs="+", choices=_COLOURS, default=list(_COLOURS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only-tables", action="store_true")
    choice = parser.parse_args()
    if not choice.only_tables:
        cases = [
            Case(system, strategy, seed, choice.rounds)
            for seed in choice.seed
            for system in choice.system
            for strategy in choice.strategy
        ]
        with ProcessPoolExecutor(choice.processes, get_context("spawn")) as pool:
            jobs = [pool.submit(measure, case, choice.work) for case in cases]
            for case, job in zip(cases, jobs, strict=True):
                print(job.result(), case.name, flush=True)
    write_tables(choice.work, _ROOT / "docs" / "benchmarks")


if __name__ == "__main__":
    main()
