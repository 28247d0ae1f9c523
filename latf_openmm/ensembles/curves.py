"""Curves of observables against temperature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mdtraj
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latf_openmm.display import Table, card, count, with_error
from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble
from latf_openmm.ensembles.observables import named_observable, observable_title
from latf_openmm.reweighting.reliability import MIN_SEEN_SAMPLES, Reliability, worst
from latf_openmm.sentences import SHOWN, listed

Array = NDArray[np.float64]

_NOTHING = 1e6
"""Free energy that stands for infinity where a bootstrap sample has nothing of a state [kJ/mol]."""


@dataclass(frozen=True, repr=False)
class Curve:
    """One observable against temperature.

    Attributes
    ----------
    name, unit
        What it is.
    table
        One row for each temperature: temperature, value, error, method, reliability, effective samples.
    replicates
        Values in the same bootstrap samples at every temperature, shape (n_temperatures, n_samples); None where
        one of them is the flow's.
    warnings
        Where the frames say nothing of it.
    is_share
        True for the share of frames in a state, or for which a function is 1 and not 0.
    """

    name: str
    unit: str
    table: pd.DataFrame
    replicates: Array | None
    warnings: tuple[str, ...] = ()
    is_share: bool = False

    def __repr__(self) -> str:
        return f"Curve({self.title}, {len(self.table)} temperatures)"

    def _repr_html_(self) -> str:
        unit = f" [{self.unit}]" if self.unit else ""
        rows = [
            [f"{t:g}", with_error(value, error), method, reliability, count(n)]
            for t, value, error, method, reliability, n in self.table.itertuples(index=False)
        ]
        header = ["temperature", f"value{unit}", "method", "reliability", "effective samples"]
        notes = [f"Warning: {text}" for text in self.warnings]
        return card(self.title.capitalize(), {}, [Table(header, rows)], notes)

    @property
    def title(self) -> str:
        """Name for people."""
        return observable_title(self.name)

    def transition(self, midpoint: float | None = None) -> Estimate | None:
        """Temperature where the curve crosses `midpoint`, or, without one, of its maximum; None if there is none.

        Between temperatures the curve is taken for straight, around its maximum for a parabola. The error is the
        spread over bootstrap samples, where there are any.
        """
        at = self.table["temperature"].to_numpy(dtype=np.float64)

        def find(values: Array) -> float | None:
            return _maximum(at, values) if midpoint is None else _crossing(at, values, midpoint)

        value = find(self.table["value"].to_numpy(dtype=np.float64))
        if value is None:
            return None
        replicates = [] if self.replicates is None else [find(column) for column in self.replicates.T]
        crossings = np.array([crossing for crossing in replicates if crossing is not None], dtype=np.float64)
        return Estimate(value, float(crossings.std(ddof=1)) if len(crossings) > 1 else float("nan"))

    def reliability_near(self, temperature: float) -> Reliability:
        """Return the worst reliability of the temperature of the table that is next to one, and of its neighbours."""
        at = self.table["temperature"].to_numpy(dtype=np.float64)
        nearest = int(np.abs(at - temperature).argmin())
        rows = self.table["reliability"].iloc[max(0, nearest - 1) : nearest + 2]
        return worst(*rows)


def _crossing(at: Array, values: Array, midpoint: float) -> float | None:
    side = np.sign(values - midpoint)
    places = np.flatnonzero(side[1:] * side[:-1] <= 0)
    if len(places) == 0:
        return None
    i = places[0]
    rise = values[i + 1] - values[i]
    return float(at[i] + ((midpoint - values[i]) / rise if rise else 0.0) * (at[i + 1] - at[i]))


def _maximum(at: Array, values: Array) -> float | None:
    i = int(values.argmax())
    if i in (0, len(values) - 1):
        return None  # at an end of the range: the maximum may lie beyond
    a, b, _ = np.polyfit(at[i - 1 : i + 2] - at[i], values[i - 1 : i + 2], 2)
    return float(at[i] - b / (2 * a)) if a < 0 else float(at[i])


def curve(
    name: str,
    ensembles: Sequence[StructureEnsemble],
    topology: mdtraj.Topology,
    reference: mdtraj.Trajectory,
) -> Curve:
    """Return one observable over ensembles of ascending temperature.

    Parameters
    ----------
    name
        As for `latf_openmm.ensembles.observables.named_observable`.
    topology
        Of one copy of the system.
    reference
        Structure for the RMSD and the native contacts.
    """
    observable = named_observable(name, reference)
    observable.check(ensembles[0].n_states)
    rows, spreads, unseen, shares = [], [], list[str](), []
    for ensemble in ensembles:
        measured = observable.measure(ensemble, topology)
        shares.append(measured.is_share)
        spread = ensemble.replicates.of(measured.statistic)
        spreads.append(np.nan_to_num(spread, posinf=_NOTHING, neginf=-_NOTHING))  # a state without weight
        reliability = ensemble.reliability
        if not measured.seen:
            reliability = "poor"
            unseen.append(f"{ensemble.temperature:g}")
        value, error = measured.estimate.value, measured.estimate.error
        rows.append((ensemble.temperature, value, error, ensemble.method, reliability, ensemble.n_effective))
    columns = ["temperature", "value", "error", "method", "reliability", "effective_samples"]
    warnings = [
        f"{name} at {listed(unseen, SHOWN)}: fewer than {MIN_SEEN_SAMPLES:g} effective samples are on one side of "
        "it: its value is a limit, not an estimate"
        for _ in unseen[:1]
    ]
    same = all(ensemble.method != "flow" for ensemble in ensembles)
    table = pd.DataFrame(rows, columns=columns)
    replicates = np.array(spreads) if same else None
    return Curve(name, observable.unit, table, replicates, tuple(warnings), all(shares))


def energy_curve(name: Literal["energy", "heat_capacity"], ensembles: Sequence[StructureEnsemble]) -> Curve:
    """Return the mean energy or the heat capacity over ensembles of ascending temperature; no structures are read."""
    nothing = mdtraj.Topology()
    return curve(name, ensembles, nothing, mdtraj.Trajectory(np.zeros((1, 0, 3), np.float32), nothing))
