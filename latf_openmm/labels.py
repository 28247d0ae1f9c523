"""Names of chains, residues and atoms, each different from all others; OpenMM's topologies as MDTraj's."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

import mdtraj
from openmm import app

T = TypeVar("T", bound=mdtraj.Topology)

_NUMBER = "full_number"
"""Attribute of residues: number and insertion code, which MDTraj's residues have not."""


def to_mdtraj(topology: app.Topology) -> mdtraj.Topology:
    """Convert a topology; its residues keep their insertion codes, for `Labels`.

    Examples
    --------
    >>> topology = app.Topology()
    >>> residue = topology.addResidue("LYS", topology.addChain("L"), "52", "A")
    >>> atom = topology.addAtom("CA", app.element.carbon, residue)
    >>> converted = to_mdtraj(topology)
    >>> converted.residue(0).resSeq, Labels(converted).atom(0)
    (52, 'LYS52A-CA')
    """
    return numbered(mdtraj.Topology.from_openmm(topology), topology)


def numbered(converted: T, topology: app.Topology) -> T:
    """Give residues of a converted topology the numbers and insertion codes of the original; return it."""
    for residue, original in zip(converted.residues, topology.residues(), strict=True):
        text = str(original.id).strip()
        if (number := re.match(r"-?\d+", text)) is not None:  # MDTraj counts where an id is not only a number
            residue.resSeq = int(number.group())
        setattr(residue, _NUMBER, text + original.insertionCode.strip())
    return converted


class Labels:
    """Short names of the residues and atoms of a topology, such as ``ALA2`` and ``ALA2-CA``.

    They name the chain where there are several (``B:ALA2-CA``), and have the insertion code where there is one
    (``ALA52A``). What would be called the same gets a number (``#1``, ``#2``).

    Parameters
    ----------
    topology
        From `to_mdtraj` where residues have insertion codes.

    Examples
    --------
    >>> topology = mdtraj.Topology()
    >>> for chain_id in "AB":
    ...     residue = topology.add_residue("GLY", topology.add_chain(chain_id), resSeq=7)
    ...     atoms = [topology.add_atom(name, mdtraj.element.carbon, residue) for name in ("CA", "CA", "C")]
    >>> labels = Labels(topology)
    >>> labels.residue(1), labels.atom(2), labels.atom(4)
    ('B:GLY7', 'A:GLY7-C', 'B:GLY7-CA#2')
    """

    def __init__(self, topology: mdtraj.Topology) -> None:
        self._topology = topology

    def residue(self, index: int) -> str:
        """Name of a residue."""
        return self._residues[index]

    def atom(self, index: int) -> str:
        """Name of an atom."""
        return self._atoms[index]

    @cached_property
    def _residues(self) -> list[str]:
        chains = list(self._topology.chains)
        ids = unique([(chain.chain_id or "").strip() or str(chain.index + 1) for chain in chains])
        several = len(chains) > 1
        return unique(
            [
                (f"{ids[residue.chain.index]}:" if several else "")
                + residue.name
                + str(getattr(residue, _NUMBER, residue.resSeq))
                for residue in self._topology.residues
            ]
        )

    @cached_property
    def _atoms(self) -> list[str]:
        return [
            f"{self._residues[residue.index]}-{name}"
            for residue in self._topology.residues
            for name in unique([atom.name for atom in residue.atoms])
        ]


def unique(names: Sequence[str]) -> list[str]:
    """Return the names, each with a number where it is there more than once.

    Examples
    --------
    >>> unique(["A", "B", "A", "A#1"])
    ['A#2', 'B', 'A#3', 'A#1']
    """
    count, taken = Counter(names), set(names)
    told_apart, number = [], Counter[str]()
    for name in names:
        label = name
        while count[name] > 1 and label in taken:
            number[name] += 1
            label = f"{name}#{number[name]}"
        taken.add(label)
        told_apart.append(label)
    return told_apart
