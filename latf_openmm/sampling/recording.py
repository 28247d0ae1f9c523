"""Frames of one segment of a group of walkers, as they are simulated."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.errors import SimulationError
from latf_openmm.sampling.energy_windows import EnergyRecorder
from latf_openmm.sampling.segments import SegmentFrames, copy_energies, evaluate

if TYPE_CHECKING:
    from latf_openmm.sampling.walker_group import WalkerGroup

Array = NDArray[np.float64]
MAX_COORDINATE = 1e5
"""Coordinate from which on a walker has left [nm]."""


class Recording:
    """Frames of a group, one after the other.

    Parameters
    ----------
    group
        The walkers; each call of `step` takes them to their next frame.
    """

    def __init__(self, group: "WalkerGroup") -> None:
        self.group = group
        self.shape = group.built.n_copies, group.built.n_atoms, 3
        self.positions: list[Array] = []
        self.boxes: list[Array] = []
        self.energies: list[list[float]] = []
        self.kinetic: list[Array] = []
        self.temperatures: list[Array] = []
        self.kelvin: list[Array] = []
        self.replicas: list[NDArray[np.int64]] = []
        self.recorder = EnergyRecorder(group.task.dynamics, group.energies)
        self.biases: list[tuple[Array, Array, Array]] = []

    def step(self, replicas: NDArray[np.int64] | None, moved: bool) -> None:
        """Simulate to the next frame and keep it.

        Parameters
        ----------
        replicas
            Number of the walker in each place, shape (n_copies,); None: walkers stay where they are.
        moved
            Whether walkers have moved since the last frame.

        Raises
        ------
        SimulationError
            If a walker has left, or its positions are no numbers.
        """
        group = self.group
        self.recorder.advance(group.advance, group.slower, moved)
        state = group.context.getState(
            positions=True, velocities=True, energy=group.single is None, groups=group.unbiased_groups
        )
        xyz = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).reshape(self.shape)
        if not (np.abs(xyz) < MAX_COORDINATE).all():  # also where they are not numbers
            raise SimulationError(
                f"positions are not finite or beyond {MAX_COORDINATE:g} nm at frame {len(self.positions)}"
            )
        self.positions.append(group.built.single(xyz))
        self.kinetic.append(group.kinetic_temperatures(state))
        self.temperatures.append(group.temperatures)
        self.kelvin.append(group.kelvin)
        if replicas is not None:
            self.replicas.append(replicas.copy())
        self._keep_energies(state)

    def _keep_energies(self, state: openmm.State) -> None:
        """Energies, box and adaptive bias of the frame; other biases do not depend on the time."""
        group = self.group
        if group.single is None:
            self.energies.append([state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)])
        if group.built.periodic:
            self.boxes.append(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
        if group.updater is not None:
            with torch.no_grad():
                z = group.updater.variables(group.context, state)
                energy = group.updater.bias(z)
            offset = np.full(len(z), group.updater.bias.offset())
            self.biases.append((z.numpy(), energy.numpy(), offset))

    def frames(self) -> SegmentFrames:
        """Return what was recorded."""
        group, xyz = self.group, np.array(self.positions)
        recorded = SegmentFrames(
            xyz,
            np.array(self.boxes) if self.boxes else None,
            np.array(self.energies) if group.single is None else copy_energies(group.single, xyz),
            np.array(self.kinetic),
            np.array(self.temperatures),
            np.array(self.kelvin),
            np.array(self.replicas) if self.replicas else None,
            self.recorder.windows(),
        )
        if group.updater is not None:
            z, energy, offsets = (np.array(part) for part in zip(*self.biases, strict=True))
            return replace(recorded, z=z, bias=energy, offsets=offsets)
        if group.cv is None or group.bias is None:
            return recorded
        z, energy = evaluate(group.cv, group.bias, xyz, recorded.boxes)
        return replace(recorded, z=z, bias=energy, offsets=np.zeros_like(energy))
