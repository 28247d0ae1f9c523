"""Latent Thermodynamic Flows for OpenMM.

Learn collective variables from trajectories at a few temperatures, bias OpenMM along them, iterate,
and generate ensembles at temperatures that were never simulated.

The public names are those of ``__init__.pyi``; they are imported when first used.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, _public = lazy_loader.attach_stub(__name__, __file__)

__all__ = ["__version__", *_public]  # noqa: PLE0604 - the names are strings


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
