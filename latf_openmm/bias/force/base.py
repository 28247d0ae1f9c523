"""The seam: which backend runs the bias, and the one function that makes the force."""

import logging
from contextlib import AbstractContextManager
from typing import Literal, get_args

import openmm
import torch

from latf_openmm.bias.force import pythonforce, torchforce
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.errors import BackendError
from latf_openmm.systems.inspection import BIAS_NAME

log = logging.getLogger(__name__)

BackendName = Literal["auto", "torchforce", "python"]
ForcesName = Literal["traced", "autograd"]
BACKEND_NAMES: tuple[str, ...] = get_args(BackendName)
"""Names of the backends, `auto` among them."""


def choose_backend(backend: BackendName) -> Literal["torchforce", "python"]:
    """Resolve ``"auto"``: TorchForce where its plugin works, else PythonForce.

    Raises
    ------
    BackendError
        If no backend works here.
    """
    if backend not in BACKEND_NAMES:
        raise BackendError(f"unknown backend {backend!r}; expected one of {', '.join(BACKEND_NAMES)}")
    if backend != "auto":
        return backend
    reason = torchforce.why_unavailable()
    if reason is None:
        return "torchforce"
    other = pythonforce.why_unavailable()
    if other is not None:
        raise BackendError(f"no backend can bias OpenMM here: TorchForce: {reason}; PythonForce: {other}")
    log.warning("TorchForce is unavailable (%s); using PythonForce", reason)
    return "python"


def make_force(
    energy: BiasEnergy,
    *,
    backend: BackendName = "auto",
    forces: ForcesName = "traced",
    periodic: bool = False,
    multistep: bool = False,
    name: str = BIAS_NAME,
) -> openmm.Force:
    """Return one OpenMM force that holds the bias.

    Parameters
    ----------
    energy
        Collective variables and bias of all copies.
    backend
        ``"torchforce"``, ``"python"`` or ``"auto"``.
    forces
        ``"traced"``: forces from a graph recorded beforehand, which runs on the CPU whatever the platform;
        ``"autograd"``: TorchForce differentiates at every step, on the platform's device.
    periodic
        Whether the collective variables see the periodic box.
    multistep
        Whether `MultistepStepper` is to use the force: it gets a global parameter, a factor on its forces.
    name
        Of the force; the global parameter of an adaptive bias starts with it.
    """
    parameters: dict[str, float] = {}
    if isinstance(energy.bias, AdaptiveBias):
        parameters = {messages_parameter(name): float(energy.bias.sent)}
    if multistep:
        parameters[scale_parameter(name)] = 1.0
    if choose_backend(backend) == "python":
        force = pythonforce.make_python_force(energy, periodic, parameters, multistep)
    else:
        force = torchforce.make_torch_force(energy, periodic, forces, parameters, multistep)
    force.setName(name)
    return force


def stepping(forces: ForcesName) -> AbstractContextManager[None]:
    """Return a context manager to take steps in.

    Recorded forces are not differentiated, so they can do without what torch does for that at every operation: a fifth
    of their time. TorchForce works in the thread that takes the steps.
    """
    return torch.inference_mode(forces == "traced")


def messages_parameter(name: str) -> str:
    """Name of the global parameter that tells the adaptive bias of a force how many messages there are."""
    return f"{name}_messages"


def scale_parameter(name: str) -> str:
    """Name of the global parameter that multiplies the forces of a bias."""
    return f"{name}_scale"
