"""Extension of Griffe, which reads docstrings in files: those of settings get the keys that importing them adds."""

import sys
from typing import Any

import griffe

from latf_openmm.settings import Settings
from latf_openmm.settings_reference import REQUIRED


class SettingsDocstrings(griffe.Extension):
    """Docstrings of settings as `help` shows them; the modules of settings are imported by the other pages."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Take the docstring of a class of settings from the class itself."""
        imported = getattr(sys.modules.get(cls.module.path), cls.name, None)
        if cls.docstring is not None and isinstance(imported, type) and issubclass(imported, Settings):
            # A parameter without a default is required; "X, required" would be read as a tuple of types.
            cls.docstring.value = (imported.__doc__ or "").replace(f", {REQUIRED}\n", "\n")
