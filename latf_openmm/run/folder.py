"""The folder of a run: where everything lies, and its records. Nothing here computes or changes it.

::

    DIR/config.yaml                       the configuration the run was started with
    DIR/run.json                          schema of the folder, versions that worked on it
    DIR/rounds/000/simulation/T0.2/segment_0000/{frames.parquet, walker_000.dcd, checkpoint.bin, state.xml}
    DIR/rounds/000/model/{model.safetensors, model.json, history.parquet}
    DIR/rounds/000/generated/T0.3/{latent_samples.parquet, free_energy.parquet, structures.dcd, ...}
    DIR/rounds/000/starts.npz             start structures of the next round
    DIR/rounds/000/decision.json          what the next round does, and why
    DIR/rounds/000/round.json             written last: the round is complete
    DIR/validation/T0.3/...               independent unbiased runs, for the report only
    DIR/execution/...                     logs of the engine, where one ran the tasks
    DIR/.progress.json                    what a command does at this moment; nothing rests on it
    DIR/report/{index.html, *.png, state_0.pdb, ..., comparison.json}
"""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np

from latf_openmm.errors import ConfigError, DamagedRunError, DataError, first_line
from latf_openmm.features.contacts import read_reference
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.model.checkpoint import TrainedModel, load_model
from latf_openmm.periodic import as_structure
from latf_openmm.run.config import RunConfig, read_config
from latf_openmm.run.consent import check_system
from latf_openmm.run.overview import run_card
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.run.schema import RECORD, check_config, read_run
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.settings import validate
from latf_openmm.storage import CONFIG, check_file, sha256
from latf_openmm.systems import shared_system
from latf_openmm.units import TemperatureScale

EXECUTION = "execution"
"""Folder with logs of the engine that ran the tasks."""


class RunFolder:
    """One run on disk.

    Parameters
    ----------
    path
        The folder.
    config
        Its configuration.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config

    def __repr__(self) -> str:
        complete = sum(1 for _ in self.path.glob("rounds/*/round.json"))
        rounds = f"{complete} of {self.config.loop.rounds} rounds complete"
        return f"RunFolder({str(self.path)!r}: {self.config.system.kind}, {rounds})"

    def _repr_html_(self) -> str:
        return run_card(self)

    @staticmethod
    def open(path: Path, trust: bool = False, builds: bool = True) -> "RunFolder":
        """Open an existing run.

        Parameters
        ----------
        path
            The folder.
        trust
            Whether there is consent to the code that its configuration names; see `latf_openmm.run.consent`.
        builds
            Whether its system may be built, so that consent is needed.

        Raises
        ------
        ConfigError
            If `path` is not the folder of a run, or one of a newer schema, or its configuration names code that this
            user has not agreed to run; `DamagedRunError` if its configuration or record is damaged.
        """
        file = path / CONFIG
        if not file.is_file():
            if (path / RECORD).is_file():
                raise DamagedRunError(f"{file}: missing; restore it from a copy")
            raise ConfigError(f"{path}: not the folder of a run (config.yaml is missing)")
        check_config(file, read_run(path))
        config = validate(RunConfig, read_config(file), str(file))
        if builds:
            check_system(file, path, config.system, trust)
        return RunFolder(path, config)

    @property
    def scale(self) -> TemperatureScale:
        """Temperature scale of the system."""
        return self.config.system.scale

    def temperatures(self) -> list[float]:
        """Simulated and generated temperatures, ascending."""
        return sorted({*self.config.simulation.temperatures, *self.config.generate.temperatures})

    @property
    def validation(self) -> Path:
        """Folder of the validation stage."""
        return self.path / "validation"

    @property
    def validated(self) -> Path:
        """File that is written when the validation runs have ended."""
        return self.validation / "complete.json"

    def round(self, index: int) -> RoundFolder:
        """Paths of one round, whether it exists or not."""
        return RoundFolder(index, self.path / "rounds" / f"{index:03d}")

    def plan(self, index: int) -> tuple[SimulationSettings, frozenset[float]]:
        """Return how one round is simulated, and the temperatures whose walkers feel the bias.

        Raises
        ------
        DataError
            If the round before it has a damaged plan.
        """
        simulation = self.config.simulation
        if index == 0:
            return simulation, frozenset()
        previous = self.round(index - 1)
        decision = previous.read_decision()
        try:
            changed = {**simulation.model_dump(), "temperatures": decision.temperatures}
            if not decision.moving:
                changed["tempering"] = None
            return SimulationSettings.model_validate(changed), frozenset(decision.biased)
        except ValueError as error:
            raise DataError(
                f"{previous.decision}: damaged ({first_line(error)}); expected {decision.content}"
            ) from None

    def complete_rounds(self) -> list[RoundFolder]:
        """Rounds that have ended, in order.

        Raises
        ------
        DataError
            If the record of one is missing.
        """
        self.check_rounds()
        rounds: list[RoundFolder] = []
        while (candidate := self.round(len(rounds))).complete:
            rounds.append(candidate)
        return rounds

    def check_rounds(self) -> None:
        """Raise `DataError` where the record of something complete, a round or the validation, is not there."""
        for name in read_run(self.path).files:
            if not (self.path / name).is_file():
                check_file(self.path / name)

    def last_round(self) -> RoundFolder:
        """Return the last complete round.

        Raises
        ------
        DataError
            If no round has ended yet.
        """
        rounds = self.complete_rounds()
        if not rounds:
            raise DataError(f"{self.path}: no round is complete yet; run 'latf-openmm run' first")
        return rounds[-1]

    def chosen_round(self, index: int | None) -> int:
        """Return the round given, or the last complete one.

        Raises
        ------
        ConfigError
            If the round is not complete.
        DataError
            If no round has ended yet.
        """
        last = self.last_round().index
        if index is None:
            return last
        if not 0 <= index <= last:
            raise ConfigError(f"--round: {index} is not a complete round; the last one is {last}")
        return index

    def topology(self) -> mdtraj.Topology:
        """Topology of one copy of the system."""
        return shared_system(self.config.system).mdtraj_topology()

    def reference_structure(self, path: Path | None = None) -> mdtraj.Trajectory:
        """One structure: of a file with the system's atoms, or where the system starts; whole, with the system's box.

        Raises
        ------
        ConfigError
            If the file cannot be read or has other atoms.
        """
        built = shared_system(self.config.system)
        topology = built.mdtraj_topology()
        if path is not None:
            return read_reference(path, topology)
        return as_structure(mdtraj.Trajectory(built.positions[0].astype(np.float32), topology), topology)

    def trained(self, index: int) -> TrainedModel:
        """Read the model of one round."""
        return load_model(self.round(index).model)

    def source(self, index: int) -> dict[str, Any]:
        """Return the origin of what is made from one round: the round, hashes of model and configuration, settings."""
        files = {"model": self.round(index).model / "model.safetensors", "config": self.path / CONFIG}
        hashes = {f"{name}_sha256": sha256(p) for name, p in files.items()}
        return {"round": index, **hashes, "annealing": self.config.generate.annealing.model_dump()}

    def walkers(self, last: int) -> list[WalkerFrames]:
        """All walkers of the rounds up to and including `last`."""
        rounds = [self.round(index) for index in range(last + 1)]
        for folder in rounds:
            folder.check_segments()
        return [walker for folder in rounds for walker in read_stage(folder.simulation)]
