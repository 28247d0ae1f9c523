"""Latent Thermodynamic Flows for OpenMM.

Learn collective variables from trajectories at a few temperatures, bias OpenMM along them, iterate,
and generate ensembles at temperatures that were never simulated.

The names in ``__all__`` are the public ones; they are imported when first used.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from latf_openmm.errors import LatfError

__version__ = "0.1.0"

_PUBLIC = {
    "BiasContext": "latf_openmm.bias.potentials",
    "BiasUpdater": "latf_openmm.bias.updater",
    "BiasedRun": "latf_openmm.reweighting.biased_run",
    "FeatureCV": "latf_openmm.bias.cv",
    "ImportedTrajectory": "latf_openmm.run.imported",
    "LatentReporter": "latf_openmm.bias.reporter",
    "ModuleCV": "latf_openmm.bias.cv",
    "MultistepStepper": "latf_openmm.bias.multistep",
    "RunConfig": "latf_openmm.run.config",
    "RunFolder": "latf_openmm.run.folder",
    "UmbrellaSettings": "latf_openmm.sampling.umbrella.plan",
    "UmbrellaWindows": "latf_openmm.sampling.umbrella.umbrella_windows",
    "add_bias": "latf_openmm.bias.biased_system",
    "bias_context": "latf_openmm.bias.potentials.base",
    "combine": "latf_openmm.reweighting.mbar",
    "cv_context": "latf_openmm.bias.potentials.base",
    "distance_cv": "latf_openmm.bias.cv",
    "ensemble_at": "latf_openmm.ensembles.reweighter",
    "ensembles_at": "latf_openmm.run.annealed",
    "export_cv": "latf_openmm.bias.cv",
    "fit": "latf_openmm.training.fit",
    "free_energy_difference": "latf_openmm.reweighting.surface",
    "free_energy_surface": "latf_openmm.reweighting.surface",
    "generate": "latf_openmm.ensembles.latent",
    "langevin_integrator": "latf_openmm.sampling.langevin",
    "import_run": "latf_openmm.run.imported",
    "latent_cv": "latf_openmm.bias.latent_cv",
    "load_bias": "latf_openmm.bias.updater",
    "load_config": "latf_openmm.run.config",
    "load_model": "latf_openmm.model.checkpoint",
    "many_copies": "latf_openmm.systems.copies",
    "run_loop": "latf_openmm.run.loop",
    "save_model": "latf_openmm.model.checkpoint",
    "torsion_cv": "latf_openmm.bias.cv",
    "weighted": "latf_openmm.reweighting.weighted",
    "window_centres": "latf_openmm.sampling.umbrella.plan",
    "window_runs": "latf_openmm.sampling.umbrella.samples",
    "write_ensemble": "latf_openmm.ensembles.latent",
    "write_report": "latf_openmm.report",
    "write_structures": "latf_openmm.ensembles.files",
}

__all__ = ["LatfError", "__version__", *_PUBLIC]  # noqa: PLE0604 - the keys are strings


class _TorchFirst(MetaPathFinder):
    """Imports torch when openmm is first imported, and not before: ``--help`` needs neither.

    The TorchForce plugin links against libtorch. Where torch does not lie beside openmm in one environment, openmm
    fails to load the plugin unless libtorch is already in the process.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Find nothing; others find openmm."""
        if fullname == "openmm":
            sys.meta_path.remove(self)
            importlib.import_module("torch")


if "openmm" not in sys.modules:
    sys.meta_path.insert(0, _TorchFirst())


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'latf_openmm' has no attribute {name!r}")
