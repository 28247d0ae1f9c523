"""The loss terms of both training stages, as pure functions of one batch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from latf_openmm.model.encoder import Encoder
from latf_openmm.model.flow import CouplingFlow
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.model.prior import log_pulled_back
from latf_openmm.training.coupling import mapped

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

    def split(self, size: int) -> Iterator["Batch"]:
        """The same in parts of `size` pairs, the last one smaller."""
        arrays = (self.features, self.labels, self.weights, self.temperatures)
        for parts in zip(*(array.split(size) for array in arrays), strict=True):
            yield Batch(*parts)


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
        mixture = _LogMixture.apply(z * scale, centres * scale, torch.log_softmax(self.logits, dim=0))
        return mixture - z.shape[1] * (encoder.log_sigma + 0.5 * math.log(2 * math.pi))


class _LogMixture(torch.autograd.Function):
    """Log of sum_k w_k exp(-|x - c_k|^2 / 2), (n,), by x (n, d), c (k, d) and log w (k,), with its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Tensor, log_w: Tensor) -> Tensor:
        log_mixture, shares = mixture_shares(x.t().contiguous(), c.t(), log_w)
        ctx.save_for_backward(x, c, shares)
        return log_mixture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, c, shares = ctx.saved_tensors
        shares = shares * gradient
        by_log_w = shares.sum(dim=1)
        by_x = torch.addcmul(shares.t() @ c, gradient.unsqueeze(1), x, value=-1.0)
        by_c = torch.addcmul(shares @ x, by_log_w.unsqueeze(1), c, value=-1.0)
        return by_x, by_c, by_log_w


def mixture_shares(x: Tensor, c: Tensor, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of sum_k w_k exp(-|x - c_k|^2 / 2), and what part of it each term is.

    Points are last, which is faster: up to a hundred centres make large arrays.

    Parameters
    ----------
    x, c, log_w
        Points (d, n), centres (d, k), and log weights (k,).

    Returns
    -------
    log_mixture, shares
        Shapes (n,) and (k, n).
    """
    each = log_w.unsqueeze(1)
    for a, b in zip(x.unbind(0), c.unbind(0), strict=True):
        difference = a - b.unsqueeze(1)
        each = torch.addcmul(each, difference, difference, value=-0.5)
    most = each.amax(dim=0)
    # Centres that weigh nothing: exp of less than -87 takes ten times as long.
    shares = each.sub_(most).clamp_(min=-_NOTHING).exp_()
    total = shares.sum(dim=0)
    return total.log().add_(most), shares.div_(total)


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
        log_prior = _log_density(model, z, batch.temperatures)
    else:
        log_prior = prior.log_prob(z, model.encoder)
    divergence = model.encoder.log_prob(z, mean) - log_prior
    return Terms(
        -(batch.weights * log_q).mean(),
        (batch.weights * divergence).mean(),
        squared_correlation(mean, batch.weights),
    )


def _log_density(model: LatentThermodynamicFlow, z: Tensor, temperature: Tensor) -> Tensor:
    """`model.log_density` of a model with one flow, through layers whose way back is written out; shape (n,)."""
    flow, t = cast(CouplingFlow, model.flows[0]), model.reduced(temperature.to(z))
    parameters = {name: value.unsqueeze(0) for name, value in flow.named_parameters()}
    u, log_det = mapped(flow, parameters, z, model.context(t))
    return log_pulled_back(u, log_det, model.prior.tau, t) - model.prior.log_normalisers(t)


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
