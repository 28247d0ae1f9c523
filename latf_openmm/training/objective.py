"""The loss terms of both training stages, as pure functions of one batch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latf_openmm.model.encoder import Encoder
from latf_openmm.model.latf import LatentThermodynamicFlow

_NOTHING = 60.0
"""Below the largest term of a mixture by so much, terms are taken for that much: exp of it is lost in rounding."""


@dataclass(frozen=True)
class Batch:
    """One batch of lagged pairs.

    Attributes
    ----------
    features
        Standardised descriptors at t, shape (n, n_features).
    labels
        State at t + lag, shape (n,).
    weights
        Statistical weight, shape (n,).
    temperatures
        Temperature of the frame, shape (n,).
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    temperatures: Tensor


@dataclass(frozen=True)
class Terms:
    """Weighted batch means of the terms of the objective (nats), and how correlated the variables are.

    Attributes
    ----------
    prediction
        E[-log q(y|z)].
    divergence
        E[log p(z|x) - log prior(z)].
    correlation
        Mean squared correlation coefficient between pairs of collective variables; 0 for one variable.
    """

    prediction: Tensor
    divergence: Tensor
    correlation: Tensor

    def loss(self, beta: float, decorrelation: float = 0.0) -> Tensor:
        """L = E[-log q(y|z)] + beta E[log p(z|x) - log prior(z)] + decorrelation * correlation.

        The first two terms do not care whether the variables repeat each other: the last one decides.
        """
        return self.prediction + beta * self.divergence + decorrelation * self.correlation


class RepresentativePrior(nn.Module):
    """SPIB's prior of stage one: a mixture of the encoder's output at one representative input a state.

    p(z) = sum_k w_k N(z; mu(x_k), sigma^2 I) (Wang and Tiwary 2021, after Tomczak and Welling 2018).

    Parameters
    ----------
    inputs
        Standardised representative inputs, shape (n_states, n_features).
    populations
        Initial mixture weights, shape (n_states,).
    """

    def __init__(self, inputs: Tensor, populations: Tensor) -> None:
        super().__init__()
        self.inputs: Tensor
        self.register_buffer("inputs", inputs)
        self.logits = nn.Parameter(torch.log(populations.clamp_min(1e-6)))

    def log_prob(self, z: Tensor, encoder: Encoder) -> Tensor:
        """Log p(z), shape (n,)."""
        centres = encoder(self.inputs)
        scale = torch.exp(-encoder.log_sigma)
        x, c = z * scale, centres * scale
        each = torch.log_softmax(self.logits, dim=0)
        for a, b in zip(x.unbind(1), c.unbind(1), strict=True):  # few dimensions, up to a hundred centres
            each = each - 0.5 * (a.unsqueeze(1) - b).square()
        # Centres that weigh nothing: exp of less than -87 takes ten times as long.
        each = torch.maximum(each, each.detach().amax(dim=1, keepdim=True) - _NOTHING)
        return torch.logsumexp(each, dim=1) - z.shape[1] * (encoder.log_sigma + 0.5 * math.log(2 * math.pi))


def terms(
    model: LatentThermodynamicFlow,
    batch: Batch,
    prior: RepresentativePrior | None,
    generator: torch.Generator | None,
) -> Terms:
    """Terms of stage one (`prior` given) or of the joint stage (`prior` None: the flow at each T).

    z is drawn from p(z|x), and the entropy term log p(z|x) is kept in both stages.
    """
    mean = model.encoder(batch.features)
    z = model.encoder.sample(mean, generator)
    log_q = model.decoder(z).gather(1, batch.labels.unsqueeze(1)).squeeze(1)
    if prior is None:
        log_prior = model.log_density(z, batch.temperatures)
    else:
        log_prior = prior.log_prob(z, model.encoder)
    divergence = model.encoder.log_prob(z, mean) - log_prior
    return Terms(
        -(batch.weights * log_q).mean(),
        (batch.weights * divergence).mean(),
        squared_correlation(mean, batch.weights),
    )


def squared_correlation(z: Tensor, weights: Tensor) -> Tensor:
    """Mean over pairs of columns of the squared weighted correlation coefficient; z is (n, d), weights (n,)."""
    d = z.shape[1]
    if d == 1:
        return z.new_zeros(())
    share = (weights / weights.sum()).unsqueeze(1)
    centred = z - (share * z).sum(dim=0)
    covariance = centred.T @ (share * centred)
    variance = covariance.diagonal().clamp_min(1e-12)
    squares = covariance.square() / (variance.unsqueeze(0) * variance.unsqueeze(1))
    return (squares.sum() - squares.diagonal().sum()) / (d * (d - 1))
