"""An adaptive bias that nothing adds to while a simulation runs; without torch."""

import logging
from pathlib import Path

import openmm

log = logging.getLogger(__name__)
_PACES = 3
"""Steps that an adaptive bias may stay as it was, in units of its pace, before that is said."""
_updated: set[str] = set()
"""Files of messages of the biases that have something that updates them in this process."""


def note_updater(path: Path) -> None:
    """Note that the bias with this file of messages has an updater, which may begin after an equilibration."""
    _updated.add(str(path))


_said: set[str] = set()
"""Files of messages of the biases of which it has been said."""


def look_for_standstill(path: Path | str, n_steps: int, pace: int) -> bool:
    """Say, once, that nothing was added to a bias; return whether there is nothing more to look for.

    Parameters
    ----------
    path
        File of messages of the bias.
    n_steps
        Steps in which no message was sent.
    pace
        Steps between updates of the bias.
    """
    if str(path) in _updated | _said:
        return True
    if n_steps <= _PACES * pace:
        return False
    _said.add(str(path))
    log.warning(
        "nothing has been added to the adaptive bias in %d steps, and its pace is %d: append "
        "latf_openmm.BiasUpdater(cv, bias) to the reporters of the simulation, or call its update after every %d "
        "steps; where the bias is to stay as it is, give add_bias latf_openmm.frozen(bias)",
        n_steps,
        pace,
        pace,
    )
    return True


class Standstill:
    """Counts steps of a Context, and says once that its adaptive bias stays as it is; picklable.

    Evaluations without a step, as of a minimisation, do not count.

    Parameters
    ----------
    pace
        Steps between updates of the bias.
    path
        Its file of messages.
    """

    def __init__(self, pace: int, path: Path) -> None:
        self.pace = pace
        self.path = str(path)
        self._first: int | None = None
        self._step = -1
        self._n_steps = -1

    def look(self, state: openmm.State, sent: int) -> "Standstill | None":
        """Look at one evaluation.

        Parameters
        ----------
        state
            What the force was given.
        sent
            Messages sent to the force so far.

        Returns
        -------
        Standstill | None
            What looks at the next one; None where no more has to.
        """
        if self._first is None:
            self._first = sent
        step = state.getStepCount()
        if step != self._step:
            self._step = step
            self._n_steps += 1
        if sent != self._first or look_for_standstill(self.path, self._n_steps, self.pace):
            return None
        return self
