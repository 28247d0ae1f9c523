"""Copies of a molecule in one System: the forces of each, what is refused, and whether ensembles are the same."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from helpers.forces import ACCELERATORS, PLATFORMS, TOLERANCE, make_context
from helpers.stages import (
    load,
    make_stage as plain_stage,
    run,
    same_results,
    single_energies,
    source,
    table,
    write_model,
)
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from openmm import unit
from scipy import stats

from latf_openmm import many_copies
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.errors import ConfigError
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.run.config import RunConfig, check, load_config
from latf_openmm.sampling.langevin import draw_velocities
from latf_openmm.sampling.stage import Stage
from latf_openmm.systems import SystemSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.base import BuiltSystem
from latf_openmm.systems.chignolin import ChignolinSettings
from latf_openmm.systems.rna_tetraloop import RnaTetraloopSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings

Array = NDArray[np.float64]
DIPEPTIDE = AlanineDipeptideSettings()
MOLECULES = {
    "dipeptide": DIPEPTIDE,
    "chignolin": ChignolinSettings(),
    "chignolin in GBn2": ChignolinSettings(solvent="gbn2"),
    "tetraloop": RnaTetraloopSettings(),
}


def energy_and_forces(system: openmm.System, positions: Array) -> tuple[float, Array]:
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions.reshape(-1, 3))
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), np.array(forces)


def check_copies(
    one: openmm.System, many: openmm.System, sets: list[Array], placed: Callable[[Array], Array]
) -> None:
    """Forces on each copy are those on it alone, and energies differ by a constant."""
    differences = []
    for positions in sets:
        alone = [energy_and_forces(one, x) for x in positions]
        energy, forces = energy_and_forces(many, placed(positions))
        expected = np.concatenate([found for _, found in alone])
        np.testing.assert_allclose(forces, expected, rtol=1e-9, atol=1e-6)
        differences.append(energy - sum(found for found, _ in alone))
    np.testing.assert_allclose(differences, differences[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MOLECULES)
def test_copies_are_as_if_alone(name: str) -> None:
    one, many = MOLECULES[name].build(), MOLECULES[name].build(3)
    rng = np.random.default_rng(0)
    shape = (2, 3, *one.positions.shape[1:])
    sets = list(one.positions + 0.004 * rng.standard_normal(shape))
    check_copies(one.system, many.system, sets, many.placed)
    assert many.n_copies == 3
    assert many.n_atoms == one.n_atoms
    np.testing.assert_array_equal(many.masses, np.tile(one.masses, 3))
    assert many.system.getNumConstraints() == 3 * one.system.getNumConstraints()
    centred = one.positions[0] - np.average(one.positions[0], axis=0, weights=one.masses)
    np.testing.assert_allclose(many.single(many.placed(many.positions))[1], centred, atol=1e-12)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_keeps_copies_apart(platform: str) -> None:
    one, many = DIPEPTIDE.build(), DIPEPTIDE.build(8)
    positions = one.positions + 0.004 * np.random.default_rng(0).standard_normal(
        (8, *one.positions.shape[1:])
    )
    expected = np.concatenate([energy_and_forces(one.system, x)[1] for x in positions])
    context = make_context(many.system, platform)
    context.setPositions(many.placed(positions).reshape(-1, 3))
    found = context.getState(forces=True).getForces(asNumpy=True)._value
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < TOLERANCE.get(platform, 1e-6) * scale


# --- how far apart ---------------------------------------------------------------------------------


def zigzag(n: int, angle: float = 2.0, length: float = 0.15) -> tuple[openmm.System, Array]:
    """A chain of charges, fully extended."""
    system = openmm.System()
    bonds, angles, charges = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
    for index in range(n):
        system.addParticle(12.0 + index % 3)
        charges.addParticle(0.5 * (-1) ** index, 0.2, 0.3)
    for index in range(n - 1):
        bonds.addBond(index, index + 1, length, 1e5)
    for index in range(n - 2):
        angles.addAngle(index, index + 1, index + 2, angle, 400.0)
    for force in (bonds, angles, charges):
        system.addForce(force)
    x = np.arange(n) * length * np.sin(angle / 2)
    y = (np.arange(n) % 2) * length * np.cos(angle / 2)
    return system, np.stack([x, y, np.zeros(n)], axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 60), st.floats(1.6, 2.6), st.integers(2, 70))
def test_extended_chains_fit_and_keep_apart(n: int, angle: float, n_copies: int) -> None:
    system, x = zigzag(n, angle)
    found = many_copies(system, n_copies)
    extent = float(np.linalg.norm(x[0] - x[-1]))
    assert extent < found.cutoff
    assert found.cutoff < 1.15 * extent + 0.3
    centre = np.average(x, axis=0, weights=[system.getParticleMass(i)._value for i in range(n)])
    radius = np.linalg.norm(x - centre, axis=1).max()
    apart = min(np.linalg.norm(a - b) for a, b in itertools.combinations(found.sites, 2))
    assert apart - 2 * radius > found.cutoff + 0.9  # centres of mass stray, by far less
    assert len(found.sites) == n_copies
    np.testing.assert_allclose(found.sites.mean(axis=0), 0.0, atol=1e-9)


def test_a_cutoff_of_its_own_stays() -> None:
    system, x = zigzag(12)
    force = system.getForce(2)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(0.5)
    found = many_copies(system, 2)
    copied = found.system.getForce(2)
    assert copied.getCutoffDistance()._value == 0.5
    assert copied.getReactionFieldDielectric() == force.getReactionFieldDielectric()
    check_copies(system, found.system, [np.stack([x, x + 0.01 * np.sin(x)])], found.placed)


# --- kinds of forces -------------------------------------------------------------------------------


def all_kinds() -> tuple[openmm.System, Array]:
    """A chain with a term of every kind of force that can be copied."""
    system, x = zigzag(8)
    system.addConstraint(0, 1, 0.15)
    torsion = openmm.PeriodicTorsionForce()
    torsion.addTorsion(0, 1, 2, 3, 3, 0.5, 4.0)
    rb = openmm.RBTorsionForce()
    rb.addTorsion(1, 2, 3, 4, 1.0, 2.0, 0.5, 0.3, 0.2, 0.1)
    maps = openmm.CMAPTorsionForce()
    maps.addMap(4, list(np.arange(16.0)))
    maps.addTorsion(0, 0, 1, 2, 3, 1, 2, 3, 4)
    bond = openmm.CustomBondForce("k*(r-r0)^4")
    for name in ("k", "r0"):
        bond.addPerBondParameter(name)
    bond.addBond(0, 4, [50.0, 0.4])
    angle = openmm.CustomAngleForce("k*(theta-2)^2")
    angle.addGlobalParameter("k", 5.0)
    angle.addAngle(2, 3, 5, [])
    custom_torsion = openmm.CustomTorsionForce("k*cos(theta)")
    custom_torsion.addPerTorsionParameter("k")
    custom_torsion.addTorsion(3, 4, 5, 6, [2.0])
    nonbonded = openmm.CustomNonbondedForce("e*exp(-3*r)*(a1+a2)")
    nonbonded.addGlobalParameter("e", 2.0)
    nonbonded.addPerParticleParameter("a")
    gb = openmm.CustomGBForce()
    gb.addPerParticleParameter("q")
    gb.addComputedValue("I", "exp(-r)", openmm.CustomGBForce.ParticlePair)
    gb.addEnergyTerm("q*I^2", openmm.CustomGBForce.SingleParticle)
    for index in range(8):
        nonbonded.addParticle([0.1 * index])
        gb.addParticle([0.3 + 0.1 * index])
    nonbonded.addExclusion(0, 1)
    gb.addExclusion(2, 3)
    system.getForce(2).addException(0, 1, 0.0, 0.2, 0.0)
    system.getForce(2).addException(0, 2, 0.1, 0.2, 0.1)
    for force in (torsion, rb, maps, bond, angle, custom_torsion, nonbonded, gb, openmm.CMMotionRemover()):
        system.addForce(force)
    return system, x


def test_every_kind_of_force_is_copied() -> None:
    system, x = all_kinds()
    before = openmm.XmlSerializer.serialize(system)
    found = many_copies(system, 4)
    assert openmm.XmlSerializer.serialize(system) == before
    rng = np.random.default_rng(1)
    sets = list(x + 0.02 * rng.standard_normal((2, 4, *x.shape)))
    check_copies(system, found.system, sets, found.placed)
    kinds = [type(force) for force in found.system.getForces()]
    assert openmm.CMMotionRemover not in kinds
    assert kinds[-1] is openmm.CustomCentroidBondForce


def with_force(force: openmm.Force) -> openmm.System:
    system, _ = zigzag(4)
    system.addForce(force)
    return system


def periodic() -> openmm.System:
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    for _ in range(4):
        force.addParticle(0.0, 0.3, 0.1)
    return with_force(force)


def virtual() -> openmm.System:
    system, _ = zigzag(4)
    system.setParticleMass(1, 0.0)
    system.setVirtualSite(1, openmm.TwoParticleAverageSite(0, 2, 0.5, 0.5))
    return system


def in_two_parts() -> openmm.System:
    system, _ = zigzag(4)
    system.addParticle(1.0)
    system.getForce(2).addParticle(0.0, 0.3, 0.1)
    return system


def with_offsets() -> openmm.System:
    system, _ = zigzag(4)
    force = system.getForce(2)
    force.addGlobalParameter("lambda", 0.0)
    force.addParticleParameterOffset("lambda", 0, 1.0, 0.0, 0.0)
    return system


def named_external() -> openmm.System:
    force = openmm.CustomExternalForce("x^2")
    force.setName("Wall")
    return with_force(force)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (periodic, "the System is periodic, .* use implicit solvent"),
        (virtual, "virtual sites cannot be copied"),
        (in_two_parts, "atoms 0 and 4 are not connected by harmonic bonds or constraints"),
        (with_offsets, "NonbondedForce has ParticleParameterOffsets, which cannot be copied"),
        (named_external, "CustomExternalForce 'Wall' cannot be copied; give each walker its own Context"),
    ],
)
def test_what_is_refused(make: Callable[[], openmm.System], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        many_copies(make(), 2)


def test_no_copies_at_all() -> None:
    with pytest.raises(ConfigError, match="n_copies: expected 1 or more, got 0"):
        many_copies(zigzag(4)[0], 0)


# --- stages ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dipeptide") / "model"
    return write_model(folder, DIPEPTIDE, [TorsionSettings(angles=["phi", "psi"])], 300.0)


def make_stage(
    folder: Path,
    bias: Any = None,
    model: Path | None = None,
    system: SystemSettings = DIPEPTIDE,
    unbiased: frozenset[float] = frozenset(),
    **changes: Any,
) -> Stage:
    few: dict[str, Any] = {
        "timestep": 0.002,
        "temperatures": [300.0, 400.0, 600.0],
        "walkers": 2,
        "frames": 20,
    }
    acting = None if bias is None or model is None else source(model, bias)
    return replace(plain_stage(folder, acting, system, **(few | changes)), unbiased=unbiased)


def groups(**changes: Any) -> list[tuple[str, int, int]]:
    bias = OpesSettings(sigma=0.3, barrier=6.0, pace=10) if changes.pop("biased", False) else None
    tasks = make_stage(Path("s"), bias, Path("m"), **changes).tasks()
    return [(g.folder.name, g.first_walker, g.n_walkers) for task in tasks for g in task.groups]


def test_which_walkers_share_a_context() -> None:
    assert groups(walkers=3, context_walkers=2, temperatures=[300.0, 400.0]) == [
        ("T300_w000", 0, 2),
        ("T300_w002", 2, 1),
        ("T400_w000", 0, 2),
        ("T400_w002", 2, 1),
    ]
    apart = [("T300_w000", 0, 2), ("T400_w000", 0, 2), ("T600_w000", 0, 2)]
    assert groups(context_walkers=2) == groups(context_walkers=3) == apart
    assert groups(context_walkers=4) == [("T300-400", 0, 4), ("T600_w000", 0, 2)]
    assert groups(context_walkers=100) == [("T300-600", 0, 6)]
    # One bias for all, or one for each temperature.
    assert groups(context_walkers=100, biased=True, share_bias="all") == [("T300-600", 0, 6)]
    assert groups(context_walkers=100, biased=True) == apart
    some = groups(context_walkers=100, biased=True, share_bias="all", unbiased=frozenset([300.0]))
    assert some == [("T300_w000", 0, 2), ("T400-600", 2, 4)]
    holes = ThreeHoleSettings()
    assert groups(system=holes) == [("T300", 0, 2), ("T400", 0, 2), ("T600", 0, 2)]
    assert [name for name, *_ in groups(system=holes, context_walkers=1)][:2] == ["T300_w000", "T300_w001"]


def test_each_walker_has_its_temperature_and_its_files(tmp_path: Path) -> None:
    stage = make_stage(tmp_path, context_walkers=6, equilibration=200)
    walkers = run(stage)
    assert [(w.walker, w.temperature) for w in walkers] == list(enumerate([300, 300, 400, 400, 600, 600]))
    assert {w.run for w in walkers} == {f"{tmp_path.parent.name}/T{t}" for t in (300, 400, 600)}
    topology = DIPEPTIDE.build().mdtraj_topology()
    for walker in walkers:
        xyz = walker.load(topology).xyz
        assert np.abs(xyz).max() < 1.5  # around the origin, wherever in the Context it was
        np.testing.assert_allclose(
            walker.table["potential_energy"], single_energies(DIPEPTIDE, xyz), atol=0.02
        )


@pytest.mark.parametrize("biased", [False, True])
def test_a_killed_stage_resumes_exactly(tmp_path: Path, model: Path, biased: bool) -> None:
    bias = OpesSettings(sigma=0.3, barrier=20.0, pace=7) if biased else None
    common: dict[str, Any] = {"context_walkers": 6, "share_bias": "all"}
    run(make_stage(tmp_path / "whole" / "s", bias, model, **common))
    run(make_stage(tmp_path / "parts" / "s", bias, model, frames=10, **common))
    run(make_stage(tmp_path / "parts" / "s", bias, model, **common))
    same_results(tmp_path / "whole" / "s", tmp_path / "parts" / "s")


def test_the_bias_is_that_of_each_walkers_frame(tmp_path: Path, model: Path) -> None:
    bias = HarmonicSettings(centre=[0.4, -0.3], force_constant=[20.0, 30.0])
    stage = make_stage(tmp_path / "s", bias, model, context_walkers=6, share_bias="all")
    for walker in run(stage):
        z = walker.table[["z0", "z1"]].to_numpy()
        expected = 10.0 * (z[:, 0] - 0.4) ** 2 + 15.0 * (z[:, 1] + 0.3) ** 2
        np.testing.assert_allclose(walker.table["bias_energy"], expected, atol=1e-4)


def test_starts_and_velocities_are_those_of_each_walker(tmp_path: Path) -> None:
    one = DIPEPTIDE.build()
    turned = one.positions[0] @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    starts = {300.0: np.stack([one.positions[0]] * 2), 400.0: np.stack([turned] * 2)}
    stage = make_stage(
        tmp_path, context_walkers=4, temperatures=[300.0, 400.0], frame_interval=1, frames=10, minimise=False
    )
    stage.starts.update(starts)
    for walker in run(stage):
        first = load(walker.files[0]).xyz[0]
        expected = starts[walker.temperature][0] - starts[walker.temperature][0].mean(axis=0)
        assert np.abs(first - first.mean(axis=0) - expected).max() < 0.03


def test_velocities_of_several_temperatures() -> None:
    built = DIPEPTIDE.build(200)
    context = openmm.Context(
        built.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(built.placed(built.positions).reshape(-1, 3))
    kelvin = np.repeat([100.0, 900.0], 100 * built.n_atoms)
    draw_velocities(context, kelvin, 1)
    v = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    twice = (built.masses[:, None] * v**2).sum(axis=1).reshape(2, -1).sum(axis=1)
    freedom = 100 * (3 * built.n_atoms - DIPEPTIDE.build().system.getNumConstraints())
    found = twice / (freedom * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin))
    np.testing.assert_allclose(found, [100.0, 900.0], rtol=4 * np.sqrt(2 / freedom))


def test_a_box_of_water_is_refused_before_anything_runs(tmp_path: Path) -> None:
    system = ChignolinSettings(solvent="tip3p")
    stage = make_stage(tmp_path / "s", system=system, context_walkers=2)
    message = r"simulation.context_walkers: 2 is not possible: the System is periodic"
    with pytest.raises(ConfigError, match=message):
        run(stage)
    assert not (tmp_path / "s").exists()
    config = load_config("alanine_dipeptide")
    changed = {**config.model_dump(), "system": system.model_dump()}
    changed["simulation"]["context_walkers"] = 2
    with pytest.raises(ConfigError, match=message):
        check(RunConfig.model_validate(changed))


def test_several_temperatures_need_the_bias_at_every_step() -> None:
    with pytest.raises(
        ConfigError, match=r"context_walkers: 4 are more than walkers \(2\).*bias_every: 1, got 2"
    ):
        make_stage(Path("s"), context_walkers=4, bias_every=2)
    make_stage(Path("s"), context_walkers=3, bias_every=2)


# --- ensembles -------------------------------------------------------------------------------------


def means(walkers: list[WalkerFrames], temperature: float, column: str) -> Array:
    """One mean for each walker."""
    return np.array([w.table[column].mean() for w in walkers if w.temperature == temperature])


def same_ensembles(
    tmp_path: Path, system: SystemSettings, frames: int, platform: str | None = None, **changes: Any
) -> None:
    """Kinetic temperatures, and means and distributions of potential energies.

    Six walkers a temperature, those in one Context on `platform`.
    """
    common: dict[str, Any] = {
        "temperatures": [300.0, 600.0],
        "walkers": 6,
        "timestep": 0.004,
        "friction": 5.0,
        "frame_interval": 250,
        "frames": frames,
        "segment_frames": frames,
        "equilibration": 1500,
        **changes,
    }
    built = system.build()
    freedom = 3 * built.n_atoms - built.system.getNumConstraints()
    apart = run(make_stage(tmp_path / "apart" / "s", system=system, **common))
    size = 2 * common["walkers"]
    common |= {"context_walkers": size, "platform": platform}
    together = run(make_stage(tmp_path / "together" / "s", system=system, **common))
    for temperature in common["temperatures"]:
        for column in ("kinetic_temperature", "potential_energy"):
            one, other = (means(walkers, temperature, column) for walkers in (apart, together))
            error = np.hypot(one.std(ddof=1), other.std(ddof=1)) / np.sqrt(len(one))
            assert abs(one.mean() - other.mean()) < 4 * error
        kinetic = means(together, temperature, "kinetic_temperature")
        # a frame each picosecond at 5/ps
        chance = np.sqrt(2 / (freedom * len(kinetic) * frames))
        assert abs(kinetic.mean() / temperature - 1) < 4 * chance + 0.01
        energies = [
            table([w for w in walkers if w.temperature == temperature])["potential_energy"][::2]
            for walkers in (apart, together)
        ]
        assert stats.ks_2samp(*energies).pvalue > 1e-3
        assert energies[0].var() == pytest.approx(energies[1].var(), rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [20, 60])
def test_ensembles_are_those_of_a_context_for_each_walker(tmp_path: Path, frames: int) -> None:
    same_ensembles(tmp_path, DIPEPTIDE, frames)


@pytest.mark.parametrize("platform", [name for name in PLATFORMS if name in ACCELERATORS])
def test_ensembles_on_an_accelerator(tmp_path: Path, platform: str) -> None:
    same_ensembles(tmp_path, DIPEPTIDE, 60, platform, minimise=False)  # which hangs with pocl


@pytest.mark.slow
def test_ensembles_of_a_protein(tmp_path: Path) -> None:
    """Chignolin at 300 and 400 K, from its folded structure; about three minutes."""
    same_ensembles(tmp_path, ChignolinSettings(), 20, walkers=3, temperatures=[300.0, 400.0])


def test_the_restraint_leaves_what_a_copy_does_within_itself(tmp_path: Path) -> None:
    """A dumbbell: its centre is held at the site, its length has the exact distribution."""
    system = openmm.System()
    for mass in (10.0, 30.0):
        system.addParticle(mass)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.0, 500.0)  # <r^2> = 3 kT/k
    system.addForce(bond)
    found = many_copies(system, 64)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.005)
    integrator.setRandomNumberSeed(2)
    context = openmm.Context(found.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(found.placed(np.zeros((64, 2, 3))).reshape(-1, 3))
    lengths, strays = [], []
    for _ in range(150):
        integrator.step(100)
        x = context.getState(positions=True).getPositions(asNumpy=True)._value.reshape(64, 2, 3)
        lengths.append(((x[:, 0] - x[:, 1]) ** 2).sum(axis=1))
        centre = 0.25 * x[:, 0] + 0.75 * x[:, 1]
        strays.append((centre - found.sites) ** 2)
    kT = 300.0 * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
    assert np.mean(lengths) == pytest.approx(3 * kT / 500.0, rel=0.04)
    assert np.mean(strays) == pytest.approx(kT / 1000.0, rel=0.04)


def test_built_systems_of_one_copy_are_as_they_were() -> None:
    built = DIPEPTIDE.build()
    assert isinstance(built, BuiltSystem)
    assert built.copies is None
    assert built.placed(built.positions) is built.positions
    assert built.single(built.positions) is built.positions
    assert built.copied(1) is built
