"""Systems of other people's scripts: what they hold is handled, or refused in one line before any work."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit

import latf_openmm as latf
from latf_openmm import errors
from latf_openmm.bias.biased_system import add_bias
from latf_openmm.bias.cv import CollectiveVariables, torsion_cv
from latf_openmm.bias.multistep import MultistepStepper
from latf_openmm.bias.placement import bias_group, check_integrated
from latf_openmm.bias.potentials import Bias
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.potentials.harmonic import HarmonicSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.bias.reporter import LatentReporter
from latf_openmm.bias.updater import BiasUpdater
from latf_openmm.errors import ConfigError
from latf_openmm.features import resolve_features
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.force_groups import free_force_group
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.model.checkpoint import TrainedModel, save_model
from latf_openmm.model.flow import FlowSettings
from latf_openmm.model.latf import LatentThermodynamicFlow, ModelSettings
from latf_openmm.sampling.dynamics import BiasSource, GroupTask
from latf_openmm.sampling.kinetic import KineticTemperature
from latf_openmm.sampling.stage import SimulationSettings, Stage, run_stage
from latf_openmm.sampling.thermostat_check import thermostat_deviations
from latf_openmm.sampling.walker_group import WalkerGroup
from latf_openmm.systems import SYSTEM_KINDS, inspection, library_folder
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.base import SystemSettings
from latf_openmm.systems.copies import many_copies
from latf_openmm.systems.inspection import degrees_of_freedom, inspected, pressure_of
from latf_openmm.units import GAS_CONSTANT

Array = NDArray[np.float64]
REFERENCE = openmm.Platform.getPlatformByName("Reference")
PDB = library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"
MIDDLE = range(6, 16)  # atoms of the alanine; the caps may be frozen


def dipeptide() -> openmm.System:
    return AlanineDipeptideSettings().build().system


def serialized(system: openmm.System, folder: Path) -> SystemSettings:
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    kind: Any = SYSTEM_KINDS["serialized"]
    return kind(system=folder / "system.xml", structure=PDB)


def frozen_caps() -> openmm.System:
    """Caps of mass 0, with the constraints within them left in."""
    system = dipeptide()
    for atom in set(range(system.getNumParticles())) - set(MIDDLE):
        system.setParticleMass(atom, 0.0)
    return system


def four_site_water(n: int = 4) -> tuple[app.Topology, openmm.System, Array]:
    """Rigid TIP4P-Ew molecules apart from each other: a virtual site each."""
    topology, positions = app.Topology(), list[Any]()
    chain = topology.addChain()
    for index in range(n):
        residue = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name, place in (("H1", (0.0957, 0.0, 0.0)), ("H2", (-0.024, 0.0927, 0.0))):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
            positions.append(np.array(place) + np.array([0.0, 0.0, 0.4 * index]))
        positions.insert(-2, np.array([0.0, 0.0, 0.4 * index]))
    field = app.ForceField("amber14/tip4pew.xml")
    model = app.Modeller(topology, np.array(positions) * unit.nanometer)
    model.addExtraParticles(field)
    xyz = np.array(model.positions.value_in_unit(unit.nanometer))
    return model.topology, field.createSystem(model.topology), xyz


# --- what a System holds ---------------------------------------------------------------------------


def test_a_thermostat_inside_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system = dipeptide()
    system.addForce(openmm.AndersenThermostat(310.0, 1.0))
    own = serialized(system, tmp_path)
    for _ in range(3):
        assert not any(isinstance(f, openmm.AndersenThermostat) for f in own.build().system.getForces())
    said = [line for line in caplog.messages if "AndersenThermostat" in line]
    assert said == [
        f"system.system: {tmp_path / 'system.xml'}: its AndersenThermostat (310 K) is left out; walkers have Langevin "
        "dynamics at their own temperatures"
    ]
    assert own.build().system.getNumForces() == system.getNumForces() - 1
    (tmp_path / "make.py").write_text(
        "import numpy as np, openmm\nfrom openmm import app\n\n\ndef make():\n"
        "    system = openmm.System()\n    system.addParticle(1.0)\n"
        "    system.addForce(openmm.AndersenThermostat(300.0, 1.0))\n    topology = app.Topology()\n"
        "    topology.addAtom('AR', None, topology.addResidue('AR', topology.addChain()))\n"
        "    return system, topology, np.zeros((1, 3))\n"
    )
    kind: Any = SYSTEM_KINDS["python"]
    assert kind(file=tmp_path / "make.py").build().system.getNumForces() == 0


def drude(system: openmm.System) -> None:
    system.addForce(openmm.DrudeForce())


def ring_polymer(system: openmm.System) -> None:
    system.addForce(openmm.RPMDMonteCarloBarostat(1.0, 25))


def membrane(system: openmm.System) -> None:
    kind = openmm.MonteCarloMembraneBarostat
    system.addForce(kind(1.0, 0.0, 300.0, kind.XYIsotropic, kind.ZFree))


def anisotropic(system: openmm.System) -> None:
    system.addForce(openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300.0))


def flexible(system: openmm.System) -> None:
    system.addForce(openmm.MonteCarloFlexibleBarostat(1.0, 300.0))


def barostat(system: openmm.System) -> None:
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))


def barostats(system: openmm.System) -> None:
    barostat(system)
    barostat(system)


def biased(system: openmm.System) -> None:
    force = openmm.CustomExternalForce("0")
    force.setName("LatentBias")
    system.addForce(force)


def all_groups(system: openmm.System) -> None:
    for group in range(32):
        force = openmm.CustomExternalForce("0")
        force.setForceGroup(group)
        system.addForce(force)


def all_frozen(system: openmm.System) -> None:
    for atom in range(system.getNumParticles()):
        system.setParticleMass(atom, 0.0)


def one_frozen(system: openmm.System) -> None:
    first, *_ = system.getConstraintParameters(0)
    system.setParticleMass(first, 0.0)


BAD = [
    (drude, "holds a DrudeForce: its Drude particles need a DrudeLangevinIntegrator"),
    (ring_polymer, "holds a RPMDMonteCarloBarostat: it needs an RPMDIntegrator"),
    (membrane, "MonteCarloMembraneBarostat is not supported; use MonteCarloBarostat, or constant volume"),
    (anisotropic, "MonteCarloAnisotropicBarostat is not supported"),
    (flexible, "MonteCarloFlexibleBarostat is not supported"),
    (barostat, "holds a MonteCarloBarostat, but none of its forces is periodic"),
    (barostats, "holds 2 barostats, expected one"),
    (
        biased,
        "holds a bias .'LatentBias'. that frames would not be reweighted for; expected the System as it was",
    ),
    (all_groups, "forces are in all 32 force groups; a bias needs one for itself"),
    (all_frozen, "no particle has a mass, so nothing would move"),
    (one_frozen, r"a constraint connects particles \d+ and \d+, of which one has mass 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda x: getattr(x, "__name__", ""))
def test_what_cannot_be_simulated_is_refused(change: Callable[[openmm.System], None], message: str) -> None:
    system = dipeptide()
    change(system)
    with pytest.raises(ConfigError, match=f"^system.system: a.xml: .*{message}") as caught:
        inspected(system, "system.system: a.xml")
    assert "\n" not in str(caught.value)


def test_a_refused_system_is_named_by_key_and_file(tmp_path: Path) -> None:
    system = dipeptide()
    drude(system)
    with pytest.raises(ConfigError, match=r"^system\.system: .*/system\.xml: it holds a DrudeForce"):
        serialized(system, tmp_path).build()


def test_nothing_left_to_move_is_refused() -> None:
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(openmm.CMMotionRemover())
    with pytest.raises(ConfigError, match="constraints and CMMotionRemover leave no degree of freedom"):
        inspected(system, "it")


def test_a_barostat_that_never_acts_is_none() -> None:
    system = dipeptide()
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 0))
    assert inspected(system, "it") is system
    assert pressure_of(system) is None


def test_a_barostat_inside_has_the_temperature_of_each_walker(tmp_path: Path) -> None:
    system = dipeptide()
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce | openmm.GBSAOBCForce):
            force.setNonbondedMethod(force.CutoffPeriodic)
            force.setCutoffDistance(1.0)
    system.setDefaultPeriodicBoxVectors([3, 0, 0], [0, 3, 0], [0, 0, 3])
    system.addForce(openmm.MonteCarloBarostat(1.0, 298.0))
    own = serialized(system, tmp_path)
    for temperature in (300.0, 450.0):
        group = WalkerGroup(task(own, tmp_path, temperatures=(temperature,)), 0)
        assert group.context.getParameter(openmm.MonteCarloBarostat.Temperature()) == temperature
        assert group.pressure == pytest.approx(0.0602214, rel=1e-5)


def test_frozen_molecules_are_not_copied() -> None:
    with pytest.raises(ConfigError, match=r"frozen particles \(mass 0\) cannot be copied"):
        many_copies(frozen_caps(), 2)


# --- the force group of the bias -------------------------------------------------------------------


def phi() -> CollectiveVariables:
    return torsion_cv([(4, 6, 8, 14)], 22)


def restraint(force_constant: float = 20.0) -> Bias:
    return HarmonicSettings(centre=[1.0], force_constant=force_constant).build(
        latf.cv_context(phi().periods.tolist(), 300.0)
    )


def in_groups(groups: Iterable[int]) -> openmm.System:
    """The dipeptide, with more forces in these groups."""
    system = dipeptide()
    for group in groups:
        force = openmm.CustomExternalForce("x")
        force.setForceGroup(group)
        system.addForce(force)
    return system


@pytest.mark.parametrize(("taken", "free"), [([], 31), ([31], 30), ([31, 30, 28], 29), (range(2, 32), 1)])
def test_the_highest_group_that_no_force_is_in(taken: Iterable[int], free: int) -> None:
    assert free_force_group(in_groups(taken)) == free


def test_the_bias_takes_a_free_group() -> None:
    system = in_groups([31])
    assert bias_group(add_bias(system, phi(), restraint()), "LatentBias") == 30
    with pytest.raises(ConfigError, match="group: 31 holds CustomExternalForce, expected one that no force"):
        add_bias(system, phi(), restraint(), group=31)
    with pytest.raises(ConfigError, match="in all 32 force groups"):
        add_bias(in_groups(range(1, 32)), phi(), restraint())


def test_two_biases_have_groups_and_names_of_their_own() -> None:
    first = a_biased_system()
    with pytest.raises(ConfigError, match="already has a force 'LatentBias'; give each bias another name"):
        add_bias(first, phi(), restraint())
    both = add_bias(first, phi(), restraint(), name="Second")
    assert [bias_group(both, name) for name in ("LatentBias", "Second")] == [31, 30]


def test_global_parameters_of_other_forces_do_not_collide() -> None:
    system = dipeptide()
    force = openmm.CustomExternalForce("LatentBias_scale*x")
    force.addGlobalParameter("LatentBias_scale", 1.0)
    system.addForce(force)
    with pytest.raises(ConfigError, match="CustomExternalForce has a global parameter 'LatentBias_scale'"):
        add_bias(system, phi(), restraint(), multistep=True)
    add_bias(system, phi(), restraint(), multistep=True, name="Other")


def test_several_groups_in_a_system_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of ours sees the integrator of a bare Context."""
    system = dipeptide()
    add_bias(system, phi(), restraint())
    assert not caplog.messages
    system.getForce(0).setForceGroup(2)
    add_bias(system, phi(), restraint())
    (said,) = caplog.messages
    assert "the forces of the System are in groups 0, 2, the bias is in group 31" in said


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dipeptide") / "model"
    topology = AlanineDipeptideSettings().build().mdtraj_topology()
    features = tuple(resolve_features([TorsionSettings(angles=["phi", "psi"])], topology))
    flow = LatentThermodynamicFlow(ModelSettings(flow=FlowSettings(layers=2, hidden=[8])), 4, 2, 300.0).eval()
    save_model(TrainedModel(flow, features, tuple(map(str, topology.atoms)), "K", (300.0,)), folder)
    return folder


def settings(**changes: Any) -> SimulationSettings:
    few: dict[str, Any] = {
        "timestep": 0.002,
        "friction": 5.0,
        "frame_interval": 10,
        "temperatures": [300.0],
        "frames": 12,
        "platform": "Reference",
    }
    return SimulationSettings(**(few | changes))


def task(system: SystemSettings, folder: Path, temperatures: tuple[float, ...], **changes: Any) -> GroupTask:
    dynamics = settings(**changes).dynamics()
    return GroupTask(system, dynamics, None, temperatures, None, 0, 12, 1, folder / "group")


def simulated(system: SystemSettings, folder: Path, bias: BiasSource | None, **changes: Any) -> WalkerFrames:
    run_stage(Stage(system, settings(**changes), bias, {}, 1, folder))
    (walker,) = read_stage(folder)
    return walker


@pytest.mark.parametrize(("group", "every"), [(31, 1), (31, 2), (7, 1)])
def test_energies_hold_forces_of_every_group(tmp_path: Path, model: Path, group: int, every: int) -> None:
    """Torsions in a group of their own, the bias in another: potential energies are those of the whole System."""
    system = dipeptide()
    for force in system.getForces():
        if isinstance(force, openmm.PeriodicTorsionForce):
            force.setForceGroup(group)
    bias = BiasSource(model=model, bias=HarmonicSettings(centre=[0.0, 0.0], force_constant=10.0))
    walker = simulated(serialized(system, tmp_path), tmp_path / "stage", bias, bias_every=every)
    built = AlanineDipeptideSettings().build()
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001), REFERENCE)
    for xyz, energy in zip(
        walker.load(built.mdtraj_topology()).xyz, walker.table["potential_energy"], strict=True
    ):
        context.setPositions(xyz)
        assert context.getState(energy=True).getPotentialEnergy()._value == pytest.approx(energy, abs=0.02)
    assert (walker.table["bias_energy"] > 0).all()


# --- integrators that leave the bias out -----------------------------------------------------------


def only_group_zero() -> openmm.Integrator:
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    integrator.setIntegrationForceGroups({0})
    return integrator


def custom(force: str) -> openmm.CustomIntegrator:
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addComputePerDof("v", f"v + dt*{force}/m")
    integrator.addComputePerDof("x", "x + dt*v")
    return integrator


def compound(integrator: openmm.Integrator) -> openmm.Integrator:
    several = openmm.CompoundIntegrator()
    several.addIntegrator(integrator)
    return several


LEFT_OUT: dict[str, tuple[Callable[[], openmm.Integrator], str]] = {
    "MTS": (
        lambda: openmm.MTSLangevinIntegrator(300.0, 1.0, 0.002, [(1, 1), (0, 2)]),
        "MTSLangevinIntegrator integrates force groups 0, 1, and the bias 'LatentBias' is in group 31",
    ),
    "groups": (only_group_zero, "LangevinMiddleIntegrator integrates force groups 0, and the bias"),
    "custom": (lambda: custom("f0"), "CustomIntegrator integrates force groups 0, and the bias"),
    "compound": (lambda: compound(custom("(f0+f3)")), "CustomIntegrator integrates force groups 0, 3, and"),
}
FELT: list[Callable[[], openmm.Integrator]] = [
    lambda: openmm.MTSLangevinIntegrator(300.0, 1.0, 0.002, [(31, 1), (0, 2)]),
    lambda: custom("f"),
    lambda: compound(openmm.VerletIntegrator(0.001)),
    lambda: openmm.BrownianIntegrator(300.0, 1.0, 0.001),
]


def simulation(system: openmm.System, integrator: openmm.Integrator) -> app.Simulation:
    pdb = app.PDBFile(str(PDB))
    made = app.Simulation(pdb.topology, system, integrator, REFERENCE)
    made.context.setPositions(pdb.positions)
    return made


@functools.cache
def a_biased_system(adaptive: bool = False) -> openmm.System:
    """Made once: recording the forces takes long."""
    return add_bias(dipeptide(), phi(), opes() if adaptive else restraint())


@functools.cache
def opes() -> Bias:
    return OpesSettings(sigma=0.3, barrier=20.0, pace=5).build(latf.cv_context(phi().periods.tolist(), 300.0))


@pytest.mark.parametrize("name", LEFT_OUT)
def test_an_integrator_that_leaves_the_bias_out_is_refused(tmp_path: Path, name: str) -> None:
    make, message = LEFT_OUT[name]
    bias = opes()
    assert isinstance(bias, AdaptiveBias)
    reporters = LatentReporter(tmp_path / "z.csv", 5, phi(), restraint()), BiasUpdater(phi(), bias)
    for reporter, adaptive in zip(reporters, (False, True), strict=True):
        run = simulation(a_biased_system(adaptive), make())
        run.reporters.append(reporter)
        with pytest.raises(ConfigError, match=message):
            run.step(5)
        assert run.context.getStepCount() == 0
    with pytest.raises(ConfigError, match=message):
        BiasUpdater(phi(), bias).update(run.context)


def test_a_multistep_stepper_needs_the_bias_in_the_integrators_groups() -> None:
    system = add_bias(dipeptide(), phi(), restraint(), multistep=True)
    with pytest.raises(
        ConfigError, match="integrates force groups 0, and the bias 'LatentBias' is in group 31"
    ):
        MultistepStepper(simulation(system, only_group_zero()).context, 2)


@pytest.mark.parametrize("make", FELT)
def test_integrators_that_let_the_bias_act_pass(make: Callable[[], openmm.Integrator]) -> None:
    context = simulation(a_biased_system(), make()).context
    check_integrated(context, "LatentBias")


def test_a_reporter_of_a_bias_that_is_not_in_the_system(tmp_path: Path) -> None:
    run = simulation(dipeptide(), openmm.VerletIntegrator(0.001))
    run.reporters.append(LatentReporter(tmp_path / "z.csv", 5, phi(), restraint()))
    with pytest.raises(
        ConfigError,
        match="the System has no bias of the name 'LatentBias'; make it with add_bias, which returns a copy of the "
        "System: simulate what it returns",
    ):
        run.step(5)


# --- degrees of freedom and kinetic temperatures ---------------------------------------------------


@pytest.mark.parametrize("name", ["dipeptide", "frozen caps", "four-site water"])
def test_degrees_of_freedom_are_those_of_openmms_reporter(name: str, tmp_path: Path) -> None:
    topology = app.PDBFile(str(PDB)).topology
    if name == "four-site water":
        topology, system, _ = four_site_water()
    else:
        system = dipeptide() if name == "dipeptide" else frozen_caps()
    run = app.Simulation(topology, system, openmm.VerletIntegrator(0.001), REFERENCE)
    reporter = app.StateDataReporter(str(tmp_path / "out"), 1, temperature=True)
    reporter._initializeConstants(run)
    assert degrees_of_freedom(system) == reporter._dof


def without_constrained_parts(system: openmm.System, xyz: Array, velocities: Array) -> Array:
    """By dense linear algebra: v - M^-1 J^T (J M^-1 J^T)^-1 J v, then the centre of mass at rest."""
    masses = np.array([system.getParticleMass(i)._value for i in range(len(xyz))])
    jacobian = np.zeros((system.getNumConstraints(), len(xyz), 3))
    for row in range(system.getNumConstraints()):
        a, b, _ = system.getConstraintParameters(row)
        jacobian[row, a], jacobian[row, b] = xyz[a] - xyz[b], xyz[b] - xyz[a]
    flat, inverse = jacobian.reshape(len(jacobian), -1), np.repeat(1.0 / masses, 3)
    multipliers = np.linalg.solve(flat * inverse @ flat.T, flat @ velocities.ravel())
    found = velocities - (inverse * (flat.T @ multipliers)).reshape(-1, 3)
    return np.asarray(found - np.average(found, axis=0, weights=masses))


def test_velocities_are_those_of_a_projection() -> None:
    built = AlanineDipeptideSettings().build()
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001), REFERENCE)
    context.setPositions(built.positions[0])
    context.applyConstraints(1e-8)
    raw = np.random.default_rng(0).normal(0.0, 0.5, (22, 3))
    context.setVelocities(raw)
    state = context.getState(positions=True, velocities=True)
    measure = KineticTemperature(built.system)
    exact = without_constrained_parts(built.system, state.getPositions(asNumpy=True)._value, raw)
    np.testing.assert_allclose(measure.velocities(state), exact, atol=1e-5)
    kelvin = (built.masses[:, None] * exact**2).sum() / ((3 * 22 - 12 - 3) * GAS_CONSTANT)
    assert measure(state)[0] == pytest.approx(kelvin, rel=1e-5)


def test_measuring_changes_neither_dynamics_nor_checkpoint() -> None:
    built, ends = AlanineDipeptideSettings().build(), []
    for watched in (False, True):
        integrator = openmm.LangevinMiddleIntegrator(300.0, 10.0, 0.002)
        integrator.setRandomNumberSeed(1)
        context = openmm.Context(built.system, integrator, REFERENCE)
        context.setPositions(built.positions[0])
        context.setVelocitiesToTemperature(300.0, 1)
        for _ in range(5):
            integrator.step(10)
            if watched:
                KineticTemperature(built.system)(context.getState(positions=True, velocities=True))
        ends.append(context.createCheckpoint())
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("friction", "timestep", "interval"), [(100.0, 0.004, 40), (1000.0, 0.004, 20)])
def test_high_friction_with_constraints_is_not_heat(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, friction: float, timestep: float, interval: int
) -> None:
    walker = simulated(
        AlanineDipeptideSettings(),
        tmp_path,
        None,
        friction=friction,
        timestep=timestep,
        frame_interval=interval,
        frames=250,
        equilibration=500,
    )
    assert set(walker.table["timestep"]) == {timestep}
    assert not [line for line in caplog.messages if "temperature" in line]
    assert walker.table["kinetic_temperature"].mean() == pytest.approx(300.0, rel=0.04)


def test_frozen_atoms_are_not_heat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = serialized(frozen_caps(), tmp_path)
    walker = simulated(own, tmp_path / "stage", None, frames=250, frame_interval=40, friction=50.0)
    assert walker.table["kinetic_temperature"].mean() == pytest.approx(300.0, rel=0.06)
    assert not caplog.messages
    topology = own.build().mdtraj_topology()
    caps = [atom for atom in range(22) if atom not in MIDDLE]
    assert np.ptp(walker.load(topology).xyz[:, caps], axis=0).max() < 1e-6


def test_four_site_water_has_its_temperature(tmp_path: Path) -> None:
    topology, system, xyz = four_site_water()
    app.PDBFile.writeFile(topology, xyz * 10, (tmp_path / "water.pdb").open("w"))
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    kind: Any = SYSTEM_KINDS["serialized"]
    own = kind(system=tmp_path / "system.xml", structure=tmp_path / "water.pdb")
    walker = simulated(own, tmp_path / "stage", None, frames=300, frame_interval=20, friction=20.0)
    assert walker.table["kinetic_temperature"].mean() == pytest.approx(300.0, rel=0.1)
    assert set(walker.table["timestep"]) == {0.002}


@pytest.mark.parametrize(
    ("factor", "adaptive", "message"),
    [
        (0.5, None, "something in the System takes heat away"),
        (
            2.5,
            None,
            "shorter time steps do not help, and there is no bias: something in the System adds heat",
        ),
        (2.5, False, "shorter time steps do not help; a softer bias may"),
        (2.5, True, "shorter time steps do not help; a larger bias.pace may"),
    ],
)
def test_advice_on_temperatures_fits_the_bias(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    factor: float,
    adaptive: bool | None,
    message: str,
) -> None:
    def measured(group: WalkerGroup, _state: openmm.State) -> Any:
        return np.full(group.built.n_copies, factor * group.kelvin)

    monkeypatch.setattr(WalkerGroup, "kinetic_temperatures", measured)
    static = HarmonicSettings(centre=[0.0, 0.0], force_constant=1.0)
    source = None
    if adaptive is not None:
        source = BiasSource(model=model, bias=OpesSettings(barrier=5.0, pace=10) if adaptive else static)
    walker = simulated(AlanineDipeptideSettings(), tmp_path, source, frames=60)
    assert message in caplog.text
    assert ("bias" in caplog.text.replace("there is no bias", "")) is (source is not None)
    (deviation,) = thermostat_deviations([walker])
    assert deviation.biased is (source is not None)
    assert ("too low" in deviation.consequence) is (factor < 1)
    assert ("bias.pace" in deviation.consequence) is (factor > 1 and source is not None)


def test_the_inspection_of_library_systems_changes_nothing() -> None:
    for kind in ("alanine_dipeptide", "lj7", "three_hole"):
        system = SYSTEM_KINDS[kind]().build(1).system
        assert inspection.inspected(system, kind) is system


def restrained(kind: str) -> openmm.System:
    """The dipeptide with a bias or a restraint of a script."""
    system = dipeptide()
    torsion = openmm.CustomTorsionForce("theta")
    torsion.addTorsion(4, 6, 8, 14)
    if kind == "CustomCVForce":
        variable = app.BiasVariable(torsion, -np.pi, np.pi, 0.35, True)
        app.Metadynamics(system, [variable], 300 * unit.kelvin, 8, 1.0, 100)
    elif kind == "CustomExternalForce":
        force = openmm.CustomExternalForce("0.5*k*(x-x0)^2")
        force.addGlobalParameter("k", 1000)
        force.addPerParticleParameter("x0")
        force.addParticle(4, [0.0])
        system.addForce(force)
    elif kind == "CustomBondForce":
        force = openmm.CustomBondForce("50*(r-1)^2")
        force.addBond(4, 14, [])
        system.addForce(force)
    return system


@pytest.mark.parametrize("kind", ["CustomCVForce", "CustomExternalForce", "CustomBondForce"])
def test_biases_and_restraints_of_a_script_are_said_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    errors._warned.clear()
    for _ in range(2):
        inspected(restrained(kind), "system.xml")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"system.xml: it holds a {kind}")
    assert "counts as energy of the system" in said
    caplog.clear()
    inspected(dipeptide(), "plain.xml")
    assert not caplog.records
