"""Observables: numbers of an ensemble, most of them means over its structures; one file for each kind."""

import importlib
import inspect
import pkgutil

import mdtraj

from latf_openmm.ensembles.observables.base import Measured, Observable, StructureObservable
from latf_openmm.ensembles.observables.python_file import function_of_file
from latf_openmm.errors import ConfigError


def _kinds() -> dict[str, type[Observable]]:
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    classes = [cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)]
    kinds = [cls for cls in classes if issubclass(cls, Observable) and not inspect.isabstract(cls)]
    return {cls.kind: cls for cls in sorted(kinds, key=lambda cls: cls.kind)}


OBSERVABLES = _kinds()
"""All observables by their kind."""


def named_observable(name: str, reference: mdtraj.Trajectory) -> Observable:
    """Return the observable that a name asks for, after a trial with one structure: simulations may follow.

    Parameters
    ----------
    name
        A kind, ``population:STATE``, ``free_energy:STATE:STATE`` (of the second over the first), or
        ``FILE.py:FUNCTION``: a function of an MDTraj trajectory that returns one number for each frame.
    reference
        Structure for the RMSD and the native contacts.

    Raises
    ------
    ConfigError
        If there is no such observable, the file has no such function, or it gives no number for `reference`.
    """
    for cls in OBSERVABLES.values():
        if cls.accepts(name):
            observable = cls(name, reference)
            if isinstance(observable, StructureObservable):
                observable(reference)
            return observable
    known = ", ".join(cls.form() for cls in OBSERVABLES.values())
    raise ConfigError(f"--observable: there is no {name!r}; expected one of {known}")


def structure_observable(name: str, reference: mdtraj.Trajectory) -> StructureObservable:
    """Return the function of a trajectory that a name asks for; see `named_observable`.

    Raises
    ------
    ConfigError
        As `named_observable`, or if it is no function of single structures.
    """
    observable = named_observable(name, reference)
    if not isinstance(observable, StructureObservable):
        raise ConfigError(f"--observable: {name} is not a function of single structures")
    return observable


def check_observable(name: str, reference: mdtraj.Trajectory, n_states: int) -> None:
    """Raise `ConfigError` if a name stands for nothing, or for a state that the model does not have."""
    named_observable(name, reference).check(n_states)


def observable_title(name: str) -> str:
    """Return the name of an observable for people: of a function in a file, the function's.

    Examples
    --------
    >>> observable_title("rg")
    'radius of gyration, mass-weighted'
    >>> observable_title("/some/where/observables.py:folded")
    'folded'
    >>> observable_title("heat_capacity")
    'heat capacity'
    """
    title = OBSERVABLES[name].title if name in OBSERVABLES else ""
    return title or (name.partition(".py:")[2] or name).replace("_", " ")


__all__ = [
    "OBSERVABLES",
    "Measured",
    "Observable",
    "StructureObservable",
    "check_observable",
    "function_of_file",
    "named_observable",
    "observable_title",
    "structure_observable",
]
