"""Alanine dipeptide as if someone else had simulated it: a configuration, and a simulation to import."""

import openmm

from latf_openmm.run.config import RunConfig
from latf_openmm.run.imported.run import Importer


def dipeptide_config(frames: int, interval: int) -> RunConfig:
    """One walker at 300 K with so many frames, and steps of 2 fs between them."""
    return RunConfig.model_validate(
        {
            "system": {"kind": "alanine_dipeptide"},
            "simulation": {
                "temperatures": [300.0],
                "walkers": 1,
                "frames": frames,
                "frame_interval": interval,
                "timestep": 0.002,
                "friction": 1.0,
                "platform": "Reference",
            },
            "features": [{"kind": "torsions", "angles": ["phi", "psi"]}],
            "training": {"lag": 2},
        }
    )


def relaxed_context(importer: Importer, seed: int) -> openmm.Context:
    """A Context of the system at 300 K, after 200 steps."""
    built = importer.built
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(built.positions[0])
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(200)
    return context
