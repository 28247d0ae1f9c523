"""Trained collective variables for PLUMED: a TorchScript file and an input that computes its descriptors."""

from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor, nn

from latf_openmm.errors import ModelError
from latf_openmm.features import FeatureSettings
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.md.latent_cv import latent_cv
from latf_openmm.model.checkpoint import TrainedModel
from latf_openmm.storage import whole_file, write_text
from latf_openmm.units import SCALES

_HEADER = """\
# Collective variables of latf-openmm {version}, for PLUMED 2.9 or later with its module pytorch.
# Atom numbers are those of the training topology ({n_atoms} atoms), counted from 1.
# model.pt was written with torch {torch}; PLUMED looks for it in the working directory.
UNITS LENGTH=nm ENERGY=kj/mol TIME=ps
"""

_FOOTER = """
latent: PYTORCH_MODEL FILE=model.pt ARG={arguments}
PRINT ARG={nodes} STRIDE=100 FILE=COLVAR

# A bias along them, for example:
# opes: OPES_METAD ARG={nodes} TEMP={temperature:.6g} PACE=500 BARRIER={barrier:.3g}
# PRINT ARG={nodes},opes.bias STRIDE=100 FILE=COLVAR
"""


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
        Whether distances are those of the nearest images, where PLUMED has a box; False: never (NOPBC).

    Raises
    ------
    ModelError
        If a kind of descriptor has no PLUMED form.
    """
    text = plumed_input(trained, periodic)
    cv = latent_cv(trained)
    model = DescriptorsToLatent(cv.network, cv.features.n_features, cv.dim).eval()
    with whole_file(folder / "model.pt") as temporary:
        torch.jit.script(model).save(str(temporary))
    write_text(folder / "plumed.dat", text)


def plumed_input(trained: TrainedModel, periodic: bool = True) -> str:
    """Return the text of ``plumed.dat``; see `export_plumed`."""
    import latf_openmm

    lines: list[str] = []
    arguments: list[str] = []
    for number, settings in enumerate(trained.features, start=1):
        more, outputs = descriptor_lines(settings, f"f{number}", "" if periodic else " NOPBC")
        lines += more
        arguments += outputs
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


@singledispatch
def descriptor_lines(settings: FeatureSettings, label: str, nopbc: str) -> tuple[list[str], list[str]]:
    """PLUMED's lines for the descriptors of one feature.

    Parameters
    ----------
    settings
        Resolved settings of the feature.
    label
        What the labels of the lines begin with.
    nopbc
        Flag of the actions that would otherwise use the nearest image.

    Returns
    -------
    tuple
        The lines, and the PLUMED names of the descriptors in their order.
    """
    kind = getattr(settings, "kind", type(settings).__name__)
    raise ModelError(f"descriptors of kind {kind!r} have no PLUMED form")


@descriptor_lines.register
def _distances(settings: DistanceSettings, label: str, nopbc: str) -> tuple[list[str], list[str]]:
    pairs = settings.pairs or []
    names = [f"{label}_d{index}" for index in range(1, len(pairs) + 1)]
    comments = settings.names or [""] * len(pairs)
    lines = [
        f"{name}: DISTANCE ATOMS={_numbers(pair)}{nopbc}{_comment(comment)}"
        for name, pair, comment in zip(names, pairs, comments, strict=True)
    ]
    return lines, names


@descriptor_lines.register
def _torsions(settings: TorsionSettings, label: str, nopbc: str) -> tuple[list[str], list[str]]:
    atoms = settings.atoms or []
    comments = settings.names or [""] * len(atoms)
    lines: list[str] = []
    for index, (quadruple, comment) in enumerate(zip(atoms, comments, strict=True), start=1):
        angle = f"{label}_t{index}"
        lines += [f"{angle}: TORSION ATOMS={_numbers(quadruple)}{nopbc}{_comment(comment)}"]
        lines += [f"{angle}_{f}: CUSTOM ARG={angle} FUNC={f}(x) PERIODIC=NO" for f in ("sin", "cos")]
    return lines, [f"{label}_t{index + 1}_{f}" for f in ("sin", "cos") for index in range(len(atoms))]


@descriptor_lines.register
def _coordination(settings: CoordinationSettings, label: str, nopbc: str) -> tuple[list[str], list[str]]:
    atoms = settings.atoms or []
    # The function itself: PLUMED's RATIONAL is by default stretched to end at a finite distance.
    switch = f"SWITCH={{CUSTOM FUNC=1/(1+x2^{settings.exponent // 2}) R_0={settings.r0!r}}}"
    names = [f"{label}_c{index}" for index in range(1, len(atoms) + 1)]
    lines = [
        f"{name}: COORDINATION GROUPA={_numbers([atom])} "
        f"GROUPB={_numbers([other for other in atoms if other != atom])} {switch}{nopbc}"
        for name, atom in zip(names, atoms, strict=True)
    ]
    lines += [f"{label}_sorted: SORT ARG={','.join(names)}"]
    return lines, [f"{label}_sorted.{index}" for index in range(1, len(atoms) + 1)]


@descriptor_lines.register
def _coordinates(settings: CoordinateSettings, label: str, nopbc: str) -> tuple[list[str], list[str]]:
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
