"""Latent Thermodynamic Flows for OpenMM.

Learn collective variables from trajectories at a few temperatures, bias OpenMM along them, iterate,
and generate ensembles at temperatures that were never simulated.

The public names are those of ``__init__.pyi``; they are imported when first used.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, _public = lazy_loader.attach_stub(__name__, __file__)

__all__ = ["__version__", *_public]  # noqa: PLE0604 - the names are strings


class _TorchFirst(MetaPathFinder):
    """Imports torch when openmm is first imported, and not before: ``--help`` needs neither.

    The TorchForce plugin links against libtorch, and finds it beside openmm. Where torch is in another folder, it has
    to be in the process before openmm loads the plugin.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Find nothing; others find openmm."""
        if fullname == "openmm":
            sys.meta_path.remove(self)
            plugin, torch, openmm = (_folder(name) for name in ("openmmtorch", "torch", "openmm"))
            if plugin is not None and torch != openmm:
                importlib.import_module("torch")


def _folder(module: str) -> Path | None:
    """Folder that holds a module, which is not imported; None: there is none."""
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parents[1]


if "openmm" not in sys.modules:
    sys.meta_path.insert(0, _TorchFirst())
