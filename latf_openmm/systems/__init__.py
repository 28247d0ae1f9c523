"""Systems: one file for each kind; the structure files and configurations are in `systems/`."""

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from latf_openmm.settings import family
from latf_openmm.systems.base import (
    BuiltSystem,
    SystemSettings,
    WeightedConfigurations,
    shared_system,
    system_differences,
    system_files,
)
from latf_openmm.systems.library import library_folder, library_names, library_root

SYSTEM_KINDS = family(SystemSettings, __name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnySystem = SystemSettings
else:
    AnySystem = Annotated[Union[tuple(SYSTEM_KINDS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = [
    "SYSTEM_KINDS",
    "AnySystem",
    "BuiltSystem",
    "SystemSettings",
    "WeightedConfigurations",
    "library_folder",
    "library_names",
    "library_root",
    "shared_system",
    "system_differences",
    "system_files",
]
