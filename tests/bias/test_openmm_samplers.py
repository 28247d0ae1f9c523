"""A static bias in OpenMM's own samplers of several temperatures (8.6 and newer)."""

import numpy as np
import openmm
import pytest
from openmm import app, unit
from torch import Tensor, nn

import latf_openmm as latf

pytestmark = pytest.mark.skipif(not hasattr(app, "ReplicaExchangeSampler"), reason="OpenMM 8.6 has them")
KB = 0.00831446261815324  # kJ/mol/K
WELL, RESTRAINT, CENTRE = 100.0, 300.0, 0.2  # kJ/mol/nm^2, and nm
TEMPERATURES = [300.0, 350.0, 420.0]
N = 50
"""Particles in independent wells; the bias acts on the first coordinate of each."""


class FirstCoordinates(nn.Module):
    def forward(self, positions: Tensor) -> Tensor:
        return positions[:, 0]


def simulation() -> app.Simulation:
    system, topology = openmm.System(), app.Topology()
    chain = topology.addChain()
    well = openmm.CustomExternalForce(f"{WELL / 2}*(x^2+y^2+z^2)")
    for index in range(N):
        system.addParticle(12.0)
        well.addParticle(index, [])
        topology.addAtom("C", app.element.carbon, topology.addResidue("C", chain))
    system.addForce(well)
    cv = latf.ModuleCV(FirstCoordinates(), np.zeros((N, 3)))
    settings = latf.HarmonicSettings(centre=[CENTRE] * N, force_constant=RESTRAINT)
    bias = settings.build(latf.cv_context([0.0] * N, 300.0))
    integrator = openmm.LangevinMiddleIntegrator(300.0, 10.0, 0.02)
    integrator.setRandomNumberSeed(3)
    made = app.Simulation(
        topology, latf.add_bias(system, cv, bias), integrator, openmm.Platform.getPlatformByName("Reference")
    )
    made.context.setPositions(np.zeros((N, 3)))
    return made


def _statistics(frames: list[np.ndarray]) -> tuple[float, float]:
    x = np.array(frames)[len(frames) // 5 :]
    return float(x.mean()), float(x.var())


def assert_exact(frames: dict[float, list[np.ndarray]]) -> None:
    """Mean and variance of a coordinate in both harmonic terms, within 5 %."""
    for temperature, kept in frames.items():
        mean, variance = _statistics(kept)
        assert mean == pytest.approx(RESTRAINT * CENTRE / (WELL + RESTRAINT), abs=0.004)
        assert variance == pytest.approx(KB * temperature / (WELL + RESTRAINT), rel=0.05)


def test_replica_exchange_has_the_biased_distribution() -> None:
    states = [{"temperature": temperature * unit.kelvin} for temperature in TEMPERATURES]
    sampler = app.ReplicaExchangeSampler(states, simulation(), 20)
    frames: dict[float, list[np.ndarray]] = {temperature: [] for temperature in TEMPERATURES}

    def report(sampler: app.ReplicaExchangeSampler) -> None:
        for replica, state in enumerate(sampler.replicaStateIndex):
            x = sampler.replicaConformation[replica].getPositions(asNumpy=True)._value
            frames[TEMPERATURES[state]].append(np.array(x[:, 0]))

    sampler.reporters.append(report)
    sampler.simulate(400)
    assert_exact(frames)


def test_expanded_ensemble_has_the_biased_distribution() -> None:
    states = [{"temperature": temperature * unit.kelvin} for temperature in TEMPERATURES[:2]]
    made = simulation()
    sampler = app.ExpandedEnsembleSampler(states, made, 20)
    frames: dict[float, list[np.ndarray]] = {temperature: [] for temperature in TEMPERATURES[:2]}
    for _ in range(1200):
        sampler.step(20)
        x = made.context.getState(positions=True).getPositions(asNumpy=True)._value
        frames[TEMPERATURES[sampler.currentStateIndex]].append(np.array(x[:, 0]))
    assert min(map(len, frames.values())) > 100
    assert_exact(frames)
