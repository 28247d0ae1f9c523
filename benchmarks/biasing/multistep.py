"""What evaluating the bias only every few steps does to the ensemble: alanine dipeptide with a restraint.

Variables of a random network on distances and torsions, scaled to the spread they have in an unbiased run.
"""

import numpy as np
import openmm
import torch
from openmm import unit

import latf_openmm as latf
from benchmarks.biasing.samplers import TEMPERATURE, Array
from latf_openmm.bias.cv import FeatureCV
from latf_openmm.bias.multistep import MultistepStepper
from latf_openmm.bias.potentials.base import cv_context
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.features import build_features, resolve_features
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.model.encoder import mlp
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.units import KELVIN

STEPS, INTERVAL, BLOCKS = 250_000, 10, 10
CASES = [
    (10.0, 0.002, 1.008),
    (50.0, 0.002, 1.008),
    (200.0, 0.002, 1.008),
    (10.0, 0.004, 3.0),
    (50.0, 0.004, 3.0),
]
EVERY = (1, 2, 3, 4)


def variables() -> FeatureCV:
    built = AlanineDipeptideSettings().build()
    settings = [TorsionSettings(angles=["phi", "psi"]), DistanceSettings(selection="element != H")]
    features = build_features(resolve_features(settings, built.mdtraj_topology()))
    torch.manual_seed(1)
    network = mlp([features.n_features, 32, 2])
    cv = FeatureCV(features, network, built.n_atoms)
    z = run(cv, 0.0, 0.002, 1.008, 1, 20_000)[0]
    last = network[-1]
    with torch.no_grad():
        scale = torch.from_numpy(1.0 / z.std(axis=0)).float()
        last.weight *= scale[:, None]
        last.bias.copy_(scale * (last.bias - torch.from_numpy(z.mean(axis=0)).float()))
    return FeatureCV(features, network, built.n_atoms)


def run(
    cv: FeatureCV, strength: float, timestep: float, mass: float, every: int, steps: int
) -> tuple[Array, Array]:
    """Variables of each frame and temperature [K] from the kinetic energy of each frame."""
    built = AlanineDipeptideSettings(hydrogen_mass=mass).build()
    bias = HarmonicSettings(centre=[0.0, 0.0], force_constant=strength).build(
        cv_context([0.0, 0.0], TEMPERATURE)
    )
    system = latf.add_bias(built.system, cv, bias, multistep=True)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, timestep)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(built.positions[0])
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    stepper = MultistepStepper(context, every)
    stepper.step(2000)
    dof = 3 * system.getNumParticles() - system.getNumConstraints()
    xyz, kelvin = [], []
    for _ in range(steps // INTERVAL):
        stepper.step(INTERVAL)
        state = context.getState(positions=True, energy=True)
        xyz.append(np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)))
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        kelvin.append(2 * kinetic / dof / KELVIN.boltzmann)
    with torch.no_grad():
        z = cv(torch.from_numpy(np.array(xyz)), torch.empty(0)).numpy()
    return z, np.array(kelvin)


def _mean(values: Array) -> tuple[float, float]:
    """Mean and its standard error, by blocks."""
    blocks = np.array([block.mean() for block in np.array_split(values, BLOCKS)])
    return float(blocks.mean()), float(blocks.std(ddof=1) / np.sqrt(BLOCKS))


def page() -> str:
    """Markdown table over the restraints and the steps between evaluations."""
    cv, rows = variables(), []
    for strength, timestep, mass in CASES:
        expected = None
        for every in EVERY:
            try:
                z, kelvin = run(cv, strength, timestep, mass, every, STEPS)
            except openmm.OpenMMException:
                z = np.full((BLOCKS, 2), np.nan)
            if not np.isfinite(z).all():
                rows.append(f"| {strength:g} | {1000 * timestep:g} | {every} | unstable | |")
                continue
            value, error = _mean(0.5 * strength * (z**2).sum(axis=1))
            kinetic = _mean(kelvin)
            expected = expected or (value, error, *kinetic)
            ratio = value / expected[0]
            spread = ratio * np.hypot(error / value, expected[1] / expected[0])
            warmer, uncertain = kinetic[0] - expected[2], np.hypot(kinetic[1], expected[3])
            rows.append(
                f"| {strength:g} | {1000 * timestep:g} | {every} | {ratio:.3f} ± {spread:.3f} | "
                f"{warmer:+.1f} ± {uncertain:.1f} |"
            )
            print(rows[-1], flush=True)
    return _PAGE.format(steps=STEPS, rows="\n".join(rows))


_PAGE = """## The bias every few steps

Alanine dipeptide at 300 K, `MultistepStepper`, {steps} steps, friction 2/ps; a harmonic restraint of two variables
(network on distances and torsions) whose unbiased standard deviation is 1. With 4 fs hydrogens have 3 amu. Mean energy
of the restraint and kinetic temperature, relative to those with the bias at every step.

| force constant [kJ/mol per z^2] | time step [fs] | bias every | energy of the restraint | temperature [K] more |
|---|---|---|---|---|
{rows}
"""
