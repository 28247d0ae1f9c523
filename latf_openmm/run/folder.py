"""The folder of a run with its configuration. Nothing here computes or changes it."""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np

from latf_openmm.features.contacts import read_reference
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.model.checkpoint import MODEL_WEIGHTS, TrainedModel, load_model
from latf_openmm.periodic import as_structure
from latf_openmm.run.config import RunConfig
from latf_openmm.run.config_file import read_run_config
from latf_openmm.run.configured import ConfiguredRun
from latf_openmm.run.consent import check_system
from latf_openmm.run.overview import run_card
from latf_openmm.settings import validate
from latf_openmm.storage import CONFIG, sha256
from latf_openmm.systems import shared_system

EXECUTION = "execution"
"""Folder with logs of the engine that ran the tasks."""


class RunFolder(ConfiguredRun):
    """One run on disk.

    Parameters
    ----------
    path
        The folder.
    config
        Its configuration.
    """

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
        config = validate(RunConfig, read_run_config(path), str(file))
        if builds:
            check_system(file, path, config.system, trust)
        return RunFolder(path, config)

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
        files = {"model": self.round(index).model / MODEL_WEIGHTS, "config": self.path / CONFIG}
        hashes = {f"{name}_sha256": sha256(p) for name, p in files.items()}
        return {"round": index, **hashes, "annealing": self.config.generate.annealing.model_dump()}

    def walkers(self, last: int) -> list[WalkerFrames]:
        """All walkers of the rounds up to and including `last`."""
        rounds = [self.round(index) for index in range(last + 1)]
        for folder in rounds:
            folder.check_segments()
        return [walker for folder in rounds for walker in read_stage(folder.simulation)]
