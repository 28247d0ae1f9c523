"""The configuration that `latf-openmm init` writes, with places for values."""

from collections.abc import Mapping
from typing import Any

from latf_openmm.systems import BuiltSystem
from latf_openmm.systems.implicit import implicit_solvent

SPACING = {
    True: "  # With solvent, energies overlap between close temperatures only; farther ones are the flow's guess.",
    False: "  # Neighbours should overlap in energy; `latf-openmm generate` says how many frames reach a temperature.",
}
"""Comment on the temperatures, by whether there is solvent."""

KEYS_COMMENT = (
    "# latf-openmm keys lists all keys; latf-openmm keys bias.opes says what those of one place mean."
)
"""Comment of configurations that users begin with."""
_SOLVENTS = {
    "implicit solvent OBC2": """\
# There is no water in the file, so an implicit solvent stands for it: OBC2 (Onufriev, Bashford and Case, 2004), which
# is built into OpenMM and so its fastest. For another one write implicit: none, and add its file to force_field, as
# implicit/gbn2.xml. For vacuum write implicit: none. For explicit water add it and its box to the structure
# (Modeller.addSolvent of OpenMM), and run latf-openmm init on the new file, which writes what belongs to it.
""",
    "implicit solvent of the force field": """\
# There is no water in the file; the implicit solvent is that of force_field. For another one write its file there; for
# OBC2, which is built into OpenMM and so its fastest, leave the file out and write implicit: obc2. For vacuum leave it
# out. For explicit water add it and its box to the structure (Modeller.addSolvent of OpenMM), and run latf-openmm init
# on the new file, which writes what belongs to it.
""",
    "in vacuum": """\
# There is neither a periodic box nor an implicit solvent: these atoms are in vacuum. For an implicit solvent add
# implicit: obc2 to the options; for explicit water run latf-openmm init on files of the solvated molecule with its box.
""",
    "": "",
}
"""What stands for a solvent where there is no box, with the comment on it; nothing for a System with all its forces."""

_TEMPLATE = """\
# Written by latf-openmm init. Every value is a proposal: read it, change it, then
#   latf-openmm run THIS_FILE --output RUN
{keys}
# {atoms} atoms; {platform} takes {speed} steps a second here ({day} ns a day for one walker at {timestep} ps).
# Steps a second for one walker, were nothing else at work: {speeds}.
# One round of simulation, as proposed, takes about {time}; a biased round takes longer. Training comes on top.
{solvent}system:
{system}
seed: 1
simulation:
  # A few temperatures; others are generated from them.
{spacing}
  temperatures: [{temperatures}]
  walkers: 2              # at each temperature
  frames: 2000            # of each walker; lengthen before you believe anything
  frame_interval: {interval}     # steps: {spacing_ps} ps
  timestep: {timestep}         # ps; {masses}
  friction: 1.0           # 1/ps
  equilibration: 5000     # steps, not recorded
  segment_frames: 100     # frames between checkpoints: what a kill costs at most
  processes: {processes}
  platform: {platform}
  # Walkers can move among temperatures, so that cold ones leave their basins; close temperatures exchange most often.
  # tempering: {{kind: exchange, interval: 50}}   # frames; more than training.lag
# What the collective variables are made of; MDTraj's selection language, in which solute is what is neither water nor
# ions nor other solvent, and heavy its atoms without hydrogens. Of more than 200 descriptors those that do not move,
# or say what a slower one says, are left out (see RUN/rounds/000/model/descriptors.csv).
features:
{features}
model:
  latent_dim: 2
  encoder_hidden: [32]
training:
  lag: auto               # found by a scan of lag times
# From the second round on walkers are driven along the learned variables. Such a bias can be stiff: with steps of
# 0.004 ps it warmed a small peptide by up to 3 % (the report names such runs); 0.002 ps is the careful choice.
bias:
  kind: opes
  barrier: 25.0           # kJ/mol
loop:
  rounds: 2
generate:
  temperatures: [{between}]
"""
"""The configuration; values are filled in."""


def solvent_of(system: Mapping[str, Any], built: BuiltSystem) -> str:
    """Name what stands for a solvent; empty with a periodic box, and for a System that is given with all its forces.

    Parameters
    ----------
    system
        The section of the configuration.
    built
        What it says.
    """
    if built.periodic or "options" not in system:
        return ""
    if system["options"].get("implicit", "none") == "obc2":
        return "implicit solvent OBC2"
    return "implicit solvent of the force field" if implicit_solvent(built.system) else "in vacuum"


def fill_template(values: Mapping[str, Any]) -> str:
    """Return the configuration with these values; `system` and `features` are sections in YAML."""
    filled = {key: _indented(key, value) for key, value in values.items()}
    return _TEMPLATE.format(keys=KEYS_COMMENT, **filled | {"solvent": _SOLVENTS[values["solvent"]]})


def _indented(key: str, value: Any) -> Any:
    if key not in ("system", "features"):
        return value
    return "\n".join("  " + line for line in str(value).strip().splitlines())
