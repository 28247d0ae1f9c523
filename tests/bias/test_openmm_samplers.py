"""A static bias, or a frozen one, in OpenMM's own samplers of several temperatures (8.6 and newer)."""

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from torch import Tensor, nn

import latf_openmm as latf
from latf_openmm.bias.force.base import BackendName
from latf_openmm.bias.potentials.base import Bias
from latf_openmm.bias.potentials.opes import Opes

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


def _frozen_opes() -> tuple[openmm.System, latf.FeatureCV, Opes, Bias]:
    """Two particles on a bond, an OPES bias on its length that has seen 60 lengths, and that bias frozen."""
    system = openmm.System()
    for _ in range(2):
        system.addParticle(12.0)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.3, 2000.0)
    system.addForce(bond)
    cv = latf.distance_cv([(0, 1)], 2)
    bias = latf.OpesSettings(barrier=15.0, sigma=0.02, pace=1).build(latf.cv_context([0.0], 300.0))
    lengths = np.random.default_rng(0).normal(0.3, 0.035, (60, 1))
    for z in lengths:
        bias.update(torch.from_numpy(z)[None])
    assert isinstance(bias, Opes)
    return system, cv, bias, latf.frozen(bias)


@pytest.mark.parametrize("backend", ["compiled", "torchforce", "python"])
def test_a_frozen_bias_has_the_energies_of_its_moment(backend: BackendName) -> None:
    system, cv, bias, static = _frozen_opes()
    integrator = openmm.VerletIntegrator(0.001)
    biased = latf.add_bias(system, cv, static, backend=backend, group=5)
    context = openmm.Context(biased, integrator, openmm.Platform.getPlatformByName("Reference"))
    assert not dict(context.getParameters())
    expected = bias(torch.tensor([[0.31]], dtype=torch.float64)).item()
    for z in (0.2, 0.4):
        bias.update(torch.tensor([[z]], dtype=torch.float64))
    context.setPositions([[0.0, 0.0, 0.0], [0.31, 0.0, 0.0]])
    energy = context.getState(energy=True, groups={5}).getPotentialEnergy()._value
    assert energy == pytest.approx(expected, abs=1e-5)
    assert bias(torch.tensor([[0.31]], dtype=torch.float64)).item() != pytest.approx(expected, abs=1e-5)


def test_replica_exchange_with_a_frozen_bias_is_reweighted_to_the_unbiased_distribution() -> None:
    system, cv, _, static = _frozen_opes()
    integrator = openmm.LangevinMiddleIntegrator(300.0, 10.0, 0.004)
    integrator.setRandomNumberSeed(5)
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        topology.addAtom("C", app.element.carbon, topology.addResidue("C", chain))
    platform = openmm.Platform.getPlatformByName("Reference")
    run = app.Simulation(topology, latf.add_bias(system, cv, static), integrator, platform)
    run.context.setPositions([[0.0, 0.0, 0.0], [0.31, 0.0, 0.0]])
    states = [{"temperature": temperature * unit.kelvin} for temperature in (300.0, 360.0)]
    sampler = app.ReplicaExchangeSampler(states, run, 100)
    rows: list[tuple[int, float]] = []

    def report(sampler: app.ReplicaExchangeSampler) -> None:
        for replica, state in enumerate(sampler.replicaStateIndex):
            x = sampler.replicaConformation[replica].getPositions(asNumpy=True)._value
            rows.append((state, float(np.linalg.norm(x[1] - x[0]))))

    sampler.reporters.append(report)
    sampler.simulate(2000)
    lengths = np.array([length for state, length in rows if state == 0])
    energies = static(torch.from_numpy(lengths)[:, None]).numpy()
    weights = np.exp((energies - energies.max()) / (KB * 300.0))
    mean = float(np.average(lengths, weights=weights))
    variance = float(np.average((lengths - mean) ** 2, weights=weights))
    # On a line the density is exp(-k (r - r0)^2 / 2 kT) r^2.
    r = np.linspace(0.05, 0.6, 5000)
    density = np.exp(-1000.0 * (r - 0.3) ** 2 / (KB * 300.0)) * r**2
    exact = float(np.average(r, weights=density))
    assert mean == pytest.approx(exact, abs=0.007)  # four standard errors, measured over seeds
    assert variance == pytest.approx(float(np.average((r - exact) ** 2, weights=density)), rel=0.25)
    assert lengths.var() > 1.3 * variance  # the bias widens it
