"""Systems of a user, as Python files."""

WELL = """
import numpy as np
import openmm
from openmm import app

def make():
    system = openmm.System()
    system.addParticle(40.0)
    force = openmm.CustomExternalForce("20*(x^2-1)^2+3*x+100*y^2+100*z^2")
    force.addParticle(0, [])
    system.addForce(force)
    topology = app.Topology()
    topology.addAtom("AR", app.element.argon, topology.addResidue("AR", topology.addChain()))
    return system, topology, np.array([[-1.0, 0, 0]])
"""
"""One particle in a tilted double well along x, for `kind: python`."""
