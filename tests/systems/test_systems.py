"""The contract every system keeps, and what is known about each."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit
from scipy import integrate

from latf_openmm.errors import ConfigError
from latf_openmm.settings import validate
from latf_openmm.systems import SYSTEM_KINDS, BuiltSystem, library_folder, library_names, shared_system
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.systems.python_file import PythonFileSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings, three_hole_potential

Array = NDArray[np.float64]
_KJ = unit.kilojoule_per_mole
_FORCE = _KJ / unit.nanometer


@dataclass(frozen=True)
class Case:
    """What the contract needs to know of one kind."""

    n_atoms: int
    temperature: float  # in the system's own scale
    time_step: float  # ps
    disturb: float  # size of a random displacement, nm


# One line for each kind.
CASES = {
    "alanine_dipeptide": Case(22, 300.0, 0.002, 0.005),
    "chignolin": Case(166, 300.0, 0.002, 0.002),
    "lj7": Case(7, 0.5, 0.005, 0.1),
    "rna_tetraloop": Case(325, 300.0, 0.002, 0.002),
    "three_hole": Case(1, 1.0, 0.005, 0.3),
}


def context(built: BuiltSystem, integrator: openmm.Integrator | None = None) -> openmm.Context:
    integrator = integrator or openmm.VerletIntegrator(0.001)
    result = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    result.setPositions(built.positions.reshape(-1, 3))
    return result


def energy(ctx: openmm.Context, x: Array, groups: int = -1) -> float:
    ctx.setPositions(x.reshape(-1, 3))
    return float(ctx.getState(energy=True, groups=groups).getPotentialEnergy().value_in_unit(_KJ))


def forces(ctx: openmm.Context, x: Array) -> Array:
    ctx.setPositions(x.reshape(-1, 3))
    return np.asarray(ctx.getState(forces=True).getForces(asNumpy=True).value_in_unit(_FORCE)).reshape(
        x.shape
    )


def disturbed(kind: str, copies: int = 1, seed: int = 0) -> tuple[BuiltSystem, Array]:
    built = SYSTEM_KINDS[kind]().build(copies)
    noise = np.random.default_rng(seed).normal(0.0, CASES[kind].disturb, built.positions.shape)
    return built, built.positions + noise


def langevin(kind: str, temperature: float, friction: float, seed: int) -> openmm.LangevinMiddleIntegrator:
    kelvin = SYSTEM_KINDS[kind]().scale.kelvin(temperature)
    result = openmm.LangevinMiddleIntegrator(kelvin, friction, CASES[kind].time_step)
    result.setRandomNumberSeed(seed)
    return result


# --- the contract ----------------------------------------------------------------------------------


def test_every_kind_is_in_the_contract() -> None:
    assert set(CASES) == {name for name, kind in SYSTEM_KINDS.items() if kind.in_library}


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_has_a_folder_in_the_library(kind: str) -> None:
    assert kind in library_names()
    assert (library_folder(kind) / "loop.yaml").is_file()


@pytest.mark.parametrize("kind", CASES)
def test_builds_with_matching_shapes(kind: str) -> None:
    settings = SYSTEM_KINDS[kind]()
    built = settings.build()
    assert built.name == kind
    assert built.positions.shape == (1, CASES[kind].n_atoms, 3)
    assert built.positions.dtype == np.float64
    assert (built.n_copies, built.n_atoms) == (1, CASES[kind].n_atoms)
    assert built.system.getNumParticles() == CASES[kind].n_atoms
    assert built.mdtraj_topology().n_atoms == built.topology.getNumAtoms() == CASES[kind].n_atoms
    assert built.scale == settings.scale
    assert not built.periodic
    assert settings.title


@pytest.mark.parametrize("kind", CASES)
def test_settings_survive_json(kind: str) -> None:
    settings = SYSTEM_KINDS[kind]()
    assert validate(SYSTEM_KINDS[kind], settings.model_dump(mode="json"), "saved") == settings


@pytest.mark.parametrize("kind", CASES)
def test_forces_equal_finite_differences(kind: str) -> None:
    built, x = disturbed(kind)
    ctx, step = context(built), 1e-5
    found = forces(ctx, x)
    every = list(np.ndindex(x.shape))
    chosen = np.random.default_rng(0).permutation(len(every))[:150]
    rows = tuple(np.array(every)[chosen].T)
    expected = np.zeros_like(x)
    for index in [every[i] for i in chosen]:
        shift = np.zeros_like(x)
        shift[index] = step
        expected[index] = -(energy(ctx, x + shift) - energy(ctx, x - shift)) / (2 * step)
    np.testing.assert_allclose(found[rows], expected[rows], rtol=1e-5, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize("kind", CASES)
def test_short_langevin_run_stays_finite(kind: str) -> None:
    case = CASES[kind]
    built = SYSTEM_KINDS[kind]().build()
    integrator = langevin(kind, case.temperature, friction=1.0, seed=1)
    ctx = context(built, integrator)
    openmm.LocalEnergyMinimizer.minimize(ctx, maxIterations=50)
    ctx.setVelocitiesToTemperature(built.scale.kelvin(case.temperature), 2)
    integrator.step(500)
    state = ctx.getState(positions=True, energy=True)
    x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert np.isfinite(x).all()
    assert np.ptp(x, axis=0).max() < 5.0
    assert np.isfinite(state.getPotentialEnergy().value_in_unit(_KJ))


@pytest.mark.parametrize("kind", CASES)
def test_xml_round_trip(kind: str) -> None:
    built, x = disturbed(kind)
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(built.system))
    again = BuiltSystem(built.name, built.topology, copy, built.positions, built.scale)
    assert energy(context(again), x) == pytest.approx(energy(context(built), x), rel=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in CASES if SYSTEM_KINDS[kind].batched])
def test_copies_are_independent(kind: str) -> None:
    built, x = disturbed(kind, copies=5)
    assert built.positions.shape == (5, CASES[kind].n_atoms, 3)
    assert built.system.getNumParticles() == 5 * CASES[kind].n_atoms
    assert built.topology.getNumAtoms() == CASES[kind].n_atoms
    x[1] = x[0] + 1e-4  # copies on top of each other do not feel it
    many, one = context(built), context(SYSTEM_KINDS[kind]().build())
    assert energy(many, x) == pytest.approx(sum(energy(one, copy) for copy in x), rel=1e-10)
    expected = np.stack([forces(one, copy) for copy in x])
    np.testing.assert_allclose(forces(many, x), expected, rtol=1e-9, atol=1e-9)


def test_unknown_system_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no system named 'lj8'; the library has: .*lj7.*three_hole"):
        library_folder("lj8")


# --- three_hole ------------------------------------------------------------------------------------


def test_three_hole_energy_equals_its_formula() -> None:
    x = disturbed("three_hole", copies=50, seed=4)[1]
    ctx = context(ThreeHoleSettings(flatness=37.0).build())
    for (point,) in x:
        expected = three_hole_potential(point[0], point[1]) + 37.0 * point[2] ** 2
        assert energy(ctx, point) == pytest.approx(float(expected), rel=1e-12)


def test_three_hole_has_its_published_minima() -> None:
    """Metzner, Schütte and Vanden-Eijnden (2006): deep minima near (+-1, 0), a shallow one near (0, 1.5)."""
    built = ThreeHoleSettings().build(copies=3)
    ctx = context(built)
    openmm.LocalEnergyMinimizer.minimize(ctx, 1e-6)
    x = ctx.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    np.testing.assert_allclose(x, [[-1.048, -0.042, 0], [1.048, -0.042, 0], [0, 1.537, 0]], atol=2e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_exact_ensemble_agrees_with_adaptive_integration(temperature: float) -> None:
    exact = ThreeHoleSettings().exact_ensemble(temperature)
    assert exact.positions.shape == (exact.weights.size, 1, 3)
    assert exact.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (exact.weights >= 0).all()
    values = three_hole_potential(exact.positions[:, 0, 0], exact.positions[:, 0, 1])

    def boltzmann(power: int) -> float:
        def integrand(y: float, x: float) -> float:
            v = float(three_hole_potential(np.asarray(x), np.asarray(y)))
            return v**power * np.exp(-v / temperature)

        return float(integrate.dblquad(integrand, -4, 4, -4, 4, epsabs=1e-4, epsrel=1e-6)[0])

    assert float(exact.weights @ values) == pytest.approx(boltzmann(1) / boltzmann(0), abs=1e-5)


def test_other_systems_have_no_exact_ensemble() -> None:
    assert LJ7Settings().exact_ensemble(0.5) is None
    assert AlanineDipeptideSettings().exact_ensemble(300.0) is None


# --- lj7 -------------------------------------------------------------------------------------------


def lj7_energy(x: Array, settings: LJ7Settings) -> Array:
    """Pair and wall energy of each cluster, without the z^2 restraint, shape (n_copies,)."""
    i, j = np.array(list(combinations(range(7), 2))).T
    r = np.linalg.norm(x[:, i] - x[:, j], axis=-1)
    d = np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=-1)
    wall = 0.5 * settings.wall_strength * np.maximum(0.0, d - settings.wall_radius) ** 2
    return np.asarray((4 * (r**-12.0 - r**-6.0)).sum(axis=1) + wall.sum(axis=1))


def test_lj7_energy_equals_its_formula() -> None:
    settings = LJ7Settings(wall_radius=1.3, wall_strength=60.0, flatness=30.0)
    x = disturbed("lj7", copies=6, seed=7)[1] * 1.2
    expected = lj7_energy(x, settings).sum() + 30.0 * (x[..., 2] ** 2).sum()
    assert energy(context(settings.build(6)), x) == pytest.approx(float(expected), rel=1e-10)


def test_lj7_ground_state_is_the_hexagon() -> None:
    """The minimum of the 2-D LJ7 cluster is the centred hexagon with energy -12.535 epsilon."""
    built = LJ7Settings().build()
    ctx = context(built)
    openmm.LocalEnergyMinimizer.minimize(ctx, 1e-6)
    state = ctx.getState(positions=True, energy=True)
    x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert state.getPotentialEnergy().value_in_unit(_KJ) == pytest.approx(-12.535, abs=5e-4)
    ring = np.linalg.norm(x[1:] - x[0], axis=1)
    np.testing.assert_allclose(ring, ring.mean(), rtol=1e-5)
    assert abs(x[:, 2]).max() < 1e-6


@pytest.mark.parametrize("radius", [1.5, 2.0])
@pytest.mark.parametrize("beyond", [-0.1, -1e-6, 0.1, 0.3])
def test_lj7_wall_acts_only_beyond_its_radius(radius: float, beyond: float) -> None:
    built = LJ7Settings(wall_radius=radius).build()
    wall = next(force for force in built.system.getForces() if force.getName() == "Wall")
    wall.setForceGroup(5)
    x = built.positions.copy()
    # Particle 0 goes to distance L from the ring's centre: its centroid distance is 6 L / 7. The centroid
    # stays within 0.39 of the centre, so that no other particle is farther from it than 1.5.
    x[0, 0] = [0.0, (radius + beyond) * 7 / 6, 0.0]
    x[0, 1:, :2] *= 0.9
    ctx, expected = context(built), 0.5 * 100.0 * max(0.0, beyond) ** 2
    assert energy(ctx, x, groups=1 << 5) == pytest.approx(expected, abs=1e-9)
    assert energy(ctx, x + np.array([40.0, -70.0, 0.0]), groups=1 << 5) == pytest.approx(expected, abs=1e-9)


def test_lj7_wall_too_narrow_for_the_hexagon_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lj7: wall_radius: input should be greater than 1\.2"):
        validate(LJ7Settings, {"wall_radius": 1.1}, "lj7")


def test_lj7_mean_energy_agrees_with_the_long_run() -> None:
    """U = -6.833 at T = 0.5 (long run, R = 2, k = 100): pair and wall energy, without the z^2 restraint.

    Measured here over 26 million cluster-steps: pairs -6.922, wall +0.074, together -6.847 with standard
    error 0.008 (-6.834 with distances in the plane only). The restraint adds 7/2 k_B T = 1.75.
    """
    settings, copies = LJ7Settings(), 64
    built = settings.build(copies)
    integrator = langevin("lj7", 0.5, friction=0.5, seed=11)
    ctx = context(built, integrator)
    ctx.setVelocitiesToTemperature(settings.scale.kelvin(0.5), 12)
    integrator.step(4000)
    means, flat = np.zeros(copies), 0.0
    n_frames = 200
    for _ in range(n_frames):
        integrator.step(100)
        x = ctx.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        x = np.asarray(x).reshape(copies, 7, 3)
        means += lj7_energy(x, settings) / n_frames
        flat += 100.0 * (x[..., 2] ** 2).sum() / copies / n_frames
    error = means.std(ddof=1) / np.sqrt(copies)
    assert error < 0.08
    assert means.mean() == pytest.approx(-6.833, abs=3 * error + 0.02)
    assert flat == pytest.approx(7 / 2 * 0.5, rel=0.03)


# --- alanine dipeptide -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_native_obc2_equals_the_force_field_file(seed: int | None) -> None:
    built, x = disturbed("alanine_dipeptide", seed=seed or 0)
    x = built.positions if seed is None else x
    reference = app.ForceField("amber14/protein.ff14SB.xml", "implicit/obc2.xml").createSystem(
        built.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    other = BuiltSystem("reference", built.topology, reference, built.positions, built.scale)
    ours, theirs = context(built), context(other)
    assert energy(ours, x) == pytest.approx(energy(theirs, x), abs=0.01)
    np.testing.assert_allclose(forces(ours, x), forces(theirs, x), atol=0.05)


def test_alanine_is_the_l_enantiomer() -> None:
    """CORN rule: seen from the hydrogen, CO, R (the side chain) and N follow each other clockwise."""
    built = AlanineDipeptideSettings().build()
    atoms = {atom.name: atom.index for atom in built.topology.atoms() if atom.residue.name == "ALA"}
    n, ca, c, cb, ha = (built.positions[0, atoms[name]] for name in ("N", "CA", "C", "CB", "HA"))
    towards_viewer = (ha - ca) / np.linalg.norm(ha - ca)
    turns = [towards_viewer @ np.cross(p - ca, q - ca) for p, q in ((c, cb), (cb, n), (n, c))]
    assert max(turns) < 0
    assert (n - ca) @ np.cross(c - ca, cb - ca) > 0


def test_dipeptide_has_rigid_hydrogen_bonds_and_heavier_hydrogens_on_request() -> None:
    built = AlanineDipeptideSettings(hydrogen_mass=3.0).build()
    hydrogens = [atom.index for atom in built.topology.atoms() if atom.element is app.element.hydrogen]
    masses = [built.system.getParticleMass(i).value_in_unit(unit.amu) for i in range(22)]
    light = AlanineDipeptideSettings().build().system
    total = sum(light.getParticleMass(i).value_in_unit(unit.amu) for i in range(22))
    assert built.system.getNumConstraints() == len(hydrogens) == 12
    assert [masses[i] for i in hydrogens] == [3.0] * 12
    assert sum(masses) == pytest.approx(total, abs=1e-9)


def test_model_potentials_stay_in_their_plane() -> None:
    for kind in ("lj7", "three_hole"):
        built, x = disturbed(kind, copies=3)
        x[..., 2] = 0.0
        assert np.abs(forces(context(built), x)[..., 2]).max() == 0.0


def test_chignolin_is_folded_and_l() -> None:
    built = SYSTEM_KINDS["chignolin"]().build()
    topology, x = built.mdtraj_topology(), built.positions[0]
    assert "".join(residue.code for residue in topology.residues) == "YYDPETGTWY"
    at = {(atom.residue.index + 1, atom.name): atom.index for atom in topology.atoms}
    for residue in range(1, 11):
        if (residue, "CB") in at:
            n, c, b = (x[at[residue, name]] - x[at[residue, "CA"]] for name in ("N", "C", "CB"))
            assert n @ np.cross(c, b) > 0
    for donor, acceptor in ((3, 8), (8, 3), (1, 10)):
        assert np.linalg.norm(x[at[donor, "N"]] - x[at[acceptor, "O"]]) < 0.4
    masses = {round(built.system.getParticleMass(i)._value, 2) for i in range(166)}
    assert 3.0 in masses
    charge = sum(
        force.getParticleParameters(i)[0]._value
        for force in built.system.getForces()
        if isinstance(force, openmm.NonbondedForce)
        for i in range(166)
    )
    assert charge == pytest.approx(-2.0, abs=1e-3)


def test_gbn2_goes_with_the_backbone_of_ff99sb() -> None:
    """Chignolin's phi' torsions are those of ff99SB, everything else is ff14SB and OpenMM's own GBn2."""
    ours = SYSTEM_KINDS["chignolin"](solvent="gbn2").build()
    pdb = app.PDBFile(str(library_folder("chignolin") / "chignolin.pdb"))
    plain = app.ForceField("amber14/protein.ff14SB.xml", "implicit/gbn2.xml").createSystem(
        pdb.topology, constraints=app.HBonds, hydrogenMass=3.0 * unit.amu
    )
    names = [atom.name for atom in pdb.topology.atoms()]

    def torsions(system: openmm.System) -> set[tuple[object, ...]]:
        force = next(f for f in system.getForces() if isinstance(f, openmm.PeriodicTorsionForce))
        rows = (force.getTorsionParameters(i) for i in range(force.getNumTorsions()))
        return {(*row[:5], round(row[6].value_in_unit(_KJ), 6)) for row in rows}

    new, old = torsions(ours.system) - torsions(plain), torsions(plain) - torsions(ours.system)
    assert sorted({(r[4], r[5]) for r in old}) == [(2, 7.5312), (3, 3.3472)]
    assert sorted({(r[4], r[5]) for r in new}) == [(2, 8.368), (3, 1.6736)]
    ends = [{(row[0], row[3]), (row[3], row[0])} for row in new]
    assert all(any((names[i], names[j]) == ("CB", "C") for i, j in pair) for pair in ends)
    # Nine of the ten residues have a beta carbon, one of these is the first; two terms each.
    assert len(new) == len(old) == 2 * 8

    def kinds(system: openmm.System) -> list[str]:
        return sorted(type(f).__name__ for f in system.getForces())

    assert kinds(ours.system) == kinds(plain)
    assert "CustomGBForce" in kinds(ours.system)


@pytest.mark.parametrize(
    ("kind", "options", "n_solute"),
    [("chignolin", {}, 166), ("chignolin", {"sequence": "GYDPETGTWG"}, 138), ("rna_tetraloop", {}, 325)],
)
def test_molecules_in_water(kind: str, options: dict[str, str], n_solute: int) -> None:
    built = SYSTEM_KINDS[kind](solvent="tip3p", pressure=1.0, **options).build()
    topology = built.mdtraj_topology()
    assert built.periodic
    assert [str(a) for a in list(topology.atoms)[:n_solute]] == [
        str(a) for a in SYSTEM_KINDS[kind](**options).build().mdtraj_topology().atoms
    ]
    nonbonded = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    charge = sum(nonbonded.getParticleParameters(i)[0]._value for i in range(built.n_atoms))
    assert charge == pytest.approx(0.0, abs=1e-3)
    box = np.array([v.value_in_unit(unit.nanometer) for v in built.system.getDefaultPeriodicBoxVectors()])
    waters = sum(residue.is_water for residue in topology.residues)
    assert np.diag(box).min() > 2 * 0.9
    assert 30 < waters / np.linalg.det(box) < 33.5  # per nm^3, the rest is the molecule
    assert sum(isinstance(f, openmm.MonteCarloBarostat) for f in built.system.getForces()) == 1
    # The structure is relaxed: no atom feels more than thermal forces.
    x = built.positions[0]
    ctx = openmm.Context(
        built.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU")
    )
    assert np.abs(forces(ctx, x)).max() < 2e4
    with pytest.raises(ConfigError, match="constant pressure needs solvent tip3p, got obc2"):
        validate(SYSTEM_KINDS[kind], {"kind": kind, "pressure": 1.0}, "bad")


@pytest.mark.parametrize(
    ("kind", "options", "apart"),
    [
        ("chignolin", {}, ((3, "N"), (8, "O"))),
        ("chignolin", {"sequence": "GYDPETGTWG"}, ((3, "N"), (8, "O"))),
        ("rna_tetraloop", {}, ((1, "N1"), (10, "N3"))),
    ],
)
def test_a_start_is_folded_or_not(
    kind: str, options: dict[str, str], apart: tuple[tuple[int, str], tuple[int, str]]
) -> None:
    lengths, atoms = {}, {}
    for start in ("folded", "unfolded"):
        built = SYSTEM_KINDS[kind](start=start, **options).build()
        topology = built.mdtraj_topology()
        at = {(atom.residue.index + 1, atom.name): atom.index for atom in topology.atoms}
        a, b = (built.positions[0][at[atom]] for atom in apart)
        lengths[start], atoms[start] = np.linalg.norm(a - b), [str(atom) for atom in topology.atoms]
    assert atoms["folded"] == atoms["unfolded"]
    assert lengths["folded"] < 0.4
    assert lengths["unfolded"] > 1.5
    settings = {"kind": kind, "start": "unfolded", "solvent": "tip3p"}
    with pytest.raises(ConfigError, match="unfolded needs solvent obc2 or gbn2, got tip3p"):
        validate(SYSTEM_KINDS[kind], settings, "bad")


def test_the_rna_hairpin_is_paired() -> None:
    built = SYSTEM_KINDS["rna_tetraloop"]().build()
    topology, x = built.mdtraj_topology(), built.positions[0]
    assert [residue.name for residue in topology.residues] == list("GGCGCAAGCC")
    at = {(atom.residue.index + 1, atom.name): atom.index for atom in topology.atoms}
    for purine, pyrimidine in ((1, 10), (2, 9), (8, 3)):
        for donor, acceptor in (("N1", "N3"), ("O6", "N4"), ("N2", "O2")):
            apart = np.linalg.norm(x[at[purine, donor]] - x[at[pyrimidine, acceptor]])
            assert apart < 0.32, (purine, pyrimidine, donor)
    nonbonded = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    charge = sum(nonbonded.getParticleParameters(i)[0]._value for i in range(325))
    assert charge == pytest.approx(-9.0, abs=1e-3)


def test_a_system_is_built_once_in_a_process_until_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "make.py"
    file.write_text(
        "from latf_openmm.systems.three_hole import ThreeHoleSettings\n"
        "def make():\n"
        "    built = ThreeHoleSettings().build()\n"
        "    return built.system, built.topology, built.positions[0]\n"
    )
    settings = PythonFileSettings(file=file)
    first = shared_system(settings)
    assert shared_system(PythonFileSettings(file=file)) is first
    assert shared_system(settings, 1).mdtraj_topology() is first.mdtraj_topology()
    file.write_text(f"import beside\n{file.read_text()}")
    beside = tmp_path / "beside.py"
    beside.write_text("")
    second = shared_system(settings)
    assert second is not first
    assert shared_system(settings) is second
    beside.write_text("# changed\n")
    assert shared_system(settings) is not second
