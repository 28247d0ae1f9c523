"""Energies of a table that has more rows than frames: their mean and variance around each frame."""

import numpy as np
from numpy.typing import NDArray

from latf_openmm.run.imported.rows import FrameRows
from latf_openmm.run.imported.tables import Table
from latf_openmm.sampling.energy_windows import EnergyWindows

Array = NDArray[np.float64]


def recorded_energies(
    table: Table,
    rows: FrameRows,
    present: NDArray[np.bool_],
    pressure: float | None,
    times: Array | None,
    spacing: float,
) -> EnergyWindows | None:
    """Return energies around frames, as `simulation.energy_interval` records them; None where they are not known.

    Windows reach half-way to the neighbouring frames, as those of `latf_openmm.sampling.energy_windows.EnergyRecorder`.

    Parameters
    ----------
    table, rows
        Rows of the frames in the table.
    present
        Frames to do it for, shape (n_kept,).
    pressure
        [kJ/mol/nm^3]: energies are U + pV; None: constant volume.
    times
        Of all rows [ps], which windows do not leave by more than half of `spacing`; None: they are regular.
    spacing
        Time between frames [ps].
    """
    columns, every, order = table.columns, rows.every, rows.order
    if every < 2 or "potential_energy" not in columns or any("bias" in name for name in columns):
        return None
    temperature = columns.get("temperature", np.zeros(1))
    if np.ptp(temperature) > 0 or (pressure is not None and "volume" not in columns):
        return None
    work = 0.0 if pressure is None else pressure * columns["volume"]
    energy, places = (columns["potential_energy"] + work)[order], rows.places[present]
    centre = energy[places]
    counts = np.zeros(len(places), dtype=np.int64)
    sums, squares = np.zeros((2, len(places)))
    for step in range(-(every // 2), (every - 1) // 2 + 1):
        near = np.clip(places + step, 0, len(order) - 1)
        inside = near == places + step
        if times is not None:
            inside &= np.abs(times[order[near]] - times[order[places]]) < 0.55 * spacing
        off = np.where(inside, energy[near] - centre, 0.0)
        counts += inside
        sums += off
        squares += off**2
    means = sums / counts
    variances = np.maximum(squares / counts - means**2, 0.0)
    if not np.isfinite(means).all():
        return None
    return EnergyWindows(counts, (centre + means)[:, None], variances[:, None])
