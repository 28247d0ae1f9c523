"""Images of molecules: whole ones, and those of a complex beside each other."""

from collections.abc import Iterator

import mdtraj
import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.periodic.boundary import Array, BondTree, Boundary, Indices, boundary_of
from latf_openmm.periodic.cells import NOISE, file_vectors, is_cell, reduced_box

Positions = NDArray[np.floating]

_SAME = 1e-6
"""Relative deviation from the default box that single precision explains."""
_BLOCK = 80_000
"""Atoms of all frames that are looked at together: they stay in the cache."""
_PAIRS = 300_000
"""Pairs of atoms of all frames that are looked at together."""
_GATHERED, _SITES = 64, 256
"""Most molecules that are put beside each other one after the other, and atoms that stand for all of them."""


def normalise(trajectory: mdtraj.Trajectory, name: str, first: int = 0) -> mdtraj.Trajectory:
    """Give frames of a file the box that their System sees, and whole molecules; the trajectory is changed.

    The System decides: one without a box ignores that of the file, one with a box needs it in every frame. Of a
    topology that belongs to no System, a box counts where the file has one.

    Parameters
    ----------
    trajectory
        As read; its topology says what the System is.
    name
        Of the file, for messages.
    first
        Number of the first frame in the file.

    Raises
    ------
    DataError
        If a box is missing, is none, or is smaller than twice the cutoff.
    """
    boundary, vectors = boundary_of(trajectory.topology), file_vectors(trajectory)
    present = is_cell(vectors)
    if boundary.periodic is False or (boundary.periodic is None and not present.any()):
        trajectory.unitcell_vectors = None
        return trajectory
    if not present.all():
        frame = first + int(np.flatnonzero(~present)[0])
        expected = "the System is periodic" if boundary.periodic else "other frames have one"
        raise DataError(f"{name}: frame {frame} has no periodic box; {expected}")
    boxes = _reduced(vectors, name, first)
    _check_width(boxes, boundary.cutoff, name, first)
    whole_positions(trajectory.xyz, boxes, boundary, in_place=True)
    if np.abs(boxes - vectors).max() > NOISE * np.abs(boxes).max():
        trajectory.unitcell_vectors = boxes
    return trajectory


def _reduced(vectors: Array, name: str, first: int) -> Array:
    try:
        return reduced_box(vectors)
    except DataError:
        for frame, cell in enumerate(vectors):
            try:
                reduced_box(cell)
            except DataError as error:
                raise DataError(f"{name}: frame {first + frame}: {error}") from None
        raise


def _check_width(boxes: Array, cutoff: float, name: str, first: int) -> None:
    widths = np.diagonal(boxes, axis1=-2, axis2=-1).min(axis=-1)
    narrow = np.flatnonzero(widths < 2.0 * cutoff * (1.0 - NOISE))
    if len(narrow):
        frame = int(narrow[0])
        raise DataError(
            f"{name}: frame {first + frame}: the periodic box is {widths[frame]:.3g} nm wide, which is less than twice "
            f"the System's cutoff of {cutoff:g} nm"
        )


def boxes_of(trajectory: mdtraj.Trajectory) -> Array | None:
    """Boxes of the frames in reduced form, shape (n_frames, 3, 3) [nm]; None where there are none.

    MDTraj keeps lengths and angles in single precision: take these boxes for OpenMM, not `unitcell_vectors`. A box that
    is the System's default one but for that is exactly this.

    Raises
    ------
    DataError
        If some frames have a box and others none, or one is not a box.
    """
    boundary, vectors = boundary_of(trajectory.topology), file_vectors(trajectory)
    present = is_cell(vectors)
    if boundary.periodic is False or not present.any():
        return None
    if not present.all():
        raise DataError(f"frame {int(np.flatnonzero(~present)[0])} has no periodic box, others have one")
    boxes = reduced_box(vectors)
    if boundary.box is not None:
        same = np.abs(boxes - boundary.box).max((-2, -1)) < _SAME * np.abs(boundary.box).max()
        boxes[same] = boundary.box
    return boxes


def make_whole(trajectory: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Return a trajectory whose molecules are whole; the same one where there is no box, or they are already."""
    boundary, boxes = boundary_of(trajectory.topology), boxes_of(trajectory)
    if boxes is None:
        return trajectory
    return _with_positions(trajectory, whole_positions(trajectory.xyz, boxes, boundary))


def as_structure(trajectory: mdtraj.Trajectory, topology: mdtraj.Topology) -> mdtraj.Trajectory:
    """Return structures of a file as ones of a System: molecules whole and beside each other, the box the System's.

    Parameters
    ----------
    trajectory
        As read; molecules are put together by its own box, or by the System's where it has none.
    topology
        Of the System.

    Raises
    ------
    DataError
        If the box of the file is none.
    """
    boundary, vectors = boundary_of(topology), file_vectors(trajectory)
    boxes: Array | None = None
    if is_cell(vectors).all():
        boxes = reduced_box(vectors)
    elif boundary.box is not None:
        boxes = np.repeat(boundary.box[None], trajectory.n_frames, axis=0)
    xyz = trajectory.xyz if boxes is None else whole_positions(trajectory.xyz, boxes, boundary)
    structures = mdtraj.Trajectory(xyz, topology)
    if boundary.periodic is not False:
        structures.unitcell_vectors = boxes
    return gather_molecules(structures)


def _with_positions(trajectory: mdtraj.Trajectory, xyz: Positions) -> mdtraj.Trajectory:
    if xyz is trajectory.xyz:
        return trajectory
    return mdtraj.Trajectory(
        xyz, trajectory.topology, trajectory.time, trajectory.unitcell_lengths, trajectory.unitcell_angles
    )


def whole_positions(xyz: Positions, boxes: Array, boundary: Boundary, in_place: bool = False) -> Positions:
    """Move atoms by lattice vectors so that bonds are short; positions that are whole already are returned as given.

    Parameters
    ----------
    xyz
        Shape (n_frames, n_atoms, 3) [nm].
    boxes
        In reduced form, shape (n_frames, 3, 3) [nm]; at least twice as wide as bonds are long.
    boundary
        Says what is bound.
    in_place
        Whether `xyz` may be changed.

    Returns
    -------
    ndarray
        Shape (n_frames, n_atoms, 3) [nm]; the first atom of each molecule is where it was.
    """
    if boundary.infinite or len(boundary.links) == 0:
        return xyz
    tree = boundary.tree
    half = 0.5 * float(np.diagonal(boxes, axis1=-2, axis2=-1).min())
    new: Positions | None = None
    for rows in _blocks(len(xyz), xyz.shape[1], _BLOCK):
        bonds = np.take(xyz[rows], tree.child, axis=1, mode="clip")
        bonds -= np.take(xyz[rows], tree.parent, axis=1, mode="clip")
        np.abs(bonds, out=bonds)
        long = np.flatnonzero(bonds.ravel() > half) // 3
        if len(long) == 0:
            continue
        if new is None:
            new = xyz if in_place else xyz.copy()
        frames, branches = np.divmod(long[np.diff(long, prepend=-1) > 0], len(tree.child))
        frames += rows.start
        vectors = xyz[frames, tree.child[branches]] - xyz[frames, tree.parent[branches]]
        moves = _moves(vectors.astype(np.float64), boxes[frames])
        _move_branches(new, moves, frames, branches, tree)
    return xyz if new is None else new


def _moves(vectors: Array, boxes: Array) -> Array:
    return np.asarray(np.einsum("...i,...ij->...j", _lattice_steps(vectors, boxes), boxes))


def _blocks(n_frames: int, width: int, most: int) -> Iterator[slice]:
    size = max(1, most // width)
    for start in range(0, n_frames, size):
        yield slice(start, min(start + size, n_frames))


def _move_branches(xyz: Positions, moves: Array, frames: Indices, branches: Indices, tree: BondTree) -> None:
    """Take `moves` (n, 3) off whole branches of frames (n_frames, n_atoms, 3), in place."""
    first, sizes = tree.first[branches], tree.last[branches] - tree.first[branches]
    places = np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
    rows = np.repeat(frames, sizes), tree.atoms[places]
    np.subtract.at(xyz, rows, np.repeat(moves, sizes, axis=0).astype(xyz.dtype))


def _lattice_steps(vectors: Array, box: Array) -> Array:
    """Lattice vectors to subtract from `vectors` (..., 3), rounding one axis after the other; `box` (..., 3, 3).

    What is left is the shortest vector wherever that is shorter than half the box along each axis.
    """
    left, steps = vectors.copy(), np.empty_like(vectors)
    for axis in (2, 1, 0):
        steps[..., axis] = np.rint(left[..., axis] / box[..., axis, axis])
        left -= steps[..., axis, None] * box[..., axis, :]
    return steps


def gather_molecules(trajectory: mdtraj.Trajectory) -> mdtraj.Trajectory:
    """Return frames with whole molecules in the images nearest to each other, as complexes are.

    Molecules are put beside those that are there already, the nearest one first, beginning with the largest. Where
    there are many, solvent for example, small ones are put around these.
    """
    boundary, boxes = boundary_of(trajectory.topology), boxes_of(trajectory)
    if boxes is None or boundary.infinite:
        return trajectory
    xyz = whole_positions(trajectory.xyz, boxes, boundary)
    molecules = boundary.molecules
    sizes = np.bincount(molecules)
    if len(sizes) == 1:
        return _with_positions(trajectory, xyz)
    chosen = _to_gather(sizes)
    steps = np.zeros((len(xyz), len(sizes), 3))
    members = [np.flatnonzero(molecules == molecule) for molecule in chosen]
    n_sites = int(np.clip(_SITES // len(chosen), 1, 32))
    sites = np.array([atoms[np.linspace(0, len(atoms) - 1, n_sites).astype(int)] for atoms in members])
    for rows in _blocks(len(xyz), sites.size**2, _PAIRS):
        steps[rows, chosen] = _steps_together(xyz[rows][:, sites].astype(np.float64), boxes[rows])
    moved = xyz - np.einsum("fmi,fij->fmj", steps, boxes)[:, molecules].astype(xyz.dtype)
    if len(chosen) < len(sizes):
        steps = _steps_around(moved, boxes, molecules, np.concatenate(members))
        moved -= np.einsum("fmi,fij->fmj", steps, boxes)[:, molecules].astype(xyz.dtype)
    return _with_positions(trajectory, moved)


def _to_gather(sizes: NDArray[np.int64]) -> Indices:
    """Molecules that are put beside each other, the largest first: all where there are few."""
    order = np.argsort(-sizes, kind="stable")
    if len(sizes) <= _GATHERED:
        return order
    large = order[sizes[order] > 5]  # larger than any water model
    return large[:_GATHERED] if len(large) else order[:1]


def _steps_together(sites: Array, boxes: Array) -> Array:
    """Lattice vectors to take off each molecule, shape (n_frames, n_molecules, 3).

    Parameters
    ----------
    sites
        Atoms that stand for molecules, shape (n_frames, n_molecules, n_sites, 3) [nm].
    boxes
        Shape (n_frames, 3, 3) [nm].
    """
    n_frames, n, n_sites = sites.shape[:3]
    delta = sites[:, None, :, None] - sites[:, :, None, :, None]  # frame, from, to, site from, site to
    cells = boxes[:, None, None, None, None]
    steps = _lattice_steps(delta, cells)
    squared = ((delta - np.einsum("...i,...ij->...j", steps, cells)) ** 2).sum(-1)
    squared = squared.reshape(n_frames, n, n, n_sites**2)
    nearest = squared.argmin(-1)[..., None]
    distance = np.take_along_axis(squared, nearest, -1)[..., 0]
    between = np.take_along_axis(steps.reshape(n_frames, n, n, n_sites**2, 3), nearest[..., None], 3)[
        ..., 0, :
    ]
    frames, total = np.arange(n_frames), np.zeros((n_frames, n, 3))
    done = np.zeros((n_frames, n), dtype=bool)
    done[:, 0] = True
    best, partner = distance[:, 0].copy(), np.zeros((n_frames, n), dtype=np.int64)
    for _ in range(n - 1):
        new = np.where(done, np.inf, best).argmin(axis=1)
        old = partner[frames, new]
        total[frames, new] = total[frames, old] + between[frames, old, new]
        done[frames, new] = True
        closer = distance[frames, new] < best
        partner[closer] = np.broadcast_to(new[:, None], closer.shape)[closer]
        best = np.minimum(best, distance[frames, new])
    return total


def _steps_around(xyz: Positions, boxes: Array, molecules: Indices, gathered: Indices) -> Array:
    """Lattice vectors to take off the molecules that are not gathered, shape (n_frames, n_molecules, 3)."""
    centre = xyz[:, gathered].mean(axis=1).astype(np.float64)
    sizes = np.bincount(molecules)
    order, starts = np.argsort(molecules, kind="stable"), np.cumsum(sizes) - sizes
    centres = np.add.reduceat(xyz[:, order].astype(np.float64), starts, axis=1) / sizes[:, None]
    steps = _lattice_steps(centres - centre[:, None], boxes[:, None])
    steps[:, np.unique(molecules[gathered])] = 0.0
    return steps
