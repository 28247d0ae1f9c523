#!/usr/bin/env bash
# On OpenMM's Reference platform all Contexts of a process draw from one stream of random numbers.
#
# Guess: each integrator has its own stream, which its seed begins, so that what one Context does cannot change what
# another one does. Seen: so it is on the CPU platform. On the Reference platform a second Context that is only made,
# never stepped, changes the steps of the first; the stream begins again at the seed of the Context made last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openmm==8.6.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import openmm


def oscillators(platform, seed):
    system = openmm.System()
    force = openmm.CustomExternalForce("5 * (x^2 + y^2 + z^2)")
    for particle in range(3):
        system.addParticle(10.0)
        force.addParticle(particle, [])
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform))
    context.setPositions(np.zeros((3, 3)))
    return context


def after(context, steps):
    context.getIntegrator().step(steps)
    return context.getState(positions=True).getPositions(asNumpy=True)._value


for platform, independent in (("CPU", True), ("Reference", False)):
    alone = after(oscillators(platform, 1), 10)
    again = np.array_equal(alone, after(oscillators(platform, 1), 10))
    first, second = oscillators(platform, 1), oscillators(platform, 2)
    beside = np.array_equal(alone, after(first, 10))
    first, second = oscillators(platform, 1), oscillators(platform, 2)
    numbers = np.array_equal(after(first, 10), after(oscillators(platform, 2), 10))
    print(
        f"openmm {openmm.version.short_version}, {platform}: the same when run again {again}, beside another Context "
        f"{beside}; steps of seed 1 are those of seed 2 once a Context of seed 2 was made {numbers}"
    )
    assert again
    assert beside is independent
    assert numbers is not independent
PYTHON
