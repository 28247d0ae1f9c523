"""What every bias potential is."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from openmm import unit
from torch import Tensor, nn

from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.model.latf import LatentThermodynamicFlow
from latf_openmm.settings import Settings
from latf_openmm.units import SCALES, plain


class Bias(nn.Module):
    """V(z): ``forward(z)`` takes (n, latent_dim) and returns energies (n,) [kJ/mol]."""

    def forward(self, z: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        raise NotImplementedError


@dataclass(frozen=True)
class BiasContext:
    """What a bias is built for.

    Parameters
    ----------
    model
        The trained model whose collective variables are biased.
    temperature
        Temperature of the simulation, in the model's scale.
    kT
        Its thermal energy [kJ/mol].
    """

    model: LatentThermodynamicFlow
    temperature: float
    kT: float  # noqa: N815 - the field's own name


def bias_context(trained: TrainedModel, temperature: Any) -> BiasContext:
    """Return the context of a trained model at one temperature.

    Parameters
    ----------
    trained
        The model.
    temperature
        A number in the model's temperature scale, or an OpenMM quantity for models in kelvin.
    """
    value = plain(temperature, unit.kelvin)
    return BiasContext(trained.model, value, SCALES[trained.temperature_scale].kT(value))


class BiasSettings(Settings):
    """Settings of one bias; subclasses add a literal ``kind`` and live in one file each."""

    @abstractmethod
    def build(self, context: BiasContext) -> Bias:
        """Make the bias, in double precision and without trainable parameters.

        Raises
        ------
        ConfigError
            If the settings do not fit the model.
        """
