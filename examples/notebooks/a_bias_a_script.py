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
# # Bias an OpenMM script along a learned variable
#
# A short simulation of alanine dipeptide, collective variables learned from it, and an ordinary OpenMM script
# with a bias along them. Everything is short, so numbers mean little.

# %%
import tempfile
from pathlib import Path

import latf_openmm as latf  # before openmm
import matplotlib.pyplot as plt
import openmm
import pandas as pd
from openmm import app, unit


folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Learn
#
# One round of the library's short configuration, with less training: it simulates at 300 and 600 K without a
# bias, and trains.

# %%
config = latf.load_config("alanine_dipeptide/fast")
fewer = {"initial_states": 8, "refinements": 3, "epochs_joint": 4, "epochs_flow": 6, "pairs_per_epoch": 6000}
config = config.model_copy(
    update={
        "loop": config.loop.model_copy(update={"rounds": 1}),
        "simulation": config.simulation.model_copy(
            update={"platform": "CPU", "platform_properties": {"Threads": "1"}}
        ),
        "training": config.training.model_copy(update=fewer),
    }
)
with latf.make_progress() as progress:
    run = latf.run_loop(config, folder / "run", progress)
run

# %%
trained = run.trained(0)
trained

# %% [markdown]
# What the two variables are: frames in them, coloured by state, and the flow's free energy at 300 K.

# %%
pool = latf.reweighter_of_round(run, 0).pool
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
latf.plotting.latent_frames(pool, ax=axes[0])
_ = latf.plotting.free_energy_surface(latf.flow_free_energy(trained, 300.0), ax=axes[1])

# %% [markdown]
# ## Bias
#
# The script is an ordinary one but for the lines between the rules.

# %%
pdb = app.PDBFile(str(latf.library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"))
field = app.ForceField("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
system = field.createSystem(pdb.topology, constraints=app.HBonds)

# ----------------------------------------------------------------------
cv = latf.latent_cv(trained)
bias = latf.OpesSettings(barrier=25, pace=100).build(latf.bias_context(trained, 300 * unit.kelvin))
system = latf.add_bias(system, cv, bias)
reporters = [latf.LatentReporter(folder / "z.csv", 20, cv, bias), latf.BiasUpdater(cv, bias)]
# ----------------------------------------------------------------------

integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
platform = openmm.Platform.getPlatformByName("CPU")
simulation = app.Simulation(pdb.topology, system, integrator, platform, {"Threads": "1"})
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.reporters += reporters
simulation.step(15_000)

# %% [markdown]
# ## Undo the bias
#
# Frames weigh exp((V - offset) / kT). The errors are standard errors by a bootstrap of blocks; bands are two of
# them.

# %%
table = pd.read_csv(folder / "z.csv")
z = table[["z0", "z1"]].to_numpy()
biased = latf.BiasedRun(
    z, kT=2.494, bias_energy=table["bias_energy"].to_numpy(), offset=table["bias_offset"].to_numpy()
)
sample = latf.weighted(biased, burn_in=0.1)
print(f"{len(sample.z)} frames, {sample.sample_size:.0f} effectively")

# %%
grid = latf.LatentGrid.around(z, points=20)
surface = latf.free_energy_surface(sample, grid)
profile = latf.free_energy_surface(sample, latf.LatentGrid(grid.edges[:1]))

fig, axes = plt.subplots(1, 3, figsize=(13.5, 3.6), layout="constrained")
axes[0].plot(table["time_ps"], table["z0"], lw=0.5)
axes[0].set(xlabel="time [ps]", ylabel="z0")
latf.plotting.free_energy_surface(surface, ax=axes[1])
_ = latf.plotting.free_energy_profile(profile, ax=axes[2])
