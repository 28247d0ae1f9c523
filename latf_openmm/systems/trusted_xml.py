"""XML of OpenMM read without running code that somebody else put into it.

OpenMM unpickles what an XML holds of a `PythonForce` as it reads it, chooses what to read by an attribute and not by
the name of the element, and a force field runs its scripts. So files are parsed here first, without entities, and what
OpenMM gets is written anew from what was seen.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import openmm
from openmm import app

from latf_openmm.errors import ConfigError, DataError, first_line

_CODE = ("PythonForce",)
"""Types of OpenMM that run code as they are read."""
_SCRIPT = "script"
"""Ending of the tags of force-field elements that hold Python."""
_TRUST = "if you trust whoever wrote it, say trust: true in the system section"
"""Advice where a file can run code."""


def read_state(path: Path) -> openmm.State:
    """Read a State that OpenMM has written as XML, and nothing else.

    Raises
    ------
    DataError
        If the file holds something else, or cannot be read.
    """
    try:
        root = _parse(path)
        _check_root(root, "State")
        for element in root.iter():
            if element is not root and "type" in element.attrib:
                raise ValueError(f"it has a {element.get('type')}; a State has no parts with a type")
        return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    except Exception as error:  # each library has its own
        raise DataError(f"{path}: not the XML of a State ({first_line(error)})") from error


def read_system(key: str, path: Path, trust: bool) -> openmm.System:
    """Read a System that OpenMM has written as XML.

    Parameters
    ----------
    key
        Of the configuration.
    trust
        Whether forces may bring code: a `PythonForce`, and those of plugins (TorchScript, PLUMED's scripts).

    Raises
    ------
    ConfigError
        If it has such forces and is not trusted, or is something else than a System.
    """
    try:
        root = _parse(path)
        _check_root(root, "System")
        if not trust and (kinds := sorted(set(_types_with_code(root)))):
            raise ConfigError(f"{key}: {path}: {', '.join(kinds)} can run code as it is read; {_TRUST}")
        return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    except ConfigError:
        raise
    except Exception as error:  # OpenMM's, expat's, and the operating system's
        raise ConfigError(
            f"{key}: {path} cannot be read as the XML of a System ({first_line(error)})"
        ) from error


def check_force_fields(names: Sequence[str]) -> None:
    """Raise `ConfigError` where a force-field file that did not come with OpenMM holds scripts, which OpenMM would run.

    Parameters
    ----------
    names
        As given to `openmm.app.ForceField`; files they include are looked at too.
    """
    for path, root in own_force_fields(names).items():
        scripts = [element.tag for element in root.iter() if str(element.tag).lower().endswith(_SCRIPT)]
        if scripts:
            raise ConfigError(
                f"system.force_field: {path}: <{scripts[0]}> is Python that would be run; {_TRUST}"
            )


def own_force_fields(names: Sequence[str]) -> dict[Path, ElementTree.Element]:
    """Roots of the force-field files, with those they include, that did not come with OpenMM.

    Raises
    ------
    ConfigError
        If one cannot be read.
    """
    left = [Path(name) for name in names]
    roots: dict[Path, ElementTree.Element] = {}
    while left:
        path = left.pop()
        if (
            path in roots or not path.is_file() or _comes_with_openmm(path)
        ):  # OpenMM looks for the others at home
            continue
        try:
            roots[path] = _parse(path)
        except (ValueError, OSError, expat.ExpatError) as error:
            raise ConfigError(f"system.force_field: {path} cannot be read ({first_line(error)})") from error
        for name in (element.get("file", "") for element in roots[path].iter("Include")):
            left += [path.parent / name, Path(name)]
    return roots


def _comes_with_openmm(path: Path) -> bool:
    return path.resolve().is_relative_to(Path(app.__file__).resolve().parent / "data")


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an XML file without a document type, so without entities."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    with path.open("rb") as file:
        parser.ParseFile(file)
    return builder.close()


def _refuse_doctype(*_: Any) -> None:
    raise ValueError("it has a document type declaration, which OpenMM does not write")


def _check_root(root: ElementTree.Element, kind: str) -> None:
    if root.tag != kind or root.get("type") != kind:
        raise ValueError(f"it is a <{root.tag}> of type {root.get('type')!r}; expected a {kind}")


def _types_with_code(root: ElementTree.Element) -> Iterator[str]:
    """Types of all parts that are not OpenMM's own, or bring code."""
    for element in root.iter():
        name = element.get("type")
        if element is root or name is None or not name.isidentifier():  # numbers are parameters
            continue
        kind = getattr(openmm, name, None)
        is_openmm = isinstance(kind, type) and kind.__module__ == openmm.openmm.__name__
        if not is_openmm or name in _CODE:
            yield name
