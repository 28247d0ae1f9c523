"""LatentCV: positions -> collective variables, the trained encoder with its features in one module."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from latf_openmm.features import Features
from latf_openmm.model.checkpoint import TrainedModel


class LatentCV(nn.Module):
    """z = mu((features(x) - mean) / scale), in double precision.

    ``forward(positions, box)`` takes (n_frames, n_atoms, 3) [nm] and a box of shape (n_frames, 3, 3) [nm]
    or an empty tensor, and returns (n_frames, latent_dim).

    Parameters
    ----------
    features
        Features module.
    mean, scale
        Normaliser, each of shape (n_features,).
    encoder
        Module from standardised descriptors to z.
    n_atoms
        Atoms of one copy of the system.
    """

    def __init__(
        self, features: Features, mean: Tensor, scale: Tensor, encoder: nn.Module, n_atoms: int
    ) -> None:
        super().__init__()
        self.features = features
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.encoder = encoder
        self.n_atoms = n_atoms
        self.double()
        self.requires_grad_(False)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables, shape (n_frames, latent_dim)."""
        x = self.features(positions.to(self.mean.dtype), box.to(self.mean.dtype))
        return self.encoder((x - self.mean) / self.scale)


def latent_cv(trained: TrainedModel) -> LatentCV:
    """Return the collective variables of a trained model; the model itself is left as it is."""
    model = copy.deepcopy(trained.model)
    return LatentCV(
        trained.feature_module(),
        model.feature_mean,
        model.feature_scale,
        model.encoder.mean,
        len(trained.atoms),
    )


class SingleFrameCV(nn.Module):
    """The collective variables of one frame: positions (n_atoms, 3) [nm] -> (latent_dim,)."""

    def __init__(self, cv: LatentCV) -> None:
        super().__init__()
        self.cv = cv

    def forward(self, positions: Tensor) -> Tensor:
        """Return collective variables, shape (latent_dim,)."""
        return self.cv(positions.unsqueeze(0), torch.empty(0))[0]


def export_cv(cv: LatentCV, path: Path) -> None:
    """Write a TorchScript file of the collective variables: positions (n_atoms, 3) [nm] -> (latent_dim,)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(SingleFrameCV(cv).eval()).save(str(path))
