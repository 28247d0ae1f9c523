"""What a PythonForce calls: positions of a State to energy and forces, by compiled code."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from latf_openmm.bias.compiled.layout import Layout
from latf_openmm.bias.compiled.loops import instructions
from latf_openmm.bias.compiled.machine import compiled
from latf_openmm.bias.compiled.program import BOX, Program
from latf_openmm.bias.compiled.program_file import from_bytes, state_rows, to_bytes

StateAt = Callable[[int], NDArray[np.float64]]
"""The state of an adaptive bias when a number of messages had been sent."""
_POSITIONS = openmm.State.Positions


class CompiledComputation:
    """Picklable callable State -> (energy, forces), as PythonForce wants it.

    Parameters
    ----------
    program
        Of one copy.
    n_copies
        Copies in the System, one after the other.
    state
        State of a static bias; or what returns that of an adaptive one.
    messages
        Name of the global parameter with the number of messages of an adaptive bias.
    scale
        Name of the global parameter that multiplies the forces; None: there is none.

    Notes
    -----
    Contexts may share a computation: what it keeps between calls depends on the arguments alone, and a call is made
    with Python's global lock.
    """

    def __init__(
        self,
        program: Program,
        n_copies: int,
        state: NDArray[np.float64] | StateAt,
        *,
        messages: str | None = None,
        scale: str | None = None,
    ) -> None:
        self.program = program
        self.n_copies = n_copies
        self.state = state
        self.messages = messages
        self.scale = scale
        self._ready = False

    def prepare(self) -> None:
        """Compile, and make room.

        Raises
        ------
        BackendError
            If LLVM cannot compile for this processor.
        """
        program, layout = self.program, Layout(self.program)
        self._function = compiled(instructions(program, layout))
        self._layout = layout
        self._positions = np.zeros((self.n_copies * program.n_atoms, 3))
        self._forces = np.zeros_like(self._positions)
        self._box = np.zeros(9)
        self._needs_box = program.reads(BOX)
        self._named = tuple(name for name in (self.messages, self.scale) if name is not None)
        self._sent = -1
        self._scratch = np.zeros(0)
        memory = (
            self._positions,
            self._forces,
            self._box,
            self._box,
            self._box,
            layout.constants,
            layout.integers,
        )
        self._table = np.array([item.ctypes.data for item in memory] + [self.n_copies], dtype=np.int64)
        self._address = int(self._table.ctypes.data)
        if not callable(self.state):
            self._take(self.state)
        self._ready = True

    def _take(self, state: NDArray[np.float64]) -> None:
        """Use a state from now on."""
        self._rows = state_rows(self.program, state)
        self._values = np.ascontiguousarray(state, dtype=np.float64)
        size = self._layout.scratch.at(self._rows)
        if len(self._scratch) < size:
            self._scratch = np.zeros(2 * size)  # kernels are added one by one
        self._table[3:5] = self._values.ctypes.data, self._scratch.ctypes.data

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Return the energy [kJ/mol] and the forces [kJ/mol/nm] for the State's positions."""
        if not self._ready:
            self.prepare()
        state._getVectorAsNumpy(_POSITIONS, self._positions)
        if self._needs_box:
            self._box[:] = np.ravel(state.getPeriodicBoxVectors()._value)
        scale = 1.0
        if self._named:
            values = state.getParameters()
            if self.messages is not None and (sent := int(values[self.messages])) != self._sent:
                self._take(self.state(sent))  # type: ignore[operator]
                self._sent = sent
            if self.scale is not None:
                scale = values[self.scale]
        energy = self._function(self._address, self._rows)
        return energy, self._forces if scale == 1.0 else self._forces * scale

    def __getstate__(self) -> dict[str, Any]:
        """Keep the program as bytes with their hash."""
        kept = {name: self.__dict__[name] for name in ("n_copies", "state", "messages", "scale")}
        return {"program": to_bytes(self.program), **kept}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Read and check the program; it is compiled at the first call."""
        self.__init__(  # type: ignore[misc]
            from_bytes(kept["program"], "the bias in a PythonForce"),
            kept["n_copies"],
            kept["state"],
            messages=kept["messages"],
            scale=kept["scale"],
        )


def compiled_force(
    program: Program,
    n_copies: int,
    state: NDArray[np.float64] | StateAt,
    periodic: bool,
    *,
    messages: tuple[str, float] | None = None,
    scale: tuple[str, float] | None = None,
) -> openmm.PythonForce:
    """Return a force, whose code is compiled now.

    Parameters
    ----------
    program, n_copies, state
        As for `CompiledComputation`.
    periodic
        Whether the System has a box.
    messages, scale
        Global parameters: name and value; as for `CompiledComputation`.

    Raises
    ------
    BackendError
        If LLVM cannot compile for this processor.
    """
    particles = _particles(program, n_copies)
    if particles is not None:  # OpenMM gives those alone
        few = len(program.atoms)
        program = replace(program, atoms=np.arange(few), n_atoms=few)
    parameters = dict(item for item in (messages, scale) if item is not None)
    names = {"messages": messages and messages[0], "scale": scale and scale[0]}
    computation = CompiledComputation(program, n_copies, state, **names)
    computation.prepare()
    force = openmm.PythonForce(computation, parameters)
    force.setUsesPeriodicBoundaryConditions(periodic)
    if particles is not None:
        force.setParticles(particles)
    return force


def _particles(program: Program, n_copies: int) -> list[int] | None:
    """Particles of the program's atoms, where they are not all and OpenMM (8.6 or newer) can leave others out."""
    if len(program.atoms) == program.n_atoms or not hasattr(openmm.PythonForce, "setParticles"):
        return None
    first = np.arange(n_copies)[:, None] * program.n_atoms
    return [int(particle) for particle in (first + program.atoms).ravel()]
