"""Structures with weights at temperatures nobody simulated, beside other ways to get them.

    python -m benchmarks.ensembles.run --work WORK                  # everything; hours on two cores, resumable
    python -m benchmarks.ensembles.run --work WORK --system lj7 --regime wide --seed 1
    python -m benchmarks.ensembles.run --work WORK --only-tables    # docs/benchmarks/ensembles.md again

Each case is one round of the loop, then what `latf-openmm generate` does at each temperature. Beside it: MBAR alone on
the same frames; samples of a flow in the paper's form, mapped to the nearest frame; replica exchange with as many force
evaluations as the simulation and the refinement took together. WORK may be that of `benchmarks/quality`.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ensembles.report_tables import write_tables
from benchmarks.ensembles.runs import Run, chosen
from benchmarks.ensembles.structures import geometry
from benchmarks.quality.cases import SYSTEMS, SystemCase
from benchmarks.quality.data import Truth, features_of, truth
from benchmarks.quality.methods import smoothed
from benchmarks.quality.replica_exchange import run_replica_exchange
from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.latent import generate
from latf_openmm.ensembles.reweighter import Reweighter
from latf_openmm.frames.trajectory import featurise
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.reweighting.blocks import FrameBlocks
from latf_openmm.reweighting.free_energy import jensen_shannon
from latf_openmm.run.annealed import AnnealedEnsembles
from latf_openmm.run.ensembles import ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import featurise_walkers, pool_of_rounds, pool_of_walkers

Array = NDArray[np.float64]
_ROOT = Path(__file__).resolve().parents[2]
_BLOCKS = 20
_FOLDS = 5
_CLOSE = 0.03
_INTERVAL = {"three_hole": 20, "lj7": 100, "alanine_dipeptide": 125}
_MINUTES = 1e9  # whatever it takes


@dataclass(frozen=True)
class Frames:
    """Frames with what is observed of them.

    Attributes
    ----------
    features
        Shape (n, n_features).
    energy
        Shape (n,) [kJ/mol].
    regions
        Masks (n,) of parts of configuration space, by name.
    folds
        Blocks for the cross-validated kernel, shape (n,).
    """

    features: Array
    energy: Array
    regions: dict[str, NDArray[np.bool_]]
    folds: NDArray[np.int64]

    @staticmethod
    @torch.no_grad()
    def of(case: SystemCase, trained: TrainedModel, features: Array, energy: Array, folds: Array) -> "Frames":
        """Assign frames to the model's states and, for the dipeptide, to the basins of phi and lookahead."""
        states = trained.model.assign(
            trained.model.encode(torch.from_numpy(features.astype(np.float32)))
        ).numpy()
        regions = {f"state {i}": states == i for i in range(trained.model.n_states)}
        if case.name == "alanine_dipeptide":
            phi = case.plane.project(features.astype(np.float64))[:, 0]
            regions["C7ax"] = (phi > 0) & (phi < 150)
            regions["C7eq"] = ~regions["C7ax"]
        return Frames(features, energy, regions, folds.astype(np.int64))


def values_of(case: SystemCase, frames: Frames, weights: Array, kT: float) -> dict[str, float]:
    """All observables of weighted frames."""
    mean = float(weights @ frames.energy)
    found = {"energy": mean, "heat capacity": float(weights @ (frames.energy - mean) ** 2) / kT**2}
    for name, mask in frames.regions.items():
        if name.startswith("state"):
            found[f"population of {name}"] = float(weights[mask].sum())
    if "C7ax" in frames.regions:
        shares = [max(float(weights[frames.regions[name]].sum()), 1e-12) for name in ("C7eq", "C7ax")]
        found["free energy C7ax"] = float(-kT * np.log(shares[1] / shares[0]))
    return found


def errors_of(case: SystemCase, ensemble: StructureEnsemble, frames: Frames) -> dict[str, float]:
    """The errors that the ensemble gives for the same observables."""
    found = {"energy": ensemble.energy().error, "heat capacity": ensemble.heat_capacity().error}
    for name, mask in frames.regions.items():
        if name.startswith("state"):
            found[f"population of {name}"] = ensemble.fraction(mask).error
    if "C7ax" in frames.regions:
        found["free energy C7ax"] = ensemble.free_energy_difference(
            frames.regions["C7eq"], frames.regions["C7ax"]
        ).error
    return found


class Reference:
    """The truth at one temperature, with its own error."""

    def __init__(self, case: SystemCase, trained: TrainedModel, found: Truth, kT: float) -> None:
        n = len(found.energy)
        frames = Frames.of(case, trained, found.features, found.energy, np.zeros(n))
        self.values = values_of(case, frames, np.full(n, 1.0 / n), kT)
        blocks = []
        for rows in np.array_split(np.arange(n), _BLOCKS):
            part = Frames.of(case, trained, found.features[rows], found.energy[rows], np.zeros(len(rows)))
            blocks.append(values_of(case, part, np.full(len(rows), 1.0 / len(rows)), kT))
        self.errors = {
            name: float(np.std([b[name] for b in blocks], ddof=1) / np.sqrt(_BLOCKS)) for name in self.values
        }
        points, edges = case.plane.project(found.features.astype(np.float64)), list(case.plane.edges)
        halves = [np.histogramdd(points[found.half == half], bins=edges)[0] for half in (0, 1)]
        self.plane = halves[0] + halves[1]
        self.floor = jensen_shannon(halves[0] / halves[0].sum(), halves[1] / halves[1].sum())
        self.energies = np.sort(found.energy)


def compare(
    case: SystemCase, reference: Reference, frames: Frames, weights: Array, kT: float
) -> dict[str, Any]:
    """Values of one method beside the truth."""
    values = values_of(case, frames, weights, kT)
    points = case.plane.project(frames.features.astype(np.float64))
    plane = smoothed(points, weights, frames.folds, case.plane.edges, case.plane.periodic)
    order = np.argsort(frames.energy)
    below = np.searchsorted(reference.energies, frames.energy[order]) / len(reference.energies)
    return {
        "values": values,
        "truth": reference.values,
        "truth_errors": reference.errors,
        "divergence": jensen_shannon(plane / plane.sum(), reference.plane / reference.plane.sum()),
        "floor": reference.floor,
        "energies_apart": float(np.abs(np.cumsum(weights[order]) - below).max()),
    }


def _folds(n_blocks_of: list[int]) -> NDArray[np.int64]:
    order = np.random.default_rng(0).permutation(len(n_blocks_of)) % _FOLDS
    return np.repeat(order, n_blocks_of)


def _ensemble_frames(
    case: SystemCase, run: RunFolder, trained: TrainedModel, ensemble: StructureEnsemble
) -> Frames:
    trajectories = featurise_walkers(run.config, list(ensemble.pool.walkers), run.path)
    features = np.concatenate([t.features for t in trajectories])
    if ensemble.method == "annealed":
        folds = np.random.default_rng(0).permutation(len(ensemble.inefficiency))[ensemble.clusters] % _FOLDS
    else:
        folds = _folds(list(FrameBlocks(trajectories).lengths))
    return Frames.of(case, trained, features, ensemble.energies(), folds)


def _exchanged(run: Run, evaluations: int, work: Path) -> Path:
    """File of a replica exchange with so many force evaluations, within 3 %."""
    for path in run.folder(work).glob("replica_exchange_*[0-9].npz"):
        if abs(int(path.stem.rpartition("_")[2]) / evaluations - 1) < _CLOSE:
            return path
    case, interval = run.case, _INTERVAL[run.system]
    file = run.folder(work) / f"replica_exchange_{evaluations}.npz"
    if not file.is_file():
        frames = max(30, evaluations // (len(case.temperatures) * interval) - 20)
        run_replica_exchange(
            case.settings,
            list(case.temperatures),
            frames,
            interval,
            case.timestep,
            case.friction,
            run.seed,
            file,
        )
    return file


def rows_of(run: Run, work: Path) -> Iterator[dict[str, Any]]:
    """Everything measured of one case."""
    case, folder = run.case, run.simulated(work)
    trained = folder.trained(0)
    reweighter = Reweighter(trained, pool_of_rounds(folder, 0), run.seed)
    temperatures = list(case.temperatures)
    ensembles = ensembles_at(folder, 0, temperatures, "auto", _MINUTES, reweighter=reweighter)
    evaluations = run.evaluations + _refined_evaluations(folder, reweighter)
    plain = run.prior_only(work)
    plain_pool = pool_of_walkers(folder.config, plain, folder.walkers(0))
    exchange = _exchanged(run, evaluations, work)
    module, pool_frames = features_of(case), None
    for temperature, ensemble in zip(temperatures, ensembles, strict=True):
        kT = case.settings.scale.kT(temperature)
        reference = Reference(case, trained, truth(case, temperature, work), kT)
        common = {
            "temperature": temperature,
            "simulated": temperature in run.settings.temperatures,
            "evaluations": evaluations,
            "evaluations_simulated": run.evaluations,
            "reached": reweighter.reach(temperature),
        }
        flow, alone = reweighter.at(temperature, "flow"), reweighter.at(temperature, "reweighted")
        for method, one in (("latf-openmm", ensemble), ("MBAR alone", alone), ("flow alone", flow)):
            if one.method == "annealed" or pool_frames is None:
                frames = _ensemble_frames(case, folder, trained, one)
            if one.method != "annealed":
                pool_frames = frames if pool_frames is None else pool_frames
                frames = replace(pool_frames, energy=one.energies())  # conditional weights come with energies
            row = common | {"method": method, "level": one.method, "verdict": one.reliability}
            row |= {"independent": one.n_effective, "warnings": list(one.warnings)}
            row |= {"errors": errors_of(case, one, frames)}
            row |= compare(case, reference, frames, one.weights, kT)
            if method == "latf-openmm" and case.name == "alanine_dipeptide":
                row["geometry"] = geometry(
                    one.trajectory(1000, folder.topology()), _true_structures(case, temperature, work)
                )
            yield row
        assert pool_frames is not None
        pool_frames = replace(pool_frames, energy=alone.energies())
        near = generate(plain, plain_pool, temperature, 20_000, run.seed).nearest
        counts = np.bincount(near, minlength=len(pool_frames.energy)) / len(near)
        yield (
            common
            | {"method": "prior-only, nearest frames"}
            | compare(case, reference, pool_frames, counts, kT)
        )
        with np.load(exchange) as data:
            xyz, energy = data[f"T{temperature:g}"], data[f"U{temperature:g}"]
        n = len(energy)
        folds = _folds([len(part) for part in np.array_split(np.arange(n), 20)])
        frames = Frames.of(case, trained, featurise(module, xyz), energy, folds)
        yield (
            common | {"method": "replica exchange"} | compare(case, reference, frames, np.full(n, 1 / n), kT)
        )


def _refined_evaluations(folder: RunFolder, reweighter: Reweighter) -> int:
    """Force evaluations of the annealing that the ensembles come from."""
    annealed = AnnealedEnsembles(folder, 0, reweighter)
    return sum(annealed.evaluations_made(path) for path in annealed.folder.glob("path_*"))


def _true_structures(case: SystemCase, temperature: float, work: Path) -> mdtraj.Trajectory:
    """The force field's own structures at a temperature, every tenth of a replica exchange."""
    topology = case.settings.build(1).mdtraj_topology()
    with np.load(work / case.name / "replica_exchange_seed101.npz") as data:
        return mdtraj.Trajectory(data[f"T{temperature:g}"][1000::10], topology)


def run_case(run: Run, work: Path) -> None:
    """Measure one case and write its JSON file."""
    file = work / "ensembles" / "results" / f"{run.name}.json"
    if file.is_file():
        return
    torch.set_num_threads(1)
    rows = list(rows_of(run, work))
    record = {"system": run.system, "regime": run.regime, "seed": run.seed, "rows": rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(record))
    partial.rename(file)
    print(run.name, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data, truths and results")
    parser.add_argument(
        "--system", action="append", choices=list(SYSTEMS), help="may be repeated; default: all"
    )
    parser.add_argument("--regime", action="append", help="plentiful, scarce or wide; default: all")
    parser.add_argument("--seed", action="append", type=int, help="may be repeated; default: 1 to 5")
    parser.add_argument("--processes", type=int, default=2, help="cases that run at the same time")
    parser.add_argument("--only-tables", action="store_true", help="collect what is there")
    arguments = parser.parse_args()
    if not arguments.only_tables:
        cases = chosen(arguments.system, arguments.regime, arguments.seed)
        for name in dict.fromkeys(run.system for run in cases):  # so that no two cases make the same truth
            for temperature in SYSTEMS[name].temperatures:
                truth(SYSTEMS[name], temperature, arguments.work)
        with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
            for job in [pool.submit(run_case, run, arguments.work) for run in cases]:
                job.result()
    write_tables(arguments.work / "ensembles" / "results", _ROOT / "docs" / "benchmarks")


if __name__ == "__main__":
    main()
