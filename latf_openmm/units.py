"""Conversion between OpenMM quantities, temperature scales and plain floats; nothing else converts.

Inside the package all numbers are plain floats in OpenMM's MD units: nm, ps, kJ/mol, amu. A temperature
is a float in the *temperature scale* of its system: kelvin for molecules, reduced units for model
potentials (whose energy unit is mapped to 1 kJ/mol, length to 1 nm and mass to 1 amu, so that the reduced
time unit is 1 ps).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from openmm import unit

from latf_openmm.errors import ConfigError

GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
"""Molar gas constant [kJ/mol/K]."""
KILOCALORIE, ELECTRONVOLT = 4.184, 96.48533212
"""A kilocalorie and an electronvolt a particle [kJ/mol]."""


def factor_of_calories(ratio: float, near: float) -> float | None:
    """Return 4.184 or its inverse where a ratio of energies is that within a factor `near`, or None.

    Examples
    --------
    >>> factor_of_calories(4.0, 1.15), factor_of_calories(3.0, 1.15)
    (4.184, None)
    """
    for factor in (KILOCALORIE, 1.0 / KILOCALORIE):
        if 1.0 / near < ratio / factor < near:
            return factor
    return None


@dataclass(frozen=True)
class TemperatureScale:
    """A unit of temperature and its meaning.

    Parameters
    ----------
    name
        ``"K"`` or ``"reduced"``.
    boltzmann
        Energy of k_B times one unit of temperature [kJ/mol].

    Examples
    --------
    >>> round(KELVIN.kT(300.0), 4)
    2.4943
    >>> REDUCED.kT(0.5)
    0.5
    >>> round(REDUCED.kelvin(0.5), 3)
    60.136
    """

    name: str
    boltzmann: float

    def kT(self, temperature: float) -> float:  # noqa: N802 - the field's own name
        """Thermal energy k_B T [kJ/mol].

        Raises
        ------
        ConfigError
            If the temperature is not a positive number.
        """
        if not 0 < temperature < math.inf:
            raise ConfigError(f"temperature: expected a positive number, got {temperature:g}")
        return self.boltzmann * temperature

    def kelvin(self, temperature: float) -> float:
        """Temperature in kelvin, as OpenMM's integrators want it."""
        return self.kT(temperature) / GAS_CONSTANT

    def label(self, temperature: float) -> str:
        """Text for people, for example ``300 K`` or ``T = 0.2``."""
        return f"{temperature:g} K" if self.name == "K" else f"T = {temperature:g}"

    def duration(self, picoseconds: float) -> str:
        """Return simulated time for people.

        Examples
        --------
        >>> KELVIN.duration(240.0), KELVIN.duration(2500.0), REDUCED.duration(2500.0)
        ('240 ps', '2.5 ns', '2,500 time units')
        """
        if self.name != "K":
            return f"{picoseconds:,.0f} time units"
        return f"{picoseconds:.3g} ps" if picoseconds < 1000 else f"{picoseconds / 1000:.3g} ns"

    def speed(self, steps_per_second: float, timestep: float) -> str:
        """Return the speed of a simulation for people; `timestep` in ps.

        Examples
        --------
        >>> KELVIN.speed(1000.0, 0.002), REDUCED.speed(12345.6, 0.01)
        ('173 ns/day', '12,300 steps/s')
        """
        if self.name == "K":
            return f"{steps_per_second * timestep * 86.4:.3g} ns/day"
        return f"{float(f'{steps_per_second:.3g}'):,.0f} steps/s"

    @property
    def axis_label(self) -> str:
        """Label of an axis of temperatures."""
        return "T [K]" if self.name == "K" else "T (reduced)"

    @property
    def suffix(self) -> str:
        """Unit after a temperature and its error."""
        return " K" if self.name == "K" else ""

    def unit_of(self, of_molecules: str) -> str:
        """Return the unit of an observable; energies of model potentials are reduced.

        Examples
        --------
        >>> KELVIN.unit_of("kJ/mol"), REDUCED.unit_of("kJ/mol"), REDUCED.unit_of("k_B")
        ('kJ/mol', 'reduced', 'k_B')
        """
        return "reduced" if of_molecules == "kJ/mol" and self.name != "K" else of_molecules

    def energy_label(self, name: str) -> str:
        """Label of an axis of energies.

        Examples
        --------
        >>> KELVIN.energy_label("F"), REDUCED.energy_label("F")
        ('F [kJ/mol]', 'F (reduced)')
        """
        return f"{name} [kJ/mol]" if self.name == "K" else f"{name} (reduced)"


KELVIN = TemperatureScale("K", GAS_CONSTANT)
"""Temperatures in kelvin."""
REDUCED = TemperatureScale("reduced", 1.0)
"""Reduced temperatures: kT = T kJ/mol."""
SCALES = {scale.name: scale for scale in (KELVIN, REDUCED)}
"""Scales of temperature by their names."""


def temperature_name(temperature: float) -> str:
    """Return what folders of a temperature are called; two temperatures never share a name.

    Examples
    --------
    >>> [temperature_name(t) for t in (300.0, 0.7, 0.70000004)]
    ['T300', 'T0.7', 'T0.70000004']
    """
    short = f"{temperature:g}"
    return f"T{short if float(short) == temperature else repr(float(temperature))}"


def check_temperature(where: str, temperature: float) -> None:
    """Raise `ConfigError` where a temperature is not one; `where` the user gave it."""
    if not 0 < temperature < math.inf:
        finite = "" if math.isfinite(temperature) else "finite and "
        raise ConfigError(f"{where}: must be {finite}above 0, got {temperature:g}")


def plain(value: Any, md_unit: unit.Unit, name: str) -> float:
    """Return a plain float in `md_unit` from a number (taken as it is) or an OpenMM quantity; `name` the user gave it.

    Raises
    ------
    ConfigError
        If a quantity has another dimension.

    Examples
    --------
    >>> plain(2.0 * unit.femtosecond, unit.picosecond, "timestep")
    0.002
    >>> plain(0.5, unit.picosecond, "timestep")
    0.5
    """
    if not unit.is_quantity(value):
        return float(value)
    if not value.unit.is_compatible(md_unit):
        raise ConfigError(f"{name}: expected a number in {md_unit.get_symbol()}, got the quantity {value}")
    return float(value.value_in_unit(md_unit))


_DECLARED = {
    "kJ/mol": unit.kilojoule_per_mole,
    "nm": unit.nanometer,
    "ps": unit.picosecond,
    "1/ps": unit.picosecond**-1,
    "amu": unit.dalton,
    "bar": unit.bar,
}
"""Units by their names in the descriptions of settings."""
_OF_VARIABLES = (unit.radian, unit.nanometer)
"""Units that a collective variable can have; a description calls it z."""
_PER_POWER = re.compile(r"(.+) per z\^(\d+)")
"""Name of a unit that is one over a power of a collective variable's."""


def numbers_in(quantity: Any, declared: str) -> float | list[float] | None:
    """Return an OpenMM quantity as plain numbers in the unit that the description of a setting names.

    None where it has another dimension, or that is no unit of the package.

    Examples
    --------
    >>> round(numbers_in(1.0 * unit.kilocalorie_per_mole, "kJ/mol"), 3), numbers_in([1, 2] * unit.angstrom, "z")
    (4.184, [0.1, 0.2])
    >>> numbers_in(0.5 * unit.kilojoule_per_mole / unit.angstrom**2, "kJ/mol per z^2")
    50.0
    >>> numbers_in(1.0 * unit.picosecond, "kJ/mol") is None
    True
    """
    per = _PER_POWER.fullmatch(declared)
    if per is not None and per[1] in _DECLARED:
        accepted = [_DECLARED[per[1]] / of_variable ** int(per[2]) for of_variable in _OF_VARIABLES]
    else:
        accepted = (
            list(_OF_VARIABLES) if declared == "z" else [_DECLARED[declared]] if declared in _DECLARED else []
        )
    for md_unit in accepted:
        if quantity.unit.is_compatible(md_unit):
            value = quantity.value_in_unit(md_unit)
            return [float(number) for number in value] if hasattr(value, "__len__") else float(value)
    return None


def duration(seconds: float | None) -> str:
    """Wall time for people.

    Examples
    --------
    >>> duration(8.25), duration(75.0), duration(9000.0), duration(None)
    ('8.2 s', '1 min 15 s', '2 h 30 min', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
