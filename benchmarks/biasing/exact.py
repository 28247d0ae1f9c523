"""Systems whose free energy is known exactly, by molecular dynamics with each bias that is built on the fly.

Walkers in one Context share the bias, through the same force a molecule would have. The free energy of the cells of
a grid comes from weighted frames; the exact one is integrated over the same cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

import latf_openmm as latf
from latf_openmm.bias.cv import FeatureCV
from latf_openmm.bias.potentials import BiasSettings
from latf_openmm.bias.potentials.base import AdaptiveBias, BiasContext
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.sampling.langevin import langevin_integrator
from latf_openmm.systems.three_hole import ThreeHoleSettings
from latf_openmm.units import REDUCED

Array = NDArray[np.float64]
WALKERS, STEPS, INTERVAL, PACE, SEEDS = 32, 200_000, 50, 100, 2
_TIMESTEP, _FRICTION = 0.01, 1.0
_BURN_IN = 0.2
_BELOW = 5.0  # kT


@dataclass(frozen=True)
class Case:
    """One system: U depends on the variables alone, so that they are the whole truth.

    Attributes
    ----------
    build
        Number of copies to the System and its start positions [nm].
    axes
        Components of the particle's position that are biased.
    temperature
        Reduced; that of the bias.
    edges
        Of the cells along each axis.
    exact
        Temperature to the probability of each cell.
    barrier
        For OPES [kJ/mol].
    """

    name: str
    build: Callable[[int], tuple[openmm.System, Array]]
    axes: str
    temperature: float
    edges: tuple[Array, ...]
    exact: Callable[[float], Array]
    barrier: float

    @property
    def kT(self) -> float:  # noqa: N802 - the field's own name
        return REDUCED.kT(self.temperature)

    def methods(self) -> dict[str, BiasSettings]:
        """The biases that are built on the fly, by name."""
        sigma = [0.15] * len(self.axes)
        low, high = ([float(edges[end]) for edges in self.edges] for end in (0, -1))
        return {
            "metadynamics": MetadynamicsSettings(
                sigma=sigma, height=0.05 * self.kT, bias_factor=10.0, pace=PACE, low=low, high=high
            ),
            "OPES": OpesSettings(sigma=sigma, barrier=self.barrier, pace=PACE, min_sigma=0.5),
            "OPES explore": OpesSettings(
                sigma=sigma, barrier=self.barrier, flavour="explore", pace=PACE, min_sigma=0.5
            ),
        }


def three_hole() -> Case:
    """Three minima in two dimensions; the highest barrier is about 6 kT."""
    settings, temperature = ThreeHoleSettings(), 0.5
    edges = (np.linspace(-2.4, 2.4, 25), np.linspace(-2.0, 2.8, 25))

    def exact(at: float) -> Array:
        ensemble = settings.exact_ensemble(at)
        xy = ensemble.positions[:, 0, :2]
        return np.asarray(np.histogramdd(xy, bins=edges, weights=ensemble.weights)[0])

    def build(copies: int) -> tuple[openmm.System, Array]:
        built = settings.build(copies)
        return built.system, built.positions

    return Case("three_hole", build, "xy", temperature, edges, exact, barrier=5.0)


def double_well() -> Case:
    """U = 10 ((x^2 - 1)^2 + x / 8) in one dimension, at T = 1: 10 kT to cross, and 2.5 kT between the minima."""
    height, tilt = 10.0, 1.25
    edges = (np.linspace(-1.6, 1.6, 41),)
    fine = np.linspace(-1.6, 1.6, 40 * 200 + 1)
    middle = 0.5 * (fine[1:] + fine[:-1])

    def exact(at: float) -> Array:
        density = np.exp(-(height * (middle**2 - 1) ** 2 + tilt * middle) / at)
        return np.asarray(density.reshape(40, 200).sum(axis=1) / density.sum())

    def build(copies: int) -> tuple[openmm.System, Array]:
        system = openmm.System()
        force = openmm.CustomExternalForce(f"{height}*(x^2-1)^2 + {tilt}*x + 50*(y^2+z^2)")
        for index in range(copies):
            system.addParticle(1.0)
            force.addParticle(index, [])
        system.addForce(force)
        positions = np.zeros((copies, 1, 3))
        positions[:, 0, 0] = -1.0  # all in one well
        return system, positions

    return Case("double well, 10 kT", build, "x", 1.0, edges, exact, barrier=14.0)


def sample(
    case: Case, settings: BiasSettings, seed: int, steps: int, temperatures: Sequence[float] = ()
) -> list[Array]:
    """Weighted histogram over the cells of the case for each temperature; the walkers of all share one bias."""
    walkers = WALKERS
    at = np.repeat(temperatures or [case.temperature], walkers // max(1, len(temperatures)))
    kT = np.array([REDUCED.kT(one) for one in at])
    system, positions = case.build(walkers)
    features = CoordinateSettings(atoms=[0], axes=case.axes).build()
    cv = FeatureCV(features, None, 1)
    bias = settings.build(BiasContext((0.0,) * cv.dim, case.temperature, case.kT))
    assert isinstance(bias, AdaptiveBias)
    biased = latf.add_bias(system, cv, bias, n_copies=walkers)
    kelvin = [REDUCED.kelvin(one) for one in at]
    integrator = langevin_integrator(
        np.repeat(kelvin, system.getNumParticles() // walkers), _FRICTION, _TIMESTEP
    )
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(biased, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions.reshape(-1, 3))
    context.setVelocitiesToTemperature(kelvin[0], seed)
    updater = latf.BiasUpdater(cv, bias, n_copies=walkers, walker_kT=list(kT))
    columns = ["xyz".index(axis) for axis in case.axes]
    z, logs = [], []
    for step in range(INTERVAL, steps + 1, INTERVAL):
        integrator.step(INTERVAL)
        state = context.getState(positions=True)
        xyz = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))[:, columns]
        if step > _BURN_IN * steps:
            with torch.no_grad():
                energy = bias(torch.from_numpy(xyz)).numpy()
            z.append(xyz)
            logs.append((energy - bias.offset()) / kT)
        if step % PACE == 0:
            updater.update(context, state)
    found = []
    for one in dict.fromkeys(at):
        own = np.array(logs)[:, at == one].ravel()
        points = np.array(z)[:, at == one].reshape(-1, cv.dim)
        found.append(np.histogramdd(points, bins=case.edges, weights=np.exp(own - own.max()))[0])
    return found


def deviation(case: Case, histogram: Array, temperature: float | None = None) -> tuple[float, float]:
    """Root-mean-square and largest error [kT] of the cells below 5 kT, both free energies with mean zero there."""
    with np.errstate(divide="ignore"):
        truth = -np.log(case.exact(temperature or case.temperature))
        found = -np.log(histogram / histogram.sum())
    region = truth - truth.min() < _BELOW
    off = found[region] - truth[region]
    off = off - off.mean()
    return float(np.sqrt((off**2).mean())), float(np.abs(off).max())


def page(steps: int = STEPS, seeds: int = SEEDS) -> str:
    """Markdown table over the systems and the methods."""
    rows = []
    for case, kind in product((double_well(), three_hole()), ("metadynamics", "OPES", "OPES explore")):
        several = [case.temperature, 1.6 * case.temperature]
        for temperatures in ([case.temperature], several):
            found = []
            for seed in range(1, seeds + 1):
                histograms = sample(case, case.methods()[kind], seed, steps, temperatures)
                found.append([deviation(case, h, t) for h, t in zip(histograms, temperatures, strict=True)])
            for index, temperature in enumerate(temperatures):
                rms, largest = np.array(found)[:, index].T
                cells = ", ".join(f"{value:.3f}" for value in rms)
                shared = "" if len(temperatures) == 1 else f", shared with T = {several[1 - index]:g}"
                rows.append(
                    f"| {case.name} | {kind} | {temperature:g}{shared} | {cells} | {largest.max():.2f} |"
                )
                print(rows[-1], flush=True)
    return _PAGE.format(walkers=WALKERS, steps=steps, pace=PACE, rows="\n".join(rows))


_PAGE = """## Exactly known free energies

{walkers} walkers in one Context share one bias, {steps} steps each, a kernel of every walker each {pace} steps, the
first fifth left out; in the rows "shared", half of the walkers are at each temperature. Error of the free energy of
cells (double well: 0.08 wide; three_hole: 0.2 x 0.2) below 5 kT, against the exact integral over the cell.

| system | method | T | RMS error of each seed [kT] | largest error of a cell [kT] |
|---|---|---|---|---|
{rows}
"""
