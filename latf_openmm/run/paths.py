"""Where everything lies in the folder of a run.

::

    DIR/config.yaml                       the configuration the run was started with
    DIR/run.json                          schema of the folder, versions that worked on it
    DIR/rounds/000/simulation/T0.2/segment_0000/{frames.parquet, walker_000.dcd, checkpoint.bin, state.xml}
    DIR/rounds/000/model/{model.safetensors, model.json, history.parquet}
    DIR/rounds/000/model.lags.partial     lags of a scan that are done, until the model is there
    DIR/rounds/000/generated/T0.3/{latent_samples.parquet, free_energy.parquet, structures.dcd, ...}
    DIR/rounds/000/starts.npz             start structures of the next round
    DIR/rounds/000/decision.json          what the next round does, and why
    DIR/rounds/000/round.json             written last: the round is complete
    DIR/validation/T0.3/...               independent unbiased runs, for the report only
    DIR/execution/...                     logs of the engine, where one ran the tasks
    DIR/.progress.json                    what a command does at this moment; nothing rests on it
    DIR/.wall_time.json                   wall time of the steps that are in no record yet
    DIR/report/{index.html, *.png, state_0.pdb, ..., comparison.json}
"""

from pathlib import Path

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.run.schema import read_run
from latf_openmm.storage import check_file


class RunPaths:
    """Paths of a run, and its complete rounds.

    Parameters
    ----------
    path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def validation(self) -> Path:
        """Folder of the validation stage."""
        return self.path / "validation"

    @property
    def validated(self) -> Path:
        """File that is written when the validation runs have ended."""
        return self.validation / "complete.json"

    @property
    def report(self) -> Path:
        """Page of its report, which is there when it was asked for."""
        return self.path / "report" / "index.html"

    def round(self, index: int) -> RoundFolder:
        """Paths of one round, whether it exists or not."""
        return RoundFolder(index, self.path / "rounds" / f"{index:03d}")

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
