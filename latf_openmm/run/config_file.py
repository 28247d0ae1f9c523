"""The text of a configuration, before anything of it is understood."""

from pathlib import Path
from typing import Any

import yaml

from latf_openmm.errors import ConfigError, DamagedRunError
from latf_openmm.run.schema import RECORD, check_config, read_run
from latf_openmm.storage import CONFIG


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values, not validated yet.

    Raises
    ------
    ConfigError
        If it cannot be read, or is something else.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        text = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise ConfigError(f"{path}: not valid YAML: {text}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if data is None:
        raise ConfigError(f"{path}: expected a mapping of keys to values, the file is empty")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    return data


def read_run_config(folder: Path) -> dict[str, Any]:
    """Read the configuration in the folder of a run, not validated yet.

    Raises
    ------
    ConfigError
        If it is not the folder of a run, or one of another schema; `DamagedRunError` if the configuration or the record
        of the run is damaged.
    """
    file = folder / CONFIG
    if not file.is_file():
        if (folder / RECORD).is_file():
            raise DamagedRunError(f"{file}: missing; restore it from a copy")
        raise ConfigError(f"{folder}: not the folder of a run (config.yaml is missing)")
    check_config(file, read_run(folder))
    return read_config(file)
