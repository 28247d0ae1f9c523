"""Molecules of a topology: what is held together by bonds."""

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def molecules_of(topology: mdtraj.Topology) -> NDArray[np.int64]:
    """Index of the molecule of each atom, shape (n_atoms,).

    Molecules are the connected components of the bonds, numbered in the order of their first atoms. A site without an
    element, such as the fourth site of TIP4P water, belongs to the molecule of the first atom of its residue.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> chain = topology.add_chain()
    >>> atoms = [topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("A", chain)) for _ in range(3)]
    >>> topology.add_bond(atoms[0], atoms[2])
    >>> molecules_of(topology).tolist()
    [0, 1, 0]
    """
    pairs = [(first.index, second.index) for first, second in topology.bonds]
    pairs += [
        (next(atom.residue.atoms).index, atom.index) for atom in topology.atoms if atom.element.number == 0
    ]
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    n = topology.n_atoms
    graph = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, start, molecule = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[molecule].astype(np.int64)
