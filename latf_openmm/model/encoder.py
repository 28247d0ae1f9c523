"""Encoder p(z|x) and state decoder q(y|z)."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """p(z|x) = N(mu(x), sigma^2 I): mu a linear map or an MLP, sigma^2 one learned scalar.

    Parameters
    ----------
    n_features
        Length of x.
    latent_dim
        Length of z.
    hidden
        Widths of the hidden layers; empty for a linear map.
    """

    def __init__(self, n_features: int, latent_dim: int, hidden: list[int]) -> None:
        super().__init__()
        self.mean = mlp([n_features, *hidden, latent_dim])
        self.log_sigma = nn.Parameter(torch.tensor(math.log(0.1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean mu(x), shape (n, latent_dim)."""
        return self.mean(x)

    def sample(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z around `mean` by the reparametrisation z = mu + sigma noise, same shape."""
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
        return mean + self.log_sigma.exp() * noise

    def log_prob(self, z: Tensor, mean: Tensor) -> Tensor:
        """Log p(z|x) of points z given their means, shape (n,)."""
        return isotropic_log_prob(z, mean, self.log_sigma)


class StateDecoder(nn.Module):
    """q(y|z): an MLP followed by log-softmax over the metastable states."""

    def __init__(self, latent_dim: int, hidden: list[int], n_states: int) -> None:
        super().__init__()
        widths = [latent_dim, *hidden]
        self.body = nn.Sequential(mlp(widths), nn.SiLU()) if hidden else nn.Identity()
        self.head = nn.Linear(widths[-1], n_states)

    def forward(self, z: Tensor) -> Tensor:
        """Return log probabilities, shape (n, n_states)."""
        return torch.log_softmax(self.scores(z), dim=1)

    def scores(self, z: Tensor) -> Tensor:
        """Log probabilities but for a number the same in all states, shape (n, n_states)."""
        return self.head(self.body(z))

    @torch.no_grad()
    def keep(self, states: list[int]) -> None:
        """Forget all output states but `states`, in that order."""
        head = nn.Linear(self.head.in_features, len(states))
        head.to(self.head.weight)
        head.weight.copy_(self.head.weight[states])
        head.bias.copy_(self.head.bias[states])
        self.head = head


def isotropic_log_prob(z: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Log N(z; mean, sigma^2 I), summed over the last dimension."""
    dim = z.shape[-1]
    scaled = ((z - mean) * torch.exp(-log_sigma)).square().sum(-1)
    return -0.5 * scaled - dim * (log_sigma + 0.5 * math.log(2 * math.pi))


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers of the given widths with SiLU between them (smooth, so forces are too)."""
    modules: list[nn.Module] = []
    for index, (a, b) in enumerate(pairwise(widths)):
        modules += [nn.SiLU()] if index else []
        modules += [nn.Linear(a, b)]
    return nn.Sequential(*modules)
