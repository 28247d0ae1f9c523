"""TorchScript, which PLUMED and TorchForce read, without what torch 2.14 says against it each time."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*torch\.jit\.", FutureWarning)
            warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
            return function(*arguments, **options)

    return call


script = _quiet(torch.jit.script)
"""As `torch.jit.script`."""
trace = _quiet(torch.jit.trace)
"""As `torch.jit.trace`."""
freeze = _quiet(torch.jit.freeze)
"""As `torch.jit.freeze`."""
save = _quiet(torch.jit.save)
"""As `torch.jit.save`."""
load = _quiet(torch.jit.load)
"""As `torch.jit.load`."""
