"""The trained encoder with its features as collective variables."""

import copy

import torch
from torch import Tensor, nn

from latf_openmm.bias.cv import FeatureCV
from latf_openmm.model.checkpoint import TrainedModel


class StandardisedEncoder(nn.Module):
    """z = mu((x - mean) / scale).

    Parameters
    ----------
    mean, scale
        Normaliser, each of shape (n_features,).
    encoder
        Module from standardised descriptors to z.
    """

    def __init__(self, mean: Tensor, scale: Tensor, encoder: nn.Module) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Return collective variables, shape (n_frames, latent_dim)."""
        return self.encoder((x - self.mean) / self.scale)


def latent_cv(trained: TrainedModel) -> FeatureCV:
    """Return the collective variables of a trained model; the model itself is left as it is."""
    model = copy.deepcopy(trained.model)
    encoder = standardised(model.feature_mean, model.feature_scale, model.encoder.mean)
    return FeatureCV(trained.feature_module(), encoder, len(trained.atoms))


@torch.no_grad()
def standardised(mean: Tensor, scale: Tensor, encoder: nn.Module) -> nn.Module:
    """Return `StandardisedEncoder`'s map; a first linear layer takes the normaliser over.

    Parameters
    ----------
    mean, scale
        Normaliser, each of shape (n_features,).
    encoder
        Changed and used; double precision from now on.
    """
    encoder = encoder.double()
    first = encoder[0] if isinstance(encoder, nn.Sequential) and len(encoder) > 0 else encoder
    if not isinstance(first, nn.Linear) or first.bias is None:
        return StandardisedEncoder(mean, scale, encoder)
    first.weight /= scale
    first.bias.sub_(first.weight @ mean.double())
    return encoder
