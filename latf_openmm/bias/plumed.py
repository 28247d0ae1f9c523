"""Trained collective variables for PLUMED: a TorchScript file and an input that computes its descriptors."""

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor, nn

from latf_openmm.bias import torchscript
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.errors import ModelError
from latf_openmm.features import FeatureSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.storage import atomic_file, write_text
from latf_openmm.units import SCALES

_HEADER = """\
# Collective variables of latf-openmm {version}, for PLUMED 2.9 or later with its module pytorch.
# Atom numbers are those of the training topology ({n_atoms} atoms), counted from 1.
# model.pt was written with torch {torch}; PLUMED looks for it in the working directory.
UNITS LENGTH=nm ENERGY=kj/mol TIME=ps
"""
"""First lines of the PLUMED input."""

_FOOTER = """
latent: PYTORCH_MODEL FILE=model.pt ARG={arguments}
PRINT ARG={nodes} STRIDE=100 FILE=COLVAR

# A bias along them, for example:
# opes: OPES_METAD ARG={nodes} TEMP={temperature:.6g} PACE=500 BARRIER={barrier:.3g}
# PRINT ARG={nodes},opes.bias STRIDE=100 FILE=COLVAR
"""
"""Last lines of the PLUMED input."""


class DescriptorsToLatent(nn.Module):
    """Descriptors -> z, as PYTORCH_MODEL calls it: (n, n_features) or (n_features,), in any precision.

    The network itself works in double precision; z has the shape and precision of the descriptors.
    """

    def __init__(self, network: nn.Module, n_features: int, latent_dim: int) -> None:
        super().__init__()
        self.network = network
        self.n_features = n_features
        self.latent_dim = latent_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return z, shape (n, latent_dim) or (latent_dim,)."""
        z = self.network(x.reshape(-1, self.n_features).to(torch.float64)).to(x.dtype)
        return z if x.dim() > 1 else z.reshape(self.latent_dim)


def export_plumed(trained: TrainedModel, folder: Path, periodic: bool = True) -> None:
    """Write ``model.pt`` and ``plumed.dat`` into `folder`, made if missing.

    ``plumed.dat`` computes the descriptors, gives them to ``model.pt`` by PYTORCH_MODEL and prints the
    collective variables; an example of a bias along them stands there as a comment. PLUMED hands numbers
    over in single precision.

    Parameters
    ----------
    trained
        The model.
    folder
        Where to write.
    periodic
        Whether distances between molecules are those of the nearest images, where PLUMED has a box; False: never
        (NOPBC). Molecules are made whole first, and within them there is no image (NOPBC).

    Raises
    ------
    ModelError
        If a kind of descriptor has no PLUMED form.
    """
    text = plumed_input(trained, periodic)
    cv = latent_cv(trained)
    model = DescriptorsToLatent(cv.network, cv.features.n_features, cv.dim).eval()
    with atomic_file(folder / "model.pt") as temporary:
        torchscript.save(torchscript.script(model), str(temporary))
    write_text(folder / "plumed.dat", text)


def plumed_input(trained: TrainedModel, periodic: bool = True) -> str:
    """Return the text of ``plumed.dat``; see `export_plumed`."""
    import latf_openmm

    lines: list[str] = []
    arguments: list[str] = []
    images = Images(trained.molecules, periodic)
    for number, settings in enumerate(trained.features, start=1):
        more, outputs = descriptor_lines(settings, f"f{number}", images)
        lines += more
        arguments += outputs
    lines = images.whole_molecules() + lines
    scale, temperature = SCALES[trained.temperature_scale], trained.model.reference_temperature
    header = _HEADER.format(
        version=latf_openmm.__version__, n_atoms=len(trained.atoms), torch=torch.__version__
    )
    footer = _FOOTER.format(
        arguments=",".join(arguments),
        nodes=",".join(f"latent.node-{index}" for index in range(trained.model.latent_dim)),
        temperature=scale.kelvin(temperature),
        barrier=12.0 * scale.kT(temperature),
    )
    return header + "\n" + "\n".join(lines) + "\n" + footer


class Images:
    """Which vectors PLUMED takes to the nearest image: those between molecules, where there is a box.

    Parameters
    ----------
    molecules
        Index of the molecule of each atom; None: not known, all vectors are those to the nearest image.
    periodic
        Whether there is a box.
    """

    def __init__(self, molecules: Sequence[int] | None, periodic: bool) -> None:
        self.molecules, self.periodic = molecules, periodic
        self.joined: set[int] = set()

    def flag(self, atoms: Sequence[int]) -> str:
        """Return the flag of an action on these atoms: one molecule, made whole, or several."""
        if not self.periodic:
            return " NOPBC"
        owners = set() if self.molecules is None else {self.molecules[atom] for atom in atoms}
        if len(owners) != 1:
            return ""
        self.joined |= owners
        return " NOPBC"

    def partners(self, atom: int, others: Sequence[int]) -> list[list[int]]:
        """Divide atoms into those in the same molecule as `atom` and those of others; empty parts are left out."""
        if self.molecules is None or not self.periodic:
            return [list(others)]
        owner = self.molecules[atom]
        parts = [
            [other for other in others if (self.molecules[other] == owner) == same] for same in (True, False)
        ]
        return [part for part in parts if part]

    def whole_molecules(self) -> list[str]:
        """Line that makes molecules whole, where any flag needs that."""
        if not self.joined or self.molecules is None:
            return []
        entities = []
        for index, molecule in enumerate(sorted(self.joined)):
            atoms = [atom for atom, owner in enumerate(self.molecules) if owner == molecule]
            entities.append(f"ENTITY{index}={_ranges(atoms)}")
        return [f"WHOLEMOLECULES {' '.join(entities)}"]


def _ranges(atoms: Sequence[int]) -> str:
    """Numbers from 1, runs as ``1-22``."""
    runs: list[list[int]] = []
    for atom in atoms:
        if runs and runs[-1][1] == atom - 1:
            runs[-1][1] = atom
        else:
            runs.append([atom, atom])
    return ",".join(f"{a + 1}-{b + 1}" if b > a else f"{a + 1}" for a, b in runs)


@singledispatch
def descriptor_lines(settings: FeatureSettings, label: str, images: Images) -> tuple[list[str], list[str]]:
    """PLUMED's lines for the descriptors of one feature.

    Parameters
    ----------
    settings
        Resolved settings of the feature.
    label
        What the labels of the lines begin with.
    images
        Says which actions use the nearest image.

    Returns
    -------
    tuple
        The lines, and the PLUMED names of the descriptors in their order.
    """
    kind = getattr(settings, "kind", type(settings).__name__)
    raise ModelError(f"descriptors of kind {kind!r} have no PLUMED form")


@descriptor_lines.register
def _distances(settings: DistanceSettings, label: str, images: Images) -> tuple[list[str], list[str]]:
    pairs = settings.pairs or []
    names = [f"{label}_d{index}" for index in range(1, len(pairs) + 1)]
    comments = settings.names or [""] * len(pairs)
    lines = [
        f"{name}: DISTANCE ATOMS={_numbers(pair)}{images.flag(pair)}{_comment(comment)}"
        for name, pair, comment in zip(names, pairs, comments, strict=True)
    ]
    return lines, names


@descriptor_lines.register
def _torsions(settings: TorsionSettings, label: str, images: Images) -> tuple[list[str], list[str]]:
    atoms = settings.atoms or []
    comments = settings.names or [""] * len(atoms)
    lines: list[str] = []
    for index, (quadruple, comment) in enumerate(zip(atoms, comments, strict=True), start=1):
        angle = f"{label}_t{index}"
        lines += [f"{angle}: TORSION ATOMS={_numbers(quadruple)}{images.flag(quadruple)}{_comment(comment)}"]
        lines += [f"{angle}_{f}: CUSTOM ARG={angle} FUNC={f}(x) PERIODIC=NO" for f in ("sin", "cos")]
    return lines, [f"{label}_t{index + 1}_{f}" for f in ("sin", "cos") for index in range(len(atoms))]


@descriptor_lines.register
def _coordination(settings: CoordinationSettings, label: str, images: Images) -> tuple[list[str], list[str]]:
    atoms = settings.atoms or []
    # The function itself: PLUMED's RATIONAL is by default stretched to end at a finite distance.
    switch = f"SWITCH={{CUSTOM FUNC=1/(1+x2^{settings.exponent // 2}) R_0={settings.r0!r}}}"
    names = [f"{label}_c{index}" for index in range(1, len(atoms) + 1)]
    lines: list[str] = []
    for name, atom in zip(names, atoms, strict=True):
        groups = images.partners(atom, [other for other in atoms if other != atom])
        parts = [name] if len(groups) == 1 else [f"{name}_{part}" for part in ("inside", "outside")]
        lines += [
            f"{part}: COORDINATION GROUPA={_numbers([atom])} GROUPB={_numbers(group)} {switch}"
            f"{images.flag([atom, *group])}"
            for part, group in zip(parts, groups, strict=True)
        ]
        if len(parts) > 1:
            lines.append(f"{name}: COMBINE ARG={','.join(parts)} PERIODIC=NO")
    lines += [f"{label}_sorted: SORT ARG={','.join(names)}"]
    return lines, [f"{label}_sorted.{index}" for index in range(1, len(atoms) + 1)]


@descriptor_lines.register
def _coordinates(settings: CoordinateSettings, label: str, images: Images) -> tuple[list[str], list[str]]:
    atoms = settings.atoms or []
    names = [f"{label}_p{index}" for index in range(1, len(atoms) + 1)]
    lines = [
        f"{name}: POSITION ATOM={_numbers([atom])} NOPBC" for name, atom in zip(names, atoms, strict=True)
    ]
    return lines, [f"{name}.{axis}" for name in names for axis in settings.axes]


def _numbers(atoms: list[int] | tuple[int, ...]) -> str:
    return ",".join(str(atom + 1) for atom in atoms)


def _comment(name: str) -> str:
    return f"  # {' '.join(name.split())}" if name else ""
