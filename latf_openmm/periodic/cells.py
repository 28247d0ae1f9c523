"""Box vectors in the form OpenMM wants."""

import mdtraj
import numpy as np
from numpy.typing import ArrayLike, NDArray

from latf_openmm.errors import DataError

Array = NDArray[np.float64]

NOISE = 1e-5
"""Deviation of box vectors, relative to the edges, that single precision explains."""
_DUMMY = 0.2  # nm; cells this small stand for none (CRYST1 1 1 1)
_ZERO = 1e-6
"""Components of vectors that are nothing but rounding [nm]."""


def is_cell(vectors: ArrayLike) -> NDArray[np.bool_]:
    """Return whether vectors (..., 3, 3) [nm] are those of a box; zeros and dummy cells of 0.1 nm stand for none.

    Examples
    --------
    >>> is_cell([2.0 * np.eye(3), 0.1 * np.eye(3), np.zeros((3, 3))]).tolist()
    [True, False, False]
    """
    lengths = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=-1)
    return np.asarray(np.isfinite(lengths).all(-1) & (lengths > _DUMMY).all(-1))


def reduced_box(vectors: ArrayLike) -> Array:
    """Vectors of the same lattice in OpenMM's reduced form, exactly and in double precision.

    What misses the form by no more than single precision is moved onto its border; everything else is reduced by
    lattice vectors.

    Parameters
    ----------
    vectors
        Shape (..., 3, 3) [nm].

    Raises
    ------
    DataError
        If they are not finite, span no volume, or the lattice is rotated: then positions have to be rotated with it,
        see `standard_orientation`.

    Examples
    --------
    >>> reduced_box([[2, 0, 0], [3, 2, 0], [0, 1.5, 2]]).tolist()
    [[2.0, 0.0, 0.0], [-1.0, 2.0, 0.0], [1.0, -0.5, 2.0]]
    """
    box = np.array(vectors, dtype=np.float64)
    _check_volume(box)
    if _is_rotated(box).any():
        raise DataError(
            "the box is rotated: expected its first vector along x and its second in the x-y plane"
        )
    box[..., 0, 1:] = box[..., 1, 2] = 0.0
    box *= np.where(np.diagonal(box, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None]
    for row, other in ((2, 1), (2, 0), (1, 0)):
        ratio = box[..., row, other] / box[..., other, other]
        times = np.where(np.abs(ratio) <= 0.5 + NOISE, 0.0, np.rint(ratio))
        box[..., row, :] -= times[..., None] * box[..., other, :]
    for row, other in ((2, 1), (2, 0), (1, 0)):
        half = 0.5 * box[..., other, other]
        box[..., row, other] = np.clip(box[..., row, other], -half, half)
    return box


def standard_orientation(xyz: NDArray[np.floating], vectors: ArrayLike) -> tuple[NDArray[np.floating], Array]:
    """Rotate frames with their boxes, until a is along x and b in the x-y plane.

    Parameters
    ----------
    xyz
        Positions, shape (n_frames, n_atoms, 3) [nm].
    vectors
        Boxes, shape (n_frames, 3, 3) [nm]; dummy ones are left as they are.

    Returns
    -------
    tuple
        Positions and boxes; the positions as given, where nothing is rotated.

    Raises
    ------
    DataError
        If a rotated box spans no volume.
    """
    box = np.array(vectors, dtype=np.float64)
    rows = np.flatnonzero(_is_rotated(box) & is_cell(box))
    if len(rows) == 0:
        return xyz, box
    _check_volume(box[rows])
    left_handed = np.linalg.det(box[rows]) < 0
    box[rows[left_handed], 2] *= -1.0  # the same lattice
    rotation, upper = np.linalg.qr(box[rows].swapaxes(-2, -1))
    rotation *= np.sign(np.diagonal(upper, axis1=-2, axis2=-1))[:, None, :]
    rotated = xyz.copy()
    rotated[rows] = xyz[rows] @ rotation.astype(xyz.dtype)
    box[rows] = np.tril(box[rows] @ rotation)
    return rotated, box


def file_vectors(trajectory: mdtraj.Trajectory) -> Array:
    """Box vectors as a file has them, in double precision, shape (n_frames, 3, 3) [nm]; zeros where it has none."""
    lengths, angles = trajectory.unitcell_lengths, trajectory.unitcell_angles
    if lengths is None or angles is None:
        return np.zeros((trajectory.n_frames, 3, 3))
    lengths, angles = np.nan_to_num(lengths.astype(np.float64)), angles.astype(np.float64)
    present = (lengths > _DUMMY).all(axis=1)
    vectors = np.zeros((trajectory.n_frames, 3, 3))
    if present.any():
        with np.errstate(invalid="ignore"):
            vectors[present] = cell_vectors(lengths[present], angles[present])
    return vectors


def frame_cells(trajectory: mdtraj.Trajectory) -> NDArray[np.floating] | None:
    """Return MDTraj's `unitcell_vectors`, shape (n_frames, 3, 3) [nm], None where there are none, without its checks.

    MDTraj 1.11 compares the angles of every frame in a loop, each time that the property is read: about 0.1 ms a frame.
    """
    lengths, angles = trajectory.unitcell_lengths, trajectory.unitcell_angles
    return None if lengths is None or angles is None else cell_vectors(lengths, angles)


def cell_vectors(lengths: NDArray[np.floating], angles: NDArray[np.floating]) -> NDArray[np.floating]:
    """Vectors of cells, shape (n, 3, 3), as MDTraj computes them.

    Parameters
    ----------
    lengths, angles
        Shape (n, 3); angles in degrees.
    """
    (a, b, c), (alpha, beta, gamma) = lengths.T, np.radians(angles).T
    nothing = np.zeros_like(a)
    cx = c * np.cos(beta)
    cy = c * (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    cz = np.sqrt(c * c - cx * cx - cy * cy)
    rows = [[a, nothing, nothing], [b * np.cos(gamma), b * np.sin(gamma), nothing], [cx, cy, cz]]
    vectors = np.moveaxis(np.array(rows), 2, 0)
    vectors[np.abs(vectors) < _ZERO] = 0.0
    return np.asarray(vectors)


def edges_and_angles(vectors: NDArray[np.floating]) -> tuple[Array, Array]:
    """Edges [nm] and angles [degrees] of cells, each (n, 3), by their vectors (n, 3, 3).

    Examples
    --------
    >>> edges, angles = edges_and_angles(cell_vectors(np.array([[2.0, 3.0, 4.0]]), np.array([[80.0, 90.0, 110.0]])))
    >>> edges.round(6).tolist(), angles.round(6).tolist()
    ([[2.0, 3.0, 4.0]], [[80.0, 90.0, 110.0]])
    """
    both = mdtraj.utils.box_vectors_to_lengths_and_angles(*np.moveaxis(vectors, 1, 0))
    return np.stack(both[:3], axis=1), np.stack(both[3:], axis=1)


def _check_volume(box: Array) -> None:
    finite = np.asarray(np.isfinite(box).all((-2, -1)))
    lengths = np.linalg.norm(box, axis=-1)
    volume = np.abs(np.linalg.det(np.where(finite[..., None, None], box, 0.0)))
    bad = np.asarray(~finite | ~(volume > 1e-3 * lengths.prod(-1)))
    if bad.any():
        first = box.reshape(-1, 3, 3)[int(np.argmax(bad))]
        raise DataError(f"the box vectors {first.round(4).tolist()} nm span no volume")


def _is_rotated(box: Array) -> NDArray[np.bool_]:
    above = np.stack([box[..., 0, 1], box[..., 0, 2], box[..., 1, 2]], axis=-1)
    return np.asarray(np.abs(above).max(-1) > NOISE * np.abs(box).max((-2, -1)))
