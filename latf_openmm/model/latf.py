"""The Latent Thermodynamic Flow: normaliser, encoder, state decoder, flow and tilted prior in one model."""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latf_openmm.model.encoder import Encoder, StateDecoder
from latf_openmm.model.flow import CouplingFlow, FlowSettings
from latf_openmm.model.prior import TiltedGaussian, log_normaliser, log_pulled_back, mean_square_radius
from latf_openmm.settings import Settings
from latf_openmm.threads import torch_threads

_PART = 4096
"""Points that go through a flow at a time: what a layer makes of them fits into a processor's cache."""


class ModelSettings(Settings):
    """Architecture of the model."""

    latent_dim: int = Field(2, ge=1, le=10, description="number of collective variables")
    encoder_hidden: list[int] = Field([], description="hidden widths of the encoder; empty: linear map")
    decoder_hidden: list[int] = Field([32, 32], description="hidden widths of the state decoder")
    tau: float = Field(2.0, ge=0, le=50, description="tilt of the prior; 0 is a plain Gaussian")
    flow: FlowSettings = Field(FlowSettings(), description="shape of the flow")

    def for_temperatures(self, n: int) -> "ModelSettings":
        """Return the settings with the flow's context decided, for frames reweighted to `n` temperatures."""
        if self.flow.context != "auto":
            return self
        context = "temperature" if n > 1 else "none"
        return self.model_copy(update={"flow": self.flow.model_copy(update={"context": context})})

    @model_validator(mode="after")
    def _one_dimension(self) -> "ModelSettings":
        if self.latent_dim == 1 and self.flow.transform == "affine":
            raise ValueError("a one-dimensional flow needs transform 'spline': an affine one is no flow")
        return self


class LatentThermodynamicFlow(nn.Module):
    """Density r_T(z) of learned collective variables z at any temperature T, and their states.

    r_T(z) = q_t(g(z)) |det dg/dz| with t = T / T0 (Qiu et al., "Latent Thermodynamic Flows", 2026).

    Parameters
    ----------
    settings
        Architecture.
    n_features, n_states
        Length of a descriptor; number of metastable states.
    reference_temperature
        T0, in the temperature scale of the system.
    n_members
        Flows in the committee; r_T(z) is the mean of their densities.
    """

    def __init__(
        self,
        settings: ModelSettings,
        n_features: int,
        n_states: int,
        reference_temperature: float,
        n_members: int = 1,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.reference_temperature = reference_temperature
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        dim = settings.latent_dim
        self.encoder = Encoder(n_features, dim, settings.encoder_hidden)
        self.decoder = StateDecoder(dim, settings.decoder_hidden, n_states)
        self.prior = TiltedGaussian(dim, settings.tau)
        self._prior_size = math.sqrt(mean_square_radius(settings.tau, 1.0, dim) / dim)
        self.flows = self._new_flows(n_members)
        self.t_range: Tensor
        self.register_buffer("t_range", torch.tensor([1e-3, 1e3]))

    @property
    def latent_dim(self) -> int:
        """Number of collective variables."""
        return self.settings.latent_dim

    @property
    def n_features(self) -> int:
        """Length of a descriptor."""
        return int(self.feature_mean.shape[0])

    @property
    def n_states(self) -> int:
        """Number of metastable states."""
        return int(self.decoder.head.out_features)

    @property
    def n_members(self) -> int:
        """Number of flows in the committee."""
        return len(self.flows)

    @property
    def sees_temperature(self) -> bool:
        """Return whether the flow knows the temperature, or only the prior does."""
        return self.settings.flow.context == "temperature"

    def renew_flows(self, n: int) -> None:
        """Put a committee of `n` new flows in place of the present ones; each starts as the identity."""
        self.flows = self._new_flows(n).to(self.feature_mean.device)

    def _new_flows(self, n: int) -> nn.ModuleList:
        settings = self.settings
        n_context = int(self.sees_temperature)
        return nn.ModuleList(
            [CouplingFlow(self.latent_dim, settings.flow, self._prior_size, n_context) for _ in range(n)]
        )

    def set_temperature_range(self, low: float, high: float) -> None:
        """Say where a flow that sees the temperature learns from data; beyond, r_T stays as at the nearer end."""
        self.t_range.copy_(torch.tensor([low, high]) / self.reference_temperature)

    def whiten(self, mean: Tensor, std: Tensor) -> None:
        """Set the whitening of all flows from the latents' mean and standard deviation, each (latent_dim,)."""
        for flow in self.flows:
            flow.whiten(mean, std)  # type: ignore[operator]

    def normalise(self, features: Tensor) -> Tensor:
        """Standardise descriptors, shape (n, n_features)."""
        return (features - self.feature_mean) / self.feature_scale

    def encode(self, features: Tensor) -> Tensor:
        """Collective variables mu(x) of raw descriptors, shape (n, latent_dim)."""
        return self.encoder(self.normalise(features))

    def state_log_probabilities(self, z: Tensor) -> Tensor:
        """Log q(y|z), shape (n, n_states)."""
        return self.decoder(z)

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """Most probable state of each point, shape (n,)."""
        return torch.cat([self.decoder.scores(part).argmax(dim=1) for part in z.split(_PART)])

    def reduced(self, temperature: Tensor) -> Tensor:
        """Reduced temperature t = T / T0 of each temperature, shape as `temperature`.

        A flow that sees the temperature knows nothing beyond the range it learned from, and what the prior
        does there was never trained: t is held at the nearer end. (Left to the prior alone, r_T was always
        further from the truth; see docs/architecture.md.) Where only the prior knows the temperature it
        steers r_T everywhere, as in the paper.
        """
        t = temperature / self.reference_temperature
        if not self.sees_temperature:
            return t
        low, high = self.t_range.to(t)
        return torch.minimum(torch.maximum(t, low), high)

    def context(self, t: Tensor) -> Tensor:
        """Context of the flow for each point: ln of its reduced temperature, or nothing; shape (n, n_context)."""
        if not self.sees_temperature:
            return torch.zeros((len(t), 0)).to(t)
        return torch.log(t).unsqueeze(1)

    def member_log_densities(self, z: Tensor, temperature: Tensor) -> Tensor:
        """Log density of each committee member for points (n, latent_dim) at temperatures (n,); (members, n)."""
        t = self.reduced(temperature.to(z))
        context, each = self.context(t), []
        log_c = self.prior.log_normalisers(t)
        for flow in self.flows:
            u, log_det = flow(z, context)
            each.append(log_pulled_back(u, log_det, self.prior.tau, t))
        return torch.stack(each) - log_c

    def log_density(self, z: Tensor, temperature: Tensor) -> Tensor:
        """Log r_T(z) for points (n, latent_dim), each at its own temperature (n,); shape (n,)."""
        return _log_mean(self.member_log_densities(z, temperature))

    def density(self, temperature: float) -> "LatentDensity":
        """Return the distribution of z at one temperature."""
        return LatentDensity(self, temperature)


class LatentDensity:
    """r_T(z) at one temperature: log-density and independent samples."""

    def __init__(self, model: LatentThermodynamicFlow, temperature: float) -> None:
        self.model = model
        self.temperature = temperature

    def log_prob(self, z: Tensor) -> Tensor:
        """Log r_T(z), shape (n,)."""
        return _log_mean(self.member_log_probs(z))

    @torch_threads(1)
    def member_log_probs(self, z: Tensor) -> Tensor:
        """Log density of each member of the committee, shape (n_members, n)."""
        at = torch.tensor([self.temperature], dtype=z.dtype, device=z.device)
        parts = [self.model.member_log_densities(part, at.expand(len(part))) for part in z.split(_PART)]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    @torch_threads(1)
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent samples of z, shape (n, latent_dim); none is discarded.

        Sample i is drawn from member i modulo the number of members.
        """
        model = self.model
        t = float(model.reduced(torch.tensor(self.temperature, dtype=torch.float64)))
        u = model.prior.sample(n, t, generator).to(model.feature_mean)
        context = model.context(torch.tensor([t]).to(u))
        z = torch.empty_like(u)
        for index, flow in enumerate(model.flows):
            parts = u[index :: model.n_members].split(_PART)
            z[index :: model.n_members] = torch.cat(
                [flow.inverse(part, context.expand(len(part), -1)) for part in parts]  # type: ignore[operator]
            )
        return z


def _log_mean(each: Tensor) -> Tensor:
    """Log of the mean over the first dimension of densities given by their logarithms."""
    return torch.logsumexp(each, dim=0) - math.log(each.shape[0])


class LogDensityModule(nn.Module):
    """log r_T(z) at one fixed temperature as a plain scriptable module, for use inside a bias."""

    def __init__(self, model: LatentThermodynamicFlow, temperature: float) -> None:
        super().__init__()
        t = float(model.reduced(torch.tensor(temperature, dtype=torch.float64)))
        self.flows = model.flows
        self.tau = model.prior.tau
        self.log_c = log_normaliser(self.tau, t, model.latent_dim) + math.log(model.n_members)
        self.t: Tensor
        self.context: Tensor
        self.register_buffer("t", torch.tensor(t, dtype=torch.float64))
        self.register_buffer("context", model.context(torch.tensor([t], dtype=torch.float64)))

    def forward(self, z: Tensor) -> Tensor:
        """Return log r_T(z), shape (n,)."""
        each: list[Tensor] = []
        for flow in self.flows:
            u, log_det = flow(z, self.context.expand(z.shape[0], -1))
            each.append(log_pulled_back(u, log_det, self.tau, self.t))
        return torch.logsumexp(torch.stack(each), dim=0) - self.log_c
