"""An adaptive bias as it is at one moment, held fixed."""

import copy

from torch import Tensor

from latf_openmm.bias.potentials.base import AdaptiveBias, Bias


class FrozenBias(Bias):
    """A static bias: the potential that an adaptive one has now, which later updates do not change.

    It is for everything that wants a bias that does not change: production at a fixed bias, whose frames weigh
    exp(V/kT), and OpenMM's samplers of several temperatures. Energies are the same to the last bit.

    Parameters
    ----------
    bias
        Not changed, and not changed by.
    """

    def __init__(self, bias: AdaptiveBias) -> None:
        super().__init__()
        self.bias = copy.deepcopy(bias)
        self.state = self.bias.state.clone()

    def energy(self, z: Tensor, state: Tensor) -> Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        return self.bias.evaluate(z, state)

    def example_states(self) -> tuple[Tensor, ...]:
        """Those of the adaptive bias."""
        return self.bias.example_states()


def frozen(bias: AdaptiveBias) -> FrozenBias:
    """Return the bias as it is now, as one that does not change."""
    return FrozenBias(bias)
