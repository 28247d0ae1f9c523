"""Weights corrected by forces: identities hold, noise falls, errors are right."""

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.reweighting.identities import Correction, Identities, Slopes, corrected
from latf_openmm.reweighting.moves import Shift, Turn, moves_of, slopes_along
from latf_openmm.reweighting.replicates import Replicates
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.units import REDUCED

Array = NDArray[np.float64]
KT = 1.5
CENTRES = np.linspace(-3, 3, 12)[:, None]
WIDTH = np.array([0.7])


def oscillator(n: int, seed: int) -> Slopes:
    """Independent samples of U = x^2 / 2 at kT = 1.5, moved along x."""
    x = np.sqrt(KT) * np.random.default_rng(seed).normal(size=(n, 1))
    return Slopes(x, np.ones((n, 1, 1)), np.zeros((n, 1)), -x)


def equal(n: int) -> Array:
    return np.full(n, 1.0 / n)


def dihedral(positions: Array) -> Array:
    """Torsion of the first four atoms, shape (n_frames, 1) [rad]."""
    a, b, c = (positions[:, i + 1] - positions[:, i] for i in range(3))
    normal, other = np.cross(a, b), np.cross(b, c)
    y = (np.cross(normal, other) * b).sum(axis=1) / np.linalg.norm(b, axis=1)
    return np.arctan2(y, (normal * other).sum(axis=1))[:, None]


def chain(n: int, seed: int) -> Array:
    """A chain of five atoms, in shapes that differ."""
    straight = np.array([[0.0, 0.1, 0], [0, 0, 0], [0.15, 0, 0], [0.2, 0.1, 0.05], [0.3, 0.1, 0.1]])
    return straight + 0.01 * np.random.default_rng(seed).normal(size=(n, 5, 3))


def test_identities_have_mean_zero_at_their_temperature_only() -> None:
    n = 40_000
    identities = Identities(oscillator(n, 0), CENTRES, WIDTH)
    right, wrong = identities.residuals(KT), identities.residuals(2 * KT)
    errors = right.std(axis=0) / np.sqrt(n)
    assert (np.abs(right.mean(axis=0)) < 4 * errors).all()
    assert (np.abs(wrong.mean(axis=0)) > 4 * errors).any()


def test_mean_of_a_function_times_its_identity_is_minus_its_stiffness() -> None:
    n = 200_000
    identities = Identities(oscillator(n, 1), CENTRES, WIDTH)
    product = identities.values.T @ identities.residuals(KT) / n
    np.testing.assert_allclose(product, -identities.stiffness(equal(n)), atol=0.02)


def factors_of(slopes: Slopes, noise: float) -> Array:
    weights = equal(len(slopes.z))
    correction = Correction(Identities(slopes, CENTRES, WIDTH), weights, KT, noise)
    return correction.factors(weights @ correction.residuals, weights @ correction.instruments)


def walk(n: int, memory: float, seed: int) -> Slopes:
    """Samples of the oscillator that forget slowly."""
    steps = np.sqrt(KT * (1 - memory**2)) * np.random.default_rng(seed).normal(size=n + 200)
    x = lfilter([1.0], [1.0, -memory], steps)[200:, None]
    return Slopes(x, np.ones((n, 1, 1)), np.zeros((n, 1)), -x)


def blocks(n: int, n_blocks: int, seed: int) -> Replicates:
    """Equal weights, and bootstrap samples of blocks."""
    rng = np.random.default_rng(seed)
    times = [np.bincount(rng.integers(0, n_blocks, n_blocks), minlength=n_blocks) for _ in range(60)]
    return Replicates(np.repeat(np.array(times, np.float32), n // n_blocks, axis=1), equal(n))


def test_an_oscillator_is_nearly_without_noise() -> None:
    """Mean of cos x and the share beyond 0.5, which is no smooth function."""
    n, values = 500, []
    for seed in range(40):
        slopes = oscillator(n, seed)
        x = slopes.z[:, 0]
        rows = np.stack([np.ones(n), *(factors_of(slopes, noise) for noise in (1.0, 100.0))]) / n
        np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-2)
        values.append([rows @ np.cos(x), rows @ (x > 0.5)])
    off = np.array(values) - np.array([np.exp(-KT / 2), 0.34155])[:, None]
    errors = np.sqrt((off**2).mean(axis=0))
    assert errors[0, 2] < 0.1 * errors[0, 0]
    assert (errors[1, 1:] < 0.6 * errors[1, 0]).all()
    assert (np.abs(off.mean(axis=0)[:, 1:]) < 0.25 * errors[:, :1]).all()


def test_noise_of_frames_that_forget_slowly_falls_threefold_and_errors_are_right() -> None:
    n, values, said = 2000, [], []
    for seed in range(30):
        slopes = walk(n, 0.95, seed)
        beyond = (slopes.z > 0.5).astype(np.float64)
        before = blocks(n, 20, seed)
        after = corrected(Identities(slopes, CENTRES, WIDTH), before, KT, beyond)
        assert (after.weights > 0).all()
        values.append([r.weights @ beyond[:, 0] - 0.34155 for r in (before, after)])
        said.append([r.means(beyond).std() for r in (before, after)])
    errors = np.sqrt((np.array(values) ** 2).mean(axis=0))
    assert errors[1] < 0.33 * errors[0]
    np.testing.assert_allclose(np.sqrt((np.array(said) ** 2).mean(axis=0)), errors, rtol=0.45)


def test_weights_between_two_temperatures_are_corrected() -> None:
    """Mean energy of the oscillator at kT = 1.5 from frames at 1 and 2, with errors; without forces as before."""
    off: list[list[float]] = []
    for seed in range(12):
        parts = [walk(1000, 0.9, 100 * seed + i).z * np.sqrt(t / KT) for i, t in enumerate((1.0, 2.0))]
        trajectories = [
            FeatureTrajectory(
                features=x.astype(np.float32),
                temperature=t,
                frame_interval=1.0,
                potential_energy=0.5 * x[:, 0] ** 2,
                log_weights=np.zeros(len(x)),
                run=f"T{t:g}",
                scale=REDUCED,
            )
            for x, t in zip(parts, (1.0, 2.0), strict=True)
        ]
        x = np.concatenate(parts)
        slopes = Slopes(x, np.ones((len(x), 1, 1)), np.zeros((len(x), 1)), -x)
        weights = [
            TemperatureWeighting(trajectories, None, seed, chosen).replicates(KT, 1.0).weights
            for chosen in (None, slopes)
        ]
        off.append([float(w @ (0.5 * x[:, 0] ** 2)) - 0.5 * KT for w in weights])
    before, after = np.sqrt((np.array(off) ** 2).mean(axis=0))
    assert after < 0.5 * before


def test_forces_that_are_noise_change_little() -> None:
    slopes = walk(2000, 0.95, 1)
    noise = 50 * np.random.default_rng(2).normal(size=slopes.work.shape)
    noisy = Slopes(slopes.z, slopes.metric, slopes.curvature, slopes.work + noise)
    before = blocks(2000, 20, 3)
    beyond = (slopes.z > 0.5).astype(np.float64)
    after = corrected(Identities(noisy, CENTRES, WIDTH), before, KT, beyond)
    assert abs(float((after.weights - before.weights) @ beyond[:, 0])) < 0.5 * before.means(beyond).std()


def test_a_turn_changes_a_torsion_and_no_distance_within_parts() -> None:
    positions = chain(20, 0)
    turn = Turn(1, 2, np.array([3, 4]))
    moved = turn.moved(positions, 0.3)
    np.testing.assert_allclose(np.mod(dihedral(moved) - dihedral(positions), 2 * np.pi), 0.3, atol=1e-9)
    for i, j in ((2, 3), (1, 3), (3, 4), (2, 4)):
        before, after = (np.linalg.norm(x[:, i] - x[:, j], axis=1) for x in (positions, moved))
        np.testing.assert_allclose(before, after, atol=1e-12)


def test_forces_along_moves_are_minus_the_slope_of_the_energy() -> None:
    positions = chain(20, 1)

    def energy(x: Array) -> Array:
        ends = x[:, 4] - x[:, 0]
        return np.asarray(30 * (ends**2).sum(axis=1, keepdims=True) + 5 * x[:, 3, 2:] ** 2)

    forces = np.zeros_like(positions)
    forces[:, 4] = -60 * (positions[:, 4] - positions[:, 0])
    forces[:, 0] = -forces[:, 4]
    forces[:, 3, 2] = -10 * positions[:, 3, 2]
    for move in (Shift(3, 2), Shift(0, 1), Turn(1, 2, np.array([3, 4]))):
        slope = (energy(move.moved(positions, 1e-5)) - energy(move.moved(positions, -1e-5)))[:, 0] / 2e-5
        np.testing.assert_allclose(move.force(positions, forces), -slope, atol=1e-5)


def test_moves_of_a_chain_with_a_ring_and_of_particles() -> None:
    """Butane turns about its middle bond, a ring does not; loose particles are shifted."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(f"C{i}", mdtraj.element.carbon, residue) for i in range(7)]
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 3), (3, 6)):
        topology.add_bond(atoms[i], atoms[j])
    turns = {
        (move.start, move.end): move.part.tolist() for move in moves_of(topology) if isinstance(move, Turn)
    }
    assert turns == {(2, 1): [0], (3, 2): [0, 1]}
    assert len(moves_of(LJ7Settings().build().mdtraj_topology())) == 21


def test_slopes_of_a_torsion_along_its_turn() -> None:
    positions = chain(10, 2)
    forces = np.random.default_rng(3).normal(size=positions.shape)
    turn = Turn(1, 2, np.array([3, 4]))
    slopes = slopes_along([turn], lambda x: np.sin(dihedral(x)), positions, forces)
    angle = dihedral(positions)
    np.testing.assert_allclose(slopes.metric[:, 0], np.cos(angle) ** 2, atol=1e-5)
    np.testing.assert_allclose(slopes.curvature, -np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(slopes.work, turn.force(positions, forces)[:, None] * np.cos(angle), atol=1e-5)
