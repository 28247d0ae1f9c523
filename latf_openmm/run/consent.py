"""Code that the configuration in a run folder names: run only after this user has agreed to it.

Whoever names a configuration of his own (`latf-openmm run my.yaml`) agrees to what it runs. The configuration in the
folder of a run may be somebody else's. So what was agreed to is noted outside of all such folders, for each system with
the hashes of its code: another file, or the same one changed, is not run.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from latf_openmm.errors import ConfigError, first_line
from latf_openmm.run.execution import AnyExecution
from latf_openmm.storage import sha256
from latf_openmm.systems import AnySystem

log = logging.getLogger(__name__)

_ASK = "read it; if you trust whoever wrote it, give --trust once, or run a configuration of your own"
"""End of messages: the ways out."""


def consents() -> Path:
    """Folder of what this user has agreed to: a file for each."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "latf-openmm" / "trusted"


def check_system(where: Path, folder: Path, system: AnySystem, trust: bool) -> None:
    """Raise `ConfigError` where a system runs code that this user has not agreed to.

    Parameters
    ----------
    where
        Configuration that names the system.
    folder
        Of the run; code in it is never run.
    trust
        Whether this user agrees now, which is noted.
    """
    check_outside(where, folder, system)
    files = ", ".join(map(str, system.code()))
    if missing := [path for path in system.code() if not path.is_file()]:
        raise ConfigError(f"{where}: system: {missing[0]}: no such file")
    if trust:
        agree_to_system(system)
    elif files and not _agreed(_of_system(system)):
        raise ConfigError(
            f"{where}: system: it runs code of {files}, which you have not run from here, or which has changed since; "
            f"{_ASK}"
        )


def check_outside(where: Path, folder: Path, system: AnySystem) -> None:
    """Raise `ConfigError` where code of a system lies in the folder of the run."""
    for code in system.code():
        if code.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{where}: system: {code} is code in the folder of a run itself; it is not run")


def check_execution(where: Path, execution: AnyExecution, trust: bool) -> None:
    """Raise `ConfigError` where starting workers runs shell lines that this user has not agreed to."""
    if trust:
        agree_to_execution(execution)
    elif execution.shell_lines() and not _agreed(_of_execution(execution)):
        raise ConfigError(
            f"{where}: execution: it has shell lines, {execution.shell_lines()[0]!r}, that you have not run before; "
            f"{_ASK}"
        )


def agree_to_system(system: AnySystem) -> None:
    """Note that this user runs the code of a system, as it is now."""
    if system.code():
        _agree(_of_system(system))


def agree_to_execution(execution: AnyExecution) -> None:
    """Note that this user runs the shell lines of an execution."""
    if execution.shell_lines():
        _agree(_of_execution(execution))


def _of_system(system: AnySystem) -> dict[str, Any]:
    """Return what is agreed to: the settings, since they say which function is called, and the code.

    Settings that have their defaults are left out, so that a later version with more of them asks nothing.
    """
    settings = {"kind": system.kind, **system.model_dump(mode="json", exclude_defaults=True)}
    files = {str(path.resolve()): sha256(path) if path.is_file() else None for path in system.code()}
    return {"system": settings, "code": files}


def _of_execution(execution: AnyExecution) -> dict[str, Any]:
    return {"shell_lines": list(execution.shell_lines())}


def _file(what: dict[str, Any]) -> Path:
    text = json.dumps(what, sort_keys=True)
    return consents() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _agreed(what: dict[str, Any]) -> bool:
    try:
        return _file(what).is_file()
    except (OSError, RuntimeError):  # nobody's home
        return False


def _agree(what: dict[str, Any]) -> None:
    """Note it: that the file exists is what counts. A home that cannot be written does not stop a run."""
    try:
        if not _agreed(what):
            path = _file(what)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")
    except (OSError, RuntimeError) as error:
        log.warning("commands on this run will need --trust: this cannot be noted (%s)", first_line(error))
