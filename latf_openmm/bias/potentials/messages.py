"""The file through which the changes of an adaptive bias reach the forces that were made of it."""

import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latf_openmm.bias.standstill import note_updater


class MessageFile:
    """Messages, one row of 8-byte numbers each; a temporary file that only grows, and ends with this object.

    Parameters
    ----------
    start
        Messages before the first one in the file.
    updated
        Whether something is there that updates the bias.
    """

    def __init__(self, start: int, updated: bool) -> None:
        handle, name = tempfile.mkstemp(prefix="latf_bias_", suffix=".rows")
        os.close(handle)
        self.path = Path(name)
        self.start = start
        if updated:
            note_updater(self.path)
        weakref.finalize(self, self.path.unlink, missing_ok=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a bias has no messages yet, and gets a file of its own."""

    def append(self, messages: Sequence[Tensor]) -> None:
        """Add messages, all of the same length."""
        with self.path.open("ab") as file:
            file.write(torch.stack(list(messages)).double().numpy().tobytes())
