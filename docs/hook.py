"""Hook of MkDocs: generated pages, pictures of the benchmarks, formulas.

Formulas between dollar signs become MathML, which browsers draw without a script.
"""

import re
from typing import Any

from reference_pages import ROOT, pages

_BENCHMARKS = "](../../benchmarks/"
"""Begin of a link from a page on benchmarks to what lies beside their scripts."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and the pictures beside the scripts of the benchmarks.

    Files of the reference that say in the plain Markdown what prints it give way to the pages themselves.
    """
    from mkdocs.structure.files import File

    for path, text in pages().items():
        if (plain := files.get_file_from_path(path)) is not None:
            files.remove(plain)
        files.append(File.generated(config, path, content=text))
    for picture in sorted(ROOT.glob("benchmarks/*/*.png")):
        name = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to pictures of benchmarks lead to those of the site; draw the formulas of ``formulas: true`` pages."""
    markdown = markdown.replace(_BENCHMARKS, "](")
    if not page.meta.get("formulas"):
        return markdown
    from latex2mathml.converter import convert

    def drawn(display: str) -> Any:
        return lambda match: convert(" ".join(match.group(1).split()), display=display)

    markdown = re.sub(r"\$\$\n(.+?)\n *\$\$$", drawn("block"), markdown, flags=re.M | re.S)
    return re.sub(r"\$([^$\n]+)\$", drawn("inline"), markdown)
