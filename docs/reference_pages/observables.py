"""Page on the observables, from their classes."""

import html

from latf_openmm.ensembles.observables import OBSERVABLES
from latf_openmm.settings_reference import about


def observables() -> str:
    """Every observable with its unit and meaning."""
    lines = [
        "# Observables",
        "",
        "Of `latf-openmm observe`, and those of structures of `latf-openmm states` too. "
        "Values of a population are shares between 0 and 1; a function of a file has the unit that it has.",
        "",
        "| name | unit | |",
        "|---|---|---|",
    ]
    for cls in OBSERVABLES.values():
        text = html.escape(" ".join(about(cls).split()), quote=False)
        lines.append(f"| `{cls.form()}` | {cls.unit or '-'} | {text} |")
    return "\n".join(lines) + "\n"
