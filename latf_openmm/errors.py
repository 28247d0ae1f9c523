"""The errors this package raises, each also a builtin error that Python users expect; warnings that are given once."""

import logging

_warned: set[str] = set()


class LatfError(Exception):
    """Base of every error raised on purpose by latf-openmm."""


class ConfigError(LatfError, ValueError):
    """A configuration, or a value given by the user, is wrong.

    Parameters
    ----------
    problems
        One line for each problem: where it is, what was found, what was expected.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DamagedRunError(ConfigError):
    """The configuration or the record of a run folder was changed or is missing."""


class DataError(LatfError, ValueError):
    """Trajectory or table data cannot be used (missing, truncated, not finite, wrong shape)."""


class ModelError(LatfError, ValueError):
    """A trained model cannot be used for what was asked (other topology, damaged file)."""


class BackendError(LatfError, RuntimeError):
    """The machine's OpenMM/torch installation cannot do what was asked."""


class SimulationError(LatfError, RuntimeError):
    """A simulation failed (for example the energy became NaN)."""


def first_line(error: Exception) -> str:
    """First line of an error that another library raised, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def last_line(error: Exception) -> str:
    """Last line of an error: TorchScript puts a traceback before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def warn_once(log: logging.Logger, text: str) -> None:
    """Log a warning once in a process: a System, or a selection, is looked at many times in a run."""
    if text not in _warned:
        _warned.add(text)
        log.warning(text)
