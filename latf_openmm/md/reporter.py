"""A reporter for `openmm.app.Simulation`: collective variables, bias energy and weight as a CSV file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import unit

from latf_openmm.md.bias import Bias
from latf_openmm.md.bias.base import AdaptiveBias
from latf_openmm.md.biased_system import check_integrated
from latf_openmm.md.cv import CollectiveVariables
from latf_openmm.systems.inspection import BIAS_NAME


class LatentReporter:
    """Write step, time [ps], z0, z1, ..., the bias energy and its offset [kJ/mol] of each reported frame.

    Frames weigh exp((bias energy - offset) / kT). In the list of reporters it comes before the `BiasUpdater`,
    so that a frame has the bias it was made with.

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
    name
        As given to `add_bias`.
    """

    def __init__(
        self,
        path: Path | str,
        interval: int,
        cv: CollectiveVariables,
        bias: Bias | None = None,
        *,
        name: str = BIAS_NAME,
    ) -> None:
        self.file = Path(path).open("w")  # noqa: SIM115 - open as long as the reporter is
        self.interval = interval
        self.cv = cv
        self.bias = bias
        self.name = name
        self._header = True

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:  # noqa: N802 - OpenMM's name
        """Say when the next report is due and that it needs positions.

        Raises
        ------
        ConfigError
            If the bias does not act in the simulation.
        """
        if self.bias is not None:
            check_integrated(simulation.context, self.name)
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
        energy = 0.0 if self.bias is None else float(self.bias(z))
        offset = self.bias.offset() if isinstance(self.bias, AdaptiveBias) else 0.0
        if self._header:
            names = [f"z{i}" for i in range(z.shape[1])]
            self.file.write(",".join(["step", "time_ps", *names, "bias_energy", "bias_offset"]) + "\n")
            self._header = False
        time = state.getTime().value_in_unit(unit.picosecond)
        values = [f"{value:.6f}" for value in z[0].tolist()]
        self.file.write(
            ",".join([str(simulation.currentStep), f"{time:.6g}", *values, f"{energy:.6f}", f"{offset:.6f}"])
            + "\n"
        )
        self.file.flush()

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
