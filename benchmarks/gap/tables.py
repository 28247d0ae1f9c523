"""Collect the results of all cases into docs/benchmarks/gap.md, and the table and figure beside this file."""

import json
import platform
import textwrap
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.gap.methods import EXCHANGE, NEAREST, OURS, PLAIN, PRIOR, STRAIGHT
from latf_openmm.model.checkpoint import versions

METHODS = (OURS, STRAIGHT, PLAIN, NEAREST, PRIOR, EXCHANGE)
_COLOURS = dict(zip(METHODS, ("#d55e00", "#e69f00", "#0072b2", "#999999", "#cc79a7", "#009e73"), strict=True))
_FOLDER = Path(__file__).parent
_CROSSED = 6.0
"""Barrier up to which all walkers cross at the lower temperature [kT]."""
_LISTS = ("shares", "crossings", "acceptance")
"""What rows hold that is no single number."""
_KEPT = 0.005
"""Shares below which states are left out of the calibration: an error there is that of a count."""


def write_tables(results: Path, folder: Path) -> None:
    """Write the page into `folder`, its table and figure beside this file, from the JSON files in `results`."""
    rows = [row for file in sorted(results.glob("*.json")) for row in json.loads(file.read_text())]
    if not rows:
        raise SystemExit(f"{results}: no results yet")
    frame = pd.DataFrame([{k: v for k, v in row.items() if k not in _LISTS} for row in rows])
    shares = _shares(rows)
    page = [_HEAD.format(date=date.today(), **versions(), machine=platform.machine())]
    if "lj7" in set(frame["part"]):
        page += [
            "## LJ7 with a bath",
            _LJ7.format(seeds=_sets(frame[frame["part"] == "lj7"])),
            _divergences(frame),
            _exchanges(rows),
        ]
        _figure(frame).savefig(_FOLDER / "gap.png", dpi=120)
        page += ["![divergence](../../benchmarks/gap/gap.png)"]
    if "dimer" in set(frame["part"]):
        page += [
            "## A dimer in a fluid",
            _DIMER.format(seeds=_sets(frame[frame["part"] == "dimer"])),
            _dimers(shares),
        ]
    if "rare" in set(frame["part"]):
        page += [
            "## Walkers that do not cross",
            _RARE,
            _rare(shares),
            "### The certificate",
            _named(rows, shares),
        ]
    if "dipeptide" in set(frame["part"]):
        page += [
            "## C7ax of alanine dipeptide",
            _DIPEPTIDE.format(repeats=frame["repeat"][frame["part"] == "dipeptide"].nunique()),
            _dipeptide(shares),
            _named_dipeptide(rows),
        ]
    page += ["## Calibration", _CALIBRATION, _calibration(shares)]
    (folder / "gap.md").write_text("\n\n".join(page) + "\n")
    _table_of_all(frame, shares).to_csv(_FOLDER / "gap.csv", index=False, float_format="%.5g")


def _table_of_all(frame: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, temperature and case of the table beside this file."""
    keys = ["part", "bath", "frames", "barrier", "start", "particles", "seed", "temperature", "method"]
    keys = [key for key in keys if key in frame]
    shares = shares.assign(square=shares["off"] ** 2, within_two=shares["sigmas"].abs() < 2)
    columns = ["square", "reported", "within_two"]
    means = shares.groupby(keys, dropna=False)[columns].mean().reset_index()
    known = [name for name in ("js", "mbar_share", "named", "replicas") if name in frame]
    facts = frame.groupby(keys, dropna=False)[known].mean().reset_index()
    table = facts.merge(means, on=keys, how="left")
    return table.assign(population_rms=np.sqrt(table["square"])).drop(columns="square")


_HEAD = """# Without overlap, and without crossings

Written by `python -m benchmarks.gap.run --work WORK` on {date} ({machine}; latf_openmm {latf_openmm}, openmm {openmm}).
All methods weight the same frames. "latf-openmm" is the default: MBAR whose states only crossings connect,
conditional energies where temperatures do not overlap. "straight path" is the density ratio alone, linear in 1/kT.
"MBAR" takes every temperature for an equilibrium sample, as is usual."""
_LJ7 = """LJ7, frames of T = 0.2 and 0.5 (20 walkers each); so many harmonic degrees of freedom are added to the
energies, which takes the overlap away and changes nothing else. Jensen-Shannon divergence [nats] of the plane of two
moments of the coordination numbers to independent runs, densities smoothed alike; mean and standard error over {seeds}
sets of walkers. 40,000 frames are every second of a set, 2,000 every fiftieth.

"prior-only LaTF" is the paper's form: one flow, only the prior knows the temperature, energies have no part. Frames are
weighted to its r_T(z), with collective variables of its own, and looked at in the same plane. A bath changes nothing of
it. "replica exchange" has as many force evaluations as all runs of a set, equilibration included, on a ladder from 0.2
to 0.7, so also at the temperatures asked; its bath is drawn anew at each attempt to exchange. All replicas are weighted
by MBAR, with as many frames as the others have. A number without an error is that of one run."""
_DIMER = """Two particles with a double well in their distance among 250 that repel each other, runs of 30,000 frames
at T = 0.8 and 1.6 (1.5 million steps each). Divergence of the distance's distribution, and share of the extended dimer;
mean and standard error over pairs of runs ({seeds} of them), and the error that each reports.
At T = 0.8 the dimer crosses only about ten times in a run. The truth at 1.1 is a run with a lower barrier, undone by
weights. In 1,000 particles a step takes three times as long (1.2 ms on one core), and frames and truths as good as
these would take over two hours: they were not made."""
_RARE = """Two basins of different width, ten walkers of 1,000 frames at T = 1 and 2; the barrier is in kT at T = 1; so
many walkers start on the right. Error of the right basin's share at T = 1, 1.4 and 2 over 15 repeats (root mean
square), and how often the truth is within two reported errors. With a bath of 300 degrees of freedom
energies do not overlap."""
_DIPEPTIDE = """Alanine dipeptide in implicit solvent, ten walkers of 0.2 ns at 300 K and of 1 ns at 600 K, all started
in C7eq; the states are C7ax (phi between 0 and 150 degrees) and the rest. The truth at 300 K is the reference surface
of the [page on biasing](biasing.md), at the others two runs of 5 ns with phi and psi nearly free. Means with standard
errors, and root mean square errors, over {repeats} repeats with other seeds."""
_CALIBRATION = (
    "Truth within two reported errors (and those of the truth), all cases above, states of 0.5 % or more."
)


def _shares(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each state."""
    table = []
    for row in rows:
        base = {k: v for k, v in row.items() if k not in _LISTS}
        for state, share in enumerate(row["shares"]):
            sigma = float(np.hypot(share["reported"], share["truth_error"]))
            off = share["share"] - share["truth"]
            table.append({**base, "state": state, **share, "off": off, "sigmas": off / max(sigma, 1e-12)})
    return pd.DataFrame(table)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: pd.Series, digits: int = 4) -> str:
    """Mean, and standard error where there is more than one."""
    mean = f"{values.mean():.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {values.std(ddof=1) / np.sqrt(len(values)):.{digits}f}"


def _sets(frame: pd.DataFrame) -> int:
    """Sets of walkers, each with a seed of its own."""
    return int(frame["seed"].nunique())


def _divergences(frame: pd.DataFrame) -> str:
    data = frame[frame["part"] == "lj7"]
    temperatures = sorted(data["temperature"].unique())
    rows = []
    for frames in sorted(data["frames"].unique(), reverse=True):
        for bath in sorted(data["bath"].unique()):
            case = data[(data["frames"] == frames) & (data["bath"] == bath)]
            for method in METHODS:
                here = case[case["method"] == method]
                if here.empty:
                    continue
                cells = [
                    _mean(here[here["temperature"] == temperature]["js"]) for temperature in temperatures
                ]
                rows.append([f"{frames:.0f}", f"{bath:.0f}", method, *cells])
    return _table(["frames each", "bath", "method", *(f"T = {t:g}" for t in temperatures)], rows)


def _exchanges(rows: list[dict[str, Any]]) -> str:
    """Share of MBAR in ours, and the ladders of replica exchange."""
    data = [row for row in rows if row["part"] == "lj7"]
    with_bath = [row["mbar_share"] for row in data if row["method"] == OURS and row["bath"]]
    text = f"MBAR's share in latf-openmm is one without a bath, and at most {max(with_bath):.1g} with one."
    ladders = {row["bath"]: row for row in data if row["method"] == EXCHANGE}
    told = [
        f"{row['replicas']} ({100 * min(row['acceptance']):.0f} to {100 * max(row['acceptance']):.0f} %) for {bath}"
        for bath, row in sorted(ladders.items())
    ]
    return _wrapped(
        f"{text} Replicas, and how often neighbours exchange: {', '.join(told)} degrees of freedom."
    )


def _figure(frame: pd.DataFrame) -> Figure:
    data = frame[(frame["part"] == "lj7") & (frame["frames"] == frame["frames"].max())]
    temperatures = sorted(data["temperature"].unique())
    figure = Figure(figsize=(3.0 * len(temperatures), 3.0), layout="constrained")
    for axis, temperature in zip(
        figure.subplots(1, len(temperatures), sharey=True), temperatures, strict=True
    ):
        for method in METHODS:
            rows = data[(data["temperature"] == temperature) & (data["method"] == method)]
            means = rows.groupby("bath")["js"].mean()
            axis.plot(range(len(means)), means, "o-", color=_COLOURS[method], label=method)
            axis.set_xticks(range(len(means)), [f"{b:g}" for b in means.index])
        axis.set(yscale="log", xlabel="degrees of freedom added", title=f"T = {temperature:g}")
    figure.axes[0].set_ylabel("divergence [nats]")
    lines = figure.axes[0].get_lines()
    figure.legend(
        lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=len(METHODS)
    )
    return figure


def _dimers(shares: pd.DataFrame) -> str:
    rows = []
    data = shares[shares["part"] == "dimer"]
    for temperature in sorted(data["temperature"].unique()):
        at = data[data["temperature"] == temperature]
        truth, error = at["truth"].iloc[0], at["truth_error"].iloc[0]
        rows.append([f"{temperature:g}", "truth", "0", f"{truth:.3f} ± {error:.3f}", "–"])
        for method in METHODS:
            case = at[at["method"] == method]
            if len(case):
                cells = _mean(case["js"]), _mean(case["share"], 3), f"{case['reported'].mean():.3f}"
                rows.append([f"{temperature:g}", method, *cells])
    return _table(["T", "method", "divergence", "extended", "reported error"], rows)


def _rare(shares: pd.DataFrame) -> str:
    data = shares[shares["part"] == "rare"]
    rows = []
    for (bath, barrier, _), case in data.groupby(["bath", "barrier", "start"]):
        cells = [f"{bath:.0f}", f"{barrier:.0f}", f"{10 * case['start'].mean():.0f} of 10"]
        for method in (OURS, PLAIN, NEAREST):
            part = case[case["method"] == method]
            rms = float(np.sqrt((part["off"] ** 2).mean()))
            cells.append(f"{rms:.3f}, {100 * (part['sigmas'].abs() < 2).mean():.0f} %")
        rows.append(cells)
    return _table(
        ["bath", "barrier", "start right", *(f"{m}: error, within two" for m in (OURS, PLAIN, NEAREST))], rows
    )


def _dipeptide(shares: pd.DataFrame) -> str:
    data = shares[shares["part"] == "dipeptide"]
    rows = []
    for temperature in sorted(data["temperature"].unique()):
        at = data[data["temperature"] == temperature]
        truth = f"{at['truth'].iloc[0]:.4f} ± {at['truth_error'].iloc[0]:.4f}"
        rows.append([f"{temperature:g}", "truth", truth, "", "", ""])
        for method in METHODS:
            case = at[at["method"] == method]
            if len(case):
                rms = f"{np.sqrt((case['off'] ** 2).mean()):.4f}"
                within = f"{100 * (case['sigmas'].abs() < 2).mean():.0f} %"
                cells = _mean(case["share"]), rms, f"{case['reported'].mean():.4f}", within
                rows.append([f"{temperature:g}", method, *cells])
    return _table(["T [K]", "method", "C7ax", "error (rms)", "reported", "within two"], rows)


def _named_dipeptide(rows: list[dict[str, Any]]) -> str:
    """What the certificate says, and how often walkers crossed."""
    data = [row for row in rows if row["part"] == "dipeptide" and row["method"] == OURS]
    runs = {(row["seed"], row["repeat"]): row for row in data}.values()
    crossed = [row["crossings"][-1] for row in runs]
    return _wrapped(
        f"The certificate names 300 K in {sum(row['named'] for row in runs)} of {len(runs)} repeats. Independent "
        f"crossings at 600 K: {min(crossed):.0f} to {max(crossed):.0f}; at 300 K "
        f"{max(row['crossings'][0] for row in runs):.0f} at most."
    )


def _named(rows: list[dict[str, Any]], shares: pd.DataFrame) -> str:
    """How often the certificate names the lower temperature, by how wrong plain MBAR is."""
    data = shares[(shares["part"] == "rare") & (shares["method"] == PLAIN)]
    keys = ["bath", "barrier", "start", "seed", "repeat"]
    worst = (
        data.assign(worst=data["sigmas"].abs())
        .groupby(keys)
        .agg(worst=("worst", "max"), named=("named", "first"))
    )
    lines = []
    for bath in sorted(data["bath"].unique()):
        case = worst.loc[[bath]]
        for label, chosen in (
            ("plain MBAR off by three errors or more", case[case["worst"] >= 3]),
            ("by two to three", case[(case["worst"] >= 2) & (case["worst"] < 3)]),
            ("by less than two", case[case["worst"] < 2]),
        ):
            share = f"{100 * chosen['named'].mean():.0f} %" if len(chosen) else "–"
            lines.append([f"{bath:.0f}", label, f"{len(chosen)}", share])
    easy = worst.reset_index()
    easy = easy[easy["barrier"] <= _CROSSED]
    named = f"{100 * easy['named'].mean():.0f} %"
    lines.append(["all", f"barriers of {_CROSSED:g} kT or less, which walkers cross", f"{len(easy)}", named])
    return _table(["bath", "runs", "number", "T = 1 is named"], lines)


def _calibration(shares: pd.DataFrame) -> str:
    data = shares[shares["truth"] > _KEPT]
    rows = []
    for part, case in data.groupby("part"):
        cells = [str(part)]
        for method in METHODS:
            mine = case[case["method"] == method]["sigmas"].abs()
            cells.append(f"{100 * (mine < 2).mean():.0f} % of {len(mine)}" if len(mine) else "–")
        rows.append(cells)
    return _table(["part", *METHODS], rows)
