"""The Latent Thermodynamic Flow: normaliser, encoder, state decoder, flow and tilted prior in one model."""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from latf_openmm.model.encoder import Encoder, StateDecoder
from latf_openmm.model.flow import CouplingFlow, FlowSettings
from latf_openmm.model.prior import TiltedGaussian, log_normaliser, mean_square_radius, tilted_exponent
from latf_openmm.settings import Settings


class ModelSettings(Settings):
    """Architecture of the model."""

    latent_dim: int = Field(2, ge=1, le=10, description="number of collective variables")
    encoder_hidden: list[int] = Field([], description="hidden widths of the encoder; empty: linear map")
    decoder_hidden: list[int] = Field([32, 32], description="hidden widths of the state decoder")
    tau: float = Field(2.0, ge=0, le=50, description="tilt of the prior; 0 is a plain Gaussian")
    flow: FlowSettings = Field(FlowSettings(), description="shape of the flow")

    def for_temperatures(self, n: int) -> "ModelSettings":
        """Return the settings with the flow's context decided for data at `n` temperatures."""
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

    r_T(z) = q_t(g(z)) |det dg/dz| with t = T / T0 (Qiu et al., "Latent Thermodynamic Flows", 2025).

    Parameters
    ----------
    settings
        Architecture.
    n_features, n_states
        Length of a descriptor; number of metastable states.
    reference_temperature
        T0, in the temperature scale of the system.
    """

    def __init__(
        self, settings: ModelSettings, n_features: int, n_states: int, reference_temperature: float
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
        size = math.sqrt(mean_square_radius(settings.tau, 1.0, dim) / dim)
        self.flow = CouplingFlow(dim, settings.flow, size, int(settings.flow.context == "temperature"))

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

    def normalise(self, features: Tensor) -> Tensor:
        """Standardise descriptors, shape (n, n_features)."""
        return (features - self.feature_mean) / self.feature_scale

    def encode(self, features: Tensor) -> Tensor:
        """Collective variables mu(x) of raw descriptors, shape (n, latent_dim)."""
        return self.encoder(self.normalise(features))

    def state_log_probabilities(self, z: Tensor) -> Tensor:
        """Log q(y|z), shape (n, n_states)."""
        return self.decoder(z)

    def assign(self, z: Tensor) -> Tensor:
        """Most probable state of each point, shape (n,)."""
        return self.decoder(z).argmax(dim=1)

    def context(self, t: Tensor) -> Tensor:
        """What the flow is told of each point's reduced temperature, shape (n, n_context)."""
        return torch.log(t).unsqueeze(1)[:, : self.flow.n_context]

    def log_density(self, z: Tensor, temperature: Tensor) -> Tensor:
        """Log r_T(z) for points (n, latent_dim), each at its own temperature (n,); shape (n,)."""
        t = temperature.to(z) / self.reference_temperature
        u, log_det = self.flow(z, self.context(t))
        return self.prior.log_prob(u, t) + log_det

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
        return self.model.log_density(z, torch.full((z.shape[0],), self.temperature, dtype=z.dtype))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent samples of z, shape (n, latent_dim); none is discarded."""
        model = self.model
        t = self.temperature / model.reference_temperature
        u = model.prior.sample(n, t, generator).to(model.feature_mean)
        return model.flow.inverse(u, model.context(torch.full((n,), t).to(u)))


class LogDensityModule(nn.Module):
    """log r_T(z) at one fixed temperature as a plain scriptable module, for use inside a bias."""

    def __init__(self, model: LatentThermodynamicFlow, temperature: float) -> None:
        super().__init__()
        t = temperature / model.reference_temperature
        self.flow = model.flow
        self.tau = model.prior.tau
        self.log_c = log_normaliser(self.tau, t, model.latent_dim)
        self.t: Tensor
        self.context: Tensor
        self.register_buffer("t", torch.tensor(t, dtype=torch.float64))
        self.register_buffer("context", model.context(torch.tensor([t], dtype=torch.float64)))

    def forward(self, z: Tensor) -> Tensor:
        """Return log r_T(z), shape (n,)."""
        u, log_det = self.flow(z, self.context.expand(z.shape[0], -1))
        return tilted_exponent(u, self.tau, self.t) - self.log_c + log_det
