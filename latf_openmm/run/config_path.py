"""Where a configuration is that was named, without what reads it."""

from pathlib import Path

from latf_openmm.errors import ConfigError
from latf_openmm.systems import library_folder, library_names


def config_path(source: str | Path) -> Path:
    """Return the file `source` names, directly or as a system of the library (``lj7``, ``lj7/fast``)."""
    path = Path(source)
    if path.is_file():
        return path
    if str(source) and path.is_dir():
        raise ConfigError(f"{source}: this is a folder; expected a YAML file, or a system of the library")
    name, _, variant = str(source).partition("/")
    if name in library_names():
        candidate = library_folder(name) / f"{variant or 'loop'}.yaml"
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"{source}: no such file, and no configuration of that name in the library ({', '.join(library_names())})"
    )
