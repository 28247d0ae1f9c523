"""Page on the command line: what typer says of it."""

import re
import subprocess
import sys

from latf_openmm.reweighting.reliability import MEANINGS

_TITLE = "# Command line\n"
"""First line of the page."""
_CODES = """
| code | meaning |
|---|---|
| 0 | it worked |
| 1 | `doctor`: biasing does not work here; `verify`: something is damaged |
| 2 | wrong input, or a file that cannot be read or written; one line says what |
| 3 | `generate`, `observe`, `states`, `explain`, `compare`: the result is @poor@ (reliability "poor") |
| 3 | `compare`: the runs do not agree |
| 130, 143 | interrupted (SIGINT, SIGTERM); the same command continues |

Results go to standard output. The last line of a command, `Next: ...`, says what to do next. It goes to standard error.
`--quiet` and `--log json` leave it out.
""".replace("@poor@", MEANINGS["poor"])
"""Exit codes, which typer does not know."""
_NOT_SHOWN = (
    r"\*\*Commands\*\*:\n\n(\* .*\n)+\n",  # cut to half a line; the sections follow
    r"\* `--help`: .*\n",
    r"\*\*Options\*\*:\n\n(?=\n)",  # of commands with no other
)
"""Parts of typer's text that are left out."""


def command_line() -> str:
    """Every command with its arguments and options."""
    command = [sys.executable, "-m", "typer", "latf_openmm.cli", "utils", "docs", "--name", "latf-openmm"]
    text = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    for pattern in _NOT_SHOWN:
        text = re.sub(pattern, "", text)
    title, _, rest = text.partition("\n")
    assert title == "# `latf-openmm`"
    return _TITLE + rest.replace("**Usage**", f"{_CODES.strip()}\n\n**Usage**", 1)
