#!/usr/bin/env bash
# OpenMM's checkpoints hold the random numbers of the integrator, not those of a Monte Carlo barostat.
#
# Guess: a checkpoint is the whole state of a Context, so that the steps after loading it are those that were made
# before, to the last bit, as they are at constant volume. Seen: with MonteCarloBarostat they are others, in the same
# Context and in a new one with the same seeds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openmm==8.6.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import openmm

grid = 0.6 * np.stack(np.meshgrid(*3 * [np.arange(4)]), -1).reshape(-1, 3)


def argon(barostat):
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(2.4 * np.eye(3)))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(1.0)
    for _ in grid:
        system.addParticle(39.9)
        force.addParticle(0, 0.34, 0.99)
    system.addForce(force)
    if barostat:
        barostat = openmm.MonteCarloBarostat(50.0, 120.0, 5)
        barostat.setRandomNumberSeed(5)
        system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(120.0, 1.0, 0.004)
    integrator.setRandomNumberSeed(7)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(grid)
    context.setVelocitiesToTemperature(120.0, 3)
    return context


def positions(context):
    context.getIntegrator().step(300)
    return context.getState(positions=True).getPositions(asNumpy=True)._value


for barostat in (False, True):
    context = argon(barostat)
    context.getIntegrator().step(500)
    checkpoint = context.createCheckpoint()
    first = positions(context)
    context.loadCheckpoint(checkpoint)
    again = np.array_equal(first, positions(context))
    other = argon(barostat)
    other.loadCheckpoint(checkpoint)
    new = np.array_equal(first, positions(other))
    print(f"openmm {openmm.version.short_version}, barostat {barostat}: same Context {again}, new Context {new}")
    assert again is new is not barostat
PYTHON
