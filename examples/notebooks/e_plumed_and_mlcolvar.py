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
# # From PLUMED and mlcolvar, and back
#
# Learned variables go to PLUMED as a model for `PYTORCH_MODEL` with its input; what PLUMED or mlcolvar made comes
# here as a COLVAR file or a TorchScript model. PLUMED itself is not needed to run this notebook.

# %%
import tempfile
from pathlib import Path

import latf_openmm as latf  # before openmm
import mdtraj
import numpy as np
import openmm
import pandas as pd
import torch
from openmm import app, unit

from latf_openmm.bias import torchscript  # torch.jit without its warnings
from latf_openmm.run.imported.tables import read_table

folder = Path(tempfile.mkdtemp())
structure = latf.library_folder("alanine_dipeptide") / "alanine_dipeptide.pdb"

# %% [markdown]
# ## A model to export

# %%
config = latf.load_config("alanine_dipeptide/fast")
fewer = {"initial_states": 6, "refinements": 2, "epochs_joint": 3, "epochs_flow": 3, "pairs_per_epoch": 4000}
config = config.model_copy(
    update={
        "loop": config.loop.model_copy(update={"rounds": 1}),
        "simulation": config.simulation.model_copy(
            update={"frames": 120, "platform": "CPU", "platform_properties": {"Threads": "1"}}
        ),
        "training": config.training.model_copy(update=fewer),
    }
)
with latf.make_progress() as progress:
    run = latf.run_loop(config, folder / "run", progress)
trained = run.trained(0)
trained

# %% [markdown]
# ## To PLUMED
#
# `model.pt` takes the descriptors that `plumed.dat` computes. On the command line: `latf-openmm export RUN
# --plumed --output PLUMED`.

# %%
latf.export_plumed(trained, folder / "PLUMED", periodic=False)
lines = (folder / "PLUMED" / "plumed.dat").read_text().splitlines()
print("\n".join(line if len(line) < 100 else f"{line[:97]}..." for line in [*lines[:8], "...", *lines[-7:]]))

# %% [markdown]
# ## As TorchScript of positions
#
# The other export takes positions in nm and gives z, for any program that reads TorchScript. Both give the same
# numbers.

# %%
latf.export_cv(latf.latent_cv(trained), folder / "cv.pt")
positions = torch.tensor(mdtraj.load(str(structure)).xyz[0], dtype=torch.float64)
of_positions = torchscript.load(str(folder / "cv.pt"))(positions)

features = trained.feature_module()(positions[None], torch.empty(0))
of_descriptors = torchscript.load(str(folder / "PLUMED" / "model.pt"))(features)
print(of_positions.tolist(), of_descriptors[0].tolist())

# %% [markdown]
# ## From mlcolvar: a model as a collective variable
#
# A TorchScript model on descriptors, as mlcolvar saves them, is a network for `FeatureCV`; one on positions is a
# `ModuleCV`. Where mlcolvar is not installed a small torch network stands in for it.

# %%
try:
    from mlcolvar.core import FeedForward

    network = FeedForward([4, 8, 1]).double()
except ImportError:
    print("The package mlcolvar is not installed: a small network of torch stands in for its model.")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()

# %% [markdown]
# Its inputs here are sines and cosines of phi and psi. It is biased as any variable is.

# %%
topology = run.topology()
torsions = latf.build_features(
    latf.resolve_features([latf.TorsionSettings(angles=["phi", "psi"])], topology)
).double()
theirs = latf.FeatureCV(torsions, network, topology.n_atoms)
settings = latf.MetadynamicsSettings(sigma=0.1, height=1.2, bias_factor=8, pace=100, low=[-2.0], high=[2.0])
bias = settings.build(latf.cv_context([0.0], 300 * unit.kelvin))

pdb = app.PDBFile(str(structure))
field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
system = latf.add_bias(field.createSystem(pdb.topology, constraints=app.HBonds), theirs, bias)
integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
platform = openmm.Platform.getPlatformByName("CPU")
simulation = app.Simulation(pdb.topology, system, integrator, platform, {"Threads": "1"})
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.reporters += [
    latf.LatentReporter(folder / "theirs.csv", 20, theirs, bias),
    latf.BiasUpdater(theirs, bias),
]
simulation.step(8000)
print("Gaussians:", int(bias.sent))

# %% [markdown]
# ## From PLUMED: a COLVAR file
#
# Columns keep PLUMED's names, and units are those of its header or its defaults: `read_table` is what the import
# of trajectories uses. This file is written here as PLUMED would write it, with a bias of metadynamics and its
# c(t).

# %%
z = pd.read_csv(folder / "theirs.csv")
colvar = np.column_stack([z["time_ps"], z["z0"], z["bias_energy"], z["bias_offset"]])
np.savetxt(
    folder / "COLVAR",
    colvar,
    header="! FIELDS time ann.node-0 metad.bias metad.rct",
    comments="#",
    fmt="%.6f",
)
table = read_table(folder / "COLVAR")
{name: values[:3].round(3).tolist() for name, values in table.columns.items()}

# %% [markdown]
# Frames weigh exp((V - c(t)) / kT), whoever made them.

# %%
columns = table.columns
biased = latf.BiasedRun(
    columns["ann.node-0"][:, None], kT=2.494, bias_energy=columns["metad.bias"], offset=columns["metad.rct"]
)
sample = latf.weighted(biased, burn_in=0.2)
surface = latf.free_energy_surface(sample, latf.LatentGrid.around(sample.z, points=25))
_ = latf.plotting.free_energy_profile(surface, name="ann.node-0")

# %% [markdown]
# Whole runs of PLUMED come as trajectories with `--table COLVAR`: `latf-openmm import`, or
# `latf.ImportedTrajectory(..., table=...)`.
