"""BiasUpdater: keeps the adaptive bias inside a Context in step with the one in Python."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit
from torch import Tensor

from latf_openmm.errors import ConfigError
from latf_openmm.md.backends.base import BIAS_NAME, stream_parameters
from latf_openmm.md.bias.base import AdaptiveBias
from latf_openmm.md.biased_system import BIAS_GROUP
from latf_openmm.md.cv import CollectiveVariables
from latf_openmm.md.exchange import Exchange


class BiasUpdater:
    """Update an adaptive bias every `bias.pace` steps; a reporter for `openmm.app.Simulation`.

    ``simulation.reporters.append(BiasUpdater(cv, bias))`` is all that is needed there; with a bare Context,
    call `update` after every `bias.pace` steps. Reporters that record the bias energy come before it in the
    list, so that a frame has the bias it was simulated with; OpenMM calls reporters that ask for no positions
    after all that do, wherever they are.

    Parameters
    ----------
    cv, bias
        As given to `add_bias`.
    n_copies
        Independent copies in the System; each is a walker, and they share the bias.
    name, group
        As given to `add_bias`.
    shared
        Folder through which walkers in other processes share the bias.
    walker
        Name of this one among them.
    """

    def __init__(
        self,
        cv: CollectiveVariables,
        bias: AdaptiveBias,
        *,
        n_copies: int = 1,
        name: str = BIAS_NAME,
        group: int = BIAS_GROUP,
        shared: Path | None = None,
        walker: str = "walker",
    ) -> None:
        if not isinstance(bias, AdaptiveBias):
            raise ConfigError(
                f"{type(bias).__name__} does not change while the simulation runs; it needs no updater"
            )
        self.cv = cv
        self.bias = bias
        self.n_copies = n_copies
        self.serial, self.value = stream_parameters(name)
        self.group = group
        self._initial = bias.snapshot()
        self.exchange: Exchange | None = None
        if shared is not None:
            if bias.width == 0:
                raise ConfigError(f"{type(bias).__name__} cannot be shared by several walkers")
            self.exchange = Exchange(shared, walker, bias.width)

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:  # noqa: N802 - OpenMM's name
        """Say when the next update is due; it needs positions."""
        steps = self.bias.pace - simulation.currentStep % self.bias.pace
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: Any, state: openmm.State) -> None:
        """Update the bias."""
        self.update(simulation.context, state)

    def update(self, context: openmm.Context, state: openmm.State | None = None) -> Tensor:
        """Update the bias from the walkers' present positions.

        Parameters
        ----------
        context
            A Context of the biased System.
        state
            Its present positions, if at hand.

        Returns
        -------
        Tensor
            The walkers' collective variables, shape (n_copies, dim).

        Raises
        ------
        ConfigError
            If the bias in the Context is not at the point where the one in Python is, or a collective
            variable is not finite.
        """
        self._check(context)
        z = self.variables(context, state)
        others = None if self.exchange is None else self.exchange.collect()
        for message in self.bias.update(z, others):
            self._send(context, message)
        if self.exchange is not None:
            self.exchange.publish(self.bias.added)
        return z

    @torch.no_grad()
    def variables(self, context: openmm.Context, state: openmm.State | None = None) -> Tensor:
        """Collective variables of all walkers, shape (n_copies, dim); `state` as for `update`."""
        state = state or context.getState(positions=True)
        xyz = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        box = torch.empty(0)
        if context.getSystem().usesPeriodicBoundaryConditions():
            vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            box = torch.from_numpy(np.array(vectors)).expand(self.n_copies, 3, 3)
        return self.cv(torch.from_numpy(xyz).reshape(self.n_copies, -1, 3), box)

    def save(self, path: Path | str) -> None:
        """Write the state of the bias; a file is only there when it is whole."""
        buffer = io.BytesIO()
        place = {} if self.exchange is None else self.exchange.position()
        torch.save({"bias": self.bias.snapshot(), "exchange": place}, buffer)
        partial = Path(f"{path}.partial")
        with partial.open("wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)

    def reset(self) -> None:
        """Forget everything since the updater was made; do so before `add_bias`."""
        self.bias.restore(self._initial)
        if self.exchange is not None:
            self.exchange.rewind({})

    def rewind(self, path: Path | str) -> None:
        """Go back in the shared folder to where the file that `save` wrote was; after `load_bias`."""
        if self.exchange is not None:
            self.exchange.rewind(torch.load(path, weights_only=True)["exchange"])

    def _send(self, context: openmm.Context, message: Tensor) -> None:
        serial = context.getParameter(self.serial)
        for number in message.tolist():
            serial += 1.0
            context.setParameter(self.value, number)
            context.setParameter(self.serial, serial)
            context.getState(forces=True, groups={self.group})  # the force takes the number

    def _check(self, context: openmm.Context) -> None:
        try:
            there = int(context.getParameter(self.serial))
        except openmm.OpenMMException:
            raise ConfigError(
                f"the Context has no adaptive bias of the name {self.serial.removesuffix('_serial')!r}; "
                "make its System with add_bias"
            ) from None
        if there != int(self.bias.sent):
            raise ConfigError(
                f"the bias in the Context has received {there} numbers, the one in Python has sent "
                f"{int(self.bias.sent)}: restore both from the same moment, the bias before add_bias"
            )


def load_bias(bias: AdaptiveBias, path: Path | str) -> None:
    """Continue from a file that `BiasUpdater.save` wrote; do so before `add_bias`.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or of another bias.
    """
    try:
        snapshot = torch.load(path, weights_only=True)["bias"]
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path}: not the state of a bias ({reason})") from None
    bias.restore(snapshot)
