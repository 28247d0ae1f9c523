"""The only module that makes an `openmm.Context`, so that platforms and their properties are set in one place.

Properties are OpenMM's own (``Precision``, ``DeviceIndex``, ``Threads``, ...; `openmm.Platform.getPropertyNames`).
Those of a configuration hold for what it simulates; those in the environment variable
``LATF_OPENMM_PLATFORM_PROPERTIES`` (``Precision=mixed,DeviceIndex=1``) hold for one process and the processes it
starts, and come first.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import openmm

from latf_openmm.errors import ConfigError, first_line

PROPERTIES_VARIABLE = "LATF_OPENMM_PLATFORM_PROPERTIES"
"""Environment variable with properties that come before those of configurations."""


@dataclass(frozen=True)
class PlatformChoice:
    """A platform, and its properties.

    Parameters
    ----------
    name
        Of the platform.
    properties
        Values of its properties, such as ``{"Precision": "mixed"}``.
    """

    name: str
    properties: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def chosen(name: str, properties: Mapping[str, str] | None = None) -> "PlatformChoice":
        """Return the platform with the properties given and, before them, those of the environment.

        Raises
        ------
        ConfigError
            If there is no such platform here, or it has no such property.
        """
        known = find_platform(name).getPropertyNames()
        given = dict(properties or {})
        environment = parse_properties(os.environ.get(PROPERTIES_VARIABLE, "").split(","))
        for where, names in (("simulation.platform_properties", given), (PROPERTIES_VARIABLE, environment)):
            for item in names:
                if item not in known:
                    listed = ", ".join(known) or "none"
                    raise ConfigError(f"{where}: platform {name} has no property {item!r}; it has {listed}")
        return PlatformChoice(name, given | environment)

    def context(self, system: openmm.System, integrator: openmm.Integrator | None = None) -> openmm.Context:
        """Make a Context.

        Parameters
        ----------
        system
            The System; not copied.
        integrator
            None: one that is never used, for energies and forces alone.

        Raises
        ------
        ConfigError
            If there is no such platform, or the value of a property is not possible.
        """
        integrator = integrator or openmm.VerletIntegrator(0.001)
        properties = dict(self.properties)
        try:
            return openmm.Context(system, integrator, find_platform(self.name), properties)
        except openmm.OpenMMException as error:
            if any(name in str(error) for name in properties):
                text = ", ".join(f"{name}={value}" for name, value in properties.items())
                raise ConfigError(
                    f"simulation.platform_properties: {first_line(error)} (platform {self.name}, {text})"
                ) from error
            raise


def find_platform(name: str) -> openmm.Platform:
    """Return the named platform.

    Raises
    ------
    ConfigError
        If OpenMM has no such platform here; the message lists those there are.
    """
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    if name not in names:
        raise ConfigError(
            f"simulation.platform: OpenMM has no platform {name!r} here; it has {', '.join(names)}"
        )
    return openmm.Platform.getPlatformByName(name)


def parse_properties(items: Iterable[str]) -> dict[str, str]:
    """Return ``NAME=VALUE`` items as a mapping; empty ones are passed over.

    Raises
    ------
    ConfigError
        If one is not of that form.
    """
    properties = {}
    for item in filter(None, map(str.strip, items)):
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"platform property {item!r}: expected NAME=VALUE, such as Precision=mixed")
        properties[name.strip()] = value.strip()
    return properties


def chosen_by_openmm(system: openmm.System) -> str:
    """Return the name of the platform that OpenMM takes for a System where none is named."""
    return str(openmm.Context(system, openmm.VerletIntegrator(0.001)).getPlatform().getName())
