"""Tables whose columns mean something else than their names suggest."""

import logging
from pathlib import Path

import numpy as np
import pytest

from latf_openmm.errors import DataError
from latf_openmm.run.imported.columns import FrameColumns, frame_columns
from latf_openmm.run.imported.tables import joined_tables, read_table
from latf_openmm.run.imported.times import Timeline
from latf_openmm.run.imported.trajectories import ImportedTrajectory
from latf_openmm.sampling.stage import SimulationSettings

N = 20
DYNAMICS = SimulationSettings(temperatures=[300], frames=N, timestep=0.002, frame_interval=50, friction=1.0)


def columns(folder: Path, text: str, times: np.ndarray | None = None) -> FrameColumns:
    (folder / "COLVAR").write_text(text)
    source = ImportedTrajectory(folder / "md.xtc", 300.0, folder / "COLVAR")
    every = np.arange(N)
    line = Timeline(every, times, (every + 1) * 50, np.zeros(N, np.int64))
    return frame_columns(source, joined_tables(source.tables), line, N, DYNAMICS)[0]


def colvar(rows: int = N, start: float = 0.1, every: float = 0.1, **fields: np.ndarray) -> str:
    times = start + every * np.arange(rows)
    lines = ["#! FIELDS time " + " ".join(name.replace("__", ".") for name in fields)]
    lines += [" ".join(f"{v:.6f}" for v in row) for row in zip(times, *fields.values(), strict=True)]
    return "\n".join(lines) + "\n"


RAMP = np.linspace(0.0, 60.0, N)


@pytest.mark.parametrize(
    ("label", "offset"), [("opes", 0.0), ("metad", 20.0)], ids=["OPES has no c(t)", "metadynamics has"]
)
def test_offsets_of_a_growing_bias(label: str, offset: float, tmp_path: Path) -> None:
    text = colvar(**{f"{label}__bias": RAMP, f"{label}__rct": RAMP / 3})
    result = columns(tmp_path, text)
    assert result.offset is not None
    assert result.offset[-1] == pytest.approx(offset, abs=1e-5)


def test_opes_is_known_by_its_columns(tmp_path: Path) -> None:
    result = columns(tmp_path, colvar(b__bias=RAMP, b__rct=RAMP, b__zed=np.ones(N)))
    assert result.offset is not None
    assert not result.offset.any()


@pytest.mark.parametrize(("bias", "said"), [(RAMP, True), (RAMP[::-1], False), (np.ones(N), False)])
def test_a_bias_that_grew_is_named(
    bias: np.ndarray, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        columns(tmp_path, colvar(mtd__bias=bias))
    assert ("as if the bias had not grown" in caplog.text) is said


def test_restraints_that_move_are_refused(tmp_path: Path) -> None:
    text = colvar(steer__bias=RAMP, steer__phi_cntr=RAMP)
    with pytest.raises(DataError, match=r"steer is a restraint that moves .* not in equilibrium"):
        columns(tmp_path, text)
    columns(tmp_path, colvar(steer__bias=RAMP, steer__phi_cntr=np.ones(N)))


def test_rows_of_frames_without_times_are_not_guessed(tmp_path: Path) -> None:
    text = colvar(rows=201, start=0.0, every=0.01, r__bias=np.ones(201))
    with pytest.raises(DataError, match="no times to find rows by"):
        columns(tmp_path, text)


def test_rows_that_lie_beside_the_frames_are_refused(tmp_path: Path) -> None:
    times = 0.1 * (1 + np.arange(N))
    with pytest.raises(DataError, match=r"its times are 0\.1 ps later .* no energies that would say"):
        columns(tmp_path, colvar(start=0.2, r__bias=np.ones(N)), times)
    columns(tmp_path, colvar(start=0.1, r__bias=np.ones(N)), times)


def test_parts_of_gromacs_energies_that_are_restraints_are_named(tmp_path: Path) -> None:
    text = colvar(potential_energy=-RAMP, Position__Rest__=RAMP).replace("Position.Rest.", "Position_Rest.")
    with pytest.raises(DataError, match=r"the column 'Position_Rest\.' would be ignored"):
        columns(tmp_path, text)


def test_running_averages_of_amber_are_left_out(tmp_path: Path) -> None:
    def record(step: int, energy: float) -> str:
        return f" NSTEP = {step}  TIME(PS) = {step / 1000:.3f}  TEMP(K) = 300.00\n EPtot = {energy:.4f}\n ------\n"

    averages = "      A V E R A G E S   O V E R       2 S T E P S\n\n" + record(2, -999.0)
    averages += "      R M S  F L U C T U A T I O N S\n\n" + record(2, 999.0)
    text = "".join(record(i, -float(i)) + (averages if i % 2 == 0 else "") for i in range(1, 7))
    (tmp_path / "md.out").write_text(text)
    table = read_table(tmp_path / "md.out")
    assert table.columns["potential_energy"] == pytest.approx(-4.184 * np.arange(1, 7))


def test_limits_in_parts_of_pi(tmp_path: Path) -> None:
    text = colvar(psi=np.ones(N)).replace("\n", "\n#! SET min_psi -pi/2\n#! SET max_psi pi/2\n", 1)
    (tmp_path / "COLVAR").write_text(text)
    assert read_table(tmp_path / "COLVAR").periods == {"psi": pytest.approx(np.pi)}
