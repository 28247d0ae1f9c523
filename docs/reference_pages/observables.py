"""Page on the observables, from their classes."""

import html
import inspect

from latf_openmm.ensembles.observables import OBSERVABLES


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
        meaning = inspect.cleandoc(cls.__doc__ or "").split("\n\nRaises\n")[0]
        text = html.escape(" ".join(meaning.split()), quote=False)
        lines.append(f"| `{cls.form()}` | {cls.unit or '-'} | {text} |")
    return "\n".join(lines) + "\n"
