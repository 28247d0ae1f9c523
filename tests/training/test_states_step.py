"""The step of the states stage that is written out, against autograd and torch's Adam on the same terms."""

import copy

import pytest
import torch

from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.training.objective import Batch, RepresentativePrior, terms
from latf_openmm.training.states_step import StatesStep

N, FEATURES, STATES = 40, 5, 4


def stage(
    dim: int, encoder: list[int], decoder: list[int]
) -> tuple[LatentThermodynamicFlow, RepresentativePrior]:
    settings = ModelSettings(latent_dim=dim, encoder_hidden=encoder, decoder_hidden=decoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LatentThermodynamicFlow(settings, FEATURES, STATES, 1.0).double()
        inputs, weights = torch.randn(STATES, FEATURES).double(), torch.rand(STATES).double()
    return model, RepresentativePrior(inputs, weights)


def batches(n: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(4)
    return [
        Batch(
            torch.randn(N, FEATURES, generator=generator, dtype=torch.float64),
            torch.randint(STATES, (N,), generator=generator),
            2.0 * torch.rand(N, generator=generator, dtype=torch.float64),
            torch.ones(N, dtype=torch.float64),
        )
        for _ in range(n)
    ]


def trained(model: LatentThermodynamicFlow, prior: RepresentativePrior) -> list[torch.nn.Parameter]:
    return [*model.encoder.parameters(), *model.decoder.parameters(), *prior.parameters()]


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("encoder", "decoder"), [([], []), ([], [6, 7]), ([8], [6]), ([4, 3], [5])])
@pytest.mark.parametrize("decorrelation", [0.0, 0.3])
def test_loss_and_gradient_are_those_of_autograd(dim, encoder, decoder, decorrelation):
    model, prior = stage(dim, encoder, decoder)
    (batch,) = batches(1)
    parameters = trained(model, prior)
    expected = terms(model, batch, prior, torch.Generator().manual_seed(5)).loss(0.2, decorrelation)
    slopes = dict(
        zip(
            map(id, parameters),
            torch.autograd.grad(expected, parameters, materialize_grads=True),
            strict=True,
        )
    )
    step = StatesStep(model, prior, 0.2, decorrelation, 1e-3)
    noise = torch.randn(N, dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert step.differentiate(batch, noise) == pytest.approx(expected.item(), rel=1e-12)
    assert len(step.parameters) == len(parameters)
    for parameter, slope in zip(step.parameters, step.views(step.gradient), strict=True):
        torch.testing.assert_close(slope, slopes[id(parameter)], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loud", [1.0, 1e3])
def test_steps_are_those_of_adam_with_long_gradients_shortened(loud):
    model, prior = stage(2, [8], [6])
    given = [Batch(b.features, b.labels, loud * b.weights, b.temperatures) for b in batches(5)]
    other_model, other_prior = copy.deepcopy((model, prior))
    parameters = trained(other_model, other_prior)
    optimiser = torch.optim.Adam(parameters, lr=1e-2, eps=1e-15)
    step = StatesStep(model, prior, 0.2, 0.3, 1e-2)
    generators = [torch.Generator().manual_seed(6) for _ in range(2)]
    for batch in given:
        loss = terms(other_model, batch, other_prior, generators[0]).loss(0.2, 0.3)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        assert step.step(batch, generators[1]) == pytest.approx(loss.item(), rel=1e-6)
    for ours, theirs in zip(trained(model, prior), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
