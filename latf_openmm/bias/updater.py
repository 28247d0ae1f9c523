"""BiasUpdater: keeps the adaptive bias inside a Context in step with the one in Python."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import openmm
import torch
from openmm import unit
from torch import Tensor

from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.exchange import Exchange, file_name
from latf_openmm.bias.force.base import messages_parameter
from latf_openmm.bias.placement import check_integrated
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.standstill import note_updater
from latf_openmm.bias.thermostat import compare_temperatures
from latf_openmm.errors import ConfigError, first_line
from latf_openmm.force_groups import BIAS_NAME
from latf_openmm.storage import atomic_file


class BiasUpdater:
    """Update an adaptive bias every `bias.pace` steps; a reporter for `openmm.app.Simulation`.

    A warning says so where the thermostat is not at the temperature of the bias.

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
    name
        As given to `add_bias`.
    shared
        Folder through which walkers in other processes share the bias.
    walker
        Name of this one among them.
    walker_kT
        Thermal energy of each copy [kJ/mol], where walkers at several temperatures share the bias; default:
        that of the bias.
    """

    def __init__(
        self,
        cv: CollectiveVariables,
        bias: AdaptiveBias,
        *,
        n_copies: int = 1,
        name: str = BIAS_NAME,
        shared: Path | None = None,
        walker: str = "walker",
        walker_kT: Sequence[float] | None = None,
    ) -> None:
        if not isinstance(bias, AdaptiveBias):
            raise ConfigError(
                f"{type(bias).__name__} does not change while the simulation runs; it needs no updater"
            )
        self.cv = cv
        self.bias = bias
        self.n_copies = n_copies
        self.walker_kT: Tensor | None = None
        if walker_kT is not None:
            self.use_temperatures(walker_kT)
        self.name = name
        self.parameter = messages_parameter(name)
        self._initial = bias.snapshot()
        self._compared = False
        bias.has_updater = True
        note_updater(bias.messages().path)
        self.exchange: Exchange | None = None
        if shared is not None:
            if bias.width == 0:
                raise ConfigError(f"{type(bias).__name__} cannot be shared by several walkers")
            self.exchange = Exchange(shared, walker, bias.width)

    def use_temperatures(self, walker_kT: Sequence[float]) -> None:
        """Take walkers to have these thermal energies [kJ/mol] from now on, one for each copy."""
        if len(walker_kT) != self.n_copies or not all(kT > 0 for kT in walker_kT):
            raise ConfigError(f"walker_kT: expected {self.n_copies} numbers above 0, got {list(walker_kT)}")
        self.walker_kT = torch.tensor(list(walker_kT), dtype=torch.float64)

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:  # noqa: N802 - OpenMM's name
        """Say when the next update is due; it needs positions.

        Raises
        ------
        ConfigError
            If the bias does not act in the simulation, or is of another moment than the one in Python.
        """
        self._check(simulation.context)
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
            If the bias in the Context is not at the point where the one in Python is, its integrator leaves the
            bias out, or a collective variable is not finite.
        """
        self._check(context)
        z = self.variables(context, state)
        others = None if self.exchange is None else self.exchange.collect()
        messages = self.bias.update(z, others, self.walker_kT)
        if messages:
            self.bias.messages().append(messages)
            context.setParameter(self.parameter, float(self.bias.sent))
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
        """Write the state of the bias; a file exists only when it is complete."""
        place = {} if self.exchange is None else self.exchange.position()
        content = io.BytesIO()  # torch's own writer does not say why it fails
        torch.save({"bias": self.bias.snapshot(), "exchange": place}, content)
        with atomic_file(Path(path)) as temporary:
            temporary.write_bytes(content.getvalue())

    def reset(self) -> None:
        """Forget everything since the updater was made; do so before `add_bias`."""
        self.bias.restore(self._initial)
        if self.exchange is not None:
            self.exchange.rewind({})

    def read_others(self, written: Mapping[str, int]) -> None:
        """From now on take so many bytes of what each other walker wrote, by its name, and no more until told again."""
        if self.exchange is not None:
            self.exchange.limits = {file_name(walker): n_bytes for walker, n_bytes in written.items()}

    def rewind(self, path: Path | str) -> None:
        """Go back in the shared folder to where the file that `save` wrote was; after `load_bias`."""
        if self.exchange is not None:
            self.exchange.rewind(_read(path)["exchange"])

    def _thermal_energy(self) -> float | None:
        """Thermal energy that the thermostat should have [kJ/mol]; None where it has several, or any will do."""
        if self.walker_kT is None:
            return self.bias.thermal_energy()
        lowest, highest = float(self.walker_kT.min()), float(self.walker_kT.max())
        return lowest if lowest == highest else None

    def _check(self, context: openmm.Context) -> None:
        try:
            received = int(context.getParameter(self.parameter))
        except openmm.OpenMMException:
            raise ConfigError(
                f"the Context has no adaptive bias of the name {self.name!r}; make its System with add_bias"
            ) from None
        check_integrated(context, self.name)
        if not self._compared:
            compare_temperatures(context, self._thermal_energy())
            self._compared = True
        if received != int(self.bias.sent):
            raise ConfigError(
                f"the bias in the Context has received {received} messages, the one in Python has sent "
                f"{int(self.bias.sent)}: restore both from the same moment, the bias with load_bias before add_bias"
            )


def load_bias(bias: AdaptiveBias, path: Path | str) -> None:
    """Continue from a file that `BiasUpdater.save` wrote; do so before `add_bias`.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or of another bias.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; expected one that BiasUpdater.save wrote")
    try:
        snapshot = _read(path)["bias"]
    except Exception as error:
        raise ConfigError(f"{path}: not the state of a bias ({first_line(error)})") from None
    bias.restore(snapshot)


def shared_bytes(path: Path | str, walker: str) -> int:
    """Return how much a walker had written for the others when `BiasUpdater.save` wrote a file, in bytes."""
    return int(_read(path)["exchange"].get(file_name(walker), 0))


def _read(path: Path | str) -> dict[str, Any]:
    """Read a file of `BiasUpdater.save`, without pickles; torch itself does not look at check sums."""
    with ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"{name} in it is damaged")
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content
