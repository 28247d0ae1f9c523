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
# # Your own trajectories, and what is checked
#
# Trajectories that you have are the first round of a run. Before anything is trained, atoms, times, boxes,
# energies and temperatures are checked, and a mistake ends with one line that says what contradicts what. This
# notebook makes the mistakes on purpose.

# %%
import shutil
import tempfile
from pathlib import Path

import latf_openmm as latf  # before openmm
import openmm
import pandas as pd
from openmm import app, unit


folder = Path(tempfile.mkdtemp())
_ = shutil.copy(latf.library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb", folder / "dipeptide.pdb")

# %% [markdown]
# Say these are yours: two simulations with DCD files and tables of energies.

# %%
pdb = app.PDBFile(str(folder / "dipeptide.pdb"))
field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
system = field.createSystem(pdb.topology, constraints=app.HBonds, hydrogenMass=3 * unit.amu)
platform = openmm.Platform.getPlatformByName("CPU")
for kelvin in (300, 450):
    integrator = openmm.LangevinMiddleIntegrator(kelvin, 1 / unit.picosecond, 4 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(pdb.topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(kelvin, 1)
    simulation.step(500)
    simulation.reporters.append(app.DCDReporter(str(folder / f"md_{kelvin}.dcd"), 50))
    energies = app.StateDataReporter(str(folder / f"md_{kelvin}.csv"), 50, potentialEnergy=True)
    simulation.reporters.append(energies)
    simulation.step(12_500)

# %%
configuration = """
system:
  kind: structure
  structure: dipeptide.pdb
  force_field: [amber14-all.xml]
  options: {hydrogen_mass: 3.0, implicit: obc2}
seed: 1
simulation:
  temperatures: [300, 450]  # K
  walkers: 1
  frames: 250
  frame_interval: 50        # steps, as in the script
  timestep: 0.004           # ps, as in the script
  friction: 1.0
features:
  - {kind: torsions, angles: [phi, psi]}
training: {lag: 4, initial_states: 6, refinements: 2, restarts: 1, committee: 2,
           epochs_joint: 3, epochs_flow: 4, pairs_per_epoch: 4000}
generate: {temperatures: [375], samples: 1000}
"""
_ = (folder / "dipeptide.yaml").write_text(configuration)
config = latf.load_config(folder / "dipeptide.yaml")


def attempt(*given: latf.ImportedTrajectory, config: latf.RunConfig = config) -> None:
    """Import into a folder that is thrown away, and print what is said against it."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            latf.import_run(config, list(given), Path(scratch) / "attempt")
    except latf.LatfError as error:
        print(str(error).replace(f"{folder}/", ""))


def trajectory(kelvin: int, temperature: float, table: str | None = None) -> latf.ImportedTrajectory:
    """One of the two trajectories, said to be of a temperature."""
    file = folder / (table or f"md_{kelvin}.csv")
    return latf.ImportedTrajectory(folder / f"md_{kelvin}.dcd", temperature, table=file)


# %% [markdown]
# ## Temperatures exchanged

# %%
attempt(trajectory(300, 450), trajectory(450, 300))

# %% [markdown]
# ## Energies in another unit

# %%
table = pd.read_csv(folder / "md_300.csv")
kcal = table.iloc[:, 0].rename("potential_energy") / 4.184
kcal.to_csv(folder / "kcal.csv", index=False)
attempt(trajectory(300, 300, "kcal.csv"), trajectory(450, 450))

# %% [markdown]
# ## One file twice

# %%
attempt(trajectory(300, 300), trajectory(300, 300), trajectory(450, 450))

# %% [markdown]
# ## Another interval than the one the frames have

# %%
(folder / "interval.yaml").write_text(configuration.replace("frame_interval: 50 ", "frame_interval: 5 "))
attempt(trajectory(300, 300), trajectory(450, 450), config=latf.load_config(folder / "interval.yaml"))

# %% [markdown]
# ## A file that was cut off

# %%
(folder / "cut.dcd").write_bytes((folder / "md_300.dcd").read_bytes()[:-150])
attempt(latf.ImportedTrajectory(folder / "cut.dcd", 300, table=folder / "md_300.csv"), trajectory(450, 450))

# %% [markdown]
# ## And nothing wrong

# %%
with latf.make_progress() as progress:
    run = latf.import_run(config, [trajectory(300, 300), trajectory(450, 450)], folder / "run", progress)
run

# %% [markdown]
# ## Are the temperatures in equilibrium with each other?
#
# Energies say how shares of states change with temperature, so frames of two temperatures can contradict each
# other. The certificate names states that walkers hardly entered, and those whose share cannot be right; in runs so
# short there are some.

# %%
latf.reweighter_of_round(run, 0).certificate

# %%
(ensemble,) = latf.ensembles_at(run, 0, [375], method="reweighted")
ensemble

# %% [markdown]
# All that is checked is on one page of the documentation, "What is checked".
