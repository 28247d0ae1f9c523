"""TorchForce: the TorchScript module runs inside the OpenMM plugin."""

import importlib
import logging
from types import ModuleType
from typing import Literal

import openmm

from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.force.force_module import force_module


def _plugin() -> ModuleType:
    """Import openmmtorch without what it says of simtk.openmm, which it imports, on the root logger."""
    root = logging.getLogger()
    handler, heard = logging.NullHandler(), root.level
    root.addHandler(handler)  # without any handler, its warning would install one for good
    root.setLevel(logging.ERROR)
    try:
        return importlib.import_module("openmmtorch")
    finally:
        root.setLevel(heard)
        root.removeHandler(handler)


def why_unavailable() -> str | None:
    """Return why TorchForce cannot be used here, or None when it can."""
    try:
        _plugin()
    except Exception as error:
        wheels = "latf-openmm[torchforce-cpu], -cuda12 or -cuda13"
        return f"the module openmmtorch cannot be imported ({error}); install {wheels}"
    # A GPU part that misses its driver does not matter to the Reference and CPU platforms.
    failures = [
        text
        for text in openmm.Platform.getPluginLoadFailures()
        if "OpenMMTorch" in text and not any(gpu in text for gpu in ("OpenCL", "CUDA", "HIP"))
    ]
    return f"its plugin did not load: {failures[0]}" if failures else None


def make_torch_force(
    energy: BiasEnergy,
    periodic: bool,
    forces: Literal["traced", "autograd"],
    parameters: dict[str, float],
    scaled: bool,
) -> openmm.Force:
    """Return a TorchForce of the bias with global parameters, in the order the module takes them."""
    openmmtorch = _plugin()
    module = force_module(energy, periodic, forces == "traced", scaled)
    force = openmmtorch.TorchForce(module)
    force.setOutputsForces(forces == "traced")
    force.setUsesPeriodicBoundaryConditions(periodic)
    for name, value in parameters.items():
        force.addGlobalParameter(name, value)
    return force
