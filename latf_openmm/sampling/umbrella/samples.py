"""What umbrella sampling leaves: a file for each window, and the frames of all of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latf_openmm.bias.potentials.harmonic import Harmonic
from latf_openmm.errors import DataError
from latf_openmm.reweighting.biased_run import BiasedRun
from latf_openmm.storage import read_arrays, write_arrays
from latf_openmm.units import KELVIN

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WindowSamples:
    """The frames of all windows.

    Attributes
    ----------
    centres, force_constants
        Of the restraints sum_i k_i (z_i - c_i)^2 / 2, both of shape (n_windows, dim)
        [kJ/mol per unit of z squared].
    periods
        Period of each variable, 0 where it has none.
    temperature
        [K].
    frame_interval
        Time between frames [ps].
    z
        Collective variables of each window, shape (n_frames, dim).
    potential_energy
        Without the restraint [kJ/mol], shape (n_frames,) each.
    """

    centres: Array
    force_constants: Array
    periods: tuple[float, ...]
    temperature: float
    frame_interval: float
    z: tuple[Array, ...]
    potential_energy: tuple[Array, ...]

    @property
    def kT(self) -> float:  # noqa: N802 - the field's own name
        """Thermal energy [kJ/mol]."""
        return KELVIN.kT(self.temperature)

    @property
    def biases(self) -> tuple[Harmonic, ...]:
        """The restraint of each window."""
        return tuple(
            Harmonic(torch.from_numpy(centre), torch.from_numpy(force_constant), self.periods)
            for centre, force_constant in zip(self.centres, self.force_constants, strict=True)
        )


def window_runs(windows: WindowSamples) -> list[BiasedRun]:
    """Return the windows of umbrella sampling as runs, to be given to `combine` (with others, if you like)."""
    each = zip(windows.z, windows.potential_energy, windows.biases, strict=True)
    return [
        BiasedRun(
            z,
            windows.kT,
            bias=bias,
            potential_energy=energy,
            periods=windows.periods,
            name=f"window {number}",
        )
        for number, (z, energy, bias) in enumerate(each)
    ]


@dataclass(frozen=True)
class WindowFile:
    """The file of a finished window: its frames, and what the next ones continue from."""

    z: Array
    potential_energy: Array
    positions: Array
    velocities: Array
    box: Array
    restraint: Array
    sent: int
    checkpoint: NDArray[np.uint8]

    @staticmethod
    def path(folder: Path, index: int) -> Path:
        """Path of the file of a window."""
        return folder / f"window_{index:04d}.npz"

    def write(self, folder: Path, index: int) -> None:
        """Write the file aside and rename it."""
        write_arrays(self.path(folder, index), vars(self))

    @staticmethod
    def read(folder: Path, index: int) -> "WindowFile":
        """Read the file of a window.

        Raises
        ------
        DataError
            If it is missing or damaged.
        """
        path = WindowFile.path(folder, index)
        parts = read_arrays(path, "not a finished window")
        try:
            return WindowFile(**parts | {"sent": int(parts["sent"])})
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(f"{path}: not a finished window ({error})") from error
