# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The loop on alanine dipeptide
#
# Simulate at two temperatures, train, choose the next start structures, simulate again with a bias along what was
# learned. A killed run goes on where it was: run the cell again. Settings are short here, so numbers mean little;
# `alanine_dipeptide` in place of this text is the whole thing.

# %%
import tempfile
from pathlib import Path

import latf_openmm as latf
import matplotlib.pyplot as plt

folder = Path(tempfile.mkdtemp())

# %%
(folder / "loop.yaml").write_text(
    """
system: {kind: alanine_dipeptide}
seed: 1
simulation:
  temperatures: [300, 600]  # K
  walkers: 2                # at each temperature
  frames: 150
  frame_interval: 50        # steps: 0.1 ps
  timestep: 0.002           # ps
  friction: 1.0             # 1/ps
  equilibration: 500
  processes: 2
  platform: CPU
  platform_properties: {Threads: "1"}
features:
  - {kind: torsions, angles: [phi, psi]}
  - {kind: distances, selection: "element != H", minimum_bonds: 3}
model: {latent_dim: 2, encoder_hidden: [32], tau: 2.0}
training: {lag: 5, initial_states: 8, refinements: 3, restarts: 1, committee: 3,
           epochs_joint: 4, epochs_flow: 6, pairs_per_epoch: 6000}
bias: {kind: opes, barrier: 20.0, pace: 100}  # kJ/mol
loop: {rounds: 2}
generate: {temperatures: [350, 400, 500], samples: 2000}
"""
)
config = latf.load_config(folder / "loop.yaml")

# %%
with latf.make_progress() as progress:
    run = latf.run_loop(config, folder / "run", progress)

# %% [markdown]
# A run shows itself: rounds, populations of the frames, what comes next. So do its models.

# %%
run

# %%
trained = run.trained(1)
trained

# %% [markdown]
# ## Training
#
# The held-out loss of each stage, and how many states are left.

# %%
history = run.last_round().history()
fig, axes = plt.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
for axis, quantity in zip(axes, ("prediction", "divergence", "n_states"), strict=True):
    latf.plotting.training_curve(history, quantity, ax=axis)

# %% [markdown]
# ## Free energies at any temperature
#
# The flow gives F_T(z) in closed form, simulated temperature or not; its committee gives the error.

# %%
fig, axes = plt.subplots(1, 3, figsize=(13.5, 3.4), layout="constrained")
for axis, temperature in zip(axes, (300.0, 400.0, 600.0), strict=True):
    latf.plotting.free_energy_surface(latf.flow_free_energy(trained, temperature), ax=axis)
    axis.set_title(f"{temperature:g} K")

# %% [markdown]
# ## Populations
#
# Those of the frames at the two temperatures, in the record of the round, and those of weighted structures
# between.

# %%
ensembles = latf.ensembles_at(run, 1, [300, 350, 400, 450, 500, 600], method="reweighted")
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
frames = latf.plotting.Populations.of_rows(run.last_round().summary().populations, run.scale)
latf.plotting.populations(frames, ax=axes[0])
axes[0].set_title("frames")
latf.plotting.populations(ensembles, ax=axes[1])
_ = axes[1].set_title("reweighted")

# %% [markdown]
# ## What an answer rests on, and what would make it better

# %%
ensembles[2]

# %%
latf.explain(run, 400.0)

# %% [markdown]
# `latf.write_report(run, run.last_round().index)` puts all of it on one page.
