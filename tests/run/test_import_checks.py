"""What `import` notices in files that contradict the system, the configuration or each other."""

from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import pandas as pd
import pytest
from helpers.dipeptide_runs import dipeptide_config, relaxed_context
from numpy.typing import NDArray
from openmm import app, unit

from latf_openmm.errors import ConfigError, DataError
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import featurise_walkers
from latf_openmm.run.imported import ImportedTrajectory
from latf_openmm.run.imported.atoms import explain_atoms
from latf_openmm.run.imported.consistency import check_distinct, check_mean_energies, check_same_volume
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.run import Importer
from latf_openmm.run.imported.runs import RunsAtTemperature, group_runs
from latf_openmm.run.imported.tables import read_table
from latf_openmm.run.imported.trajectories import dcd_header, given_trajectories, split_paths
from latf_openmm.run.imported.walkers import write_imported
from latf_openmm.run.loop import run_loop
from latf_openmm.run.verify.findings import Findings
from latf_openmm.run.verify.stages import imported_checks
from latf_openmm.training.lagged import make_pairs

FRAMES, INTERVAL = 60, 20
SPACING = INTERVAL * 0.002


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return dipeptide_config(FRAMES, INTERVAL)


@pytest.fixture(scope="module")
def importer(config: RunConfig) -> Importer:
    return Importer(config, None, False)


@pytest.fixture(scope="module")
def simulated(importer: Importer) -> tuple[mdtraj.Trajectory, NDArray[np.float64]]:
    """Frames of a short simulation, with their times, and energies of the positions in double precision."""
    context = relaxed_context(importer, 1)
    xyz, energies = [], []
    for _ in range(FRAMES):
        context.getIntegrator().step(INTERVAL)
        state = context.getState(positions=True, energy=True)
        xyz.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    frames = mdtraj.Trajectory(np.array(xyz), importer.topology, time=SPACING * np.arange(1, FRAMES + 1))
    return frames, np.array(energies)


Reader = Callable[..., ImportedFrames]


@pytest.fixture
def read(
    importer: Importer, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], tmp_path: Path
) -> Reader:
    """Write frames and a table, and import them."""
    frames, _ = simulated

    def reader(
        changed: mdtraj.Trajectory | None = None,
        suffix: str = ".dcd",
        table: dict[str, NDArray[np.float64]] | None = None,
        temperature: float | None = 300.0,
        importer: Importer = importer,
    ) -> ImportedFrames:
        path = tmp_path / f"md{suffix}"
        (frames if changed is None else changed).save(str(path))
        file = None
        if table is not None:
            file = tmp_path / "energy.csv"
            pd.DataFrame(table).to_csv(file, index=False)
        (one,) = importer.read([ImportedTrajectory(path, temperature, file)])
        return one

    return reader


def test_what_is_right_passes(read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]) -> None:
    _, energies = simulated
    for suffix in (".dcd", ".trr", ".nc"):
        found = read(suffix=suffix)
        np.testing.assert_allclose(found.energy, energies, atol=0.05)
        np.testing.assert_array_equal(found.timeline.step, INTERVAL * np.arange(1, FRAMES + 1))
    given = read(table={"potential_energy": energies})
    np.testing.assert_allclose(given.energy, energies, rtol=1e-12)


def test_text_trajectories_of_amber(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    frames, energies = simulated
    off = read(suffix=".mdcrd", table={"potential_energy": energies})
    assert off.n_frames == FRAMES
    np.testing.assert_allclose(off.files[0].samples[0].xyz[0], frames.xyz[0], atol=1e-4)


def test_hdf5_of_mdtraj(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], importer: Importer, tmp_path: Path
) -> None:
    pytest.importorskip("tables")
    frames, energies = simulated
    found = read(suffix=".h5")
    np.testing.assert_allclose(found.energy, energies, atol=0.05)
    np.testing.assert_allclose(found.files[0].samples[0].xyz[0], frames.xyz[0])
    np.testing.assert_array_equal(found.timeline.step, INTERVAL * np.arange(1, FRAMES + 1))
    turned = mdtraj.Trajectory(frames.xyz[:, [1, 0, *range(2, 22)]], frames.topology.copy())
    first, other = turned.topology.atom(0), turned.topology.atom(1)
    first.element, other.element = other.element, first.element
    turned.save(str(tmp_path / "turned.h5"))
    with pytest.raises(DataError, match=r"turned\.h5: .*another order of atoms"):
        importer.read([ImportedTrajectory(tmp_path / "turned.h5", 300.0)])
    frames.atom_slice(range(10)).save(str(tmp_path / "part.h5"))
    with pytest.raises(DataError, match=r"it has 10 atoms, the topology has 22"):
        importer.read([ImportedTrajectory(tmp_path / "part.h5", 300.0)])
    data = (tmp_path / "md.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.h5: the trajectory cannot be read"):
        importer.read([ImportedTrajectory(tmp_path / "cut.h5", 300.0)])


def test_hdf5_says_what_is_missing(
    importer: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "md.h5").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"md\.h5: MDTraj needs PyTables for HDF5: pip install tables"):
        importer.read([ImportedTrajectory(tmp_path / "md.h5", 300.0)])


def test_times_are_compared_before_energies_are_computed(
    config: RunConfig,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, _ = simulated
    late = mdtraj.Trajectory(frames.xyz, frames.topology, 10 * frames.time)
    late.save(str(tmp_path / "late.nc"))
    importer, computed = Importer(config, None, False), []
    whole = importer.model.of_positions
    monkeypatch.setattr(importer.model, "of_positions", lambda x, b: computed.append(len(x)) or whole(x, b))
    with pytest.raises(DataError, match=r"its frames are 0\.4 ps apart"):
        importer.read([ImportedTrajectory(tmp_path / "late.nc", 300.0)])
    assert sum(computed) < FRAMES


# --- atoms -----------------------------------------------------------------------------------------


def test_another_order_of_atoms_is_refused(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    frames, _ = simulated
    turned = frames.xyz[:, ::-1]
    with pytest.raises(
        DataError, match=r"md\.dcd: frame 0: atoms .* nm apart, expected a bond of .*another order"
    ):
        read(mdtraj.Trajectory(turned, frames.topology))
    swapped = frames.xyz.copy()
    swapped[:, [4, 14]] = swapped[:, [14, 4]]  # two carbons
    with pytest.raises(DataError, match=r"of 21 bonds are wrong"):
        read(mdtraj.Trajectory(swapped, frames.topology))


def test_other_units_of_length_are_named(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    frames, _ = simulated
    with pytest.raises(DataError, match="positions are in Angstrom, and read as nanometres"):
        read(mdtraj.Trajectory(10 * frames.xyz, frames.topology))
    with pytest.raises(DataError, match="positions are in nanometres, and read as Angstrom"):
        read(mdtraj.Trajectory(frames.xyz / 10, frames.topology))


def test_another_number_of_atoms_says_what_to_do(
    importer: Importer, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], tmp_path: Path
) -> None:
    frames, _ = simulated
    for suffix in (".dcd", ".xtc", ".nc"):
        heavy = tmp_path / f"heavy{suffix}"
        frames.atom_slice(frames.topology.select("element != H")).save(str(heavy))
        with pytest.raises(
            DataError, match="it has 10 atoms, the topology has 22: the 12 hydrogens are missing"
        ):
            importer.read([ImportedTrajectory(heavy, 300.0)])
        few = tmp_path / f"few{suffix}"
        frames.atom_slice(range(5)).save(str(few))
        with pytest.raises(DataError, match="has 5 atoms, the topology has 22; the system has to be the one"):
            importer.read([ImportedTrajectory(few, 300.0)])


@pytest.mark.parametrize("name", ["HOH", "TP4"])
def test_missing_solvent_is_told_whatever_water_is_called(
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], tmp_path: Path, name: str
) -> None:
    frames, _ = simulated
    frames[:2].save_dcd(str(tmp_path / "dry.dcd"))
    wet = frames.topology.copy()
    for _ in range(3):
        residue = wet.add_residue(name, wet.add_chain())
        for symbol in "OHH":
            wet.add_atom(symbol, mdtraj.element.get_by_symbol(symbol), residue)
    assert ": solvent is missing;" in str(explain_atoms(tmp_path / "dry.dcd", wet))
    four = mdtraj.Trajectory(np.zeros((2, 22 + 12, 3)), None)
    four.save_dcd(str(tmp_path / "four.dcd"))
    assert ": one more for each water, a site of a four-point model" in str(
        explain_atoms(tmp_path / "four.dcd", wet)
    )


# --- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".xtc", ".trr", ".nc"])
def test_times_that_contradict_the_configuration_are_refused(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], suffix: str
) -> None:
    frames, _ = simulated
    late = mdtraj.Trajectory(frames.xyz, frames.topology, time=10 * frames.time)
    with pytest.raises(
        DataError, match=r"0\.4 ps apart, .* is 0\.04 ps; set simulation\.frame_interval: 200"
    ):
        read(late, suffix)


def test_times_can_be_ignored(
    config: RunConfig, read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    frames, _ = simulated
    numbers = mdtraj.Trajectory(frames.xyz, frames.topology, time=np.arange(FRAMES))
    with pytest.raises(DataError, match="--ignore-times"):
        read(numbers, ".nc")
    assert read(numbers, ".nc", importer=Importer(config, None, True)).n_frames == FRAMES


def test_frames_that_a_restart_replaced_are_left_out(
    read: Reader,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames, energies = simulated
    rows = np.r_[0:40, 30:60]
    found = read(frames[rows], ".nc", {"potential_energy": energies[rows]})
    assert found.n_frames == FRAMES
    np.testing.assert_array_equal(found.timeline.kept, np.r_[0:30, 40:70])
    np.testing.assert_allclose(found.energy, energies)
    assert "times fall at frame 40, from 1.6 to 1.24 ps" in caplog.text
    assert "10 frames that later ones replace" in caplog.text
    with pytest.raises(DataError, match=r"times begin again at frame 60 .* its own --trajectory"):
        read(frames[np.r_[0:60, 0:60]], ".nc")


def test_the_table_says_what_a_restart_replaced_where_the_file_has_no_times(
    read: Reader,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    importer: Importer,
    config: RunConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """DCD files have no times; a table that was continued with them has."""
    frames, energies = simulated
    rows, steps = np.r_[0:40, 30:60], INTERVAL * np.arange(1, FRAMES + 1)
    for column, values in (("time_ps", 0.002 * steps), ("step", steps)):
        caplog.clear()
        table = {column: values[rows], "potential_energy": energies[rows]}
        found = read(frames[rows], table=table)
        np.testing.assert_array_equal(found.timeline.kept, np.r_[0:30, 40:70])
        np.testing.assert_allclose(found.energy, energies)
        assert "10 frames that later ones replace" in caplog.text
    ignoring = Importer(config, None, True)
    assert read(frames[rows], table=table, importer=ignoring).n_frames == len(rows)
    gap = np.r_[0:20, 35:60]
    found = read(frames[gap], table={"step": steps[gap], "potential_energy": energies[gap]})
    np.testing.assert_array_equal(found.timeline.stretch, np.r_[np.zeros(20), np.ones(25)])
    twice = np.r_[0:60, 0:60]
    with pytest.raises(DataError, match=r"times begin again at frame 60 .* its own --trajectory"):
        read(frames[twice], table={"step": steps[twice], "potential_energy": energies[twice]})


def test_the_table_says_what_a_restart_replaced_where_a_header_counts_on(
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], importer: Importer, tmp_path: Path
) -> None:
    """OpenMM's reporter, which continues a DCD file, leaves the header of the first start."""
    frames, energies = simulated
    path, steps = tmp_path / "openmm.dcd", INTERVAL * np.arange(1, FRAMES + 1)

    def left(parts: list[NDArray[np.int64]], rows: NDArray[np.int64]) -> ImportedFrames:
        with path.open("w+b") as file:
            for number, part in enumerate(parts):
                first = int(steps[part[0]])
                dcd = app.DCDFile(file, importer.built.topology, 0.002, first, INTERVAL, append=number > 0)
                for xyz in frames.xyz[part]:
                    dcd.writeModel(xyz * unit.nanometer)
        table = pd.DataFrame({"step": steps[rows], "potential_energy": energies[rows]})
        table.to_csv(tmp_path / "openmm.csv", index=False)
        (result,) = importer.read([ImportedTrajectory(path, 300.0, tmp_path / "openmm.csv")])
        return result

    restarted = left([np.arange(40), np.arange(30, 60)], np.r_[0:40, 30:60])
    np.testing.assert_array_equal(restarted.timeline.kept, np.r_[0:30, 40:70])
    np.testing.assert_allclose(restarted.energy, energies)
    with pytest.raises(DataError, match=r"row 20 is of .* expected a row for each frame, in order"):
        left([np.arange(60)], np.r_[0:20, 21, 20, 22:60])


def test_gaps_are_breaks_and_irregular_times_are_refused(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    frames, _ = simulated
    found = read(frames[np.r_[0:20, 35:60]], ".nc")
    np.testing.assert_array_equal(found.timeline.stretch, np.r_[np.zeros(20), np.ones(25)])
    np.testing.assert_array_equal(found.timeline.step, INTERVAL * np.r_[1:21, 36:61])
    times = frames.time.copy()
    times[30:] += 0.5 * SPACING
    with pytest.raises(DataError, match=r"between frames 29 and 30; expected 0\.04 ps"):
        read(mdtraj.Trajectory(frames.xyz, frames.topology, time=times), ".nc")


def test_times_of_long_simulations_have_the_rounding_of_single_precision(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], config: RunConfig
) -> None:
    frames, _ = simulated
    simulation = config.simulation.model_copy(update={"frame_interval": 500})
    apart = Importer(config.model_copy(update={"simulation": simulation}), None, False)
    for start in (4.0e6, 2.0e7):  # 0.25 ps and 2 ps in single precision
        late = frames[:]
        late.time = start + np.arange(FRAMES)
        one = read(late, ".xtc", importer=apart)
        np.testing.assert_array_equal(one.timeline.step, 500 * np.arange(1, FRAMES + 1))
        np.testing.assert_array_equal(one.timeline.stretch, 0)
        late.time = start + 10.0 * np.arange(FRAMES)
        with pytest.raises(DataError, match=r"frames are 10 ps apart, .* is 1 ps"):
            read(late, ".xtc", importer=apart)
    late.time = 2.0e7 + np.where(np.arange(FRAMES) < 30, np.arange(FRAMES), 1000 + np.arange(FRAMES))
    gap = read(late, ".xtc", importer=apart)
    np.testing.assert_array_equal(gap.timeline.stretch, np.arange(FRAMES) >= 30)
    late.time = 2.0e7 + np.where(np.arange(FRAMES) < 30, np.arange(FRAMES), np.arange(FRAMES) - 20)
    with pytest.raises(DataError, match=r"times fall at frame 30, from 20000028.0 to 20000010.0 ps"):
        read(late, ".xtc", importer=apart)


def test_headers_of_dcd_files(
    config: RunConfig, importer: Importer, read: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenMM's are right; those of others are often not."""
    read()
    data = bytearray((tmp_path / "md.dcd").read_bytes())
    assert dcd_header(tmp_path / "md.dcd") is None  # MDTraj's says nothing
    data[12:20] = np.array([100, 100], "<i4").tobytes()
    data[44:48] = np.array([0.002 / 0.04888821], "<f4").tobytes()
    (tmp_path / "other.dcd").write_bytes(data)
    importer.read([ImportedTrajectory(tmp_path / "other.dcd", 300.0)])
    assert "its header says 0.2 ps between frames" in caplog.text
    data[100:117] = b"Created by OpenMM"
    (tmp_path / "openmm.dcd").write_bytes(data)
    with pytest.raises(DataError, match=r"its frames are 0\.2 ps apart"):
        importer.read([ImportedTrajectory(tmp_path / "openmm.dcd", 300.0)])


def test_a_trajectory_in_several_files_is_put_in_order(
    importer: Importer, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], tmp_path: Path
) -> None:
    frames, energies = simulated
    for name, part in (
        ("b2", slice(0, 25)),
        ("b10", slice(24, 60)),
    ):  # the first frame of a part is there twice
        frames[part].save(str(tmp_path / f"{name}.nc"))
    assert [path.stem for path in split_paths(str(tmp_path / "b*.nc"))] == ["b2", "b10"]
    (trajectory,) = given_trajectories([f"{tmp_path}/b10.nc,{tmp_path}/b2.nc"], [300.0])
    (found,) = importer.read([trajectory])
    assert [file.path.stem for file in found.files] == ["b2", "b10"]
    assert found.n_frames == FRAMES
    np.testing.assert_allclose(found.energy, energies, atol=0.05)
    frames[:25].save(str(tmp_path / "c.nc"))
    with pytest.raises(DataError, match=r"begins at 0\.04 ps, as another file of the same trajectory does"):
        importer.read([ImportedTrajectory((tmp_path / "b2.nc", tmp_path / "c.nc"), 300.0)])


# --- energies --------------------------------------------------------------------------------------


def test_wrong_energies_say_what_is_wrong(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    _, energies = simulated
    noise = np.random.default_rng(0).normal(size=FRAMES)
    for table, message in (
        (energies / 4.184, "times 4.184 it is; its unit is kcal/mol"),
        (np.roll(energies, 3), r"row n \+ 3 is that of frame n: it is shifted by 3 rows"),
        (np.roll(energies, -1), "row n - 1 is that of frame n: it is shifted by 1 rows"),
        (
            energies.mean() + 60 * noise,
            "kJ/mol below the recomputed ones, where another zero would be constant, and",
        ),
    ):
        with pytest.raises(DataError, match=message):
            read(table={"potential_energy": table})


def test_units_in_names_are_honoured(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    _, energies = simulated
    for name in ("Potential Energy (kcal/mol)", "potential_energy [kcal/mol]", "potential_energy_kcal_mol"):
        np.testing.assert_allclose(read(table={name: energies / 4.184}).energy, energies)
    with pytest.raises(DataError, match="unit 'furlong' is not known; expected one of kj/mol"):
        read(table={"potential_energy (furlong)": energies})


def test_another_zero_is_taken_away(
    read: Reader,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, energies = simulated
    found = read(table={"potential_energy": energies + 1234.5})
    np.testing.assert_allclose(found.energy, energies, atol=0.05)
    assert "another zero" in caplog.text


def test_an_offset_that_is_not_constant_within_rounding_is_refused(
    read: Reader,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    config: RunConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Energies of another solvent model; one that is hardly different passes, and is named as possible."""
    frames, _ = simulated
    frames[0].save(str(tmp_path / "start.pdb"))

    def of(*solvent: str) -> Importer:
        fields = ["amber14-all.xml", *solvent]
        system = {"kind": "structure", "structure": str(tmp_path / "start.pdb"), "force_field": fields}
        return Importer(RunConfig.model_validate({**config.model_dump(), "system": system}), None, False)

    energies = of("implicit/gbn2.xml").model(frames)
    message = r"\d ± \d.* kJ/mol below .* within ± [12]\.?\d* .*another force field, solvent model or cutoff"
    noisy = energies - 60.0 + np.where(np.arange(FRAMES) // 10 % 2, 5.0, -5.0)
    with pytest.raises(DataError, match=message):
        read(suffix=".xtc", table={"potential_energy": noisy}, importer=of("implicit/gbn2.xml"))
    with pytest.raises(DataError, match=message):
        read(suffix=".xtc", table={"potential_energy": energies}, importer=of())
    read(suffix=".xtc", table={"potential_energy": energies}, importer=of("implicit/gbn2.xml"))
    assert "another zero" not in caplog.text
    read(suffix=".xtc", table={"potential_energy": energies}, importer=of("implicit/obc2.xml"))
    assert "another zero, or another force field or solvent that is hardly different" in caplog.text


def test_energies_that_hold_the_bias(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    _, energies = simulated
    bias = np.abs(20 * np.sin(np.arange(FRAMES)))
    found = read(table={"potential_energy": energies + bias, "bias_energy": bias})
    np.testing.assert_allclose(found.energy, energies, atol=0.05)
    np.testing.assert_allclose(found.bias, bias)


def test_potential_energies_of_gromacs_hold_the_pull(
    importer: Importer, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], tmp_path: Path
) -> None:
    frames, energies = simulated
    frames.save(str(tmp_path / "md.trr"))
    pull = np.abs(np.sin(np.arange(FRAMES)))
    rows = "".join(
        f"{time:.6f} {energy + bias:.6f} {bias:.6f}\n"
        for time, energy, bias in zip(frames.time, energies, pull, strict=True)
    )
    legends = '@ s0 legend "Potential"\n@ s1 legend "COM Pull En."\n'
    (tmp_path / "energy.xvg").write_text(legends + rows)
    (found,) = importer.read([ImportedTrajectory(tmp_path / "md.trr", 300.0, tmp_path / "energy.xvg")])
    np.testing.assert_allclose(found.energy, energies, atol=1e-5)
    np.testing.assert_allclose(found.bias, pull, atol=1e-5)


def test_rounded_positions(
    read: Reader,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Recomputed energies lose their mean error, those of a table are kept."""
    _, energies = simulated
    recomputed = read(suffix=".xtc")
    assert "positions rounded to 0.001 nm" in caplog.text
    assert abs(np.mean(recomputed.energy - energies)) < 4 * np.std(recomputed.energy - energies) / np.sqrt(40)
    given = read(suffix=".xtc", table={"potential_energy": energies})
    np.testing.assert_array_equal(given.energy, energies)
    with pytest.raises(DataError, match="shifted by 2 rows"):
        read(suffix=".xtc", table={"potential_energy": np.roll(energies, 2)})


# --- columns ---------------------------------------------------------------------------------------


def test_columns_that_would_be_ignored(
    read: Reader,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, energies = simulated
    bias = np.linspace(0, 10, FRAMES)
    for name in ("bias", "restraint_energy", "V_bias"):
        with pytest.raises(DataError, match=f"the column '{name}' would be ignored"):
            read(table={"potential_energy": energies, name: bias})
    found = read(table={"potential_energy": energies, "restraint.bias": bias, "d1": bias})
    np.testing.assert_array_equal(found.bias, bias)
    assert "columns without a meaning here, at most for what a bias acts on: d1" in caplog.text


def test_temperatures_of_frames(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    _, energies = simulated
    changing = np.repeat([300.0, 310.0, 300.0], 20)
    found = read(table={"potential_energy": energies, "temperature": changing})
    np.testing.assert_array_equal(found.temperature, changing)
    assert (
        read(table={"potential_energy": energies, "temperature": changing}, temperature=None).n_frames == 60
    )
    with pytest.raises(DataError, match="temperature is 300, 310, --temperature says 320"):
        read(table={"potential_energy": energies, "temperature": changing}, temperature=320.0)
    with pytest.raises(ConfigError, match="its table has no column temperature"):
        read(table={"potential_energy": energies}, temperature=None)


def test_a_temperature_that_contradicts_the_velocities_is_refused(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    """A mean a few kelvin off passes, and so does one that is uncertain, as of values that are correlated."""
    _, energies = simulated
    scatter = np.random.default_rng(1).normal(size=FRAMES)
    scatter -= scatter.mean()

    def table(mean: float, noise: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"potential_energy": energies, "temperature": mean + noise}

    message = r"energy\.csv: .* velocities is 330 ± \d.* on average, --temperature says 300 for .*md\.dcd"
    with pytest.raises(DataError, match=message):
        read(table=table(330.0, 20 * scatter))
    read(table=table(308.0, 5 * scatter))
    read(table=table(330.0, 60 * scatter))
    slow = np.repeat([-1.0, 1.0, -1.0, 1.0], FRAMES // 4)
    read(table=table(330.0, 20 * slow + scatter))


def test_rows_are_found_by_time(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    """A table with ten rows a frame; a frame without a row is named."""
    _, energies = simulated
    fine = np.zeros(10 * FRAMES)
    fine[9::10] = energies
    times = 0.1 * SPACING * np.arange(1, 10 * FRAMES + 1)
    found = read(suffix=".nc", table={"Time (ps)": times, "potential_energy": fine})
    np.testing.assert_array_equal(found.energy, energies)
    in_ns = read(suffix=".nc", table={"Time (ns)": times / 1000, "potential_energy": fine})
    np.testing.assert_array_equal(in_ns.energy, energies)
    with pytest.raises(DataError, match=r"no row for frame 49, at 2 ps"):
        read(suffix=".nc", table={"Time (ps)": times[:495], "potential_energy": fine[:495]})


# --- formats of tables -----------------------------------------------------------------------------


def test_state_data_reporter(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        '#"Step","Time (ps)","Potential Energy (kJ/mole)","Temperature (K)","Box Volume (nm^3)","Speed (ns/day)"\n'
        "500,1.0,-10.5,301.2,27.0,--\n1000,2.0,-11.5,298.7,27.1,350\n"
    )
    table = read_table(path)
    np.testing.assert_array_equal(table.columns["potential_energy"], [-10.5, -11.5])
    np.testing.assert_array_equal(table.columns["time"], [1.0, 2.0])
    np.testing.assert_array_equal(table.columns["volume"], [27.0, 27.1])
    assert "temperature" not in table.columns  # that of the velocities
    np.testing.assert_array_equal(table.columns["kinetic_temperature"], [301.2, 298.7])


def test_plumed_colvar(tmp_path: Path) -> None:
    path = tmp_path / "COLVAR"
    path.write_text(
        "#! FIELDS time phi ene restraint.bias metad.bias metad.rct\n#! SET min_phi -pi\n#! SET max_phi pi\n"
        "0.0 1.0 -5.0 0.5 2.0 0.25\n#! FIELDS time phi ene restraint.bias metad.bias metad.rct\n"
        "1.0 1.1 -6.0 0.75 3.0 0.5\n"
    )
    table = read_table(path)
    np.testing.assert_array_equal(table.columns["potential_energy"], [-5.0, -6.0])
    assert table.periods == {"phi": pytest.approx(2 * np.pi)}
    assert table.n_rows == 2


def test_gromacs_energies(tmp_path: Path) -> None:
    path = tmp_path / "energy.xvg"
    path.write_text(
        '# gmx energy\n@    xaxis  label "Time (ps)"\n@    yaxis  label "(kJ/mol), (K)"\n@ s0 legend "Potential"\n'
        '@ s1 legend "COM Pull En."\n@ s2 legend "Temperature"\n0.0 -100.0 3.0 300.1\n2.0 -101.0 4.0 299.0\n'
    )
    table = read_table(path)
    np.testing.assert_array_equal(table.columns["potential_energy"], [-100.0, -101.0])
    np.testing.assert_array_equal(table.columns["bias_energy"], [3.0, 4.0])
    assert table.total
    (tmp_path / "energy.edr").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"energy\.edr: Gromacs' binary energies; write them with: gmx energy"
    ):
        read_table(tmp_path / "energy.edr")


def test_amber_mdout(tmp_path: Path) -> None:
    record = (
        " NSTEP = {step:8d}   TIME(PS) = {time:11.3f}  TEMP(K) =   298.55  PRESS =     0.0\n"
        " Etot   =      -100.0000  EKtot   =        50.0000  EPtot      =     {energy:10.4f}\n"
        " BOND   =         1.0000  ANGLE   =         2.0000  DIHED      =         3.0000\n"
        " EAMBER (non-restraint)  =      -155.0000  RESTRAINT  =         {restraint:.4f}\n"
        " ------------------------------------------------------------------------------\n\n"
    )
    path = tmp_path / "md.out"
    path.write_text(
        "          Amber 24 PMEMD\n"
        + record.format(step=500, time=1.0, energy=-150.0, restraint=5.0)
        + record.format(step=1000, time=2.0, energy=-151.0, restraint=6.0)
        + "      A V E R A G E S   O V E R       2 S T E P S\n"
        + record.format(step=1000, time=2.0, energy=-150.5, restraint=5.5)
    )
    table = read_table(path)
    np.testing.assert_allclose(table.columns["potential_energy"], [-150.0 * 4.184, -151.0 * 4.184])
    np.testing.assert_allclose(table.columns["bias_energy"], [5.0 * 4.184, 6.0 * 4.184])
    np.testing.assert_array_equal(table.columns["time"], [1.0, 2.0])
    assert table.total


# --- trajectories without a force field -------------------------------------------------------------


def test_a_solute_without_its_solvent(
    config: RunConfig,
    importer: Importer,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Energies come from the table; nothing can be simulated, which is said before any work."""
    frames, energies = simulated
    heavy = frames.atom_slice(frames.topology.select("element != H"))
    heavy[0].save(str(tmp_path / "heavy.pdb"))
    heavy.save(str(tmp_path / "heavy.dcd"))
    pd.DataFrame({"potential_energy": energies}).to_csv(tmp_path / "e.csv", index=False)
    system = {"kind": "trajectories", "topology": tmp_path / "heavy.pdb"}
    fewer = RunConfig.model_validate({**config.model_dump(), "system": system})
    trajectory = ImportedTrajectory(tmp_path / "heavy.dcd", 300.0, tmp_path / "e.csv")
    (found,) = Importer(fewer, None, False).read([trajectory])
    np.testing.assert_allclose(found.energy, energies)
    (unknown,) = Importer(fewer, None, False).read([ImportedTrajectory(tmp_path / "heavy.dcd", 300.0)])
    assert (unknown.energy == 0).all()
    assert "its energies are not known" in caplog.text
    with pytest.raises(ConfigError, match="trajectories has atoms without forces, which cannot be simulated"):
        run_loop(fewer, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    turned = mdtraj.Trajectory(heavy.xyz[:, ::-1], heavy.topology)
    turned.save(str(tmp_path / "turned.dcd"))
    with pytest.raises(DataError, match="another order"):
        Importer(fewer, None, False).read(
            [ImportedTrajectory(tmp_path / "turned.dcd", 300.0, tmp_path / "e.csv")]
        )


# --- what is written ---------------------------------------------------------------------------------


def test_temperatures_and_gaps_are_walkers_and_breaks(
    config: RunConfig,
    importer: Importer,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    tmp_path: Path,
) -> None:
    """Frames of a replica that changes its temperature: each at its own, and no pair of frames across a change."""
    frames, energies = simulated
    frames[:30].save(str(tmp_path / "a.nc"))
    frames[30:].save(str(tmp_path / "b.nc"))
    temperature = np.repeat([300.0, 320.0, 300.0], [20, 15, 25])
    pd.DataFrame({"potential_energy": energies, "temperature": temperature}).to_csv(
        tmp_path / "e.csv", index=False
    )
    given = ImportedTrajectory((tmp_path / "a.nc", tmp_path / "b.nc"), None, tmp_path / "e.csv")
    read = importer.read([given])
    runs = [
        RunsAtTemperature(t, group_runs(read, t), {0: np.flatnonzero(temperature == t)}, {})
        for t in (300, 320)
    ]
    write_imported(config, read, runs, tmp_path / "run")
    run = RunFolder(tmp_path / "run", config)
    cold, hot = featurise_walkers(run.config, run.walkers(0), run.path)
    assert (cold.temperature, cold.n_frames, cold.breaks) == (300.0, 45, (20,))
    assert (hot.temperature, hot.n_frames, hot.breaks) == (320.0, 15, ())
    np.testing.assert_allclose(cold.potential_energy, energies[temperature == 300])
    phi = mdtraj.compute_phi(frames)[1][:, 0]
    np.testing.assert_allclose(cold.features[:, 0], np.sin(phi)[temperature == 300], atol=1e-4)
    np.testing.assert_allclose(hot.features[:, 0], np.sin(phi)[temperature == 320], atol=1e-4)
    pairs = make_pairs([cold, hot], 2, 0.2, 5, np.random.default_rng(0))
    first = np.concatenate([pairs.train, pairs.held_out])
    assert not np.isin(first, [18, 19, 43, 44, 58, 59]).any()
    findings = Findings()
    for check in imported_checks("round", run.round(0).simulation, config, run.topology()):
        check.look(findings)
    assert not findings.damages


def test_a_last_frame_that_is_cut_off_is_named(
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], importer: Importer, tmp_path: Path
) -> None:
    for suffix in (".xtc", ".trr", ".nc"):
        path = tmp_path / f"md{suffix}"
        simulated[0].save(str(path))
        path.write_bytes(path.read_bytes()[:-150])
        with pytest.raises(
            DataError, match=rf"md{suffix}: its last frame is incomplete, .* 59 frames are whole"
        ):
            importer.read([ImportedTrajectory(path, 300.0)])
    path = tmp_path / "md.trr"
    simulated[0].save(str(path))
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"its last frame is incomplete, .* 60 frames are whole"):
        importer.read([ImportedTrajectory(path, 300.0)])


def test_frames_without_positions_are_refused(
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]], importer: Importer, tmp_path: Path
) -> None:
    path = tmp_path / "md.trr"
    simulated[0].save(str(path))
    data = path.read_bytes()
    size = 12 * importer.topology.n_atoms
    head = bytearray(data[: len(data) // FRAMES - size])
    head[24 + 28 : 24 + 32] = bytes(4)  # no bytes of positions
    path.write_bytes(data[: len(data) // FRAMES] + bytes(head) + data[len(data) // FRAMES :])
    with pytest.raises(DataError, match=r"md\.trr: frame 1 has no positions"):
        importer.read([ImportedTrajectory(path, 300.0)])


GAS = """
import numpy as np
import openmm
from openmm import app, unit

def make(pressure=None):
    system, topology = openmm.System(), app.Topology()
    chain, force = topology.addChain(), openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.9)
    for _ in range(8):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 0.1)
        topology.addAtom("AR", app.element.argon, topology.addResidue("AR", chain))
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*(3.0 * np.eye(3)))
    if pressure is not None:
        system.addForce(openmm.MonteCarloBarostat(pressure, 300.0, 25))
    return system, topology, np.random.default_rng(0).uniform(0, 3, (8, 3))

def constant_pressure():
    return make(100.0)
"""


def _of_gas(folder: Path, function: str, edges: list[NDArray[np.float64]]) -> list[ImportedFrames]:
    """Trajectories of a gas in boxes of these edges, shape (n_frames,) [nm] each."""
    (folder / "gas.py").write_text(GAS)
    config = RunConfig.model_validate(
        {
            "system": {"kind": "python", "file": folder / "gas.py", "function": function},
            "simulation": {"temperatures": [300.0], "frames": 40, "frame_interval": 10, "timestep": 0.002,
                           "friction": 1.0, "platform": "Reference"},
            "features": [{"kind": "distances", "pairs": [[0, 1]]}],
            "training": {"lag": 2},
        }
    )  # fmt: skip
    importer, rng, given = Importer(config, None, False), np.random.default_rng(1), []
    for k, edge in enumerate(edges):
        xyz = rng.uniform(0, 1, (len(edge), 8, 3)) * edge[:, None, None]
        frames = mdtraj.Trajectory(xyz.astype(np.float32), importer.topology)
        frames.unitcell_lengths = np.repeat(edge[:, None], 3, axis=1)
        frames.unitcell_angles = np.full((len(edge), 3), 90.0)
        frames.save(str(folder / f"gas{k}.dcd"))
        given.append(ImportedTrajectory(folder / f"gas{k}.dcd", 300.0 + 20 * k))
    return importer.read(given)


def test_trajectories_in_constant_boxes_of_two_volumes_are_refused(tmp_path: Path) -> None:
    check_same_volume(_of_gas(tmp_path, "make", [np.full(40, 3.0), np.full(40, 3.0001)]))
    with pytest.raises(DataError, match=r"gas0\.dcd has boxes of 27 nm\^3 and .*gas1\.dcd of 28\.373 nm\^3"):
        check_same_volume(_of_gas(tmp_path, "make", [np.full(40, 3.0), np.full(40, 3.05)]))
    with pytest.raises(DataError, match="its boxes change"):
        _of_gas(tmp_path, "make", [np.linspace(3.0, 3.1, 40)])


def test_constant_boxes_are_not_of_constant_pressure(tmp_path: Path) -> None:
    check_same_volume(_of_gas(tmp_path, "constant_pressure", [np.linspace(3.0, 3.1, 40)] * 2))
    with pytest.raises(DataError, match=r"its boxes do not change, all have 27 nm\^3, .* constant pressure"):
        _of_gas(tmp_path, "constant_pressure", [np.full(40, 3.0)])


def test_one_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.dcd").write_bytes(b"a" * 100)
    (tmp_path / "link.dcd").symlink_to(tmp_path / "a.dcd")
    (tmp_path / "copy.dcd").write_bytes(b"a" * 100)
    (tmp_path / "b.dcd").write_bytes(b"a" * 99 + b"b")
    a = ImportedTrajectory(tmp_path / "a.dcd", 300.0)
    check_distinct([a, ImportedTrajectory(tmp_path / "b.dcd", 300.0)])
    for name, what in {"a": "is", "link": "is", "copy": "has the content of"}.items():
        with pytest.raises(ConfigError, match=rf"{name}\.dcd {what} .*a\.dcd, .* count twice"):
            check_distinct([a, ImportedTrajectory(tmp_path / f"{name}.dcd", 400.0)])
    with pytest.raises(ConfigError, match="count twice"):
        check_distinct([ImportedTrajectory((tmp_path / "a.dcd", tmp_path / "link.dcd"), 300.0)])


def test_exchanged_temperatures_are_noticed(
    read: Reader, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    frames, kT = [read(), read(temperature=400.0)], config.system.scale.kT
    noise = np.random.default_rng(0).normal(size=FRAMES)
    for one, mean in zip(frames, (0.0, 8.0), strict=True):
        one.energy = mean + 8.0 * noise
    check_mean_energies(frames, kT)
    assert not caplog.text
    frames[1].energy -= 10.0
    check_mean_energies(frames, kT)
    assert "the mean energy falls by 2 ±" in caplog.text
    frames[1].energy -= 8.0
    with pytest.raises(DataError, match=r"falls by 10 ± .* are their temperatures exchanged\?"):
        check_mean_energies(frames, kT)


def test_an_absurd_energy_names_its_frame(
    read: Reader, simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]]
) -> None:
    changed = simulated[0].slice(range(FRAMES))
    changed.xyz[7, 4] = changed.xyz[7, 10]
    with pytest.raises(DataError, match=r"md\.dcd: frame 7: its potential energy is nan kJ/mol"):
        read(changed)


def test_times_of_a_table_are_compared_where_the_file_has_none(
    read: Reader,
    importer: Importer,
    simulated: tuple[mdtraj.Trajectory, NDArray[np.float64]],
    config: RunConfig,
) -> None:
    _, energies = simulated
    times = SPACING * np.arange(1.0, FRAMES + 1)
    assert read(table={"potential_energy": energies, "time_ps": times}).n_frames == FRAMES
    wrong = {"potential_energy": energies, "time_ps": 10 * times}
    with pytest.raises(DataError, match=r"its rows are 0\.4 ps apart, the frames of .* 0\.04 ps"):
        read(table=wrong)
    ignoring = Importer(config, None, True)
    assert read(table=wrong, importer=ignoring).n_frames == FRAMES
