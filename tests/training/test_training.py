"""The objective by hand, the states, and a real fit on the three-hole potential."""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.frames.trajectory import FeatureTrajectory, featurise
from latf_openmm.model.encoder import StateDecoder
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.model.prior import log_normaliser, mean_square_radius
from latf_openmm.progress import make_progress
from latf_openmm.systems.three_hole import ThreeHoleSettings, three_hole_potential
from latf_openmm.training import (
    committee as committee_module,
    fit as fit_module,
    objective as objective_module,
    run as run_module,
    states as states_module,
)
from latf_openmm.training.fit import TrainingResult, fit
from latf_openmm.training.objective import Batch, RepresentativePrior, squared_correlation, terms
from latf_openmm.training.run import Stage, TrainingRun, prepare, seeded
from latf_openmm.training.settings import TrainingSettings
from latf_openmm.training.states import (
    find_states,
    initial_labels,
    populations,
    relabel,
    representative_inputs,
)
from latf_openmm.units import REDUCED

T0, TAU = 2.0, 1.5


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def few_held_out_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committee_module, "_HELD_OUT_DRAWS", 4000)
        yield


def tiny_model(n_states: int = 3) -> LatentThermodynamicFlow:
    """Linear encoder and decoder, a flow that only whitens; double precision."""
    flow = FlowSettings(layers=2, hidden=[4], bins=3)
    settings = ModelSettings(latent_dim=2, decoder_hidden=[], tau=TAU, flow=flow)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LatentThermodynamicFlow(settings, 3, n_states, T0).double()
    model.flows[0].whiten(torch.tensor([0.5, -1.0]), torch.tensor([0.7, 1.3]))
    return model


def tiny_batch(weights: tuple[float, ...] = (0.5, 1.0, 1.5)) -> Batch:
    x = torch.tensor([[0.1, -0.4, 0.9], [1.2, 0.3, -0.7], [-0.8, 0.6, 0.2]], dtype=torch.float64)
    return Batch(
        x,
        torch.tensor([0, 2, 1]),
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor([2.0, 3.0, 2.5], dtype=torch.float64),
    )


def tiny_prior() -> RepresentativePrior:
    inputs = torch.tensor([[0.0, 0.5, 1.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    return RepresentativePrior(inputs, torch.tensor([0.3, 0.7], dtype=torch.float64))


def linear(layer: torch.nn.Linear, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


@dataclass(frozen=True)
class ByHand:
    """What the terms are made of, in NumPy."""

    model: LatentThermodynamicFlow
    batch: Batch
    seed: int = 5

    @property
    def sigma(self) -> float:
        return float(self.model.encoder.log_sigma.detach().exp())

    @property
    def mean(self) -> NDArray[np.float64]:
        return linear(self.model.encoder.mean[0], self.batch.features.numpy())

    @property
    def z(self) -> NDArray[np.float64]:
        generator = torch.Generator().manual_seed(self.seed)
        return self.mean + self.sigma * torch.randn(3, 2, generator=generator, dtype=torch.float64).numpy()

    def prediction(self) -> float:
        log_q = log_softmax(linear(self.model.decoder.head, self.z), axis=1)
        return -float((self.batch.weights.numpy() * log_q[range(3), self.batch.labels.numpy()]).mean())

    def divergence(self, log_prior: NDArray[np.float64]) -> float:
        log_p = stats.norm.logpdf(self.z, self.mean, self.sigma).sum(axis=1)
        return float((self.batch.weights.numpy() * (log_p - log_prior)).mean())

    def terms(self, prior: RepresentativePrior | None) -> tuple[float, float]:
        found = terms(self.model, self.batch, prior, torch.Generator().manual_seed(self.seed))
        return found.prediction.item(), found.divergence.item()


# Objective


def test_terms_of_stage_one_by_hand():
    hand, prior = ByHand(tiny_model(), tiny_batch()), tiny_prior()
    centres = linear(hand.model.encoder.mean[0], prior.inputs.numpy())
    each = stats.norm.logpdf(hand.z[:, None], centres[None], hand.sigma).sum(axis=2)
    log_prior = logsumexp(np.log([0.3, 0.7]) + each, axis=1)
    assert hand.terms(prior) == pytest.approx((hand.prediction(), hand.divergence(log_prior)), rel=1e-9)


def test_mixture_of_the_states_stage_is_that_of_its_terms():
    generator = torch.Generator().manual_seed(0)
    x, c = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (7, 4))
    c[3] += 20.0  # so far away that it weighs nothing
    log_w = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(dim=0)
    given = [value.requires_grad_() for value in (x, c, log_w)]
    expected = torch.logsumexp(log_w - 0.5 * (x.unsqueeze(1) - c).square().sum(dim=2), dim=1)
    found = objective_module._LogMixture.apply(*given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(value.square().sum(), given) for value in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(objective_module._LogMixture.apply, given)


def test_terms_of_the_joint_stage_by_hand():
    hand = ByHand(tiny_model(), tiny_batch())
    size = math.sqrt(mean_square_radius(TAU, 1.0, 2) / 2)
    u = (hand.z - [0.5, -1.0]) / np.array([0.7, 1.3], np.float32) * size
    t = hand.batch.temperatures.numpy() / T0
    radius = np.linalg.norm(u, axis=1)
    log_q = TAU * radius - radius**2 / (2 * t) - [log_normaliser(TAU, value, 2) for value in t]
    log_prior = log_q + 2 * math.log(size) - math.log(0.7 * 1.3)
    assert hand.terms(None) == pytest.approx((hand.prediction(), hand.divergence(log_prior)), rel=1e-6)


def test_loss_adds_the_other_terms_times_their_weights():
    found = terms(tiny_model(), tiny_batch(), tiny_prior(), torch.Generator().manual_seed(0))
    expected = found.prediction + 0.25 * found.divergence
    assert found.loss(0.25).item() == pytest.approx(expected.item(), rel=1e-12)
    expected = expected + 0.5 * found.correlation
    assert found.loss(0.25, 0.5).item() == pytest.approx(expected.item(), rel=1e-12)


def test_correlation_is_that_of_the_encoders_means():
    hand = ByHand(tiny_model(), tiny_batch((1.0, 2.0, 3.0)))
    found = terms(hand.model, hand.batch, tiny_prior(), torch.Generator().manual_seed(0))
    rows = np.repeat(hand.mean, [1, 2, 3], axis=0)
    assert found.correlation.item() == pytest.approx(np.corrcoef(rows.T)[0, 1] ** 2, rel=1e-9)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_squared_correlation_is_numpys(d):
    rng = np.random.default_rng(d)
    z = rng.normal(size=(200, d)) @ rng.normal(size=(d, d)) + 10 * rng.normal(size=d)
    counts = rng.integers(0, 4, size=200)
    matrix = np.corrcoef(np.repeat(z, counts, axis=0).T)
    expected = (matrix[~np.eye(d, dtype=bool)] ** 2).mean()
    weights = torch.from_numpy(counts).double()
    for scale in (1.0, 7.0):  # neither a common factor of the weights matters, nor units
        units = torch.logspace(-2, 2, d, dtype=torch.float64) * scale
        found = squared_correlation(units * torch.from_numpy(z), scale * weights)
        assert found.item() == pytest.approx(expected, rel=1e-9)


def test_squared_correlation_at_its_bounds():
    x = torch.linspace(-1.0, 1.0, 101, dtype=torch.float64)
    ones = torch.ones(101, dtype=torch.float64)
    assert squared_correlation(torch.stack([x, 3 - 2 * x], dim=1), ones).item() == pytest.approx(1.0)
    assert squared_correlation(torch.stack([x, x**2], dim=1), ones).item() == pytest.approx(0.0, abs=1e-12)
    assert squared_correlation(x[:, None], ones).item() == 0.0
    still = torch.stack([x, torch.zeros_like(x)], dim=1).requires_grad_()
    found = squared_correlation(still, ones)
    found.backward()
    assert found.item() == 0.0
    assert torch.isfinite(still.grad).all()


def set_sigma(model: LatentThermodynamicFlow, sigma: float) -> None:
    with torch.no_grad():
        model.encoder.log_sigma.fill_(math.log(sigma))


@pytest.mark.parametrize("sigma", [1e-4, 1e-3])
def test_entropy_term_of_stage_one(sigma):
    # At the representative inputs of well separated states KL(p(z|x) || p(z)) is -log w, whatever sigma.
    model = tiny_model()
    set_sigma(model, sigma)
    inputs = tiny_batch().features
    prior = RepresentativePrior(inputs, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
    found = terms(model, tiny_batch((1.0, 1.0, 1.0)), prior, torch.Generator().manual_seed(0))
    assert found.divergence.item() == pytest.approx(-np.log([0.2, 0.3, 0.5]).mean(), abs=1e-9)


def test_entropy_term_of_the_joint_stage():
    # A narrow encoder of half the width costs d log 2 more; z and so the density hardly move.
    model, batch = tiny_model(), tiny_batch((1.0, 1.0, 1.0))
    found = []
    for sigma in (2e-7, 1e-7):
        set_sigma(model, sigma)
        found.append(terms(model, batch, None, torch.Generator().manual_seed(0)).divergence.item())
    assert found[1] - found[0] == pytest.approx(2 * math.log(2), abs=1e-5)


@pytest.mark.parametrize("prior", [tiny_prior(), None], ids=["states", "joint"])
def test_doubling_a_weight_is_duplicating_the_frame(prior, monkeypatch):
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    once, twice = tiny_batch((1.0, 2.0, 1.0)), tiny_batch((1.0, 1.0, 1.0))
    again = torch.tensor([0, 1, 2, 1])
    repeated = Batch(
        twice.features[again], twice.labels[again], torch.ones(4).double(), twice.temperatures[again]
    )
    gradients, totals = [], []
    for batch, rows in ((once, torch.arange(3)), (repeated, again)):
        model = tiny_model()
        sigma = model.encoder.log_sigma
        # The same noise for a frame and its duplicate.
        monkeypatch.setattr(
            model.encoder, "sample", lambda mean, _, rows=rows, sigma=sigma: mean + sigma.exp() * noise[rows]
        )
        total = terms(model, batch, prior, None).loss(0.5) * len(rows)
        total.backward()
        totals.append(total.item())
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert totals[0] == pytest.approx(totals[1], rel=1e-12)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_frame_of_weight_zero_does_not_count():
    model, batch = tiny_model(), tiny_batch((0.0, 1.0, 2.0))
    wrong = Batch(
        batch.features, torch.tensor([1, 2, 1]), batch.weights, torch.tensor([9.0, 3.0, 2.5]).double()
    )
    for prior in (tiny_prior(), None):
        a, b = (terms(model, each, prior, torch.Generator().manual_seed(0)) for each in (batch, wrong))
        assert a == b


def test_every_parameter_of_a_stage_gets_a_gradient():
    model, prior = tiny_model(), tiny_prior()
    terms(model, tiny_batch(), prior, torch.Generator().manual_seed(0)).loss(0.1).backward()
    for parameter in (*model.encoder.parameters(), *model.decoder.parameters(), prior.logits):
        assert parameter.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.flows[0].parameters())
    terms(model, tiny_batch(), None, torch.Generator().manual_seed(0)).loss(0.1).backward()
    assert all(layer.conditioner[-1].weight.grad.abs().max() > 0 for layer in model.flows[0].layers)


# States


@pytest.mark.parametrize("hidden", [[], [8]])
@pytest.mark.parametrize("states", [[0, 1, 3, 4], [3, 1], [2]])
def test_kept_states_keep_their_order_and_odds(hidden, states):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = StateDecoder(2, hidden, 5).double()
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = decoder(z)[:, states]
    decoder.keep(states)
    after = decoder(z)
    assert after.shape == (20, len(states))
    torch.testing.assert_close(after, torch.log_softmax(before, dim=1))
    assert all(parameter.requires_grad for parameter in decoder.parameters())


def line_model(n_states: int) -> LatentThermodynamicFlow:
    """State k is where the only feature, which is also z, is nearest to k."""
    settings = ModelSettings(latent_dim=1, decoder_hidden=[])
    model = LatentThermodynamicFlow(settings, 1, n_states, 1.0)
    centres = torch.arange(n_states, dtype=torch.float32)
    with torch.no_grad():
        model.encoder.mean[0].weight.fill_(1.0)
        model.encoder.mean[0].bias.fill_(0.0)
        model.decoder.head.weight.copy_(2 * centres[:, None])
        model.decoder.head.bias.copy_(-(centres**2))
    return model


def test_relabelling_drops_small_states_and_renumbers():
    # State 1 is empty, state 3 is small and its frames are next to state 4.
    x = torch.tensor([0.0] * 5 + [2.1] * 3 + [3.4] * 2 + [4.0] * 4)[:, None]
    weights = torch.tensor([1.0] * 8 + [0.01] * 2 + [1.0] * 4)
    model = line_model(5)
    labels, dropped = relabel(model, x, weights, 0.05)
    assert labels.tolist() == [0] * 5 + [1] * 3 + [2] * 6
    assert dropped == 2
    assert model.n_states == 3
    assert torch.equal(model.assign(x), labels)


def test_frames_of_a_dropped_state_may_lift_another_one():
    x = torch.tensor([0.0] * 90 + [1.0] * 4 + [2.0] * 3 + [3.0] * 3)[:, None]
    labels, dropped = relabel(line_model(4), x, torch.ones(100), 0.045)
    # Of the two smallest one goes; its frames make the other large enough, or its neighbour.
    assert populations(labels, torch.ones(100), int(labels.max()) + 1).min() >= 0.045
    assert dropped < 3


def test_relabelling_leaves_good_states_alone():
    x = torch.tensor([0.0, 1.0, 2.0, 2.0, 0.1])[:, None]
    model = line_model(3)
    labels, dropped = relabel(model, x, torch.ones(5), 0.1)
    assert (labels.tolist(), dropped, model.n_states) == ([0, 1, 2, 2, 0], 0, 3)


def test_relabelling_leaves_one_state_at_least():
    model = line_model(6)
    labels, dropped = relabel(model, torch.arange(6.0)[:, None], torch.ones(6), 0.49)
    assert model.n_states == int(labels.max()) + 1 >= 1
    assert dropped == 6 - model.n_states


def test_populations_and_representative_inputs_are_weighted():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]])
    labels, weights = torch.tensor([0, 0, 2]), torch.tensor([1.0, 3.0, 4.0])
    torch.testing.assert_close(populations(labels, weights, 3), torch.tensor([0.5, 0.0, 0.5]))
    inputs = representative_inputs(x, labels, weights, 3)
    torch.testing.assert_close(inputs[[0, 2]], torch.tensor([[1.5, 2.5], [4.0, 8.0]]))
    assert torch.isfinite(inputs).all()


def test_initial_labels_have_no_gaps():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.repeat(rng.normal(size=(4, 2)), 25, axis=0).astype(np.float32))

    def found() -> list[int]:
        return initial_labels(x, np.ones(100), 60, 0, lambda part: part).tolist()

    labels = found()  # no more clusters than different points
    assert sorted(set(labels)) == [0, 1, 2, 3]
    assert all(len(set(labels[i : i + 25])) == 1 for i in range(0, 100, 25))
    assert labels == found()


def states_of(trajectories: list[FeatureTrajectory]) -> tuple[TrainingRun, Tensor, Stage]:
    """A run whose states are the signs of x, before they are trained."""
    run = prepare(shortened(trajectories, 200), MODEL, QUICK, LAG, 0)
    labels = (run.features[:, 0] > 0).long()
    prior = RepresentativePrior(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5]))
    parameters = [*run.model.encoder.parameters(), *run.model.decoder.parameters(), *prior.parameters()]
    return run, labels, Stage("states", prior, parameters, 2, 2)


def test_fewer_held_out_pairs_are_evenly_chosen(trajectories):
    run, labels, stage = states_of(trajectories)
    few = run.evaluate(labels, stage, 100)
    held_out = run.pairs.held_out
    assert few != run.evaluate(labels, stage)
    run.pairs = replace(run.pairs, held_out=held_out[:: len(held_out) // 100])
    assert run.evaluate(labels, stage) == few


def test_training_is_the_same_however_many_batches_are_gathered(trajectories, monkeypatch):
    histories = []
    for gathered in (1, 2**20):
        monkeypatch.setattr(run_module, "_GATHERED", gathered)
        with seeded(0, 1):
            run, labels, stage = states_of(trajectories)
            run.train(labels, stage, lambda *_: None)
        histories.append(run.history)
    assert histories[0] == histories[1]
    assert len(histories[0]) == 2
    assert histories[0][1].train_loss < histories[0][0].train_loss


# A real fit: 30 walkers in the three-hole potential at T = 1

WALKERS, FRAMES = 30, 1500
LAG = 5  # frames
SPACING = 0.005  # of the grid of the exact ensemble
MODEL = ModelSettings()
SETTINGS = TrainingSettings(
    lag=LAG,
    initial_states=20,
    refinements=4,
    epochs_states=5,
    epochs_joint=4,
    epochs_flow=5,
    restarts=1,
    committee=2,
    pairs_per_epoch=30_000,
    device="cpu",
    threads=1,
)
QUICK = TrainingSettings(
    lag=LAG,
    initial_states=10,
    refinements=2,
    epochs_states=3,
    epochs_joint=2,
    epochs_flow=2,
    restarts=1,
    committee=2,
    pairs_per_epoch=2000,
    batch_size=256,
    device="cpu",
    threads=1,
)


def langevin() -> NDArray[np.float64]:
    """Positions of all walkers, shape (n_frames, n_walkers, 3) [nm]."""
    built = ThreeHoleSettings().build(WALKERS)
    integrator = openmm.LangevinMiddleIntegrator(REDUCED.kelvin(1.0), 1.0, 0.01)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(built.system, integrator, platform)
    context.setPositions(built.positions.reshape(-1, 3))
    context.setVelocitiesToTemperature(REDUCED.kelvin(1.0), 1)
    integrator.step(500)
    frames = []
    for _ in range(FRAMES):
        integrator.step(20)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    return np.array(frames)


@pytest.fixture(scope="module")
def trajectories() -> list[FeatureTrajectory]:
    module = CoordinateSettings(atoms=[0], axes="xy").build()
    positions = langevin()
    none = np.zeros(FRAMES)
    return [
        FeatureTrajectory(featurise(module, positions[:, [w]]), 1.0, 0.2, none, none, name=f"walker {w}")
        for w in range(WALKERS)
    ]


def shortened(trajectories: list[FeatureTrajectory], n: int) -> list[FeatureTrajectory]:
    return [
        FeatureTrajectory(t.features[:n], t.temperature, t.frame_interval, np.zeros(n), np.zeros(n), t.run)
        for t in trajectories
    ]


@dataclass(frozen=True)
class Fitted:
    result: TrainingResult
    unchanged: dict[str, bool]


@pytest.fixture(scope="module")
def fitted(trajectories) -> Fitted:
    data = [t.features.copy() for t in trajectories]
    told = MODEL.model_dump(), SETTINGS.model_dump()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.set_num_threads(2)
    result = fit(trajectories, MODEL, SETTINGS, seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return Fitted(
        result,
        {
            "threads": threads == 2,
            "data": all(np.array_equal(a, t.features) for a, t in zip(data, trajectories, strict=True)),
            "weights": not any(t.log_weights.any() for t in trajectories),
            "settings": told == (MODEL.model_dump(), SETTINGS.model_dump()),
            "torch's generator": torch.equal(torch_state, torch.get_rng_state()),
            "NumPy's generator": np.array_equal(numpy_state, np.random.get_state()[1]),  # noqa: NPY002
        },
    )


def test_fit_leaves_everything_else_as_it_was(fitted):
    assert [name for name, unchanged in fitted.unchanged.items() if not unchanged] == []


def test_fit_finds_the_deep_wells_as_states(fitted):
    model = fitted.result.model
    assert 1 < model.n_states <= 8
    assert len(fitted.result.populations) == model.n_states
    assert sum(fitted.result.populations) == pytest.approx(1.0)
    left, right = model.assign(model.encode(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))).tolist()
    assert left != right
    assert fitted.result.populations[left] == pytest.approx(fitted.result.populations[right], abs=0.15)


def test_no_state_of_the_result_is_below_the_minimum(fitted):
    assert min(fitted.result.populations) >= SETTINGS.minimum_population


def test_result_is_finite_and_ready_to_use(fitted):
    model = fitted.result.model
    assert not model.training
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    z = model.density(1.0).sample(5000, torch.Generator().manual_seed(0))
    assert torch.isfinite(z).all()


def test_parameters_of_the_result_share_no_array(fitted):
    for value in fitted.result.model.state_dict().values():
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()


def test_history_tells_of_every_stage(fitted):
    history = fitted.result.history
    assert list(dict.fromkeys(record.stage for record in history)) == ["states", "joint", "flow"]
    for record in history:
        numbers = (record.train_loss, record.prediction, record.divergence, record.sigma)
        assert np.isfinite(numbers).all()
        assert record.sigma > 1e-3  # without the entropy term it would shrink to nothing
    joint = [record for record in history if record.stage == "joint"]
    flow = [record for record in history if record.stage == "flow"]
    assert len(flow) == SETTINGS.epochs_flow
    assert flow[-1].prediction == pytest.approx(joint[-1].prediction, abs=0.2)
    # Better than a guess by the populations.
    populations = np.array(fitted.result.populations)
    assert joint[-1].prediction < -(populations * np.log(populations + 1e-9)).sum()


def test_score_of_the_flow_stage_ends_near_the_exact_entropy(fitted):
    """No density has a lower mean -log r(z) than the entropy of z, a linear map of (x, y), and r has nearly that."""
    weights = ThreeHoleSettings().exact_ensemble(1.0).weights
    entropy = -float((weights * np.log(np.maximum(weights, 1e-300) / SPACING**2)).sum())
    model = fitted.result.model
    matrix = (model.encoder.mean[0].weight / model.feature_scale).detach()
    exact = entropy + float(torch.linalg.slogdet(matrix)[1])
    scores = [record.divergence for record in fitted.result.history if record.stage == "flow"]
    # Held-out walkers are a finite sample, and one whose density was trained on their neighbours.
    assert min(scores) == pytest.approx(exact, abs=0.1)
    assert scores[0] > min(scores)


def log_density_of_positions(model: LatentThermodynamicFlow, xy: Tensor) -> NDArray[np.float64]:
    """log p(x, y) = log r_T(W x + b) + log|det W| of a linear encoder, W that of raw features."""
    with torch.no_grad():
        matrix = model.encoder.mean[0].weight / model.feature_scale
        log_r = model.density(1.0).log_prob(model.encode(xy))
    return (log_r + torch.linalg.slogdet(matrix)[1]).double().numpy()


def test_free_energy_at_the_training_temperature_is_the_exact_one(fitted, record_property):
    exact = ThreeHoleSettings().exact_ensemble(1.0)
    free_energy = -np.log(np.maximum(exact.weights, 1e-300) / SPACING**2)  # k_B T
    low = np.flatnonzero(free_energy - free_energy.min() < 5.0)[::17]
    xy = torch.from_numpy(exact.positions[low, 0, :2]).float()
    # Both densities are normalised: no constant is left to fit.
    error = -log_density_of_positions(fitted.result.model, xy) - free_energy[low]
    rmse = float(np.sqrt((error**2).mean()))
    record_property("rmse", float(rmse))
    assert rmse < 0.3


# Quick fits: reproducibility and what the optimiser sees


def parameters_of(result: TrainingResult) -> dict[str, Tensor]:
    return dict(result.model.state_dict())


def test_same_seed_gives_the_same_model_and_another_seed_another(trajectories):
    short = shortened(trajectories[:15], 150)
    first = fit(short, MODEL, QUICK, seed=3)
    torch.rand(7)  # the state of the global generator does not matter
    again, other = fit(short, MODEL, QUICK, seed=3), fit(short, MODEL, QUICK, seed=4)
    assert parameters_of(first).keys() == parameters_of(again).keys()
    for name, value in parameters_of(first).items():
        assert torch.equal(value, parameters_of(again)[name]), name
    assert first.history == again.history
    assert first.populations == again.populations
    assert not torch.equal(first.model.encoder.mean[0].weight, other.model.encoder.mean[0].weight)


def test_parameters_that_keep_made_are_trained(trajectories, monkeypatch):
    # In the authors' code the output layer made by relabelling was not in the optimiser.
    train, seen = TrainingRun.train, []

    def spy(run, labels, stage, advance):
        head = run.model.decoder.head
        before = [parameter.detach().clone() for parameter in head.parameters()]
        train(run, labels, stage, advance)
        moved = [not torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True)]
        seen.append((stage.name, head.out_features, all(moved)))

    monkeypatch.setattr(TrainingRun, "train", spy)
    fit(shortened(trajectories, 150), MODEL, QUICK, seed=0)
    assert [name for name, _, _ in seen].count("joint") == 1
    sizes = [n_states for _, n_states, _ in seen]
    assert sizes[0] > sizes[-1]  # relabelling did drop states
    assert all(moved for _, _, moved in seen)


def test_flow_stage_trains_the_flows_alone(trajectories, monkeypatch):
    train, seen = fit_module.train_committee, {}

    def spy(model, *rest):
        seen["before"] = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("flows.")}
        history = train(model, *rest)
        seen["members"] = model.n_members
        return history

    monkeypatch.setattr(fit_module, "train_committee", spy)
    result = fit(shortened(trajectories, 150), MODEL, QUICK, seed=0)
    assert seen["members"] == result.model.n_members == QUICK.committee
    after = parameters_of(result)
    assert all(torch.equal(value, after[name]) for name, value in seen["before"].items())


def test_joint_stage_ends_with_its_best_epoch(trajectories, monkeypatch):
    train, seen = TrainingRun.train, []

    def spy(run, labels, stage, advance):
        start, beta = len(run.history), run.settings.beta
        train(run, labels, stage, advance)
        if stage.prior is None:
            last = run.evaluate(labels, stage)
            records = [*run.history[start:], last]
            seen.extend(record.prediction + beta * record.divergence for record in records)

    monkeypatch.setattr(TrainingRun, "train", spy)
    # So fast that later epochs are worse than earlier ones.
    settings = QUICK.model_copy(update={"learning_rate": 0.3, "epochs_joint": 5, "patience": 5})
    worse = False
    for seed in range(1, 6):  # the last epoch can be the best by chance; which, depends on the processor
        seen.clear()
        fit(shortened(trajectories, 100), MODEL, settings, seed=seed)
        scores, end = seen[:-1], seen[-1]
        assert len(scores) == 5
        assert end == pytest.approx(min(scores), rel=1e-6)
        worse = worse or min(scores) < scores[-1]
        if worse:
            break
    assert worse


def test_the_most_predictive_of_several_starts_is_kept(trajectories, monkeypatch):
    refine, seen = states_module._refine_states, []

    def spy(run, seed, advance):
        # Neither the first nor the last start is the best.
        found = replace(refine(run, seed, advance), information=[0.1, 0.9, 0.5][len(seen)])
        state = {k: v.clone() for k, v in run.model.state_dict().items()}
        seen.append((found, state))
        return found

    monkeypatch.setattr(states_module, "_refine_states", spy)
    settings = QUICK.model_copy(update={"restarts": 3})
    run = prepare(shortened(trajectories, 150), MODEL, settings, LAG, seed=0)
    kept = find_states(run, 0, None)
    weights = [state["encoder.mean.0.weight"] for _, state in seen]
    assert len(seen) == 3
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    found, state = seen[1]
    assert kept is found
    assert run.model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in state.items())
    # Model and labels belong together.
    assert torch.equal(run.model.assign(run.encode()), kept.labels)


def test_information_of_a_two_state_chain_is_the_exact_one():
    """States that flip with probability p tell ln 2 - H((1 - (1 - 2p)^lag) / 2) of the state one lag later."""
    flip, rng = 0.03, np.random.default_rng(0)
    data = []
    for _ in range(8):
        states = (rng.random() < 0.5) ^ (np.cumsum(rng.random(4000) < flip) % 2 == 1)
        x = np.where(states, 1.0, -1.0) + 0.1 * rng.normal(size=4000)
        none = np.zeros(4000)
        data.append(FeatureTrajectory(x[:, None].astype(np.float32), 1.0, 1.0, none, none))
    settings = QUICK.model_copy(update={"initial_states": 2, "epochs_states": 8, "pairs_per_epoch": 40_000})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run = prepare(data, ModelSettings(latent_dim=1), settings, LAG, seed=0)
        found = find_states(run, 0, None)
    changed = 0.5 * (1 - (1 - 2 * flip) ** LAG)
    exact = math.log(2) - float(stats.entropy([changed, 1 - changed]))
    assert run.model.n_states == 2
    assert found.information == pytest.approx(exact, abs=0.06)


def test_progress_is_drawn_and_temperatures_are_told_apart(trajectories):
    short = shortened(trajectories[:6], 150)
    warm = [
        FeatureTrajectory(2 * t.features, 2.0, 0.2, t.potential_energy, t.log_weights, "warm") for t in short
    ]
    settings = QUICK.model_copy(update={"refinements": 1, "epochs_states": 1, "pairs_per_epoch": 500})
    screen = io.StringIO()
    with make_progress(Console(file=screen, force_terminal=True, width=150)) as progress:
        result = fit([*warm, *short], MODEL, settings, seed=0, progress=progress)
    assert result.model.reference_temperature == 1.0
    # No energies: no frame can be reweighted, so that only the prior knows the temperature.
    assert result.model.flows[0].n_context == 0
    assert result.ladder == []
    for stage in ("states", "joint", "flow"):
        assert stage in screen.getvalue()


@pytest.mark.parametrize("energies", ["auto", "ignore"])
def test_flow_learns_where_frames_can_be_reweighted_to(trajectories, energies):
    n, data = 150, []
    for t in trajectories[:6]:
        x = t.features[:n].astype(np.float64)
        energy = three_hole_potential(x[:, 0], x[:, 1])
        data.append(FeatureTrajectory(t.features[:n], 1.0, 0.2, energy, np.zeros(n), scale=REDUCED))
    settings = QUICK.model_copy(update={"refinements": 1, "epochs_states": 1, "energies": energies})
    result = fit(data, MODEL, settings, seed=0)
    assert result.model.sees_temperature == (energies == "auto")
    assert (result.ladder == []) == (energies == "ignore")
    if result.ladder:
        temperatures = [temperature for temperature, _ in result.ladder]
        assert temperatures[0] < 1.0 < temperatures[-1]
        ends = torch.tensor([temperatures[0], temperatures[-1]])
        torch.testing.assert_close(result.model.t_range, ends, check_dtype=False)


def test_double_precision_features_are_accepted(trajectories):
    short = shortened(trajectories[:4], 100)
    settings = QUICK.model_copy(update={"refinements": 1, "epochs_states": 1, "pairs_per_epoch": 100})
    double = [
        FeatureTrajectory(t.features.astype(np.float64), 1.0, 0.2, t.potential_energy, t.log_weights)
        for t in short
    ]
    assert fit(double, MODEL, settings, seed=0).model.feature_mean.dtype == torch.float32


def test_batch_pairs_a_frame_with_the_state_one_lag_later(trajectories):
    short = shortened(trajectories[:4], 100)
    run = prepare(short, MODEL, QUICK, LAG, seed=0)
    first = torch.tensor([0, 17, 205])
    batch = run.batch(run.at_own_temperatures(first), torch.arange(400))
    assert batch.labels.tolist() == [5, 22, 210]
    raw = torch.from_numpy(np.concatenate([t.features for t in short]))
    torch.testing.assert_close(batch.features, run.model.normalise(raw[first]))
    torch.testing.assert_close(raw.mean(dim=0), run.model.feature_mean)
    torch.testing.assert_close(raw.std(dim=0, correction=0), run.model.feature_scale)


def test_what_hardly_moves_is_not_blown_up(trajectories):
    """A descriptor that is dead but for noise is divided by 2 % of what the others move."""
    short = [
        replace(t, features=np.concatenate([t.features, 1e-5 * t.features[:, :1]], axis=1))
        for t in shortened(trajectories[:4], 100)
    ]
    scale = prepare(short, MODEL, QUICK, LAG, seed=0).model.feature_scale.numpy()
    plain = np.concatenate([t.features for t in short]).std(axis=0)
    np.testing.assert_allclose(scale[:-1], plain[:-1], rtol=1e-5)
    assert scale[-1] == pytest.approx(0.02 * np.quantile(plain, 0.9), rel=1e-5)


def test_fast_descriptors_are_divided_by_how_far_thermal_motion_carries_them(trajectories):
    """In the time in which slow ones cross their spread; slow ones by their spread as ever."""
    short = shortened(trajectories[:4], 100)
    spread = np.concatenate([t.features for t in short]).std(axis=0)
    doubled = [replace(t, features=np.tile(t.features, 5)) for t in short]
    speeds = (np.tile(spread, 5) * np.array([1.0] * 8 + [5.0, 0.0])) ** 2
    scale = prepare(
        [replace(t, square_speeds=k * speeds) for t, k in zip(doubled, [0.5, 1.5, 1.0, 1.0], strict=True)],
        *(MODEL, QUICK, LAG),
        seed=0,
    ).model.feature_scale
    np.testing.assert_allclose(scale, np.tile(spread, 5) * ([1.0] * 8 + [5.0, 1.0]), rtol=1e-5)


def test_speeds_that_are_not_known_of_all_trajectories_are_not_used(trajectories):
    short = shortened(trajectories[:4], 100)
    some = [replace(short[0], square_speeds=np.array([1.0, 100.0])), *short[1:]]
    plain = prepare(short, MODEL, QUICK, LAG, seed=0).model.feature_scale
    torch.testing.assert_close(prepare(some, MODEL, QUICK, LAG, seed=0).model.feature_scale, plain)


def test_speeds_of_zero_change_nothing(trajectories):
    short = shortened(trajectories[:4], 100)
    still = [replace(t, square_speeds=np.zeros(2)) for t in short]
    plain = prepare(short, MODEL, QUICK, LAG, seed=0).model.feature_scale
    torch.testing.assert_close(prepare(still, MODEL, QUICK, LAG, seed=0).model.feature_scale, plain)


# Data that cannot be used


def test_constant_features_are_refused():
    n = np.zeros(100)
    still = FeatureTrajectory(np.ones((100, 2), np.float32), 1.0, 0.2, n, n)
    with pytest.raises(DataError, match="no feature varies in the training data"):
        fit([still], MODEL, QUICK, seed=0)


def test_data_too_short_for_the_lag_are_refused(trajectories):
    with pytest.raises(DataError, match="lag 5 leaves 0 blocks of pairs in 30 trajectories of 5 frames"):
        fit(shortened(trajectories, 5), MODEL, QUICK, seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda_device_is_named(trajectories):
    settings = QUICK.model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"training\.device: 'cuda', but torch sees no CUDA device"):
        fit(shortened(trajectories, 100), MODEL, settings, seed=0)
