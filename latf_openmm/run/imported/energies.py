"""Energies of frames: recomputed, and those of a table compared with a few that are."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from latf_openmm.errors import DataError, first_line
from latf_openmm.periodic import boxes_of
from latf_openmm.run.imported.atoms import rounding
from latf_openmm.run.imported.trajectories import ReadFile
from latf_openmm.sampling.contexts import PlatformChoice
from latf_openmm.systems import BuiltSystem
from latf_openmm.units import ELECTRONVOLT, KILOCALORIE

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_FRAMES = 10
"""Frames whose energies are recomputed."""
_FIRST_FRAMES = 2
"""Frames that suffice where energies agree but for the last digits."""
_MORE_FRAMES = 5
"""Frames that suffice where they agree but for little noise, as of rounded positions."""
_FRAMES_ROUNDED = 5
"""Frames for the effect of rounded positions."""
_NOTICED = 0.1  # kT
_HARMLESS = 0.25
"""Spread of differences that always passes [kT]."""
_OF_ROUNDING = 2.5
"""Spread of the differences at ten frames over that expected of rounding: above it once in ten thousand imports."""
_OF_FLUCTUATIONS = 0.1
"""Spread of differences that have no mean over that of the energies, as of other settings of long-range forces."""
_OF_FLUCTUATIONS_OFFSET = 0.02
"""The same around a constant offset."""
_FACTORS = {KILOCALORIE: "kcal/mol", ELECTRONVOLT: "eV", 1e-3: "J/mol"}
"""Units that are mistaken for kJ/mol, by the factor that makes kJ/mol of them."""
_MAX_SHIFT = 100
"""Rows by which a shifted table is looked for, at most."""
_ABSURD = 100.0  # kT an atom


class EnergyModel:
    """Potential energies by the System of the configuration.

    Parameters
    ----------
    built
        The system, one copy.
    platform
        To compute on.
    pressure
        Of its barostat [kJ/mol/nm^3]; None: constant volume.
    """

    def __init__(self, built: BuiltSystem, platform: PlatformChoice, pressure: float | None) -> None:
        self.pressure = pressure
        self.n_atoms = built.n_atoms
        self._context = platform.context(built.system)
        self._start = built.positions[0]
        n_particles = built.system.getNumParticles()
        self._sites = any(built.system.isVirtualSite(i) for i in range(n_particles))

    def __call__(self, piece: mdtraj.Trajectory) -> Array:
        """Return the energies of frames [kJ/mol], shape (n_frames,).

        Raises
        ------
        DataError
            If the box of a frame is not possible.
        """
        return self.of_positions(piece.xyz, boxes_of(piece))

    def of_positions(self, positions: NDArray[np.floating], boxes: NDArray[np.floating] | None) -> Array:
        """Return the energies [kJ/mol] of positions (n_frames, n_atoms, 3) and boxes (n_frames, 3, 3) [nm]."""
        energies = np.empty(len(positions))
        for index, xyz in enumerate(positions):
            try:
                if boxes is not None:
                    self._context.setPeriodicBoxVectors(*boxes[index])
                self._context.setPositions(xyz.astype(np.float64))
                if self._sites:  # those of a file are rounded, or of another model
                    self._context.computeVirtualSites()
                energy = self._context.getState(energy=True).getPotentialEnergy()
            except openmm.OpenMMException as error:
                raise DataError(f"the energy of a frame cannot be computed ({first_line(error)})") from error
            energies[index] = energy.value_in_unit(unit.kilojoule_per_mole)
        return energies

    def start(self) -> float:
        """Energy of the system's own structure [kJ/mol]."""
        return float(self.of_positions(self._start[None], None)[0])


@dataclass(frozen=True)
class Rounding:
    """Effect of rounded positions on energies: mean and standard deviation [kJ/mol], and the grid [nm]."""

    grid: float
    mean: float
    spread: float


def effect_of_rounding(model: EnergyModel, samples: Sequence[mdtraj.Trajectory]) -> Rounding:
    """Return the change of the energy by rounding positions as those of a file are.

    Rounded once more by as much, positions get the same energy on average: the first order has no mean, the second
    is that of the first rounding.
    """
    grid = rounding(list(samples))
    if not grid:
        return Rounding(0.0, 0.0, 0.0)
    rng, changes = np.random.default_rng(0), []
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), _FRAMES_ROUNDED)).astype(int))
    for sample in (samples[i] for i in chosen):
        before = model(sample)[0]
        for _ in range(4):
            noise = rng.uniform(-0.5 * grid, 0.5 * grid, sample.xyz.shape)
            moved = sample.xyz.astype(np.float64) + noise
            changes.append(model.of_positions(moved, boxes_of(sample))[0] - before)
    return Rounding(grid, float(np.mean(changes)), float(np.std(changes, ddof=1)))


def check_possible_energies(name: str, energies: Array, model: EnergyModel, kT: float) -> None:
    """Raise `DataError` where energies cannot be those of a simulation of this system."""
    highest = float(np.median(energies))
    if not np.isfinite(energies).all() or highest > model.start() + _ABSURD * kT * model.n_atoms:
        raise DataError(
            f"{name}: its potential energy is {highest:.4g} kJ/mol, that of the system's own structure "
            f"{model.start():.4g} kJ/mol; its atoms are in another order, or it is of another system"
        )


def check_each_energy(file: ReadFile, model: EnergyModel, kT: float) -> None:
    """Raise `DataError` where the recomputed energy of a frame is no number, or absurd."""
    energies = np.zeros(0) if file.energies is None else file.energies
    highest = model.start() + _ABSURD * kT * model.n_atoms
    wrong = np.flatnonzero(~(energies <= highest))
    if len(wrong):
        raise DataError(
            f"{file.path}: frame {wrong[0]}: its potential energy is {energies[wrong[0]]:.4g} kJ/mol, the median of "
            f"the file is {np.nanmedian(energies):.4g} kJ/mol ({len(wrong)} such frames): atoms are on top of each "
            "other there; leave it out"
        )


def corrected(name: str, energies: Array, effect: Rounding, kT: float) -> Array:
    """Return recomputed energies without the mean error of rounded positions; a warning says what is left."""
    if max(abs(effect.mean), effect.spread) < _NOTICED * kT:
        return energies
    log.warning(
        "%s: energies are recomputed on positions rounded to %g nm, which are %.2g ± %.2g "
        "kJ/mol too high: the mean is "
        "subtracted, the noise stays; a table of energies is better",
        name,
        effect.grid,
        effect.mean,
        effect.spread,
    )
    return energies - effect.mean


class _Recomputed:
    """Energies of frames, each computed when it is first asked for."""

    def __init__(self, model: EnergyModel, samples: Sequence[mdtraj.Trajectory]) -> None:
        self.model, self.samples = model, samples
        self.known: dict[int, float] = {}

    def __call__(self, n: int) -> tuple[Array, NDArray[np.int64]]:
        """Return the energies of about `n` of the frames [kJ/mol], evenly over all, and their numbers."""
        last = len(self.samples) - 1
        rows = np.unique(np.linspace(0, last, min(n, last + 1)).astype(np.int64))
        for row in map(int, rows):
            if row not in self.known:
                self.known[row] = float(self.model(self.samples[row])[0])
        return np.array([self.known[int(row)] for row in rows]), rows


@dataclass(frozen=True)
class Comparison:
    """Energies of a table at the frames of a trajectory.

    Parameters
    ----------
    name
        Of table and trajectory, for messages.
    table
        Potential energies [kJ/mol], shape (n_frames,).
    bias
        Of the same frames [kJ/mol], shape (n_frames,); zero without.
    volumes
        Of the boxes [nm^3], shape (n_frames,); None without boxes.
    frames
        Frames that are compared, shape (n,).
    """

    name: str
    table: Array
    bias: Array
    volumes: Array | None
    frames: NDArray[np.int64]

    def check(self, model: EnergyModel, samples: Sequence[mdtraj.Trajectory], kT: float) -> Array:
        """Return the table's energies with the zero of the system.

        Two frames that agree are enough, or five that do but for a tenth of the fluctuations; else all are computed,
        and the effect of rounded positions.

        Parameters
        ----------
        samples
            The frames that are compared.

        Raises
        ------
        DataError
            If they differ by more than a constant and rounding.
        """
        recomputed = _Recomputed(model, samples)
        computed, rows = recomputed(_FIRST_FRAMES)
        near = max(_NOTICED * kT, 2e-6 * float(np.abs(computed).mean()))
        if np.abs(self.table[self.frames[rows]] - computed).max() <= near:
            return self.table
        if self._agrees(*recomputed(_MORE_FRAMES)):
            return self.table
        computed, _ = recomputed(len(samples))
        effect = effect_of_rounding(model, samples)

        def fits(values: Array) -> bool:
            shifted = bool(_offset(values - computed, computed, effect, kT))
            share = _OF_FLUCTUATIONS_OFFSET if shifted else _OF_FLUCTUATIONS
            explained = max(_HARMLESS * kT, share * float(computed.std()), _OF_ROUNDING * effect.spread, near)
            return float(np.std(values - computed)) <= explained

        recorded, bias = self.table[self.frames], self.bias[self.frames]
        if (
            np.ptp(bias) > 0
            and np.std(recorded - bias - computed) < 0.5 * np.std(recorded - computed)
            and fits(recorded - bias)
        ):
            log.warning("%s: potential_energy holds the bias energy, which is subtracted", self.name)
            return self._with_zero(self.table - self.bias, computed, effect, kT)
        if fits(recorded):
            return self._with_zero(self.table, computed, effect, kT)
        raise DataError(
            f"{self.name}: potential_energy is not that of the frames: {self._reason(computed, fits, model, effect)}"
        )

    def _agrees(self, computed: Array, rows: NDArray[np.int64]) -> bool:
        """Return whether a table has the computed energies of frames but for noise that is small and has no mean."""
        recorded = self.table[self.frames[rows]]
        off = recorded - computed
        small = 0.1 * min(float(computed.std()), float(recorded.std()))
        return len(rows) == _MORE_FRAMES and off.std() <= small and abs(off.mean()) <= off.std()

    def _with_zero(self, energies: Array, computed: Array, effect: Rounding, kT: float) -> Array:
        """Energies whose constant difference from the computed ones is taken away."""
        differences = energies[self.frames] - computed
        offset, error = _offset(differences, computed, effect, kT), float(differences.std())
        if not offset:
            return energies
        log.warning(
            "%s: potential_energy is %.5g ± %.2g kJ/mol %s that of the system at every frame: another zero%s, which is "
            "taken away",
            self.name,
            abs(offset),
            error,
            "above" if offset > 0 else "below",
            ", or another force field or solvent that is hardly different" if error > _NOTICED * kT else "",
        )
        return energies - offset

    def _reason(
        self, computed: Array, fits: Callable[[Array], bool], model: EnergyModel, effect: Rounding
    ) -> str:
        """Likely reason for the table's wrong energies."""
        recorded = self.table[self.frames]
        for factor, name in _FACTORS.items():
            if fits(recorded * factor):
                return (
                    f"times {factor:g} it is; its unit is {name}, expected kJ/mol (name the column "
                    f"potential_energy ({name}))"
                )
        if shift := self._shift(computed, effect):
            row = f"n {'+' if shift > 0 else '-'} {abs(shift)}"
            return f"row {row} is that of frame n: it is shifted by {abs(shift)} rows"
        if model.pressure is not None and self.volumes is not None:
            work = model.pressure * self.volumes[self.frames]
            if fits(recorded - work):
                return "it is that with pV; expected the potential energy alone"
        off = recorded - computed
        total = off.mean() > 0 and off.std() < 2 * computed.std()
        noise = f" within ± {effect.spread:.2g} kJ/mol by rounded positions" if effect.spread else ""
        return (
            f"at {len(computed)} frames it is {abs(off.mean()):.4g} ± {off.std():.3g} kJ/mol "
            f"{'above' if off.mean() > 0 else 'below'} the recomputed ones, where another zero would be "
            f"constant{noise}, and the recomputed ones spread by {computed.std():.3g} kJ/mol; "
            "another force field, solvent model or cutoff than that of the simulation, or rows of other frames?"
            + (" (or is it the total energy?)" if total else "")
        )

    def _shift(self, computed: Array, effect: Rounding) -> int:
        """Rows that the table is shifted by; 0 where that is not what is wrong."""
        spreads: dict[int, float] = {}
        for shift in range(-min(_MAX_SHIFT, len(self.table) // 2), min(_MAX_SHIFT, len(self.table) // 2) + 1):
            rows = self.frames + shift
            inside = (rows >= 0) & (rows < len(self.table))
            if inside.sum() >= min(6, len(rows)):
                spreads[shift] = float(np.std(self.table[rows[inside]] - computed[inside]))
        best = min(spreads, key=lambda shift: spreads[shift])
        limit = max(0.02 * float(computed.std()), 2 * effect.spread, 2e-6 * abs(float(computed.mean())))
        return best if spreads[best] <= min(limit, 0.4 * spreads[0]) else 0


def _offset(differences: Array, computed: Array, effect: Rounding, kT: float) -> float:
    """Return the constant by which a table's energies differ from computed ones [kJ/mol]; 0 within its error."""
    offset, error = float(differences.mean()) + effect.mean, float(differences.std())
    none = max(_NOTICED * kT, 3 * error / np.sqrt(len(computed)), 2e-6 * abs(float(computed.mean())))
    return offset if abs(offset) > none else 0.0


def compared_frames(frames: Sequence[int]) -> NDArray[np.int64]:
    """Return about ten of the frames that were kept for checks, as indices into `frames`."""
    return np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _FRAMES)).astype(np.int64))
