"""The training of every round, and what was decided after it, as event files that TensorBoard draws."""

import shutil
from pathlib import Path

import pandas as pd

from latf_openmm.errors import ConfigError
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.rounds import RoundFolder
from latf_openmm.storage import atomic_folder

_CURVES = ("train_loss", "prediction", "divergence", "n_states", "sigma")
"""Columns of the history that are written."""


def write_events(run: RunFolder) -> Path:
    """Write ``tensorboard/round_000`` and so on, one folder for each complete round.

    Scalars are those of `history` by epoch, counted through the stages of a training, and the errors at the
    temperatures wanted by round.

    Returns
    -------
    Path
        The folder to give to ``tensorboard --logdir``.

    Raises
    ------
    ConfigError
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            'TensorBoard is not installed: expected pip install "latf-openmm[tensorboard]"'
        ) from error
    folder = run.path / "tensorboard"
    for record in run.complete_rounds():
        path = folder / record.path.name
        shutil.rmtree(path, ignore_errors=True)  # all of it is in the rounds
        with atomic_folder(path) as temporary:
            writer = SummaryWriter(str(temporary))
            for name, step, value in [*_of_training(record.history()), *_of_decision(record)]:
                writer.add_scalar(name, value, step)
            writer.close()
    return folder


def _of_training(history: pd.DataFrame) -> list[tuple[str, int, float]]:
    return [
        (f"{row['stage']}/{name}", step, float(row[name]))
        for step, row in enumerate(history.to_dict("records"))
        for name in _CURVES
    ]


def _of_decision(record: RoundFolder) -> list[tuple[str, int, float]]:
    """Errors over their tolerances, which the active strategy has found."""
    rows = record.read_decision().diagnostics.get("targets", [])
    return [
        (f"error over tolerance/T = {row['temperature']:g}", record.index, float(row["error over tolerance"]))
        for row in rows
    ]
