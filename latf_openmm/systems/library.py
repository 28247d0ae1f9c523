"""Where the `systems/` folder is: inside the installed wheel, or at the top of the checkout."""

from pathlib import Path

from latf_openmm.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the installed package."""


def library_root() -> Path:
    """Return the folder that holds one folder for each system."""
    for root in (_PACKAGE / "system_library", _PACKAGE.parent / "systems"):
        if (root / "three_hole").is_dir():
            return root
    raise ConfigError(f"the systems library is missing from this installation (looked beside {_PACKAGE})")


def library_folder(name: str) -> Path:
    """Return the folder of one system of the library.

    Raises
    ------
    ConfigError
        If there is no such system; the message lists those there are.
    """
    folder = library_root() / name
    if not folder.is_dir():
        raise ConfigError(f"no system named {name!r}; the library has: {', '.join(library_names())}")
    return folder


def library_names() -> list[str]:
    """Names of the systems in the library."""
    return sorted(path.name for path in library_root().iterdir() if (path / "loop.yaml").is_file())
