"""Quality of r_T(z) at temperatures that were not simulated, beside other ways to get it from the same frames.

    python -m benchmarks.quality.run --work WORK                  # everything; hours on two cores, resumable
    python -m benchmarks.quality.run --work WORK --system lj7 --regime wide --seed 1
    python -m benchmarks.quality.run --work WORK --only-tables    # docs/benchmarks/quality.md again

Data, truths and one JSON file for each case stay in WORK; what is there is not made again.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.cases import SYSTEMS, SystemCase
from benchmarks.quality.data import Truth, training_data, truth
from benchmarks.quality.methods import (
    Estimate,
    Frames,
    flow_estimate,
    histogram_estimate,
    nearest_weights,
    train,
)
from benchmarks.quality.tables import write_tables
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.reweighting.free_energy import (
    LatentGrid,
    committee_error,
    free_energy_rmse,
    jensen_shannon,
    state_populations,
)
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weights import normalised_weights

_ROOT = Path(__file__).resolve().parents[2]


class Reference:
    """The truth at one temperature in the planes of one model."""

    def __init__(
        self, found: Truth, model: LatentThermodynamicFlow, grid: LatentGrid, case: SystemCase, kT: float
    ) -> None:
        with torch.no_grad():
            latent = model.encode(torch.from_numpy(found.features.astype(np.float32)))
            states = model.assign(latent).numpy()
        z, physical = latent.double().numpy(), case.plane.project(found.features.astype(np.float64))
        halves = [found.half == 0, found.half == 1]
        latents = [grid.histogram(z[half]) for half in halves]
        physicals = [np.histogramdd(physical[half], bins=list(case.plane.edges))[0] for half in halves]
        self.latent = 0.5 * (latents[0] + latents[1])
        self.physical = physicals[0] + physicals[1]
        self.floors = jensen_shannon(*latents), jensen_shannon(*physicals)
        shares = [state_populations(states[half], np.ones(half.sum()), model.n_states) for half in halves]
        self.populations = 0.5 * (shares[0] + shares[1])
        self.population_error = 0.5 * np.abs(shares[0] - shares[1])
        self.energy = float(found.energy.mean())
        self.capacity = float(found.energy.var()) / kT**2

    def compare(self, estimate: Estimate) -> dict[str, Any]:
        """All metrics of one estimate."""
        off = estimate.populations - self.populations
        row: dict[str, Any] = {
            "latent_js": jensen_shannon(estimate.latent, self.latent),
            "latent_rmse": free_energy_rmse(estimate.latent / estimate.latent.sum(), self.latent),
            "population_error": float(np.abs(off).max()),
        }
        if estimate.physical is not None:
            physical = estimate.physical / estimate.physical.sum()
            row["physical_js"] = jensen_shannon(physical, self.physical)
            row["physical_rmse"] = free_energy_rmse(physical, self.physical / self.physical.sum())
        if estimate.energy is not None and estimate.capacity is not None:
            row["energy_error"] = estimate.energy - self.energy
            row["capacity_error"] = estimate.capacity / self.capacity - 1
        if estimate.errors is not None:
            row["populations"] = [
                {"off": float(o), "reported": float(s), "truth": float(e)}
                for o, s, e in zip(off, estimate.errors, self.population_error, strict=True)
            ]
        if estimate.members is not None and len(estimate.members) > 1:
            row["surface_within_two"] = self._surface_coverage(estimate.members)
        return row

    def _surface_coverage(self, members: np.ndarray) -> float:
        """Fraction of cells below 5 kT whose free energy is within two reported standard errors."""
        region = self.latent > self.latent.max() * np.exp(-5.0)
        logs = np.log(np.maximum(members[:, region], 1e-12))
        off = np.log(np.maximum(members.mean(axis=0)[region], 1e-12)) - np.log(self.latent[region])
        return float((np.abs(off) < 2 * committee_error(logs)).mean())


def run_case(name: str, regime_name: str, seed: int, work: Path) -> None:
    """Train, estimate and compare; write the case's JSON file."""
    file = work / "results" / f"{name}_{regime_name}_{seed}.json"
    if file.is_file():
        return
    torch.set_num_threads(1)
    case = SYSTEMS[name]
    regime, scale = case.regimes[regime_name], case.settings.scale
    trajectories = training_data(case, regime, seed, work)
    record: dict[str, Any] = {"simulated": list(regime.temperatures), "frames_each": regime.frames_each}
    rows: list[dict[str, Any]] = []
    for method, prior_only in (("latf-openmm", False), ("prior-only", True)):
        model, seconds = train(case, trajectories, regime.lag, seed, prior_only)
        record[f"{method} seconds"], record[f"{method} states"] = seconds, model.n_states
        frames = Frames.of(trajectories, model, case.plane)
        found = {t: truth(case, t, work) for t in case.temperatures}
        grid = LatentGrid.around(_encode(model, found, 10).double().numpy())
        if not prior_only:
            with torch.no_grad():
                record["labels"] = model.assign(_encode(model, found, 40)).tolist()
        reweighting = Reweighting(trajectories)
        for temperature in case.temperatures:
            kT = scale.kT(temperature)
            reference = Reference(found[temperature], model, grid, case, kT)
            logs = np.zeros(len(frames.z)) if prior_only else reweighting.log_weights(temperature)
            estimates = {method: flow_estimate(model, frames, logs, temperature, kT, grid, case.plane)}
            if not prior_only:
                mbar, near = normalised_weights(logs), nearest_weights(frames, temperature)
                estimates |= {
                    "MBAR histogram": histogram_estimate(frames, mbar, kT, grid, case.plane, False),
                    "MBAR kernel": histogram_estimate(frames, mbar, kT, grid, case.plane, True),
                    "nearest T kernel": histogram_estimate(frames, near, kT, grid, case.plane, True),
                }
            for label, estimate in estimates.items():
                rows.append(
                    {
                        "method": label,
                        "temperature": temperature,
                        "simulated": temperature in regime.temperatures,
                        "sample_size": reweighting.sample_size(temperature),
                        "latent_floor": reference.floors[0],
                        "physical_floor": reference.floors[1],
                        "true_energy": reference.energy,
                        **reference.compare(estimate),
                    }
                )
    record["rows"] = rows
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(record))
    partial.rename(file)
    print(f"{name} {regime_name} {seed}: {record['latf-openmm seconds']:.0f} s", flush=True)


@torch.no_grad()
def _encode(model: LatentThermodynamicFlow, found: dict[float, Truth], stride: int) -> torch.Tensor:
    """Collective variables of every `stride`-th frame of all truths."""
    features = np.concatenate([f.features[::stride] for f in found.values()])
    return model.encode(torch.from_numpy(features.astype(np.float32)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data, truths and results")
    parser.add_argument(
        "--system", action="append", choices=list(SYSTEMS), help="may be repeated; default: all"
    )
    parser.add_argument("--regime", action="append", help="plentiful, scarce, wide or one; default: all")
    parser.add_argument("--seed", action="append", type=int, help="may be repeated; default: 1 to 5")
    parser.add_argument("--processes", type=int, default=2, help="cases that run at the same time")
    parser.add_argument("--only-tables", action="store_true", help="collect what is there")
    arguments = parser.parse_args()
    if not arguments.only_tables:
        _run_all(arguments)
    write_tables(arguments.work / "results", _ROOT / "docs" / "benchmarks")


def _run_all(arguments: argparse.Namespace) -> None:
    systems = arguments.system or list(SYSTEMS)
    regimes = arguments.regime or ["scarce", "wide", "one", "plentiful"]
    # Truths first, so that two cases never make the same one at the same time.
    for name in systems:
        for temperature in SYSTEMS[name].temperatures:
            truth(SYSTEMS[name], temperature, arguments.work)
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        jobs = [
            pool.submit(run_case, name, regime, seed, arguments.work)
            for seed in arguments.seed or range(1, 6)
            for regime in regimes
            for name in systems
        ]
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
