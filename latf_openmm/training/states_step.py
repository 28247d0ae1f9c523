"""One step of the states stage with its way back written out: for training alone.

The same numbers as autograd gives for `objective.terms` with the prior of the stage, in less time. Batches are small,
so time goes into calls of operations, not into the operations: there are few of them, and all parameters lie in one
array, which is moved at once. Points are the last dimension, so that operations run over long rows.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.training.objective import Batch, RepresentativePrior, mixture_shares

_DECAY, _DECAY_OF_SQUARES, _EPSILON = 0.9, 0.999, 1e-15
"""Of Adam: decay of the mean gradient and of its mean square, and what is added to the root of the latter."""
_MAX_GRADIENT = 10.0
"""Largest norm of the gradient; longer ones are shortened."""


class StatesStep:
    """Steps of Adam on L = prediction + beta divergence + decorrelation correlation, see `objective.Terms`.

    Parameters
    ----------
    model, prior
        Whose encoder, decoder and weights are trained, in place; they share one array from now on.
    beta, decorrelation
        Weights of the second and the third term.
    learning_rate
        Of Adam.
    """

    def __init__(
        self,
        model: LatentThermodynamicFlow,
        prior: RepresentativePrior,
        beta: float,
        decorrelation: float,
        learning_rate: float,
    ) -> None:
        self.beta, self.decorrelation, self.learning_rate = beta, decorrelation, learning_rate
        self.inputs = prior.inputs
        encoder, decoder = (
            [
                p
                for layer in part.modules()
                if isinstance(layer, nn.Linear)
                for p in (layer.weight, layer.bias)
            ]
            for part in (model.encoder, model.decoder)
        )
        self.parameters = [*encoder, *decoder, model.encoder.log_sigma, prior.logits]
        self.flat = torch.cat([p.detach().flatten() for p in self.parameters])
        self.gradient = torch.zeros_like(self.flat)
        self._moments = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._steps = 0
        for parameter, view in zip(self.parameters, self.views(self.flat), strict=True):
            parameter.data = view
        values, slopes = self.views(self.flat), self.views(self.gradient)
        end = len(encoder)
        self._encoder = _Network(values[:end], slopes[:end])
        self._decoder = _Network(values[end:-2], slopes[end:-2])
        self._log_sigma, self._logits = values[-2:]
        self._by_log_sigma, self._by_logits = slopes[-2:]

    def views(self, flat: Tensor) -> list[Tensor]:
        """Parts of an array like `flat` in the shapes of the parameters."""
        parts = flat.split([p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def step(self, batch: Batch, generator: torch.Generator | None) -> float:
        """Move all parameters by one batch; return its loss (nats)."""
        shape = (len(batch.features), self._encoder.width)
        noise = torch.randn(shape, generator=generator, dtype=self.flat.dtype).to(self.flat.device)
        loss = self.differentiate(batch, noise)
        norm = float(self.gradient.norm())
        if norm > _MAX_GRADIENT:
            self.gradient.mul_(_MAX_GRADIENT / norm)
        mean, square = self._moments
        self._steps += 1
        mean.lerp_(self.gradient, 1.0 - _DECAY)
        square.mul_(_DECAY_OF_SQUARES).addcmul_(self.gradient, self.gradient, value=1.0 - _DECAY_OF_SQUARES)
        scale = 1.0 / math.sqrt(1.0 - _DECAY_OF_SQUARES**self._steps)
        size = self.learning_rate / (1.0 - _DECAY**self._steps)
        self.flat.addcdiv_(mean, square.sqrt().mul_(scale).add_(_EPSILON), value=-size)
        return loss

    @torch.no_grad()
    def differentiate(self, batch: Batch, noise: Tensor) -> float:
        """Return the loss of a batch (nats) and write its gradient into `gradient`; noise has shape (n, d)."""
        n, share, sigma = len(noise), batch.weights / len(noise), math.exp(float(self._log_sigma))
        noise = noise.t().contiguous()
        # Representative inputs go through the encoder with the batch.
        means = self._encoder.forward(torch.cat([batch.features, self.inputs]).t())
        scaled = means / sigma
        x = scaled[:, :n] + noise  # z / sigma
        prediction, by_z = self._predict(x * sigma, batch.labels, share)
        divergence, by_means = self._diverge(x, scaled[:, n:], noise, share)
        turn = sigma * torch.dot(by_z.flatten(), noise.flatten())
        self._by_log_sigma.copy_(turn - torch.dot(by_means.flatten(), scaled.flatten()))
        by_means.div_(sigma)
        by_means[:, :n] += by_z
        loss = prediction + self.beta * divergence
        if len(means) > 1 and self.decorrelation > 0.0:
            correlation, by_mean = _correlate(means[:, :n], batch.weights)
            loss = loss + self.decorrelation * correlation
            by_means[:, :n].add_(by_mean, alpha=self.decorrelation)
        self._encoder.backward(by_means)
        return float(loss)

    def _predict(self, z: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of -share log q(y|z) and its gradient by z, (d, n)."""
        log_q, at = torch.log_softmax(self._decoder.forward(z), dim=0), labels.unsqueeze(0)
        loss = -torch.dot(share, log_q.gather(0, at).squeeze(0))
        by_scores = log_q.exp_().mul_(share)
        by_scores.scatter_add_(0, at, -share.unsqueeze(0))
        return loss, self._decoder.by_input(self._decoder.backward(by_scores))

    def _diverge(self, x: Tensor, c: Tensor, noise: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence, and beta times its gradient by means over sigma, those of centres last, (d, n + k)."""
        log_w = torch.log_softmax(self._logits, dim=0)
        log_mixture, shares = mixture_shares(x, c, log_w)
        divergence = -torch.dot(share, log_mixture.add_(noise.square().sum(dim=0), alpha=0.5))
        shares.mul_(share.mul(-self.beta))
        by_log_w, by_x = shares.sum(dim=1), torch.addcmul(c @ shares, x, share, value=self.beta)
        by_c = torch.addcmul(x @ shares.t(), c, by_log_w, value=-1.0)
        torch.addcmul(by_log_w, log_w.exp(), by_log_w.sum(), value=-1.0, out=self._by_logits)
        return divergence, torch.cat([by_x, by_c], dim=1)


class _Network:
    """Linear layers with SiLU between, on points in columns.

    Parameters
    ----------
    values, slopes
        Weight and bias of every layer in turn, and where their gradients are written.
    """

    def __init__(self, values: Sequence[Tensor], slopes: Sequence[Tensor]) -> None:
        self._layers = list(zip(values[::2], values[1::2], slopes[::2], slopes[1::2], strict=True))
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self.width = len(values[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Values (n_out, n) at `x` (n_in, n); what the way back needs is kept."""
        self._inputs, self._outputs = [], []
        for weight, bias, _, _ in self._layers:
            if self._outputs:
                x = F.silu(self._outputs[-1])
            self._inputs.append(x)
            self._outputs.append(torch.addmm(bias.unsqueeze(1), weight, x))
        return self._outputs[-1]

    def backward(self, by_values: Tensor) -> Tensor:
        """Write the gradients of weights and biases; return that of the first layer's values."""
        for place in reversed(range(len(self._layers))):
            weight, _, by_weight, by_bias = self._layers[place]
            torch.mm(by_values, self._inputs[place].t(), out=by_weight)
            torch.sum(by_values, dim=1, out=by_bias)
            if place:
                by_values = torch.ops.aten.silu_backward(weight.t() @ by_values, self._outputs[place - 1])
        return by_values

    def by_input(self, by_first: Tensor) -> Tensor:
        """Return the gradient of the input, by that of the first layer's values."""
        return self._layers[0][0].t() @ by_first


def _correlate(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return `objective.squared_correlation` of z (d, n) and its gradient, (d, n)."""
    d, share = len(z), weights / weights.sum()
    centred = z - (z @ share).unsqueeze(1)
    weighted = centred * share
    covariance = weighted @ centred.t()
    inverse = covariance.diagonal().clamp_min(1e-12).reciprocal()
    ratio = covariance * inverse.unsqueeze(1) * inverse  # C_ij / (V_i V_j)
    ratio.fill_diagonal_(0.0)
    squares = (ratio * covariance).sum(dim=1)  # of each variable, sum of its squared coefficients
    scale = 1.0 / (d * (d - 1))
    slope = ratio.sub_(torch.diag(squares * inverse))
    return squares.sum() * scale, (slope @ weighted).mul_(4.0 * scale)
