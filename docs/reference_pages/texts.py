"""Pages made of texts that lie elsewhere in the repository."""

import re
from pathlib import Path

from latf_openmm.systems import library_names

ROOT = Path(__file__).parents[2]
"""Folder of the repository."""


def library() -> str:
    """The systems of the library, by the texts beside their files."""
    texts = [(ROOT / "systems" / name / "README.md").read_text(encoding="utf-8") for name in library_names()]
    return "# Systems of the library\n\n" + "\n".join(re.sub("^#", "##", text, flags=re.M) for text in texts)


def citation() -> str:
    """Page on citation, with the file that says so."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return (
        "# Citation\n\nIf you use this package, cite it and the papers whose methods you used. The method, Latent "
        "Thermodynamic Flows, is by Qiu, John, Herron and Tiwary; this package is an independent implementation and "
        "extension. `CITATION.cff` has the details:\n\n```yaml\n" + text + "```\n\nThe licence is MIT.\n"
    )


def text_of(name: str) -> str:
    """Text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")
