"""What a PythonForce calls: positions of a State to energy and forces, by compiled code."""

import threading
from collections.abc import Callable
from dataclasses import replace
from threading import get_ident
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from latf_openmm.bias.compiled.layout import Layout
from latf_openmm.bias.compiled.loops import instructions
from latf_openmm.bias.compiled.machine import Function, compiled
from latf_openmm.bias.compiled.program import BOX, Program
from latf_openmm.bias.compiled.program_file import from_bytes, state_rows, to_bytes
from latf_openmm.bias.standstill import Standstill

StateAt = Callable[[int], NDArray[np.float64]]
"""The state of an adaptive bias when a number of messages had been sent."""
_POSITIONS = openmm.State.Positions
"""What is asked for of a State."""
_STATE = 3
"""Place of the address of the state in the table; that of the scratch memory follows."""


class CompiledComputation:
    """Picklable callable State -> (energy, forces), as PythonForce wants it; several threads may call it.

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
    watch
        Looks whether anything adds to an adaptive bias; None: nothing has to.
    """

    def __init__(
        self,
        program: Program,
        n_copies: int,
        state: NDArray[np.float64] | StateAt,
        *,
        messages: str | None = None,
        scale: str | None = None,
        watch: Standstill | None = None,
    ) -> None:
        self.program = program
        self.n_copies = n_copies
        self.state = state
        self.messages = messages
        self.scale = scale
        self.watch = watch
        self._lock = threading.RLock()
        self._layout: Layout | None = None
        self._function: Function
        self._threads: dict[int, _Workspace] = {}

    def prepare(self) -> None:
        """Compile.

        Raises
        ------
        BackendError
            If LLVM cannot compile for this processor.
        """
        self._layout = Layout(self.program)
        self._function = compiled(instructions(self.program, self._layout))

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Return the energy [kJ/mol] and the forces [kJ/mol/nm] for the State's positions."""
        workspace = self._threads.get(get_ident()) or self._workspace()
        return workspace(state)

    def _workspace(self) -> "_Workspace":
        """Make room for a thread."""
        with self._lock:
            if self._layout is None:
                self.prepare()
            assert self._layout is not None
            workspace = self._threads[get_ident()] = _Workspace(self, self._layout, self._function)
        return workspace

    def state_at(self, sent: int) -> NDArray[np.float64]:
        """Return a copy of the state when so many messages had been sent."""
        with self._lock:
            state = self.state(sent) if callable(self.state) else self.state
            return np.array(state, dtype=np.float64, order="C")

    def __getstate__(self) -> dict[str, Any]:
        """Keep the program as bytes with their hash."""
        kept = {name: self.__dict__[name] for name in ("n_copies", "state", "messages", "scale", "watch")}
        return {"program": to_bytes(self.program), **kept}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Read and check the program; it is compiled at the first call."""
        self.__init__(  # type: ignore[misc]
            from_bytes(kept["program"], "the bias in a PythonForce"),
            kept["n_copies"],
            kept["state"],
            messages=kept["messages"],
            scale=kept["scale"],
            watch=kept.get("watch"),
        )


class _Workspace:
    """Memory that one thread computes in: OpenMM reads the forces after the call."""

    def __init__(self, owner: CompiledComputation, layout: Layout, function: Function) -> None:
        program = owner.program
        self._owner = owner
        self._layout = layout
        self._function = function
        self._positions = np.zeros((owner.n_copies * program.n_atoms, 3))
        self._forces = np.zeros_like(self._positions)
        self._box = np.zeros(9)
        self._needs_box = program.reads(BOX)
        self._messages, self._scale = owner.messages, owner.scale
        self._needs_parameters = owner.messages is not None or owner.scale is not None
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
        self._table = np.array([item.ctypes.data for item in memory] + [owner.n_copies], dtype=np.int64)
        self._address = int(self._table.ctypes.data)
        self._sent = -1
        if owner.messages is None:
            self._take(0)

    def _take(self, sent: int) -> None:
        """Use the state of a moment from now on."""
        self._state = self._owner.state_at(sent)
        self._rows = state_rows(self._owner.program, self._state)
        size = self._layout.scratch.at(self._rows)
        if len(self._scratch) < size:
            self._scratch = np.zeros(2 * size)  # kernels are added one by one
        self._table[_STATE : _STATE + 2] = self._state.ctypes.data, self._scratch.ctypes.data
        self._sent = sent

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        # Without units, which would cost most of the time.
        state._getVectorAsNumpy(_POSITIONS, self._positions)
        if self._needs_box:
            self._box[:] = np.ravel(state.getPeriodicBoxVectors()._value)
        scale = 1.0
        if self._needs_parameters:
            values = state.getParameters()
            if self._messages is not None:
                if (sent := int(values[self._messages])) != self._sent:
                    self._take(sent)
                if (watch := self._owner.watch) is not None:
                    self._owner.watch = watch.look(state, sent)
            if self._scale is not None:
                scale = values[self._scale]
        energy = self._function(self._address, self._rows)
        return energy, self._forces if scale == 1.0 else self._forces * scale


def compiled_force(
    program: Program,
    n_copies: int,
    state: NDArray[np.float64] | StateAt,
    periodic: bool,
    *,
    messages: tuple[str, float] | None = None,
    scale: tuple[str, float] | None = None,
    watch: Standstill | None = None,
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
    watch
        As for `CompiledComputation`.

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
    computation = CompiledComputation(program, n_copies, state, watch=watch, **names)
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
