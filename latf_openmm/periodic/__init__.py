"""Periodic boxes, variables and images: the only place that decides what the box is and what is connected.

A box is its three vectors as rows, (3, 3) [nm]. OpenMM wants them in its reduced form, exactly: a along x, b in the x-y
plane, and |b_x| <= a_x/2, |c_x| <= a_x/2, |c_y| <= b_y/2.
"""

from latf_openmm.periodic.boundary import (
    Boundary,
    SystemTopology,
    boundary_of,
    default_box,
    longest_cutoff,
    molecules_of,
)
from latf_openmm.periodic.cells import (
    cell_vectors,
    edges_and_angles,
    frame_cells,
    is_cell,
    reduced_box,
    standard_orientation,
)
from latf_openmm.periodic.images import (
    as_structure,
    boxes_of,
    gather_molecules,
    make_whole,
    normalise,
    whole_positions,
)
from latf_openmm.periodic.variables import nearest_difference, periodic_mean

__all__ = [
    "Boundary",
    "SystemTopology",
    "as_structure",
    "boundary_of",
    "boxes_of",
    "cell_vectors",
    "default_box",
    "edges_and_angles",
    "frame_cells",
    "gather_molecules",
    "is_cell",
    "longest_cutoff",
    "make_whole",
    "molecules_of",
    "nearest_difference",
    "normalise",
    "periodic_mean",
    "reduced_box",
    "standard_orientation",
    "whole_positions",
]
