"""Trajectories that a user has already, as the first round of a run.

They stay where they are (the run links to them), are checked, and are read in pieces. Afterwards everything works as
for a run that was simulated here: train, generate, observe, report, and further rounds that are biased along what was
learned from them.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.trajectory import featurise
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.periodic import frame_cells
from latf_openmm.reweighting.reliability import MIN_FRAMES
from latf_openmm.run.config import RunConfig, check, check_possible
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import run_features
from latf_openmm.run.imported.atoms import check_bonds
from latf_openmm.run.imported.columns import FrameColumns, check_kinetic, check_volumes, frame_columns
from latf_openmm.run.imported.consistency import (
    check_distinct,
    check_mean_energies,
    check_same_volume,
    warn_of_other_temperatures,
)
from latf_openmm.run.imported.energies import (
    Comparison,
    EnergyModel,
    check_each_energy,
    check_possible_energies,
    compared_frames,
    corrected,
    effect_of_rounding,
)
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.rows import KnownEnergies
from latf_openmm.run.imported.runs import FeatureReader, runs_at
from latf_openmm.run.imported.tables import Table, joined_tables
from latf_openmm.run.imported.times import Timeline, in_order, timeline, times_of_frames
from latf_openmm.run.imported.trajectories import (
    ImportedTrajectory,
    ReadFile,
    check_given,
    read_file,
)
from latf_openmm.run.imported.walkers import write_imported
from latf_openmm.run.loop import run_loop
from latf_openmm.sampling.energy_windows import EnergyWindows
from latf_openmm.storage import check_output
from latf_openmm.systems import BuiltSystem, shared_system
from latf_openmm.systems.bonds import Bonds, expected_bonds
from latf_openmm.systems.inspection import pressure_of
from latf_openmm.units import check_temperature

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_VARYING = 1e-4
"""Relative change of volumes from which a box is not constant."""


def import_run(
    config: RunConfig,
    trajectories: Sequence[ImportedTrajectory],
    path: Path,
    progress: Progress | None = None,
    *,
    independent: bool = False,
    ignore_times: bool = False,
) -> RunFolder:
    """Make a run whose first round are these trajectories; train and generate as after any round.

    Parameters
    ----------
    config
        Its system has the trajectories' atoms; the loop goes on from it.
    path
        Folder of the run; must not exist.
    independent
        Whether each biased run crossed between all states by itself, so that runs need not be joined by MBAR.
    ignore_times
        Whether times in the files are wrong, and frames lie one frame interval apart.

    Raises
    ------
    ConfigError
        If the folder is there, a file is missing, or a temperature is not possible.
    DataError
        If a trajectory or table cannot be read, or does not fit the system or each other.
    """
    check(config)
    check_output(path, folder=True, new="a run is never overwritten")
    check_given(trajectories)
    check_distinct(trajectories)
    _check_temperatures(config, trajectories)
    frames = Importer(config, progress, ignore_times).read(trajectories)
    check_same_volume(frames)
    check_mean_energies(frames, config.system.scale.kT)
    temperatures = sorted({t for trajectory in frames for t in trajectory.temperatures()})
    warn_of_other_temperatures(temperatures, config.simulation.temperatures)
    features = _Descriptors(RunFolder(path, config))
    runs = [runs_at(frames, t, config.system.scale.kT(t), features, independent) for t in temperatures]
    _check_lag(config, frames)
    write_imported(config, frames, runs, path)
    once = config.model_copy(update={"loop": config.loop.model_copy(update={"rounds": 1})})
    return run_loop(once, path, progress)


def _check_temperatures(config: RunConfig, trajectories: Sequence[ImportedTrajectory]) -> None:
    for trajectory in trajectories:
        if trajectory.temperature is not None:
            check_temperature("--temperature", trajectory.temperature)
            check_possible("--temperature", trajectory.temperature, config.system.scale)
        elif not trajectory.tables:
            raise ConfigError(
                f"--temperature: none for {trajectory.name}, and no --table that says that of each frame"
            )


class Importer:
    """Reads and checks trajectories, one after the other.

    Parameters
    ----------
    config
        Of the run.
    ignore_times
        Whether times in the files are wrong.
    """

    def __init__(self, config: RunConfig, progress: Progress | None, ignore_times: bool) -> None:
        self.config, self.progress, self.ignore_times = config, progress, ignore_times
        self.built: BuiltSystem = shared_system(config.system)
        self.topology: mdtraj.Topology = self.built.mdtraj_topology()
        self.pressure = pressure_of(self.built.system)
        self._model: EnergyModel | None = None

    def read(self, trajectories: Sequence[ImportedTrajectory]) -> list[ImportedFrames]:
        """Read all; see `import_run` for what is raised."""
        hottest = max((t.temperature or 0.0 for t in trajectories), default=0.0)
        hottest = hottest or max(self.config.simulation.temperatures)
        bonds = expected_bonds(self.built, self.config.system.scale.kT(hottest))
        return [self._trajectory(trajectory, bonds) for trajectory in trajectories]

    @property
    def model(self) -> EnergyModel:
        """Energies by the System, in a Context that is made when it is first needed."""
        if self._model is None:
            platform = self.config.simulation.platform_choice(self.config.system)
            self._model = EnergyModel(self.built, platform, self.pressure)
        return self._model

    @property
    def computes(self) -> bool:
        """Return whether the configuration's System has energies."""
        return self.built.system.getNumForces() > 0 and self.config.system.simulated

    def _trajectory(self, source: ImportedTrajectory, bonds: Bonds) -> ImportedFrames:
        tables = joined_tables(source.tables)
        has_energies = any("potential_energy" in table.columns for table in tables)
        evaluate = self.model if self.computes and not has_energies else None
        files = []
        for path in source.files:
            file = read_file(path, self.topology, None, self.progress)
            check_bonds(path, file.sample_frames, file.samples, bonds)
            if evaluate is not None:
                self._check_start(file)
            files.append(file)
        files = self._ordered(source, files)
        columns, line = self._columns(source, tables, files)
        n, zero = len(line.kept), np.zeros(len(line.kept))
        frames = ImportedFrames(
            source,
            files,
            line,
            columns,
            zero,
            zero.copy() if columns.bias is None else columns.bias,
            zero.copy() if columns.offset is None else columns.offset,
            self._temperature(source, columns.temperature, n),
            self.config.simulation.timestep,
        )
        if columns.kinetic is not None:
            check_kinetic(source, columns.kinetic, frames.temperature)
        self._boxes(frames)
        for file in files if evaluate is not None else []:  # last: it takes long
            file.energies = read_file(file.path, self.topology, evaluate, self.progress).energies
        frames.energy = self._energies(frames)
        frames.recorded = _with_zero_of(frames.energy, columns) if not frames.biased else None
        return frames

    def _ordered(self, source: ImportedTrajectory, given: list[ReadFile]) -> list[ReadFile]:
        files = given if self.ignore_times else in_order(given)
        if [file.path for file in files] != [file.path for file in given] and len(source.tables) > 1:
            raise DataError(
                f"{source.name}: its files are not in the order of their times, so that of its tables is not known; "
                "give files and tables in the order of time"
            )
        return files

    def _columns(
        self, source: ImportedTrajectory, tables: list[Table], files: list[ReadFile]
    ) -> tuple[FrameColumns, Timeline]:
        """Columns of the tables; the timeline is of the frames that are kept."""
        n_frames = sum(file.n_frames for file in files)
        if n_frames < MIN_FRAMES:
            raise DataError(f"{source.name}: {n_frames} frames; expected {MIN_FRAMES} or more")
        simulation = self.config.simulation
        rows = times_of_frames(tables, n_frames, simulation)
        line = timeline(source.name, files, simulation, self.ignore_times, rows)

        @cache
        def known() -> KnownEnergies:
            rows, samples = _compared(files, line.kept)
            energies = np.concatenate([self.model(sample) for sample in samples])
            return KnownEnergies(rows, energies, effect_of_rounding(self.model, samples).spread)

        computed = known if self.computes else None
        return frame_columns(source, tables, line, n_frames, simulation, computed, self.pressure)

    def _check_start(self, file: ReadFile) -> None:
        """Refuse absurd energies before those of all frames are computed."""
        kT = self.config.system.scale.kT(max(self.config.simulation.temperatures))
        few = [file.samples[i] for i in compared_frames(file.sample_frames)]
        energies = np.concatenate([self.model(sample) for sample in few])
        check_possible_energies(str(file.path), energies, self.model, kT)

    def _temperature(self, source: ImportedTrajectory, column: Array | None, n: int) -> Array:
        """Temperature of each frame."""
        given = source.temperature
        if column is None:
            if given is None:
                raise ConfigError(
                    f"--temperature: none for {source.name}, and its table has no column temperature of a thermostat"
                )
            return np.full(n, given)
        for value in np.unique(column):
            check_temperature(f"--table: {source.tables[0]}: temperature", float(value))
            check_possible(
                f"--table: {source.tables[0]}: temperature", float(value), self.config.system.scale
            )
        values = np.unique(column)
        if given is not None and not np.isclose(values, given, rtol=1e-6).any():
            raise DataError(
                f"--table: {source.tables[0]}: temperature is "
                f"{', '.join(f'{v:g}' for v in values[:5])}, --temperature says "
                f"{given:g}; expected the same"
            )
        if given is not None and len(values) == 1:
            return np.full(n, given)
        if len(values) == 1:
            log.info("--table: %s: the temperature is %g", source.tables[0], values[0])
            return column
        log.warning(
            "--table: %s: temperature changes; each frame counts at its own: %s",
            source.tables[0],
            ", ".join(f"{value:g}" for value in values),
        )
        return column

    def _boxes(self, frames: ImportedFrames) -> None:
        """Volumes of the boxes, and pV where the pressure is constant."""
        parts = [file.volumes for file in frames.files]
        if any(part is None for part in parts):
            if self.pressure is not None:
                raise DataError(f"{frames.source.name}: has no boxes, which constant pressure needs")
            return
        volumes = np.concatenate([part for part in parts if part is not None])[frames.timeline.kept]
        if frames.columns.volume is not None and np.isfinite(frames.columns.volume).all():
            check_volumes(frames.source.name, frames.columns.volume, volumes)
        constant = np.ptp(volumes) <= _VARYING * volumes.mean()
        if self.pressure is not None and constant:
            raise DataError(
                f"{frames.source.name}: its boxes do not change, all have {volumes[0]:.5g} nm^3, and the system has "
                "constant pressure; expected the boxes of each frame, or leave out the pressure "
                "(system.options.pressure, or the MonteCarloBarostat)"
            )
        if self.pressure is not None:
            frames.pressure_volume = self.pressure * volumes
        elif self.built.periodic and not constant:
            raise DataError(
                f"{frames.source.name}: its boxes change, from {volumes.min():.5g} to "
                f"{volumes.max():.5g} nm^3, and the "
                "system has constant volume; set its pressure (system.options.pressure, or a MonteCarloBarostat)"
            )
        elif self.built.periodic:
            frames.volume = float(volumes.mean())

    def _energies(self, frames: ImportedFrames) -> Array:
        """Potential energy of each frame, checked."""
        files, kept, name = frames.files, frames.timeline.kept, frames.source.name
        kT = self.config.system.scale.kT(float(frames.temperature.mean()))
        if not self.computes:
            if frames.columns.energy is not None:
                return frames.columns.energy
            log.warning(
                "%s: its energies are not known: weights at other temperatures rest on the flow", name
            )
            return np.zeros(frames.n_frames)
        samples = [sample for file in files for sample in file.samples]
        energy = frames.columns.energy
        if energy is None:
            for file in files:
                check_each_energy(file, self.model, kT)
            computed = np.concatenate([file.energies for file in files if file.energies is not None])
            return corrected(name, computed[kept], effect_of_rounding(self.model, samples), kT)
        rows, compared = _compared(files, kept)
        tables = ", ".join(map(str, frames.source.tables))
        volumes = None if frames.pressure_volume is None or self.pressure is None else frames.pressure_volume
        comparison = Comparison(
            f"--table: {tables}",
            energy,
            frames.bias,
            None if volumes is None else volumes / (self.pressure or 1.0),
            rows,
        )
        return comparison.check(self.model, compared, kT)


def _compared(
    files: Sequence[ReadFile], kept: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[mdtraj.Trajectory]]:
    """Frames whose energies are recomputed: their numbers among those kept, and the frames."""
    samples = [sample for file in files for sample in file.samples]
    starts = np.cumsum([0, *(file.n_frames for file in files)])
    numbers = np.concatenate(
        [s + np.array(f.sample_frames, np.int64) for s, f in zip(starts, files, strict=False)]
    )
    usable = np.flatnonzero(np.isin(numbers, kept))
    chosen = usable[compared_frames(usable.tolist())]
    return np.searchsorted(kept, numbers[chosen]), [samples[i] for i in chosen]


def _with_zero_of(energy: Array, columns: FrameColumns) -> EnergyWindows | None:
    """Energies around frames with the zero that those of the frames have; None where more than a zero differs."""
    if columns.recorded is None or columns.energy is None:
        return None
    off = energy - columns.energy
    if np.ptp(off) > 1e-6 * max(1.0, float(np.abs(off).max())):
        return None
    return replace(columns.recorded, means=columns.recorded.means + off[0])


def _check_lag(config: RunConfig, frames: Sequence[ImportedFrames]) -> None:
    """Raise `DataError` where no frames follow on each other for one lag."""
    lag = config.training.lag
    if not isinstance(lag, int):
        return
    longest = 0
    for trajectory in frames:
        edges = np.flatnonzero(np.diff(trajectory.stretches())) + 1
        longest = max(longest, int(np.diff([0, *edges, trajectory.n_frames]).max()))
    if longest <= lag:
        raise DataError(
            f"at most {longest} frames follow on each other at one temperature, training.lag is "
            f"{lag}; expected longer "
            "stretches, for example trajectories of one temperature each in place of replicas that change it"
        )


class _Descriptors(FeatureReader):
    """Descriptors of the run's configuration."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def __call__(
        self, frames: Sequence[ImportedFrames], rows: dict[int, NDArray[np.int64]]
    ) -> tuple[dict[str, Array], dict[str, float]]:
        """Return values of each descriptor at the rows of all trajectories, and no periods."""
        features, topology = run_features(self.run.config), self.run.topology()
        parts = []
        for index, chosen in rows.items():
            pieces = [
                featurise(features, piece.xyz, frame_cells(piece))
                for file in frames[index].files
                for piece in read_trajectory(file.path, topology)
            ]
            parts.append(np.concatenate(pieces)[frames[index].timeline.kept[chosen]])
        values = np.concatenate(parts).astype(np.float64)
        return dict(zip(features.names, values.T, strict=True)), {}
