"""The seam: which backend runs the bias, and the one function that makes the force."""

import logging
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Literal, get_args

import openmm
import torch

from latf_openmm.bias.force import compiled, pythonforce, torchforce
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.force.lowering import UnknownOperationError
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.standstill import Standstill
from latf_openmm.errors import BackendError
from latf_openmm.force_groups import BIAS_NAME

log = logging.getLogger(__name__)

BackendName = Literal["auto", "compiled", "python", "torchforce"]
ForcesName = Literal["traced", "autograd"]
BACKEND_NAMES: tuple[str, ...] = get_args(BackendName)
"""Names of the backends, `auto` among them."""
_BACKENDS: dict[BackendName, ModuleType] = {
    "compiled": compiled,
    "python": pythonforce,
    "torchforce": torchforce,
}
"""Modules of the backends, in the order in which `auto` tries them."""


def choose_backend(backend: BackendName, forces: ForcesName = "traced") -> BackendName:
    """Resolve ``"auto"``: the first backend that works here; and see whether another works.

    Raises
    ------
    BackendError
        If it does not work here, none does, or there is none of this name.
    """
    if backend not in BACKEND_NAMES:
        raise BackendError(f"unknown backend {backend!r}; expected one of {', '.join(BACKEND_NAMES)}")
    if backend == "auto" and forces == "autograd":
        backend = "torchforce"
    if backend != "auto":
        if reason := _BACKENDS[backend].why_unavailable():
            raise BackendError(f"backend {backend!r}: {reason}; see 'latf-openmm doctor'")
        return backend
    reasons = []
    for name, module in _BACKENDS.items():
        reason = module.why_unavailable()
        if reason is None:
            return name
        log.warning("backend %r is unavailable (%s)", name, reason)
        reasons.append(f"{name}: {reason}")
    raise BackendError(f"no backend can bias OpenMM here: {'; '.join(reasons)}")


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
        ``"compiled"``: machine code in a PythonForce; ``"python"``: torch in a PythonForce; ``"torchforce"``;
        ``"auto"``: the first of them that works here, and has all operations of the bias.
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
    messages = scale = watch = None
    if isinstance(energy.bias, AdaptiveBias):
        messages = messages_parameter(name), float(energy.bias.sent)
        watch = Standstill(energy.bias.pace, energy.bias.messages().path)
    if multistep:
        scale = scale_parameter(name), 1.0
    chosen = choose_backend(backend, forces)
    force: openmm.Force | None = None
    if chosen == "compiled":
        try:
            force = compiled.make_compiled_force(energy, periodic, messages, scale, watch)
        except UnknownOperationError as error:
            if backend != "auto":
                raise
            log.warning("the bias is not compiled: %s; backend 'python' is used", error)
    parameters = dict(item for item in (messages, scale) if item is not None)
    if chosen == "torchforce":
        force = torchforce.make_torch_force(energy, periodic, forces, parameters, multistep)
    elif force is None:
        force = pythonforce.make_python_force(energy, periodic, parameters, multistep, watch)
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
