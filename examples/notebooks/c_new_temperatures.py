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
# # Structures at new temperatures from two simulations
#
# Two simulations of alanine dipeptide, written by OpenMM as XTC with tables of their energies, are all there is.
# From them come structures with weights, free energies, energies and populations at temperatures between, each
# with an error. They are short, so numbers mean little.

# %%
import tempfile
from pathlib import Path

import latf_openmm as latf  # before openmm
import matplotlib.pyplot as plt
import mdtraj
import numpy as np
import openmm
from openmm import app, unit


folder = Path(tempfile.mkdtemp())
structure = latf.library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"

# %% [markdown]
# ## Two simulations
#
# Any script will do. The table has a row for each frame.

# %%
pdb = app.PDBFile(str(structure))
field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
system = field.createSystem(pdb.topology, constraints=app.HBonds, hydrogenMass=3 * unit.amu)
platform = openmm.Platform.getPlatformByName("CPU")
for kelvin in (300, 450):
    integrator = openmm.LangevinMiddleIntegrator(kelvin, 1 / unit.picosecond, 4 * unit.femtosecond)
    simulation = app.Simulation(pdb.topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(kelvin, 1)
    simulation.step(500)
    simulation.reporters.append(app.XTCReporter(str(folder / f"md_{kelvin}.xtc"), 100))
    energies = app.StateDataReporter(
        str(folder / f"md_{kelvin}.csv"), 100, potentialEnergy=True, temperature=True
    )
    simulation.reporters.append(energies)
    simulation.step(50_000)

# %% [markdown]
# ## From trajectories to a run
#
# The configuration says what the system is, how the frames were made, and what to learn.

# %%
(folder / "dipeptide.yaml").write_text(
    f"""
system:
  kind: structure
  structure: {structure}
  force_field: [amber14-all.xml]
  options: {{hydrogen_mass: 3.0, implicit: obc2}}
seed: 1
simulation:
  temperatures: [300, 450]  # K
  walkers: 1
  frames: 500
  frame_interval: 100       # steps
  timestep: 0.004           # ps
  friction: 1.0
features:
  - {{kind: torsions, angles: [phi, psi]}}
  - {{kind: distances, selection: "element != H", minimum_bonds: 3}}
training: {{lag: 3, initial_states: 8, refinements: 3, restarts: 1, committee: 2,
           epochs_joint: 4, epochs_flow: 6, pairs_per_epoch: 6000}}
generate: {{temperatures: [375], samples: 2000}}
"""
)
given = [
    latf.ImportedTrajectory(folder / f"md_{kelvin}.xtc", kelvin, table=folder / f"md_{kelvin}.csv")
    for kelvin in (300, 450)
]
with latf.make_progress() as progress:
    run = latf.import_run(latf.load_config(folder / "dipeptide.yaml"), given, folder / "run", progress)
run

# %% [markdown]
# ## Any temperature between
#
# `method="auto"` would anneal walkers where frames are too few; here frames are reweighted, and nothing is
# simulated.

# %%
temperatures = [300, 330, 360, 375, 400, 425, 450]
ensembles = latf.ensembles_at(run, 0, temperatures, method="reweighted")
at_375 = ensembles[3]
at_375

# %%
fig, axes = plt.subplots(1, 3, figsize=(13, 3.5), layout="constrained")
latf.plotting.populations(ensembles, ax=axes[0])
latf.plotting.mean_energy(ensembles, simulated=[300, 450], ax=axes[1])
_ = latf.plotting.heat_capacity(ensembles, simulated=[300, 450], show_legend=False, ax=axes[2])

# %% [markdown]
# ## Free energies of variables of your own
#
# `observe` computes a function of a trajectory for every frame; weights and errors are those of the ensemble.
# Here the two torsions at 375 K, which nobody simulated.

# %%
phi = at_375.observe(lambda frames: mdtraj.compute_phi(frames)[1][:, 0], run.topology())
psi = at_375.observe(lambda frames: mdtraj.compute_psi(frames)[1][:, 0], run.topology())
circle = np.linspace(-np.pi, np.pi, 25)
both = at_375.free_energy(np.stack([phi, psi], axis=1), latf.LatentGrid((circle, circle)))
along_psi = at_375.free_energy(psi, latf.LatentGrid((circle,)))

fig, axes = plt.subplots(1, 3, figsize=(13.5, 3.6), layout="constrained")
names = (r"$\phi$ [rad]", r"$\psi$ [rad]")
latf.plotting.free_energy_surface(both, names=names, ax=axes[0])
latf.plotting.free_energy_error(both, names=names, ax=axes[1])
_ = latf.plotting.free_energy_profile(along_psi, name=names[1], ax=axes[2])

# %% [markdown]
# ## Observables

# %%
observed = latf.observe(run, [300, 350, 400, 450], ["rg"], method="reweighted")
_ = latf.plotting.observable(observed.curves[0], scale=observed.scale, simulated=observed.simulated)

# %% [markdown]
# ## Structures
#
# Ten structures that stand for the ensemble without weights. `latf.write_structures` writes as many as you like,
# with a table of all weighted frames.

# %%
drawn = at_375.trajectory(10, run.topology())
drawn.superpose(drawn)
drawn.save_pdb(str(folder / "drawn.pdb"))
try:
    import py3Dmol
except ImportError:
    print("The package py3Dmol is not installed: pip install py3Dmol shows the structures here.")
else:
    view = py3Dmol.view(width=480, height=320)
    view.addModels((folder / "drawn.pdb").read_text(), "pdb")
    view.setStyle({"stick": {"radius": 0.1}})
    view.zoomTo()
    view.show()
