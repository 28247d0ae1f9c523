"""Compiled: the recorded graph as one function of machine code in a PythonForce; no torch at a step."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor

from latf_openmm.bias.compiled.program import Program
from latf_openmm.bias.cv import UsedAtomsCV
from latf_openmm.bias.force import pythonforce
from latf_openmm.bias.force.bias_energy import BiasEnergy, elementary_graph
from latf_openmm.bias.force.lowered_choices import HANDLERS
from latf_openmm.bias.force.lowering import Lowering
from latf_openmm.bias.potentials.base import AdaptiveBias, StateUpdate
from latf_openmm.errors import BackendError, DataError


def why_unavailable() -> str | None:
    """Return why nothing can be compiled here, or None when it can."""
    if reason := pythonforce.why_unavailable():
        return reason
    if find_spec("llvmlite") is None:
        return "the module llvmlite, which compiles, is missing; install it with pip"
    return None


class StateAt:
    """The state that so many messages of an adaptive bias have made of the first one; see `AdaptiveState`."""

    def __init__(self, bias: AdaptiveBias) -> None:
        self.state_update: StateUpdate = bias.state_update
        self.size = bias.message_size
        self.path = bias.messages().path
        self.start = bias.messages().start
        self.first = int(bias.sent)
        self.initial = bias.state.clone()
        self.count, self.state = self.first, self.initial

    @torch.no_grad()
    def __call__(self, sent: int) -> NDArray[np.float64]:
        """Return the state at the moment when so many messages had been sent.

        Raises
        ------
        BackendError
            If that was before the force was made.
        """
        if sent < self.first:
            raise BackendError("the bias in this Context is a later one: make its System anew with add_bias")
        if sent < self.count:
            self.count, self.state = self.first, self.initial
        for message in self._messages(self.count, sent):
            self.state = self.state_update(self.state, message)
        self.count = sent
        return np.asarray(self.state.numpy(), dtype=np.float64)

    def _messages(self, first: int, last: int) -> Tensor:
        """Messages from the file, one a row."""
        if first == last:
            return torch.empty(0, self.size, dtype=torch.float64)
        with Path(self.path).open("rb") as file:
            file.seek(8 * self.size * (first - self.start))
            content = np.frombuffer(file.read(8 * self.size * (last - first)))
        if len(content) != self.size * (last - first):
            raise DataError(f"{self.path}: {len(content) // self.size} messages, expected {last - first}")
        return torch.from_numpy(content.reshape(-1, self.size).copy())


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
    return compiled_force(program, energy.n_copies, state, periodic, messages=messages, scale=scale)
