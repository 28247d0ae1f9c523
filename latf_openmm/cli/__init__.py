"""The command line: each command parses, calls one function of the library, prints what it returns."""

# The order of the commands in the help.
# isort: off
from latf_openmm.cli.application import app, main
from latf_openmm.cli import setup
from latf_openmm.cli import keys
from latf_openmm.cli import runs
from latf_openmm.cli import ensembles
from latf_openmm.cli import steps
# isort: on

__all__ = ["app", "ensembles", "keys", "main", "runs", "setup", "steps"]
