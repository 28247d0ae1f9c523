"""Modules beside a Python file that it imports: code that runs with it, found without running any."""

import ast
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path


def modules_beside(file: Path) -> list[Path]:
    """Return the modules in the folder of a Python file that it imports, and those that these import, sorted.

    Imports are read, not run: ``import a``, ``from a.b import c``, ``from . import a`` and ``import_module("a")`` with
    a text, wherever they stand in the file. Modules elsewhere, such as those of packages that are installed, and
    imports by names that are computed are not found.

    Parameters
    ----------
    file
        The file; one that is missing, or is not Python, imports nothing.
    """
    folder = file.resolve().parent
    modules: set[Path] = set()
    left = [file.resolve()]
    while left:
        importing = left.pop()
        package = importing.parent.relative_to(folder).parts
        new = {path for name in _imports(importing, package) for path in _files(folder, name)} - modules
        modules |= new
        left += new
    return sorted(modules - {file.resolve()})


def _imports(file: Path, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Names of what a file of a package imports, as parts: of ``from a import b`` that of ``a.b``, a module or not."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_parts(alias.name, 0, package) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _parts(node.module or "", node.level, package)
            yield from ((*module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if isinstance(name, str):
                yield _parts(name.lstrip("."), len(name) - len(name.lstrip(".")), package)


def _parts(name: str, level: int, package: tuple[str, ...]) -> tuple[str, ...]:
    """Parts of a name that has `level` dots before it in a module of a package."""
    above = package[: max(0, len(package) - level + 1)] if level else ()
    return (*above, *filter(None, name.split(".")))


def _files(folder: Path, name: tuple[str, ...]) -> Iterator[Path]:
    """Files below a folder that are run where the module with this name is imported: its own, and its packages'."""
    for depth in range(1, len(name) + 1):
        stem = folder.joinpath(*name[:depth])
        for suffix in all_suffixes():
            for path in (stem.with_name(f"{stem.name}{suffix}"), stem / f"__init__{suffix}"):
                if path.is_file():
                    yield path
