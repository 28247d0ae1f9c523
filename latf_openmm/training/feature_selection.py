"""Fewer descriptors: those that never change, or that say what a slower one says, are left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from latf_openmm.errors import DataError
from latf_openmm.features import FeatureSettings, build_features, keep_columns
from latf_openmm.frames.trajectory import FeatureTrajectory, check_same_features
from latf_openmm.settings import Settings

_FRAMES = 20_000
"""Largest number of frames from which correlations are computed; more are thinned."""
_COLUMNS = 256
"""Descriptors that are looked at together."""
_LAG = 0.01  # of a trajectory


class FeatureSelectionSettings(Settings):
    """When and how descriptors are left out of training, and so out of the bias."""

    applies_above: int = Field(
        200, ge=1, description="nothing is left out where there are no more descriptors than this"
    )
    max_features: int = Field(200, ge=2, description="at most so many are kept, the slowest ones")
    min_relative_std: float = Field(
        0.01, ge=0, description="least standard deviation of a descriptor, over the 90th percentile of all"
    )
    max_correlation: float = Field(
        0.98, gt=0, le=1, description="largest correlation (its magnitude) with a slower descriptor"
    )


@dataclass(frozen=True)
class FeatureSelection:
    """Descriptors that were kept.

    Attributes
    ----------
    kept
        Columns, ascending.
    columns
        Those of the features that hold them, in their order: `kept`, and what is made together with these.
    table
        One row for each descriptor: its name, standard deviation, slowness (autocorrelation after a hundredth of a
        trajectory) and fate: ``kept``, ``dead``, ``redundant`` (``of`` names the one kept instead) or ``fast``
        (beyond the number allowed).
    """

    kept: tuple[int, ...]
    columns: tuple[int, ...]
    table: pd.DataFrame

    def __str__(self) -> str:
        """One line for a person."""
        fates = self.table["fate"].value_counts()
        parts = [f"{fates[fate]} {fate}" for fate in ("dead", "redundant", "fast") if fate in fates]
        return f"{len(self.kept)} of {len(self.table)} descriptors kept" + (
            f" ({', '.join(parts)})" if parts else ""
        )


def select_features(
    resolved: Sequence[FeatureSettings],
    trajectories: Sequence[FeatureTrajectory],
    settings: FeatureSelectionSettings,
) -> tuple[list[FeatureSettings], list[FeatureTrajectory], FeatureSelection]:
    """Return the features worth training on, the trajectories with these alone, and what was left out.

    Descriptors that are made together, like sine and cosine of a torsion, stay together.
    """
    names = build_features(resolved).names
    selection = select_descriptors(trajectories, names, settings)
    if len(selection.kept) == len(names):
        return list(resolved), list(trajectories), selection
    fewer, columns = keep_columns(resolved, selection.kept)
    narrow = narrowed(trajectories, names, build_features(fewer).names, columns)
    return fewer, narrow, replace(selection, columns=tuple(columns))


def narrowed(
    trajectories: Sequence[FeatureTrajectory],
    names: Sequence[str],
    wanted: Sequence[str],
    columns: Sequence[int] | None = None,
) -> list[FeatureTrajectory]:
    """Return trajectories with some of their descriptors.

    Parameters
    ----------
    trajectories
        All with the same descriptors.
    names
        Of their descriptors.
    wanted
        Names of the descriptors to return, in that order.
    columns
        Their numbers among `names`; None: found by name, which has to be unique.

    Raises
    ------
    DataError
        If a name is not in `names`, is there more than once, or is not at its column.
    """
    if columns is None:
        columns = _by_name(names, wanted)
    check_columns(names, wanted, columns)
    if list(columns) == list(range(len(names))):
        return list(trajectories)
    return [trajectory.columns(columns) for trajectory in trajectories]


def check_columns(names: Sequence[str], wanted: Sequence[str], columns: Sequence[int]) -> None:
    """Raise `DataError` where the descriptors at `columns` of `names` are not those called `wanted`."""
    if len(columns) != len(wanted):
        raise DataError(f"the model has {len(wanted)} descriptors and names {len(columns)} columns")
    for column, name in zip(columns, wanted, strict=True):
        if not 0 <= column < len(names):
            raise DataError(f"descriptor {name!r} is said to be column {column} of {len(names)}")
        if names[column] != name:
            raise DataError(
                f"descriptor {column} is {names[column]!r}, the model was trained with {name!r} there"
            )


def _by_name(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    count = Counter(names)
    for name in wanted:
        if count[name] != 1:
            raise DataError(f"{count[name]} descriptors are called {name!r}; expected one")
    place = {name: column for column, name in enumerate(names)}
    return [place[name] for name in wanted]


def select_descriptors(
    trajectories: Sequence[FeatureTrajectory], names: Sequence[str], settings: FeatureSelectionSettings
) -> FeatureSelection:
    """Choose descriptors, the slowest first.

    Every descriptor's slowness is its autocorrelation after a hundredth of a trajectory, about its mean at each
    temperature. Going down from the slowest, one is kept unless its magnitude of correlation with one that is kept is
    above the limit, or enough are kept. Biased frames count like others: what a bias moves is not dead.

    Parameters
    ----------
    trajectories
        All with the same descriptors.
    names
        Of the descriptors.
    settings
        Limits.

    Raises
    ------
    DataError
        If the trajectories' descriptors differ in number.
    """
    n = check_same_features(trajectories)
    columns = [slice(start, start + _COLUMNS) for start in range(0, n, _COLUMNS)]
    spread, slowness = np.concatenate([_spread_and_slowness(trajectories, part) for part in columns], axis=1)
    fate = np.full(n, "kept", dtype=object)
    of = np.full(n, "", dtype=object)
    if n > settings.applies_above:
        fate[spread <= settings.min_relative_std * np.quantile(spread, 0.9)] = "dead"
        _drop_redundant(trajectories, names, settings, np.argsort(-slowness, kind="stable"), fate, of)
    if not (fate == "kept").any():  # nothing moves: leave the judgement to the training
        fate[:] = "kept"
    table = pd.DataFrame(
        {"name": list(names), "standard_deviation": spread, "slowness": slowness, "fate": fate, "of": of}
    )
    kept = tuple(int(i) for i in np.flatnonzero(fate == "kept"))
    return FeatureSelection(kept, kept, table)


def _spread_and_slowness(trajectories: Sequence[FeatureTrajectory], columns: slice) -> NDArray[np.float64]:
    """Standard deviation within a temperature, and autocorrelation, of some descriptors, (2, n_columns)."""
    lagged, squares, frames = 0.0, 0.0, 0
    for temperature in sorted({t.temperature for t in trajectories}):
        selected = [t for t in trajectories if t.temperature == temperature]
        count = sum(t.n_frames for t in selected)
        mean = sum(t.features[:, columns].sum(axis=0, dtype=np.float64) for t in selected) / count
        for t in selected:
            lag = max(1, round(_LAG * t.n_frames))
            x = t.features[:, columns] - mean
            squares = squares + np.square(x).sum(axis=0)
            if t.n_frames > lag:
                lagged = lagged + (x[lag:] * x[:-lag]).mean(axis=0) * t.n_frames
        frames += count
    total = np.asarray(squares, dtype=np.float64)
    safe = np.where(total > 0, total, 1.0)
    return np.array([np.sqrt(total / frames), np.where(total > 0, lagged / safe, 0.0)], dtype=np.float64)


def _drop_redundant(
    trajectories: Sequence[FeatureTrajectory],
    names: Sequence[str],
    settings: FeatureSelectionSettings,
    order: NDArray[np.int64],
    fate: NDArray[np.object_],
    of: NDArray[np.object_],
) -> None:
    """Go down `order` and mark what is not kept."""
    every = -(-sum(t.n_frames for t in trajectories) // _FRAMES)
    x = np.concatenate([t.features[::every] for t in trajectories]).T.astype(np.float32, order="C")
    x -= x.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    x /= np.where(length > 0, length, 1.0)
    chosen = np.empty((settings.max_features, x.shape[1]), np.float32)
    kept: list[int] = []
    for column in order:
        if fate[column] == "dead":
            continue
        if len(kept) == settings.max_features:
            fate[column] = "fast"
            continue
        if kept:
            correlation = np.abs(chosen[: len(kept)] @ x[column])
            closest = int(correlation.argmax())
            if correlation[closest] > settings.max_correlation:
                fate[column], of[column] = "redundant", names[kept[closest]]
                continue
        chosen[len(kept)] = x[column]
        kept.append(int(column))
