"""The bias only every few steps: a multiple-time-step Langevin integrator over force groups."""

from numbers import Integral
from typing import Any

import openmm
from openmm import unit

from latf_openmm.errors import ConfigError
from latf_openmm.md.biased_system import BIAS_GROUP
from latf_openmm.units import plain


def multistep_integrator(
    system: openmm.System,
    temperature: Any,
    friction: Any,
    timestep: Any,
    bias_every: int,
    group: int = BIAS_GROUP,
) -> openmm.MTSLangevinIntegrator:
    """Return a Langevin integrator (BAOAB-RESPA) that evaluates the bias every `bias_every` steps.

    One `step()` of it is one outer step of ``bias_every * timestep``: a kick by the bias, `bias_every`
    steps of everything else, a kick by the bias. Whatever counts steps counts outer ones: reporters,
    ``currentStep``, the `pace` of an adaptive bias, the frequency of a barostat. Change the forces or
    their groups before, not after.

    Parameters
    ----------
    system
        A System that `add_bias` returned.
    temperature
        In kelvin, or an OpenMM quantity.
    friction
        In 1/ps, or an OpenMM quantity.
    timestep
        Of everything but the bias, in ps, or an OpenMM quantity.
    bias_every
        Steps between evaluations of the bias.
    group
        Force group of the bias.

    Raises
    ------
    ConfigError
        If no force is in that group, one of the numbers makes no sense, or the System has virtual sites.

    Notes
    -----
    A stiff bias limits the outer step: with curvature k and omega^2 = k sum_i |dz/dx_i|^2 / m_i it is
    unstable above omega * outer step of about 2. Measured on alanine dipeptide (distances and torsions,
    hidden layer of 32, z of standard deviation 1.2 and 1.5, friction 2/ps, 120 ps each), with steps of
    2 fs: a restraint of 50 kJ/mol per z^2 (omega about 150/ps) had a mean bias energy 4 +- 4 % higher
    with the bias every 2 steps than every step, 10 +- 3 % every 4 (variance of z 8 and 13 %), heated the
    molecule by 14 +- 6 K every 5, and was unstable every 8; with 200 kJ/mol per z^2 every 4 was unstable,
    too. With 4 fs (hydrogens of 3 amu) every 2 made the variance 32 % too large. So no more than 4 fs
    between evaluations there.
    """
    if not isinstance(bias_every, Integral) or bias_every < 1:
        raise ConfigError(f"bias_every: expected an integer of 1 or more, got {bias_every!r}")
    numbers = {
        "temperature": plain(temperature, unit.kelvin),
        "friction": plain(friction, unit.picosecond**-1),
        "timestep": plain(timestep, unit.picosecond),
    }
    for name, value in numbers.items():
        if not value > 0:
            raise ConfigError(f"{name}: must be above 0, got {value:g}")
    groups = force_groups(system)
    if group not in groups:
        there = ", ".join(map(str, sorted(groups))) or "none"
        raise ConfigError(
            f"the System has no force in group {group}, where the bias should be; groups: {there}"
        )
    if any(system.isVirtualSite(particle) for particle in range(system.getNumParticles())):
        raise ConfigError(
            "the System has virtual sites: between the steps of this integrator OpenMM does not move them "
            "on every platform, and the forces on them would be late"
        )
    every = int(bias_every)
    others = sorted(groups - {group}) or [0 if group != 0 else 1]
    return openmm.MTSLangevinIntegrator(
        numbers["temperature"],
        numbers["friction"],
        every * numbers["timestep"],
        [(group, 1), *((other, every) for other in others)],
    )


def force_groups(system: openmm.System) -> set[int]:
    """Force groups in use, those of reciprocal-space sums included."""
    groups = set()
    for force in system.getForces():
        groups.add(force.getForceGroup())
        if isinstance(force, openmm.NonbondedForce) and force.getReciprocalSpaceForceGroup() >= 0:
            groups.add(force.getReciprocalSpaceForceGroup())
    return groups
