"""How residues follow each other in their chains, which may be closed to rings, and how far apart they are."""

import mdtraj
from mdtraj.core.topology import Residue

_BACKBONE = {("C", "N"), ("O3'", "P"), ("O3*", "P")}
"""Names of the last atom of a residue and of the first of the next, which are bonded."""


def next_residues(topology: mdtraj.Topology) -> dict[int, int]:
    """Index of the residue that follows each: the one its backbone is bonded to, else the next of its chain.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> chain = topology.add_chain()
    >>> ends = []
    >>> for _ in range(3):
    ...     residue = topology.add_residue("GLY", chain)
    ...     ends.append([topology.add_atom(name, mdtraj.element.get_by_symbol(name), residue) for name in "NC"])
    >>> next_residues(topology)
    {0: 1, 1: 2}
    >>> topology.add_bond(ends[2][1], ends[0][0])
    >>> next_residues(topology)
    {0: 1, 1: 2, 2: 0}
    """
    following = {
        residue.index: residue.index + 1 for chain in topology.chains for residue in list(chain.residues)[:-1]
    }
    for bond in topology.bonds:
        for last, first in ((bond[0], bond[1]), (bond[1], bond[0])):
            residue, next_residue = last.residue, first.residue
            if (
                (last.name, first.name) in _BACKBONE
                and residue.chain.index == next_residue.chain.index
                and residue is not next_residue
            ):
                following[residue.index] = next_residue.index
    return following


class Separations:
    """Which residues are how far apart along their chain; in a ring, the shorter way counts.

    Parameters
    ----------
    topology
        Bonds of the backbone between residues close rings; chains count in the order of their residues.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> chain = topology.add_chain()
    >>> residues = [topology.add_residue("GLY", chain) for _ in range(4)]
    >>> Separations(topology).apart(residues[0], residues[3], 3)
    True
    """

    def __init__(self, topology: mdtraj.Topology) -> None:
        self._neighbours: dict[int, set[int]] = {}
        order = [
            (residue.index, residue.index + 1)
            for chain in topology.chains
            for residue in list(chain.residues)[:-1]
        ]
        closing = [pair for pair in next_residues(topology).items() if abs(pair[0] - pair[1]) > 1]
        self._rings = bool(closing)
        for first, second in [*order, *closing] if closing else []:
            self._neighbours.setdefault(first, set()).add(second)
            self._neighbours.setdefault(second, set()).add(first)

    def apart(self, first: Residue, second: Residue, separation: int) -> bool:
        """Return whether two residues are at least `separation` apart along their chain, or in different chains."""
        if first.chain.index != second.chain.index:
            return True
        if not self._rings or abs(first.index - second.index) < separation:
            return abs(first.index - second.index) >= separation
        return second.index not in self._near(first.index, separation - 1)

    def _near(self, start: int, steps: int) -> set[int]:
        reached, shell = {start}, {start}
        for _ in range(steps):
            shell = {j for i in shell for j in self._neighbours.get(i, ())} - reached
            reached |= shell
        return reached
