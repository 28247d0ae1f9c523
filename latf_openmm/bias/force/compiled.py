"""Compiled: the recorded graph as one function of machine code in a PythonForce; no torch at a step."""

from importlib.util import find_spec

import numpy as np
import openmm
import torch
from numpy.typing import NDArray

from latf_openmm.bias.compiled.program import Program
from latf_openmm.bias.cv import UsedAtomsCV
from latf_openmm.bias.force import pythonforce
from latf_openmm.bias.force.bias_energy import BiasEnergy, elementary_graph
from latf_openmm.bias.force.force_module import AdaptiveState
from latf_openmm.bias.force.lowered_choices import HANDLERS
from latf_openmm.bias.force.lowering import Lowering
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.standstill import Standstill


def why_unavailable() -> str | None:
    """Return why nothing can be compiled here, or None when it can."""
    if reason := pythonforce.why_unavailable():
        return reason
    if find_spec("llvmlite") is None:
        return "the module llvmlite, which compiles, is missing; install it with pip"
    return None


class StateAt:
    """The state of an adaptive bias when so many messages had been sent, by `AdaptiveState`."""

    def __init__(self, bias: AdaptiveBias) -> None:
        self.module = AdaptiveState(bias)

    @torch.no_grad()
    def __call__(self, sent: int) -> NDArray[np.float64]:
        """Return the state.

        Raises
        ------
        RuntimeError
            If that was before the force was made.
        """
        self.module(torch.tensor(float(sent)))
        return np.asarray(self.module.state.numpy(), dtype=np.float64)


def program_of(energy: BiasEnergy, periodic: bool) -> Program:
    """Return the program of the energy and forces of one copy.

    Raises
    ------
    UnknownOperationError
        If it has an operation that no program has.
    ModelError
        If the collective variables cannot be recorded.
    """
    cv = energy.cv
    graph, examples = elementary_graph(BiasEnergy(UsedAtomsCV(cv), energy.bias), periodic)
    program = Program(cv.used_atoms().numpy().astype(np.int64), energy.n_atoms)
    if len(examples) > 1:
        (x, box, first), (_, _, second) = examples[:2]
        third = torch.cat([second, second[: len(second) - len(first)]])
        examples = [*examples[:2], (x, box, third)]
    return Lowering(graph, examples, program).run(HANDLERS)


def make_compiled_force(
    energy: BiasEnergy,
    periodic: bool,
    messages: tuple[str, float] | None = None,
    scale: tuple[str, float] | None = None,
    watch: Standstill | None = None,
) -> openmm.Force:
    """Return a PythonForce of the bias.

    Parameters
    ----------
    energy
        Collective variables and bias of all copies.
    periodic
        Whether it is given the box.
    messages, scale
        Global parameters, name and value: the number of messages, and the factor on the forces.
    watch
        Looks whether anything adds to an adaptive bias.

    Raises
    ------
    BackendError
        If LLVM cannot compile for this processor.
    ModelError
        If the graph has an operation that no program has.
    """
    from latf_openmm.bias.compiled.computation import compiled_force  # llvmlite may be missing

    bias = energy.bias
    state = StateAt(bias) if isinstance(bias, AdaptiveBias) else bias.state.numpy().copy()
    program = program_of(energy, periodic)
    return compiled_force(
        program, energy.n_copies, state, periodic, messages=messages, scale=scale, watch=watch
    )
