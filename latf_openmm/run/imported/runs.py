"""Which trajectories are one run, and the bias of each run at the frames of the others.

Trajectories with different biases at one temperature are runs of their own. MBAR joins them, and needs the bias of
each run at every frame: by columns of the tables, by what the user declares, or found from the frames.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latf_openmm.errors import DataError
from latf_openmm.reweighting.bias_slopes import BiasStep, bias_steps, ratio_of_calories
from latf_openmm.reweighting.reliability import MIN_OVERLAP
from latf_openmm.reweighting.windows import JoinedWindows
from latf_openmm.run.imported.biases import Declared, declared_bias
from latf_openmm.run.imported.frames import ImportedFrames
from latf_openmm.run.imported.static_bias import find_static_bias

log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_SAME = 0.05  # kT
_APART = 1e-4
"""Relative overlap below which runs have nothing in common."""
_WAYS = (
    "give --bias FILE.py:FUNCTION or a YAML file of restraints, or columns "
    "bias_energy_RUN in every table; or say that "
    "trajectories share one bias (--run), or that each run crossed between all states by itself (--independent)"
)
"""Ways out that error messages name."""


@dataclass
class Run:
    """Trajectories with one bias at one temperature.

    Attributes
    ----------
    name
        What the user calls it, or its number.
    members
        Indices of its trajectories.
    """

    name: str
    members: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class RunsAtTemperature:
    """Runs at one temperature, and their biases at all frames there.

    Attributes
    ----------
    rows
        Frames of each trajectory that are at the temperature, by the index of the trajectory.
    bias
        Of each run at those frames, by the index of the trajectory, each (n_frames, n_runs) [kJ/mol]; empty where runs
        are not joined.
    """

    temperature: float
    runs: list[Run]
    rows: dict[int, NDArray[np.int64]]
    bias: dict[int, Array]

    def run_of(self, trajectory: int) -> int:
        """Number of a trajectory's run."""
        return next(k for k, run in enumerate(self.runs) if trajectory in run.members)


def group_runs(frames: Sequence[ImportedFrames], temperature: float) -> list[Run]:
    """Return the runs at a temperature: unbiased trajectories are one, biased ones each their own or as named."""
    runs: dict[str, Run] = {}
    for index, trajectory in enumerate(frames):
        if temperature in trajectory.temperatures():
            name = trajectory.source.run or (str(index) if trajectory.biased else "unbiased")
            runs.setdefault(name, Run(name)).members.append(index)
    return list(runs.values())


def runs_at(
    frames: Sequence[ImportedFrames],
    temperature: float,
    kT: float,
    features: "FeatureReader",
    independent: bool,
) -> RunsAtTemperature:
    """Return the runs at one temperature with their biases.

    Raises
    ------
    DataError
        If several runs have biases that are not known at each other's frames, or do not overlap.
    """
    runs = group_runs(frames, temperature)
    rows = {i: np.flatnonzero(frames[i].temperature == temperature) for run in runs for i in run.members}
    result = RunsAtTemperature(temperature, runs, rows, {})
    biased = [run for run in runs if any(frames[i].biased for i in run.members)]
    if len(runs) == 1 or not biased or independent:
        return result
    if grown := [frames[i].source.name for i in rows if frames[i].adaptive]:
        raise DataError(
            f"{grown[0]}: its bias grew (bias_offset changes) and there are other runs at the same "
            f"temperature, which "
            "MBAR cannot join; use --run for walkers that share the bias, or --independent if "
            "each run crossed between "
            "all states by itself"
        )
    for biases in (_by_columns, _by_declaration):
        known = biases(frames, result, kT)
        if known is not None:
            break
    else:
        known = _by_fit(frames, result, kT, features)
    result.bias.update(known)
    _check_joined(frames, result, kT)
    return result


def _by_columns(
    frames: Sequence[ImportedFrames], at: RunsAtTemperature, kT: float
) -> dict[int, Array] | None:
    """Biases by columns bias_energy_RUN."""
    if not any(frames[i].columns.runs for i in at.rows):
        return None
    biases = {}
    for index, rows in at.rows.items():
        columns = []
        for number, run in enumerate(at.runs):
            names = [run.name, str(number), f"{number:02d}", f"{number:03d}"]
            name = next((n for n in names if n in frames[index].columns.runs), None)
            if name is None and run.name == "unbiased":
                columns.append(np.zeros(len(rows)))
            elif name is None:
                raise DataError(
                    f"--table: {frames[index].source.tables}: the column bias_energy_{run.name} is "
                    f"missing; expected the "
                    f"bias of every run in every table ({', '.join(r.name for r in at.runs)})"
                )
            else:
                columns.append(frames[index].columns.runs[name][rows])
        biases[index] = np.stack(columns, axis=1)
        _check_own(frames[index], biases[index][:, at.run_of(index)], rows, kT)
    return biases


def _by_declaration(
    frames: Sequence[ImportedFrames], at: RunsAtTemperature, kT: float
) -> dict[int, Array] | None:
    """Biases as the user declares them."""
    declared: list[Declared | None] = []
    for run in at.runs:
        sources = [frames[i].source.bias for i in run.members]
        declared.append(declared_bias(sources[0], run.members[0]) if sources[0] else None)
    if not any(declared):
        return None
    biases = {index: np.zeros((len(rows), len(at.runs))) for index, rows in at.rows.items()}
    for number, (run, bias) in enumerate(zip(at.runs, declared, strict=True)):
        if bias is None:
            if any(np.ptp(frames[i].bias) > 1e-9 for i in run.members):
                raise DataError(
                    f"{frames[run.members[0]].source.name}: --bias is not given for it; expected one for each run"
                )
            continue
        for index, rows in at.rows.items():
            biases[index][:, number] = bias(frames[index])[rows]
    for index, rows in at.rows.items():
        _check_own(frames[index], biases[index][:, at.run_of(index)], rows, kT)
    return biases


def _check_own(trajectory: ImportedFrames, bias: Array, rows: NDArray[np.int64], kT: float) -> None:
    """Compare a run's bias with what its table says of its own frames; use it where the table says nothing."""
    recorded = trajectory.columns.bias
    if recorded is None:
        trajectory.bias[rows] = bias
        return
    off = bias - recorded[rows]
    off -= np.median(off)
    if float(np.abs(off).max()) > max(_SAME * kT, 1e-3 * float(np.ptp(bias))):
        frame = int(rows[np.abs(off).argmax()])
        raise DataError(
            f"{trajectory.source.name}: frame {frame}: bias_energy of the table is {recorded[frame]:.5g} "
            f"kJ/mol, the bias given "
            f"for its run {bias[np.abs(off).argmax()]:.5g} kJ/mol; they have to agree but for a constant"
        )


def _by_fit(
    frames: Sequence[ImportedFrames], at: RunsAtTemperature, kT: float, features: "FeatureReader"
) -> dict[int, Array]:
    """Biases found from each run's own frames, as quadratic functions of a descriptor or two."""
    order = list(at.rows)
    for index in order:
        if np.ptp(frames[index].bias[at.rows[index]]) <= 1e-9 and frames[index].biased:
            raise DataError(f"{frames[index].source.name}: its bias at its own frames is not known; {_WAYS}")
    missing = None
    for candidates in (lambda: _shared_columns(frames, at), lambda: features(frames, at.rows)):
        energies, descriptors, missing = _fit_runs(frames, at, *candidates(), kT)
        if missing is None:
            log.warning(
                "%d runs at one temperature are joined by MBAR; their biases at each other's frames "
                "are found from the bias energies of their own, as exact functions of %s",
                len(at.runs),
                descriptors,
            )
            ends = np.cumsum([len(at.rows[i]) for i in order])
            return dict(zip(order, np.split(energies, ends[:-1]), strict=True))
    assert missing is not None
    raise DataError(
        f"{frames[missing.members[0]].source.name}: there are {len(at.runs)} differently "
        f"biased runs at one temperature, and the bias of this one is not a quadratic function of a descriptor, so it "
        f"is not known at the frames of the others; {_WAYS}"
    )


def _shared_columns(
    frames: Sequence[ImportedFrames], at: RunsAtTemperature
) -> tuple[dict[str, Array], dict[str, float]]:
    """Columns that the tables of all trajectories have, at their frames one after the other, and periods."""
    names = set.intersection(*(set(frames[i].columns.others) for i in at.rows))
    columns = {
        n: np.concatenate([frames[i].columns.others[n][rows] for i, rows in at.rows.items()])
        for n in sorted(names)
    }
    return columns, {n: p for i in at.rows for n, p in frames[i].columns.periods.items() if n in columns}


def _fit_runs(
    frames: Sequence[ImportedFrames],
    at: RunsAtTemperature,
    values: dict[str, Array],
    periods: dict[str, float],
    kT: float,
) -> tuple[Array, str, Run | None]:
    """Bias of each run at all frames (n_frames, n_runs), its descriptors, and the first run without a fit."""
    owner = np.concatenate([np.full(len(rows), at.run_of(i)) for i, rows in at.rows.items()])
    bias = np.concatenate([frames[i].bias[rows] for i, rows in at.rows.items()])
    energies, descriptors = np.zeros((len(owner), len(at.runs))), "nothing"
    for number, run in enumerate(at.runs):
        members = np.flatnonzero(owner == number)
        if np.ptp(bias[members]) <= 1e-9:
            continue
        result = find_static_bias(values, periods, members, bias[members], kT)
        if result is None:
            return energies, descriptors, run
        energies[:, number], descriptors = result.energies, result.on
        log.info("%s: its bias is %s", frames[run.members[0]].source.name, result)
    return energies, descriptors, None


def _check_joined(frames: Sequence[ImportedFrames], at: RunsAtTemperature, kT: float) -> None:
    """Raise `DataError` where runs do not overlap or biases are in another unit; warn of what is doubtful."""
    reduced = np.concatenate([at.bias[i] for i in at.rows]) / kT
    run = np.concatenate([np.full(len(rows), at.run_of(i)) for i, rows in at.rows.items()])
    joined = JoinedWindows(reduced, run, np.ones(len(run)))
    _check_overlap(frames, at, joined)
    _check_slopes(frames, at, bias_steps(joined))


def _check_slopes(frames: Sequence[ImportedFrames], at: RunsAtTemperature, steps: list[BiasStep]) -> None:
    """Raise `DataError` where biases are in another unit; warn where frames are not distributed as they say."""
    off = sorted((step for step in steps if step.off), key=lambda step: step.chance)
    if not off:
        return
    first, second = (frames[at.runs[run].members[0]].source.name for run in off[0].runs)
    text = (
        f"{first} and {second}: their frames are distributed as if the difference of their biases were "
        f"{off[0].ratio:.2g} times what it is ({len(off)} of {len(steps)} pairs of runs that overlap are off)"
    )
    factor = ratio_of_calories(steps)
    if factor is not None:
        unit, other = ("kcal/mol", "kJ/mol") if factor > 1 else ("kJ/mol", "kcal/mol")
        raise DataError(
            f"{text}: bias energies are in {unit}, taken for {other}; expected kJ/mol, or a column bias_energy ({unit})"
        )
    unbiased = [frames[i].source.name for run in at.runs for i in run.members if not frames[i].biased]
    counted = f"; {', '.join(unbiased)} counts as unbiased" if unbiased else ""
    log.warning("%s: a bias is missing or wrong, or a run is not in equilibrium%s", text, counted)


def _check_overlap(frames: Sequence[ImportedFrames], at: RunsAtTemperature, joined: JoinedWindows) -> None:
    """Raise `DataError` where runs have nothing in common; warn where it is little."""
    for least, serious in ((_APART, True), (MIN_OVERLAP, False)):
        parts = joined.connected(least)
        if parts.max() == 0:
            continue
        first = frames[at.runs[int(np.flatnonzero(parts == 0)[0])].members[0]].source.name
        other = frames[at.runs[int(np.flatnonzero(parts == 1)[0])].members[0]].source.name
        text = (
            f"{first} and {other} do not overlap enough, nor do other runs connect them: free energies between them "
            "mean little; simulate between them, or with a weaker restraint"
        )
        if serious:
            raise DataError(text)
        log.warning("%s", text)
        return


class FeatureReader:
    """Descriptors of the configuration at frames of trajectories; given to `runs_at`."""

    def __call__(
        self, frames: Sequence[ImportedFrames], rows: dict[int, NDArray[np.int64]]
    ) -> tuple[dict[str, Array], dict[str, float]]:
        """Return values of each descriptor at the rows of all trajectories, and periods of none."""
        raise NotImplementedError
