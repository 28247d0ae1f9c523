"""Export of a bias, as it is now, for production scripts that need no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import latf_openmm
from latf_openmm.bias.compiled.program import BOX
from latf_openmm.bias.compiled.program_file import to_bytes
from latf_openmm.bias.cv import CollectiveVariables
from latf_openmm.bias.exported import FACTS, FORMAT, PROGRAM, STATE
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.force.compiled import program_of
from latf_openmm.bias.potentials import Bias
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.errors import ModelError
from latf_openmm.storage import atomic_folder, check_output

_UNITS = {"positions": "nm", "energy": "kJ/mol", "forces": "kJ/mol/nm"}
"""Of what the program takes and gives."""


def export_bias(
    cv: CollectiveVariables,
    bias: Bias,
    folder: Path | str,
    *,
    periodic: bool,
    atoms: Sequence[str] = (),
    temperature: float | None = None,
    temperature_scale: str = "K",
) -> None:
    """Write V(cv(positions)) into a new folder, to be read by `latf_openmm.load_exported_bias`.

    The folder holds operations and numbers, and no code. An adaptive bias is written as it is now, and does not change
    any more.

    Parameters
    ----------
    cv, bias
        As for `latf_openmm.add_bias`.
    folder
        Must not exist.
    periodic
        Whether the System that is to be biased has a box.
    atoms
        Labels of all atoms, such as ``ALA2-CA``, to be compared with a topology later; empty: they are not.
    temperature, temperature_scale
        What the bias was built for, to be kept with it.

    Raises
    ------
    ConfigError
        If the folder exists.
    ModelError
        If the bias has an operation that cannot be exported, or the labels are not those of `cv`.
    """
    path = Path(folder)
    check_output(path, folder=True, new="an exported bias is never overwritten")
    if atoms and len(atoms) != cv.n_atoms:
        raise ModelError(f"{len(atoms)} labels of atoms for collective variables of {cv.n_atoms} atoms")
    program = program_of(BiasEnergy(cv, bias), periodic)
    facts = {
        "format": FORMAT,
        "latf_openmm": latf_openmm.__version__,
        "bias": type(bias).__name__,
        "frozen": isinstance(bias, AdaptiveBias),
        "temperature": temperature,
        "temperature_scale": temperature_scale,
        "units": _UNITS,
        "n_atoms": cv.n_atoms,
        "used_atoms": program.atoms.tolist(),
        "atoms": list(atoms),
        "collective_variables": cv.dim,
        "periodic": periodic,
        "uses_box": program.reads(BOX),
    }
    with atomic_folder(path) as temporary:
        (temporary / PROGRAM).write_bytes(to_bytes(program))
        np.save(temporary / STATE, bias.state.numpy().astype(np.float64))
        (temporary / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
