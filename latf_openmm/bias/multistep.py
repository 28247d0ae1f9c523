"""The bias only every few steps: multiple time stepping without one more evaluation of anything."""

from numbers import Integral
from typing import Any

import openmm

from latf_openmm.bias.force.base import scale_parameter
from latf_openmm.bias.placement import bias_group, check_integrated
from latf_openmm.errors import ConfigError
from latf_openmm.force_groups import BIAS_NAME

_ALL = 0xFFFFFFFF
"""Bits of all 32 force groups."""


class MultistepStepper:
    """Takes the steps of a Context's integrator, with the bias at every n-th step only, n times as strong.

    Impulse multiple time stepping (r-RESPA) for OpenMM's own integrators that evaluate the forces once a step, as
    `openmm.LangevinMiddleIntegrator` does. Steps are counted as ever: by reporters, the pace of an adaptive bias,
    barostats. `openmm.MTSLangevinIntegrator` evaluates all other forces once more for each evaluation of the bias,
    which costs more than it saves where the bias is the cheap part.

    With a bare Context call `step`; in an `openmm.app.Simulation` put it in the place of the integrator::

        system = latf.add_bias(system, cv, bias, multistep=True)
        ...
        simulation.integrator = MultistepStepper(simulation.context, every=2)

    Parameters
    ----------
    context
        Of a System made by `add_bias` with ``multistep=True``.
    every
        Steps between evaluations of the bias.
    name
        As given to `add_bias`.

    Raises
    ------
    ConfigError
        If the Context has no such bias, its integrator leaves the bias out, or is a CustomIntegrator, which does not
        let forces be left out in between, or `every` is not an integer of 1 or more.

    Notes
    -----
    A stiff bias limits the time between its evaluations: with curvature k and omega^2 = k sum_i |dz/dx_i|^2 / m_i
    it is unstable above omega * time of about 2. Measured on alanine dipeptide, with variables of unit spread: steps
    of 2 fs and the bias at every second one left the mean energy of a restraint of 10 or 50 kJ/mol per z^2 as it
    was (0.7 +- 1.8 %), one of 200 became 27 % too large; with 4 fs a restraint of 10 became 6 % too large. So no
    more than 4 fs between evaluations, and none left out with a stiff restraint (``docs/benchmarks/biasing.md``).
    """

    context: openmm.Context
    integrator: openmm.Integrator
    every: int
    scale: str
    group: int

    def __init__(self, context: openmm.Context, every: int, *, name: str = BIAS_NAME) -> None:
        if not isinstance(every, Integral) or every < 1:
            raise ConfigError(f"every: expected an integer of 1 or more, got {every!r}")
        self.context = context
        self.integrator = context.getIntegrator()
        self.every = int(every)
        if isinstance(self.integrator, openmm.CustomIntegrator):
            raise ConfigError(
                f"{type(self.integrator).__name__} evaluates the same forces at every step; use an integrator such as "
                "LangevinMiddleIntegrator"
            )
        self.scale = scale_parameter(name)
        if self.scale not in dict(context.getParameters()):
            raise ConfigError(
                f"the Context has no bias of the name {name!r} for multiple time stepping; make its System with "
                "add_bias(..., multistep=True)"
            )
        check_integrated(context, name)
        self.group = bias_group(context.getSystem(), name)

    def step(self, steps: int) -> None:
        """Take steps; the bias acts at those whose number (the Context's step count) is a multiple of `every`."""
        before = self.integrator.getIntegrationForceGroups()
        self.context.setParameter(self.scale, float(self.every))
        phase = self.context.getStepCount() % self.every
        try:
            while steps > 0:
                due = phase == 0
                now = 1 if due else min(steps, self.every - phase)
                self.integrator.setIntegrationForceGroups(
                    before if due else before & (_ALL ^ (1 << self.group))
                )
                self.integrator.step(now)
                steps -= now
                phase = (phase + now) % self.every
        finally:
            self.integrator.setIntegrationForceGroups(before)
            self.context.setParameter(self.scale, 1.0)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the integrator's."""
        return getattr(self.integrator, name)
