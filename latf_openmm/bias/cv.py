"""Collective variables of any origin: what they all have, a module of your own, and classical ones."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from latf_openmm.bias import torchscript
from latf_openmm.errors import ModelError, first_line, last_line
from latf_openmm.features import Features
from latf_openmm.features.distances import Distances
from latf_openmm.features.torsions import Torsions
from latf_openmm.storage import atomic_file

_FEW_ATOMS = 40
"""Up to so many, a product with zeros costs less than gathering the atoms that are needed."""


class CollectiveVariables(nn.Module):
    """Positions -> collective variables, as every bias wants them.

    ``forward(positions, box)`` takes (n_frames, n_atoms, 3) [nm] and a box of shape (n_frames, 3, 3) [nm]
    or an empty tensor, and returns (n_frames, dim) in double precision.

    Attributes
    ----------
    n_atoms
        Atoms of one copy of the system.
    dim
        Number of collective variables.
    periods
        Period of each variable, 0 where it has none; shape (dim,).
    """

    def __init__(self, n_atoms: int, periods: Sequence[float]) -> None:
        super().__init__()
        self.n_atoms = n_atoms
        self.dim = len(periods)
        self.periods: Tensor
        self.register_buffer("periods", torch.tensor(list(periods), dtype=torch.float64))

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables, shape (n_frames, dim)."""
        raise NotImplementedError

    def used_atoms(self) -> Tensor:
        """Return the atoms whose positions are looked at, ascending."""
        return torch.arange(self.n_atoms)

    def of_used_atoms(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables from the positions of the used atoms, (n_frames, len(used_atoms), 3)."""
        return self(positions, box)


class UsedAtomsCV(CollectiveVariables):
    """The same collective variables of a system that consists of the used atoms."""

    def __init__(self, cv: CollectiveVariables) -> None:
        super().__init__(len(cv.used_atoms()), cv.periods.tolist())
        self.cv = cv

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables, shape (n_frames, dim)."""
        return self.cv.of_used_atoms(positions, box)


class FeatureCV(CollectiveVariables):
    """A network on descriptors, or the descriptors themselves; of many atoms only those needed are looked at.

    Parameters
    ----------
    features
        Features module; not changed.
    network
        From descriptors (n_frames, n_features) to variables, for example a model of mlcolvar; None: the
        descriptors are the variables.
    n_atoms
        Atoms of one copy of the system.
    periods
        Period of each variable, 0 where it has none; default: none has.

    Raises
    ------
    ModelError
        If the network does not take the descriptors, the periods do not fit the variables, or there is no
        such atom.
    """

    def __init__(
        self,
        features: Features,
        network: nn.Module | None,
        n_atoms: int,
        periods: Sequence[float] | None = None,
    ) -> None:
        copied_network = nn.Identity() if network is None else _own_copy(network)
        n = features.n_features
        z = _evaluate(
            copied_network, "the network", [torch.zeros(1, n, dtype=torch.float64)], f"{n} descriptors", True
        )
        dim = int(z.shape[1])
        if periods is not None and len(periods) != dim:
            raise ModelError(f"{len(periods)} periods for {dim} collective variables")
        super().__init__(n_atoms, periods or [0.0] * dim)
        features, used = copy.deepcopy(features), features.used_atoms()
        if used is not None:
            _check_indices(used.tolist(), n_atoms)
        self.atoms: Tensor
        atoms = torch.empty(0, dtype=torch.long)
        if used is not None:
            new = torch.arange(n_atoms)
            if n_atoms > _FEW_ATOMS and len(used) < n_atoms:
                atoms = used
                new = torch.full((n_atoms,), -1)
                new[used] = torch.arange(len(used))
            features.compact(new, len(atoms) or n_atoms)
        self.register_buffer("atoms", atoms)
        self.features = features
        self.network = copied_network
        self.double()
        self.requires_grad_(False)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables, shape (n_frames, dim)."""
        x = positions.to(self.periods.dtype)
        if self.atoms.numel() > 0:
            x = x.index_select(1, self.atoms)
        return self.of_used_atoms(x, box)

    def used_atoms(self) -> Tensor:
        """Return the atoms whose positions are looked at, ascending."""
        return self.atoms if self.atoms.numel() > 0 else torch.arange(self.n_atoms)

    def of_used_atoms(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables from the positions of the used atoms, (n_frames, len(used_atoms), 3)."""
        x = positions.to(self.periods.dtype)
        cell = box if box.numel() == 0 else box.to(self.periods.dtype)
        return self.network(self.features(x, cell))


class ModuleCV(CollectiveVariables):
    """A torch module of your own, or a TorchScript file: positions of one frame -> variables.

    Parameters
    ----------
    module
        Takes (n_atoms, 3) [nm] and returns (dim,); with `box` it takes the box vectors (3, 3) [nm], too,
        and with `batched` it takes and returns an additional first dimension of frames.
    positions
        Positions of a frame [nm], shape (n_atoms, 3), to try the module on.
    periods
        Period of each variable, 0 where it has none; default: none has.
    box
        Box vectors to try the module on (3, 3) [nm], where it takes them.
    batched
        Whether the module takes many frames at once.

    Raises
    ------
    ModelError
        If the module cannot be evaluated on the frame, or does not return one finite row of variables.
    """

    def __init__(
        self,
        module: nn.Module | Path | str,
        positions: ArrayLike,
        periods: Sequence[float] | None = None,
        box: ArrayLike | None = None,
        batched: bool = False,
    ) -> None:
        if isinstance(module, nn.Module):
            function, name = _own_copy(module), type(module).__name__
        else:
            function, name = _load_script(Path(module)).double().eval(), str(module)
        frame = torch.from_numpy(np.asarray(positions, dtype=np.float64))
        cell = torch.empty(0) if box is None else torch.from_numpy(np.asarray(box, dtype=np.float64))
        dim = _try_module(function, name, frame, cell, batched)
        if periods is not None and len(periods) != dim:
            raise ModelError(f"{len(periods)} periods for the {dim} variables of {name}")
        super().__init__(len(frame), periods or [0.0] * dim)
        self.call = _Batched(function, box is not None) if batched else _OneByOne(function, box is not None)
        self.requires_grad_(False)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        """Return collective variables, shape (n_frames, dim)."""
        dtype = self.periods.dtype
        return self.call(positions.to(dtype), box.to(dtype)).to(dtype)


class _WithBox(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        return self.module(positions, box)


class _WithoutBox(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        return self.module(positions)


def _Batched(module: nn.Module, box: bool) -> nn.Module:  # noqa: N802 - reads as the class it returns
    return _WithBox(module) if box else _WithoutBox(module)


class _OneByOne(nn.Module):
    """Calls a module frame by frame."""

    def __init__(self, module: nn.Module, box: bool) -> None:
        super().__init__()
        self.module = _Batched(module, box)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for i in range(positions.shape[0]):
            rows.append(self.module(positions[i], box if box.numel() == 0 else box[i]))
        return torch.stack(rows)


@torch.no_grad()  # the copy of a TorchScript module would remember what it was copied from
def _own_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double().eval()


def _load_script(path: Path) -> nn.Module:
    if not path.is_file():
        raise ModelError(f"{path}: no such TorchScript file")
    try:
        module: nn.Module = torchscript.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise ModelError(f"{path}: not a TorchScript file ({first_line(error)})") from None
    return module


def _try_module(module: nn.Module, name: str, frame: Tensor, box: Tensor, batched: bool) -> int:
    arguments = [frame] if box.numel() == 0 else [frame, box]
    if batched:
        arguments = [item.unsqueeze(0) for item in arguments]
    z = _evaluate(module, name, arguments, f"positions {tuple(frame.shape)}", batched)
    if not bool(torch.isfinite(z).all()):
        raise ModelError(
            f"{name} returns {z.flatten().tolist()} for the given positions; expected finite values"
        )
    return int(z.shape[-1])


def _evaluate(module: nn.Module, name: str, arguments: list[Tensor], what: str, batched: bool) -> Tensor:
    """Variables from a module that somebody else wrote; `what` says what it is tried on."""
    try:
        with torch.no_grad():
            z = module(*arguments)
    except Exception as error:
        raise ModelError(f"{name} cannot be evaluated on {what}: {last_line(error)}") from error
    expected = "(1, dim)" if batched else "(dim,)"
    if not isinstance(z, Tensor) or z.dim() != (2 if batched else 1):
        shape = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ModelError(f"{name} returns {shape}; expected a tensor of shape {expected}")
    return z


class _Angles(nn.Module):
    """Sines, then cosines, to angles [rad]."""

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1] // 2
        return torch.atan2(x[:, :n], x[:, n:])


def distance_cv(
    pairs: Sequence[tuple[int, int]], n_atoms: int, molecules: Sequence[int] | None = None
) -> FeatureCV:
    """Return distances between pairs of atoms as collective variables [nm].

    In a periodic box they are those to the nearest image, also between atoms of one molecule, which is wrong where a
    molecule is longer than half the box; with `molecules` they follow its bonds.

    Parameters
    ----------
    pairs
        Atoms.
    n_atoms
        Atoms of one copy of the system.
    molecules
        Index of the molecule of each atom, as ``latf_openmm.periodic.molecules_of(mdtraj_topology)`` gives it.
    """
    _check_indices([atom for pair in pairs for atom in pair], n_atoms)
    features = Distances(list(pairs), [f"d({i},{j})" for i, j in pairs])
    return FeatureCV(_in_molecules(features, molecules, n_atoms), None, n_atoms)


def torsion_cv(
    quadruples: Sequence[tuple[int, int, int, int]], n_atoms: int, molecules: Sequence[int] | None = None
) -> FeatureCV:
    """Return torsion angles as periodic collective variables [rad], IUPAC sign.

    Each of the three vectors is that to the nearest image in a periodic box; with `molecules`, as for `distance_cv`,
    those within a molecule follow its bonds.
    """
    _check_indices([atom for quadruple in quadruples for atom in quadruple], n_atoms)
    names = [",".join(map(str, quadruple)) for quadruple in quadruples]
    features = _in_molecules(Torsions(list(quadruples), names), molecules, n_atoms)
    return FeatureCV(features, _Angles(), n_atoms, [2 * float(np.pi)] * len(quadruples))


def _in_molecules(features: Features, molecules: Sequence[int] | None, n_atoms: int) -> Features:
    if molecules is not None:
        if len(molecules) != n_atoms:
            raise ModelError(f"molecules are given for {len(molecules)} atoms, the system has {n_atoms}")
        features.join_molecules(molecules)
    return features


def _check_indices(atoms: Sequence[int], n_atoms: int) -> None:
    for atom in atoms:
        if not 0 <= atom < n_atoms:
            raise ModelError(f"atom {atom} does not exist: the system has atoms 0 to {n_atoms - 1}")


class SingleFrameCV(nn.Module):
    """The collective variables of one frame: positions (n_atoms, 3) [nm] -> (dim,).

    A second argument is the box (3, 3) [nm] of a periodic system, in OpenMM's reduced form: vectors between molecules,
    which are whole, are then those to the nearest image.
    """

    def __init__(self, cv: CollectiveVariables) -> None:
        super().__init__()
        self.cv = cv

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Return collective variables, shape (dim,)."""
        cell = torch.empty(0) if box is None else box.unsqueeze(0)
        return self.cv(positions.unsqueeze(0), cell)[0]


def export_cv(cv: CollectiveVariables, path: Path) -> None:
    """Write a TorchScript file of the collective variables: positions (n_atoms, 3) and box (3, 3) [nm] -> (dim,).

    The box may be left out where there is none.
    """
    with atomic_file(path) as temporary:
        torchscript.save(torchscript.script(SingleFrameCV(cv).eval()), str(temporary))
