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
    "BiasContext": "latf_openmm.md.bias",
    "BiasUpdater": "latf_openmm.md.updater",
    "BiasedRun": "latf_openmm.data.biased_run",
    "FeatureCV": "latf_openmm.md.cv",
    "ImportedTrajectory": "latf_openmm.imported",
    "LatentReporter": "latf_openmm.md.reporter",
    "ModuleCV": "latf_openmm.md.cv",
    "MultistepStepper": "latf_openmm.md.multistep",
    "RunConfig": "latf_openmm.config",
    "RunFolder": "latf_openmm.run_folder",
    "UmbrellaSettings": "latf_openmm.md.window_plan",
    "UmbrellaWindows": "latf_openmm.md.windows",
    "add_bias": "latf_openmm.md.biased_system",
    "bias_context": "latf_openmm.md.bias.base",
    "combine": "latf_openmm.analysis.mbar",
    "cv_context": "latf_openmm.md.bias.base",
    "distance_cv": "latf_openmm.md.cv",
    "ensemble_at": "latf_openmm.analysis.ensemble_maker",
    "ensembles_at": "latf_openmm.refine",
    "export_cv": "latf_openmm.md.cv",
    "fit": "latf_openmm.training.fit",
    "free_energy_difference": "latf_openmm.analysis.surface",
    "free_energy_surface": "latf_openmm.analysis.surface",
    "generate": "latf_openmm.analysis.generate",
    "langevin_integrator": "latf_openmm.md.langevin",
    "import_run": "latf_openmm.imported",
    "latent_cv": "latf_openmm.md.latent_cv",
    "load_bias": "latf_openmm.md.updater",
    "load_config": "latf_openmm.config",
    "load_model": "latf_openmm.model.checkpoint",
    "many_copies": "latf_openmm.systems.copies",
    "run_loop": "latf_openmm.workflow",
    "save_model": "latf_openmm.model.checkpoint",
    "torsion_cv": "latf_openmm.md.cv",
    "weighted": "latf_openmm.analysis.weighted",
    "window_centres": "latf_openmm.md.window_plan",
    "window_runs": "latf_openmm.md.window_samples",
    "write_ensemble": "latf_openmm.analysis.generate",
    "write_report": "latf_openmm.report",
    "write_structures": "latf_openmm.analysis.ensemble_files",
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
