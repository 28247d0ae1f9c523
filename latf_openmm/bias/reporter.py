"""A reporter for `openmm.app.Simulation`: collective variables, bias energy and weight as a CSV file."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import unit

from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.placement import check_integrated
from latf_openmm.bias.potentials import Bias
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.standstill import look_for_standstill
from latf_openmm.bias.updater import BiasUpdater
from latf_openmm.errors import ConfigError
from latf_openmm.force_groups import BIAS_NAME


class LatentReporter:
    """Write step, time [ps], z0, z1, ..., the bias energy and its offset [kJ/mol] of each reported frame.

    Frames weigh exp((bias energy - offset) / kT). In the list of reporters it comes before the `BiasUpdater`,
    so that a frame has the bias it was made with; the other order is refused.

    A file that is there already is never emptied. It is continued by a simulation that goes on after its last step,
    as one does that was restarted by the same script.

    Parameters
    ----------
    path
        CSV file to write.
    interval
        Steps between reports.
    cv
        Collective variables.
    bias
        The bias of the simulation, or None.
    append
        Continue a file whatever its last step is.
    name
        As given to `add_bias`.

    Raises
    ------
    ConfigError
        If the file holds something else, or, at the first step, steps that are not before those of the simulation.
    """

    def __init__(
        self,
        path: Path | str,
        interval: int,
        cv: CollectiveVariables,
        bias: Bias | None = None,
        append: bool = False,
        *,
        name: str = BIAS_NAME,
    ) -> None:
        self.interval = interval
        self.cv = cv
        self.bias = bias
        self.name = name
        self._started = False
        self._unchanged: tuple[int, int] | None = (
            None  # step from which the bias stays as it is, messages sent then
        )
        self._path = Path(path)
        self._last = _last_step(self._path, _header(cv.dim))
        if append:
            self._last = None if self._last is None else -1
        self.file = self._path.open("a", encoding="utf-8")
        if self._last is None:
            self.file.write(_header(cv.dim))
            self.file.flush()

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:  # noqa: N802 - OpenMM's name
        """Say when the next report is due and that it needs positions.

        Raises
        ------
        ConfigError
            If the bias does not act in the simulation, its updater comes before, or the file has later steps.
        """
        if self.bias is not None:
            _check_order(self, simulation.reporters)
        if self.bias is not None and not self._started:
            check_integrated(simulation.context, self.name)
        self._started = True
        if self._last is not None and self._last > simulation.currentStep:
            raise ConfigError(
                f"{self._path}: has steps up to {self._last} already, and the simulation is at step "
                f"{simulation.currentStep}; move the file, or say append=True"
            )
        self._last = None
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    @torch.no_grad()
    def report(self, simulation: Any, state: Any) -> None:
        """Write one line."""
        xyz = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        box = torch.empty(0)
        if simulation.system.usesPeriodicBoundaryConditions():
            vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            box = torch.from_numpy(np.array(vectors))[None]
        z = self.cv(torch.from_numpy(xyz)[None], box)
        self._look_for_standstill(simulation.currentStep)
        energy = 0.0 if self.bias is None else float(self.bias(z))
        offset = self.bias.offset() if isinstance(self.bias, AdaptiveBias) else 0.0
        time = state.getTime().value_in_unit(unit.picosecond)
        values = [f"{value:.6f}" for value in z[0].tolist()]
        self.file.write(
            ",".join([str(simulation.currentStep), f"{time:.12g}", *values, f"{energy:.6f}", f"{offset:.6f}"])
            + "\n"
        )
        self.file.flush()

    def _look_for_standstill(self, step: int) -> None:
        """Say where an adaptive bias has no updater: not every backend can look at steps itself."""
        if isinstance(self.bias, AdaptiveBias):
            sent = int(self.bias.sent)
            if self._unchanged is None or self._unchanged[1] != sent:
                self._unchanged = step, sent
            look_for_standstill(self.bias.messages().path, step - self._unchanged[0], self.bias.pace)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def _check_order(reporter: LatentReporter, reporters: Sequence[Any]) -> None:
    """Raise `ConfigError` where the updater of the reporter's bias comes before it in a list of reporters."""
    for earlier in itertools.takewhile(lambda other: other is not reporter, reporters):
        if isinstance(earlier, BiasUpdater) and earlier.bias is reporter.bias:
            raise ConfigError(
                "simulation.reporters: the BiasUpdater comes before the LatentReporter of its bias, so that frames "
                "would be weighted with a bias that had just been raised where they are; put the LatentReporter first"
            )


def _header(dim: int) -> str:
    names = [f"z{i}" for i in range(dim)]
    return ",".join(["step", "time_ps", *names, "bias_energy", "bias_offset"]) + "\n"


def _last_step(path: Path, header: str) -> int | None:
    """Return the last step in a file of this header, without a line that was cut; None where there is no file yet."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    lines = complete.decode("utf-8", errors="replace").splitlines()
    try:
        if lines[0] + "\n" != header:
            raise ValueError
        last = int(lines[-1].split(",")[0]) if len(lines) > 1 else -1
    except (ValueError, IndexError):
        raise ConfigError(
            f"{path}: is there already and not a file of these variables; expected the first line {header.strip()}"
        ) from None
    if len(complete) < len(data):
        os.truncate(path, len(complete))
    return last
