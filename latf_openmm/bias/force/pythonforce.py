"""PythonForce: OpenMM calls back into Python; needs no plugin and any torch version."""

import copy
import io
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray

from latf_openmm.bias import torchscript
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.force.force_module import force_module
from latf_openmm.bias.standstill import Standstill

_POSITIONS = openmm.State.Positions
"""What is asked for of a State."""


class TorchComputation:
    """Picklable callable State -> (energy, forces), as PythonForce wants it.

    `watch` looks whether anything adds to an adaptive bias, whose number of messages is the first parameter.
    """

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        periodic: bool,
        parameters: tuple[str, ...],
        watch: Standstill | None = None,
    ) -> None:
        self.module = module
        self.periodic = periodic
        self.parameters = parameters
        self.watch = watch
        self._positions = np.empty((0, 3))
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Evaluate the module on the State's positions and box."""
        n = state._getNumParticles()
        if len(self._positions) != n:
            self._positions = np.empty((n, 3))
        state._getVectorAsNumpy(
            _POSITIONS, self._positions
        )  # without units, which cost more than the network
        arguments = [torch.from_numpy(self._positions)]
        if self.periodic:
            arguments.append(torch.tensor(state.getPeriodicBoxVectors()._value, dtype=torch.float64))
        if self.parameters:
            values = state.getParameters()
            arguments += [self._parameter(name, values[name]) for name in self.parameters]
            if self.watch is not None:
                self.watch = self.watch.look(state, int(values[self.parameters[0]]))
        with torch.inference_mode():
            energy, forces = self.module(*arguments)
        return energy.item(), forces.numpy()  # kJ/mol and kJ/mol/nm, as PythonForce takes them

    def _parameter(self, name: str, value: float) -> torch.Tensor:
        known = self._known.get(name)
        if known is None or known.item() != value:
            known = self._known[name] = torch.tensor(value, dtype=torch.float64)
        return known

    def __getstate__(self) -> dict[str, Any]:
        """Keep the module as TorchScript bytes."""
        buffer = io.BytesIO()
        torchscript.save(self.module, buffer)
        kept = {name: self.__dict__[name] for name in ("periodic", "parameters", "watch")}
        return {"module": buffer.getvalue(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the module from its bytes."""
        module = torchscript.load(io.BytesIO(state["module"]))
        self.__init__(module, state["periodic"], state["parameters"], state.get("watch"))  # type: ignore[misc]


def why_unavailable() -> str | None:
    """Return why PythonForce cannot be used here, or None when it can."""
    if hasattr(openmm, "PythonForce"):
        return None
    return f"OpenMM {openmm.__version__} has no PythonForce; 8.5 or newer is needed"


def make_python_force(
    energy: BiasEnergy,
    periodic: bool,
    parameters: dict[str, float],
    scaled: bool,
    watch: Standstill | None = None,
) -> openmm.Force:
    """Return a PythonForce of the bias with global parameters, in the order the module takes them."""
    # The traced module shares its constants with `energy`; a force keeps what it was made with.
    module = torchscript.freeze(copy.deepcopy(force_module(energy, periodic, True, scaled)))
    force = openmm.PythonForce(TorchComputation(module, periodic, tuple(parameters), watch), parameters)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force
