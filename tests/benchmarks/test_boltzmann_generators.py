"""The benchmark of alanine dipeptide as papers on Boltzmann generators define it."""

from pathlib import Path

import numpy as np
import openmm
import pytest

from benchmarks.boltzmann_generators.parallel_tempering import (
    Length,
    chunk_files,
    extend,
    handedness,
    torsions_of,
)
from benchmarks.boltzmann_generators.reference import start_of
from benchmarks.boltzmann_generators.target import (
    HYDROGEN_MASS,
    TEMPERATURES,
    defined_system,
    make,
    make_heavy,
)

TINY = Length(frames=4, interval=5, exchange=2)


def reference_context(system: openmm.System, integrator: openmm.Integrator | None = None) -> openmm.Context:
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), platform)


def test_the_compiled_solvent_gives_the_energies_and_forces_of_openmm() -> None:
    system, _, positions = make()
    integrator = openmm.LangevinMiddleIntegrator(1200.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(1)
    compiled, defined = reference_context(system, integrator), reference_context(defined_system())
    compiled.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(compiled)
    for _ in range(5):
        integrator.step(300)
        state = compiled.getState(positions=True, energy=True, forces=True)
        defined.setPositions(state.getPositions())
        expected = defined.getState(energy=True, forces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(
            expected.getPotentialEnergy()._value, abs=1e-8
        )
        np.testing.assert_allclose(
            state.getForces(asNumpy=True)._value, expected.getForces(asNumpy=True)._value, atol=1e-6
        )


def test_nothing_is_constrained_and_hydrogens_have_their_mass() -> None:
    for made, least in ((make(), 1.0), (make_heavy(), HYDROGEN_MASS)):
        masses = [made[0].getParticleMass(i)._value for i in range(made[0].getNumParticles())]
        assert made[0].getNumConstraints() == 0
        assert min(masses) == pytest.approx(least, abs=0.01)
        assert sum(masses) == pytest.approx(144.17, abs=0.1)


def test_runs_begin_on_both_sides_of_phi_in_l_alanine() -> None:
    extended, left = start_of("extended"), start_of("left-handed")
    assert extended.shape == left.shape == (len(TEMPERATURES), 22, 3)
    assert torsions_of(extended)[0, 0] < 0 < torsions_of(left)[0, 0]
    np.testing.assert_allclose(torsions_of(extended)[:, 1:], torsions_of(left)[:, 1:], atol=1e-5)
    assert (handedness(np.concatenate([extended, left])) > 0).all()
    assert handedness(extended[0] * [1.0, 1.0, -1.0]) < 0


def test_an_interrupted_run_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    start = start_of("extended")
    for folder in (tmp_path / "a", tmp_path / "b"):
        for _ in range(2):
            extend(folder, 7, lambda: start, TINY)
        (folder / "chunk_00009.partial").write_bytes(b"of a run that was killed")
    a, b = (chunk_files(tmp_path / name) for name in "ab")
    assert [file.name for file in a] == ["chunk_00000.npz", "chunk_00001.npz"]
    for first, second in zip(a, b, strict=True):
        with np.load(first) as one_run, np.load(second) as another:
            for name in one_run:
                np.testing.assert_array_equal(one_run[name], another[name])
    with np.load(a[0]) as first, np.load(a[1]) as second:
        assert first["torsions"].shape == (len(TEMPERATURES), TINY.frames, 4)
        assert not np.array_equal(first["energy"], second["energy"])
        assert sorted(second["replica"][:, -1]) == list(range(len(TEMPERATURES)))
