"""Pages made from the code and from files of the repository, whenever the site is built.

The command line is what typer says of it, the configuration comes from the pydantic models, observables and the Python
API from their classes and names, so none of them can be out of date.
"""

from reference_pages.command_line import command_line
from reference_pages.configuration import configuration
from reference_pages.observables import observables
from reference_pages.python_api import GROUPS, python_api
from reference_pages.texts import ROOT, citation, library, text_of


def pages() -> dict[str, str]:
    """Return the text of each generated page by its path in the documentation."""
    return {
        "reference/cli.md": command_line(),
        "reference/configuration.md": configuration(),
        "reference/observables.md": observables(),
        "reference/python.md": python_api(),
        "reference/systems.md": library(),
        "contributing.md": text_of("CONTRIBUTING.md"),
        "changelog.md": text_of("CHANGELOG.md"),
        "citation.md": citation(),
    }


__all__ = ["GROUPS", "ROOT", "pages"]
