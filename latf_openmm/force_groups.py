"""Force groups of a System: which one a bias is in, and by which name it is known there."""

import openmm

from latf_openmm.errors import ConfigError

BIAS_NAME = "LatentBias"
"""Name of the force of a bias, unless another is given."""
BIAS_GROUP = 31
"""Force group of a bias where no other force is in it."""
_N_GROUPS = 32
"""Number of force groups that OpenMM has."""


def free_force_group(system: openmm.System, source: str = "system") -> int:
    """Return the highest force group that no force of the System is in.

    Raises
    ------
    ConfigError
        If there is none.
    """
    used = {force.getForceGroup() for force in system.getForces()}
    free = [group for group in range(_N_GROUPS) if group not in used]
    if not free:
        raise ConfigError(
            f"{source}: its forces are in all {_N_GROUPS} force groups; a bias needs one for itself, so put two "
            "forces into the same group"
        )
    return free[-1]
