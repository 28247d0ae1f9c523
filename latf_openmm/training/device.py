"""Device that a model is trained on."""

import torch

from latf_openmm.errors import ConfigError


def training_device(name: str) -> torch.device:
    """Return the device by the name that `training.device` has for it.

    Raises
    ------
    ConfigError
        If there is no such device here.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "training.device: 'cuda', but torch sees no CUDA device here; expected 'auto' or 'cpu'"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
