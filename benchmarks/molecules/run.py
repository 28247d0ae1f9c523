"""What a run of a molecule shows: transitions, whether the variables see them, and generated against simulated.

python -m benchmarks.molecules.run RUN --observables systems/chignolin/observables.py --folded folded --opened opened
    --observe n3_o8 rg --name chignolin

RUN is a finished run of latf-openmm with a validation section. Written are docs/benchmarks/NAME.md, and NAME.csv
and NAME.png beside this file.
"""

import argparse
import datetime
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from latf_openmm.ensembles.curves import curve
from latf_openmm.ensembles.observables import structure_observable
from latf_openmm.frames.walkers import WalkerFrames, read_stage
from latf_openmm.progress import make_progress
from latf_openmm.reweighting.estimators import statistical_inefficiency
from latf_openmm.run.ensembles import ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.frames import pool_of_walkers

Array = NDArray[np.float64]
_FOLDER = Path(__file__).resolve().parent
_DOCS = _FOLDER.parents[1] / "docs" / "benchmarks"


@dataclass(frozen=True)
class Seen:
    """One walker of a stage with what was measured on its frames."""

    stage: str
    walker: WalkerFrames
    z: Array
    values: dict[str, Array]

    @property
    def temperature(self) -> float:
        return self.walker.temperature


def transitions(folded: Array, opened: Array) -> tuple[int, int]:
    """How often it opened and closed: a frame that is neither belongs to what was seen last."""
    sides = np.where(folded > 0.5, 1, np.where(opened > 0.5, -1, 0))
    sides = sides[sides != 0]
    change = np.diff(sides)
    return int((change < 0).sum()), int((change > 0).sum())


def look(run: RunFolder, index: int, names: Sequence[str], file: Path) -> list[Seen]:
    """Measure all frames of all rounds and of the validation, under the model of one round."""
    topology, reference = run.topology(), run.reference_structure()
    functions = {name: structure_observable(f"{file}:{name}", reference) for name in names}
    stages = {f"round {i}": run.round(i).simulation for i in range(index + 1)}
    stages["independent"] = run.validation
    found = []
    for stage, folder in stages.items():
        walkers = read_stage(folder)
        pool = pool_of_walkers(run.config, run.trained(index), walkers)
        for number, walker in enumerate(walkers):
            pieces = list(walker.chunks(topology))
            values = {name: np.concatenate([f(piece) for piece in pieces]) for name, f in functions.items()}
            found.append(Seen(stage, walker, pool.z[pool.of_walker(number)], values))
    return found


def transition_table(
    seen: Sequence[Seen], folded: str, opened: Sequence[str], interval: float
) -> pd.DataFrame:
    """Openings, closings and fractions of every stage and temperature; interval between frames in ps."""
    rows = []
    for stage, temperature in sorted({(one.stage, one.temperature) for one in seen}):
        here = [one for one in seen if (one.stage, one.temperature) == (stage, temperature)]
        row = {
            "stage": stage,
            "T (K)": f"{temperature:g}",
            "length (ns)": f"{sum(len(one.z) for one in here) * interval / 1000:.2f}",
            f"{folded} frames": f"{np.mean(np.concatenate([one.values[folded] for one in here])):.2f}",
        }
        for name in opened:
            counts = np.array([transitions(one.values[folded], one.values[name]) for one in here])
            first = [np.flatnonzero(one.values[name] > 0.5) for one in here]
            row |= {
                f"{name} frames": f"{np.mean(np.concatenate([one.values[name] for one in here])):.2f}",
                f"to {name}": str(counts[:, 0].sum()),
                f"and back from {name}": str(counts[:, 1].sum()),
                f"first {name} after (ps)": ", ".join(
                    f"{f[0] * interval:.0f}" if len(f) else "-" for f in first
                ),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def separation(seen: Sequence[Seen], folded: str, opened: str) -> dict[str, float]:
    """Area under the curve of folded against open frames by the collective variables.

    A logistic regression on quadratic functions of the variables, fitted on some walkers and judged on the others;
    and each variable by itself.
    """
    z = np.concatenate([one.z for one in seen])
    yes = np.concatenate([one.values[folded] for one in seen]) > 0.5
    no = np.concatenate([one.values[opened] for one in seen]) > 0.5
    walker = np.repeat(np.arange(len(seen)), [len(one.z) for one in seen])
    clear = yes | no
    found = {
        f"z{i} alone": max(a, 1 - a)
        for i in range(z.shape[1])
        for a in [roc_auc_score(yes[clear], z[clear, i])]
    }
    for label, use in (("folded against open", clear), ("folded against all others", np.ones(len(z), bool))):
        score = np.full(len(z), np.nan)
        for train, test in GroupKFold(min(5, len(seen))).split(z[use], groups=walker[use]):
            rows = np.flatnonzero(use)
            if yes[rows[train]].all() or not yes[rows[train]].any():
                continue
            model = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=1000))
            model.fit(z[rows[train]], yes[rows[train]])
            score[rows[test]] = model.decision_function(z[rows[test]])
        known = use & np.isfinite(score)
        found[f"both, {label}, other walkers"] = roc_auc_score(yes[known], score[known])
    return found


def simulated(seen: Sequence[Seen], name: str, temperature: float) -> tuple[float, float, float]:
    """Mean over the independent runs, its error from correlated frames, and the range over walkers."""
    here = [one.values[name] for one in seen if one.stage == "independent" and one.temperature == temperature]
    if not here:
        return math.nan, math.nan, math.nan
    x = np.concatenate(here)
    count = (
        max(len(x) / statistical_inefficiency([one[:, None] for one in here]), 1.0) if x.std() > 0 else 1.0
    )
    return float(x.mean()), float(x.std() / np.sqrt(count)), float(np.ptp([one.mean() for one in here]))


def generated_table(
    run: RunFolder, index: int, seen: Sequence[Seen], names: Sequence[str], file: Path, minutes: float
) -> pd.DataFrame:
    """Generated means beside those of independent runs."""
    assert run.config.validation is not None
    temperatures = sorted(run.config.validation.temperatures)
    with make_progress() as progress:
        ensembles = ensembles_at(run, index, temperatures, "auto", minutes, progress)
    rows = []
    for name in names:
        one = curve(f"{file}:{name}", ensembles, run.topology(), run.reference_structure())
        for row in one.table.itertuples():
            mean, error, spread = simulated(seen, name, row.temperature)
            rows.append(
                {
                    "observable": name,
                    "T (K)": row.temperature,
                    "generated": row.value,
                    "error": row.error,
                    "independent": mean,
                    "its error": error,
                    "range of walkers": spread,
                    "level": row.method,
                    "verdict": row.reliability,
                    "independent frames": round(row.effective_samples),
                }
            )
    for ensemble in ensembles:
        for warning in ensemble.warnings:
            print(f"{ensemble.temperature:g} K: {warning}")
    return pd.DataFrame(rows)


def picture(seen: Sequence[Seen], table: pd.DataFrame, name: str, unit: str, interval: float) -> plt.Figure:
    """Time series of one observable by stage, the latent plane coloured by it, and the generated means."""
    stages = list(dict.fromkeys(one.stage for one in seen))
    figure = plt.figure(figsize=(12, 2.3 * len(stages)), layout="constrained")
    grid = figure.add_gridspec(len(stages), 3, width_ratios=[1.6, 1, 1])
    temperatures = sorted({one.temperature for one in seen})
    colour = {
        t: plt.get_cmap("turbo")(0.1 + 0.8 * i / max(len(temperatures) - 1, 1))
        for i, t in enumerate(temperatures)
    }
    for row, stage in enumerate(stages):
        axis = figure.add_subplot(grid[row, 0])
        for one in (one for one in seen if one.stage == stage):
            time = np.arange(1, len(one.z) + 1) * interval / 1000
            axis.plot(time, one.values[name], lw=0.5, color=colour[one.temperature], alpha=0.8)
        axis.set(title=stage, ylabel=f"{name} ({unit})" if unit else name, xlim=(0, None))
        if row == len(stages) - 1:
            axis.set_xlabel("time of each walker (ns)")
    handles = [plt.Line2D([], [], color=colour[t], label=f"{t:g} K") for t in temperatures]
    figure.axes[0].legend(handles=handles, ncols=len(handles), fontsize=7, loc="upper right")
    plane = figure.add_subplot(grid[: max(1, len(stages) - 1), 1:])
    z = np.concatenate([one.z for one in seen])
    values = np.concatenate([one.values[name] for one in seen])
    order = np.random.default_rng(0).permutation(len(z))
    points = plane.scatter(*z[order, :2].T, c=values[order], s=2, cmap="viridis", lw=0, rasterized=True)
    figure.colorbar(points, ax=plane, label=f"{name} ({unit})" if unit else name)
    plane.set(xlabel="z0", ylabel="z1", title="all frames, last model")
    axis = figure.add_subplot(grid[-1, 1:])
    mine = table[table["observable"] == name]
    axis.errorbar(
        mine["T (K)"], mine["generated"], 2 * mine["error"], fmt="o", capsize=3, label="generated, 2 errors"
    )
    axis.errorbar(
        mine["T (K)"] + 2,
        mine["independent"],
        2 * mine["its error"],
        fmt="s",
        capsize=3,
        label="independent runs",
    )
    low, high = mine["T (K)"].min(), mine["T (K)"].max()
    axis.set(
        xlim=(low - 20, high + 20), xlabel="temperature (K)", ylabel=f"{name} ({unit})" if unit else name
    )
    axis.legend(fontsize=8)
    return figure


def page(run: RunFolder, file: str, tables: dict[str, pd.DataFrame], auc: dict[str, float]) -> str:
    """The page."""
    config = run.config
    name = config.system.kind
    now = datetime.datetime.now(tz=datetime.timezone.utc).date()
    seconds = [folder.summary().seconds for folder in run.complete_rounds()]
    cost = ", ".join(f"round {i}: simulation {s.simulate / 60:.0f} min, training {s.train / 60:.0f} min"
                     for i, s in enumerate(seconds))  # fmt: skip
    areas = pd.DataFrame(
        [{"variables": key, "area under the curve": f"{value:.3f}"} for key, value in auc.items()]
    )
    numbers = tables["generated"].copy()
    for column in ("generated", "error", "independent", "its error", "range of walkers"):
        numbers[column] = numbers[column].map("{:.3g}".format)
    return f"""# {name}: what a run shows

Made by `python -m benchmarks.molecules.run` on {now}, {platform.machine()}, CPU; {cost}
(what was there already when a run was continued is not counted).

## Openings and closings

{tables["transitions"].to_markdown(index=False)}

A frame that is neither belongs to what was seen last. Frames of the biased round (round 1) are counted as they are,
without weights.

## Do the variables see it?

{areas.to_markdown(index=False)}

## Generated, beside independent runs

{numbers.to_markdown(index=False)}

![{name}](../../benchmarks/molecules/{file}.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--observables", type=Path, required=True, help="Python file of functions of a trajectory"
    )
    parser.add_argument("--folded", required=True, help="its function that is 1 in folded frames")
    parser.add_argument("--opened", nargs="+", required=True, help="its functions that are 1 in open frames")
    parser.add_argument("--observe", nargs="+", default=[], help="further functions; the first is drawn")
    parser.add_argument("--unit", default="", help="of the one drawn")
    parser.add_argument("--minutes", type=float, default=20.0, help="for refinement")
    parser.add_argument("--name", required=True, help="of the page, the table and the picture")
    choice = parser.parse_args()
    run = RunFolder.open(choice.run)
    index = run.last_round().index
    interval = run.config.simulation.timestep * run.config.simulation.frame_interval
    names = [*choice.observe, choice.folded, *choice.opened]
    seen = look(run, index, names, choice.observables)
    generated = generated_table(
        run, index, seen, [*choice.observe, choice.folded], choice.observables, choice.minutes
    )
    tables = {
        "transitions": transition_table(seen, choice.folded, choice.opened, interval),
        "generated": generated,
    }
    auc = separation(seen, choice.folded, choice.opened[0])
    generated.to_csv(_FOLDER / f"{choice.name}.csv", index=False)
    picture(seen, generated, names[0], choice.unit, interval).savefig(_FOLDER / f"{choice.name}.png", dpi=110)
    text = page(run, choice.name, tables, auc)
    (_DOCS / f"{choice.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
