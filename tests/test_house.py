"""Rules of the house that linters do not know."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "latf_openmm"
FILES = sorted(PACKAGE.rglob("*.py"))
DIALECT = {"found", "one", "own", "mine", "here", "there", "whole", "made", "together"}
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
AN_INDIRECT_QUESTION = re.compile(r"(What|How|Whether|Where|Of)\b")


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that are bound: variables, arguments, functions, attributes of classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


def constants_without_a_word(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Upper-case names of a module that neither a comment in their lines nor a text below them describes."""
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        flat = [part for t in targets for part in (t.elts if isinstance(t, ast.Tuple) else [t])]
        described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        for target in flat:
            if isinstance(target, ast.Name) and CONSTANT.fullmatch(target.id) and not described:
                yield target.id, node.lineno


def docstrings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
            yield text, node.lineno


def longest(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and body[-1].end_lineno and body[-1].end_lineno - body[0].lineno + 1 > 40:
                yield node.name, node.lineno


def problems(path: Path) -> list[str]:
    text = path.read_text()
    tree, lines = ast.parse(text), text.splitlines()
    said = [f"{line}: name {name!r}" for name, line in names(tree) if name in DIALECT]
    said += [
        f"{line}: {name} says nowhere what it is"
        for name, line in constants_without_a_word(tree)
        if "#" not in lines[line - 1]
    ]
    said += [
        f"{line}: docstring begins with {text.split()[0]!r}"
        for text, line in docstrings(tree)
        if AN_INDIRECT_QUESTION.match(text)
    ]
    said += [f"{line}: {name} has more than 40 lines" for name, line in longest(tree)]
    if len(lines) > 400:
        said.append(f"{len(lines)} lines, expected 400 or fewer")
    contexts = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "openmm.Context"
    ]
    if contexts and path.name != "contexts.py":
        said.append(f"{contexts[0]}: makes an openmm.Context; use sampling.contexts")
    return said


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_words_and_sizes(path: Path) -> None:
    assert not problems(path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_edge_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert not prints or path.name == "probes.py"
