"""The contract of formats in which trajectories are written, one line for each."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from latf_openmm.cli.options import Format
from latf_openmm.errors import DataError
from latf_openmm.frames.formats import FORMATS, write_trajectory
from latf_openmm.frames.walkers import read_trajectory
from latf_openmm.sampling.dynamics import DynamicsSettings
from latf_openmm.systems.three_hole import ThreeHoleSettings

RESOLUTION = {
    "dcd": 1e-6,
    "xtc": 5.1e-4,
}
"""Of each format [nm]: a new one is one more line."""


def particles(n_frames: int, seed: int = 0) -> mdtraj.Trajectory:
    """Three atoms of a box, which is not rectangular."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(3):
        topology.add_atom("Ar", mdtraj.element.argon, topology.add_residue("AR", chain))
    box = np.array([[3.0, 0.0, 0.0], [0.5, 3.0, 0.0], [-0.4, 0.6, 3.2]], dtype=np.float32)
    frames = mdtraj.Trajectory(
        np.random.default_rng(seed).random((n_frames, 3, 3), dtype=np.float32), topology
    )
    frames.unitcell_vectors = np.repeat(box[None], n_frames, axis=0)
    return frames


def test_every_format_has_a_line() -> None:
    assert list(RESOLUTION) == list(FORMATS) == [choice.value for choice in Format]
    for kind in RESOLUTION:
        assert DynamicsSettings(timestep=1, friction=1, frame_interval=1, trajectory=kind).trajectory == kind


@pytest.mark.parametrize("kind", RESOLUTION)
@pytest.mark.parametrize("name", ["frames", "Läufe und 'mehr'"])
def test_what_is_written_is_read_back(kind: str, name: str, tmp_path: Path) -> None:
    frames = particles(7)
    path = tmp_path / f"{name}.{kind}"
    write_trajectory(frames, path)
    again = mdtraj.join(list(read_trajectory(path, frames.topology, 3)))
    np.testing.assert_allclose(again.xyz, frames.xyz, rtol=0, atol=RESOLUTION[kind])
    plain = tmp_path / f"plain.{kind}"
    write_trajectory(frames, tmp_path / "other.partial", kind)
    assert (tmp_path / "other.partial").read_bytes() == path.read_bytes()  # no date, no name
    (tmp_path / "other.partial").rename(plain)
    boxes = mdtraj.load(str(plain), top=frames.topology).unitcell_vectors
    np.testing.assert_allclose(boxes, frames.unitcell_vectors, atol=1e-5)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", RESOLUTION)
def test_a_full_disk_is_one_line(kind: str, tmp_path: Path) -> None:
    topology = ThreeHoleSettings().build(1).mdtraj_topology()
    xyz = np.random.default_rng(0).random((20_000, 1, 3), dtype=np.float32)
    path = tmp_path / f"structures.{kind}"
    with (
        largest_file(100_000),
        pytest.raises(DataError, match=rf"structures\.{kind}: cannot be written .*disk full"),
    ):
        write_trajectory(mdtraj.Trajectory(xyz, topology), path)


def test_a_format_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no format 'mol'; expected one of dcd, xtc"):
        write_trajectory(particles(1), tmp_path / "frames.mol")


def test_the_title_of_a_trajectory_has_no_date(tmp_path: Path) -> None:
    topology = ThreeHoleSettings().build(1).mdtraj_topology()
    xyz = np.random.default_rng(0).random((7, 1, 3), dtype=np.float32)
    path = tmp_path / "ü.dcd"
    write_trajectory(mdtraj.Trajectory(xyz, topology), path)
    assert path.read_bytes()[100:260] == b"Created by latf-openmm".ljust(160, b"\0")
    again = np.concatenate([piece.xyz for piece in read_trajectory(path, topology, 3)])
    np.testing.assert_allclose(again, xyz, atol=1e-6)
