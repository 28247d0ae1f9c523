"""The configuration that `latf-openmm init` writes, with places for values."""

from collections.abc import Mapping
from typing import Any

SPACING = {
    True: "  # With solvent, energies overlap between close temperatures only; farther ones are the flow's guess.",
    False: "  # Neighbours should overlap in energy; `latf-openmm generate` says how many frames reach a temperature.",
}
"""Comment on the temperatures, by whether there is solvent."""

KEYS_COMMENT = (
    "# latf-openmm keys lists all keys; latf-openmm keys bias.opes says what those of one place mean."
)
"""Comment of configurations that users begin with."""

_TEMPLATE = """\
# Written by latf-openmm init. Every value is a proposal: read it, change it, then
#   latf-openmm run THIS_FILE --output RUN
{keys}
# {atoms} atoms; {platform} takes {speed} steps a second here ({day} ns a day for one walker at {timestep} ps).
# Steps a second for one walker, were nothing else at work: {speeds}.
# One round of simulation, as proposed, takes about {time}; a biased round takes longer. Training comes on top.
system:
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
  segment_frames: 500     # frames between checkpoints
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


def fill_template(values: Mapping[str, Any]) -> str:
    """Return the configuration with these values; `system` and `features` are sections in YAML."""
    return _TEMPLATE.format(
        keys=KEYS_COMMENT, **{key: _indented(key, value) for key, value in values.items()}
    )


def _indented(key: str, value: Any) -> Any:
    if key not in ("system", "features"):
        return value
    return "\n".join("  " + line for line in str(value).strip().splitlines())
