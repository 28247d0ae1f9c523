"""A reporter for `openmm.app.Simulation`: collective variables, bias energy and weight as a CSV file."""

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

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

log = logging.getLogger(__name__)

_SHOWN = 200
"""Characters of a file's first line that a message shows, at most."""


class LatentReporter:
    """Write step, time [ps], z0, z1, ..., the bias energy and its offset [kJ/mol] of each reported frame.

    Frames weigh exp((bias energy - offset) / kT). In the list of reporters it comes before the `BiasUpdater`,
    so that a frame has the bias it was made with; the other order is refused.

    Parameters
    ----------
    path
        CSV file to write; one that is there already is an error, unless it is to be continued or replaced.
    interval
        Steps between reports.
    cv
        Collective variables.
    bias
        The bias of the simulation, or None.
    append
        Continue the file, where there is one; a line that was cut off is removed.
    name
        As given to `add_bias`.
    overwrite
        Replace the file, where there is one.

    Raises
    ------
    ConfigError
        If there is a file and it is neither to be continued nor replaced, or to be continued and not a table of these
        variables.
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
        overwrite: bool = False,
    ) -> None:
        self.interval = interval
        self.cv = cv
        self.bias = bias
        self.name = name
        self._started = False
        self._unchanged: tuple[int, int] | None = (
            None  # step from which the bias stays as it is, messages sent then
        )
        self.file, self._last_step = _opened(Path(path), _header(cv.dim), append, overwrite)

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:  # noqa: N802 - OpenMM's name
        """Say when the next report is due and that it needs positions.

        Raises
        ------
        ConfigError
            If the bias does not act in the simulation, or its updater comes before.
        """
        if self.bias is not None:
            _check_order(self, simulation.reporters)
        if not self._started:
            self._start(simulation)
        self._started = True
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def _start(self, simulation: Any) -> None:
        """Check that the bias acts, and say where the file has rows of steps that come again."""
        if self.bias is not None:
            check_integrated(simulation.context, self.name)
        if simulation.currentStep < self._last_step:
            log.warning(
                "%s: has rows up to step %d and goes on at step %d, so steps come twice: where it was continued from "
                "an earlier checkpoint, their last rows count",
                *(self.file.name, self._last_step, simulation.currentStep),
            )

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


def _opened(path: Path, header: str, append: bool, overwrite: bool) -> tuple[TextIO, int]:
    """Open a table that begins with `header`, new or with what it has; return it and the step of its last row, or 0.

    Raises
    ------
    ConfigError
        If there is a file that is neither to be continued nor replaced, or has another first line.
    """
    if append and overwrite:
        raise ConfigError(f"{path}: append and overwrite are both True; expected one of them, or neither")
    new = overwrite or not path.exists() or path.stat().st_size == 0
    if not new and not append:
        raise ConfigError(
            f"{path}: is there already; say append=True to continue it, overwrite=True to replace it, or give another "
            "name"
        )
    last_step = 0 if new else _checked(path, header)
    file = path.open("w" if new else "a", encoding="utf-8")
    if new:
        file.write(header)
        file.flush()
    return file, last_step


def _checked(path: Path, header: str) -> int:
    """Cut off a last line that is not complete, and return the step of the last one; 0 where there are no rows.

    Raises
    ------
    ConfigError
        If the first line of the file is not `header`.
    """
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    first = data.partition(b"\n")[0].decode("utf-8", errors="replace").rstrip("\r")
    if first != header.strip():
        raise ConfigError(
            f"{path}: cannot be continued: its first line is {first[:_SHOWN]!r}, and the columns of these variables "
            f"are {header.strip()!r}"
        )
    if len(complete) < len(data):
        os.truncate(path, len(complete))
    step = complete.rstrip().rpartition(b"\n")[2].partition(b",")[0]
    return int(step) if step.isdigit() else 0
