"""Umbrella sampling: harmonic windows along any collective variables, each a file.

A window is written aside and renamed, so one that exists is complete; what an interruption cut off is run
again, bit for bit the same on the Reference platform. `window_runs` makes of them what
`latf_openmm.reweighting.mbar.combine` unbiases.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import ArrayLike, NDArray
from openmm import unit
from rich.progress import Progress

from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.errors import ConfigError
from latf_openmm.progress import bar
from latf_openmm.sampling.umbrella.plan import Leg, UmbrellaSettings, WindowPlan, spanning_tree
from latf_openmm.sampling.umbrella.runner import WindowRunner
from latf_openmm.sampling.umbrella.samples import WindowFile, WindowSamples
from latf_openmm.storage import read_record, write_record
from latf_openmm.systems.inspection import inspected
from latf_openmm.units import plain

Array = NDArray[np.float64]


class UmbrellaWindows:
    """Harmonic windows along any number of collective variables.

    Parameters
    ----------
    system
        Without restraint; not changed.
    cv
        Collective variables.
    positions
        Where to start, shape (n_atoms, 3) [nm], or an OpenMM quantity.
    centres
        Shape (n_windows, dim), or (n_windows,) for one variable; see `window_centres`.
    force_constant
        k of all windows: a number, or shape (dim,) or (n_windows, dim) [kJ/mol per unit of z squared].
        Neighbours at a distance d overlap well where k is kT / d^2 to 4 kT / d^2. It should be above what
        the free energy curves downwards at its barriers, so that no window has two minima.
    temperature
        A number [K] or an OpenMM quantity.
    settings
        How each window is simulated.
    folder
        Where the windows are written; those there are not simulated again.

    Raises
    ------
    ConfigError
        If shapes disagree, a value is not finite or not positive, or the System holds what cannot be simulated.
    """

    def __init__(
        self,
        system: openmm.System,
        cv: CollectiveVariables,
        positions: Any,
        centres: ArrayLike,
        force_constant: ArrayLike,
        temperature: Any,
        settings: UmbrellaSettings,
        folder: Path | str,
    ) -> None:
        if unit.is_quantity(positions):
            positions = positions.value_in_unit(unit.nanometer)
        positions = np.array(positions, dtype=np.float64)
        centres = _centres(centres, cv.dim)
        force_constants = _force_constants(force_constant, centres.shape)
        temperature = plain(temperature, unit.kelvin, "windows.temperature")
        if positions.shape != (cv.n_atoms, 3):
            raise ConfigError(f"windows.positions: expected shape ({cv.n_atoms}, 3), got {positions.shape}")
        if not temperature > 0:
            raise ConfigError(f"windows.temperature: must be positive, got {temperature}")
        system = inspected(system, "windows.system")
        start = _variables(system, cv, positions)
        legs = spanning_tree(centres, force_constants, tuple(cv.periods.tolist()), start)
        self.plan = WindowPlan(
            system, cv, positions, start, centres, force_constants, temperature, settings, Path(folder), legs
        )

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The windows in the order they are visited in."""
        return self.plan.legs

    def run(self, progress: Progress | None = None) -> WindowSamples:
        """Simulate all windows, or what is left of them.

        Raises
        ------
        SimulationError
            If a window becomes unstable.
        ConfigError
            If the folder holds windows of other centres or settings.
        DataError
            If a file there is damaged.
        """
        folder, legs, frames = self.plan.folder, self.plan.legs, self.plan.settings.frames
        folder.mkdir(parents=True, exist_ok=True)
        self._check_record()
        complete = 0
        while complete < len(legs) and WindowFile.path(folder, legs[complete].window).is_file():
            complete += 1
        with bar(progress, "windows", len(legs) * frames) as advance:
            advance(complete * frames, "")
            if complete < len(legs):
                runner = WindowRunner(self.plan, complete)
                for number in range(complete, len(legs)):
                    runner.run(legs[number], f"{number + 1} of {len(legs)}", advance)
        return self.samples()

    def samples(self) -> WindowSamples:
        """Read the frames of all windows.

        Raises
        ------
        DataError
            If a window is missing or its file is damaged.
        """
        plan = self.plan
        windows = [WindowFile.read(plan.folder, i) for i in range(len(plan.centres))]
        return WindowSamples(
            plan.centres,
            plan.force_constants,
            plan.periods,
            plan.temperature,
            plan.settings.timestep * plan.settings.frame_interval,
            tuple(window.z for window in windows),
            tuple(window.potential_energy for window in windows),
        )

    def _check_record(self) -> None:
        """Write what is simulated here, or compare it with what is there."""
        plan = self.plan
        record = {
            "centres": plan.centres.tolist(),
            "force_constants": plan.force_constants.tolist(),
            "temperature": plan.temperature,
            "order": [leg.window for leg in plan.legs],
            "settings": plan.settings.model_dump(mode="json"),
        }
        path = plan.folder / "windows.json"
        if not path.is_file():
            write_record(path, record)
            return
        written = read_record(path)
        if differing := [key for key, value in record.items() if written.get(key) != value]:
            raise ConfigError(
                f"{plan.folder}: holds windows with other {', '.join(differing)}; take another folder, or delete it"
            )


@torch.no_grad()
def _variables(system: openmm.System, cv: CollectiveVariables, positions: Array) -> Array:
    """Collective variables of the start."""
    box = torch.empty(0)
    if system.usesPeriodicBoundaryConditions():
        vectors = system.getDefaultPeriodicBoxVectors()
        box = torch.tensor([[list(v.value_in_unit(unit.nanometer)) for v in vectors]])
    z = cv(torch.from_numpy(positions)[None], box)[0].numpy()
    if not np.isfinite(z).all():
        raise ConfigError(f"windows.positions: their collective variables are not finite: {z.tolist()}")
    return np.asarray(z)


def _centres(values: ArrayLike, dim: int) -> Array:
    centres = np.array(values, dtype=np.float64)
    if centres.ndim == 1 and dim == 1:
        centres = centres[:, None]
    if centres.ndim != 2 or centres.shape[1] != dim or len(centres) == 0:
        raise ConfigError(f"windows.centres: expected shape (n_windows, {dim}), got {centres.shape}")
    if not np.isfinite(centres).all():
        raise ConfigError(
            f"windows.centres: window {int(np.argwhere(~np.isfinite(centres))[0][0])} is not finite"
        )
    return centres


def _force_constants(values: ArrayLike, shape: tuple[int, ...]) -> Array:
    given = np.array(values, dtype=np.float64)
    try:
        force_constants = np.broadcast_to(given, shape).copy()
    except ValueError:
        raise ConfigError(
            f"windows.force_constant: expected a number or shape ({shape[1]},) or {shape}, got {given.shape}"
        ) from None
    if not (
        np.isfinite(force_constants).all()
        and (force_constants >= 0).all()
        and (force_constants.max(axis=1) > 0).all()
    ):
        raise ConfigError(
            "windows.force_constant: each window needs finite force constants, none negative, one above zero"
        )
    return force_constants
