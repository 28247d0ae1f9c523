"""Collect the results of all cases into docs/benchmarks/gap.md, and the table and figure beside this file."""

import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.gap.methods import NEAREST, OURS, PLAIN, STRAIGHT
from latf_openmm.model.checkpoint import versions

METHODS = (OURS, STRAIGHT, PLAIN, NEAREST)
_COLOURS = dict(zip(METHODS, ("#d55e00", "#e69f00", "#0072b2", "#999999"), strict=True))
_FOLDER = Path(__file__).parent
_CROSSED = 6.0
"""Barrier up to which all walkers cross at the lower temperature [kT]."""
_KEPT = 0.005
"""Shares below which states are left out of the calibration: an error there is that of a count."""


def write_tables(results: Path, folder: Path) -> None:
    """Write the page into `folder`, its table and figure beside this file, from the JSON files in `results`."""
    rows = [row for file in sorted(results.glob("*.json")) for row in json.loads(file.read_text())]
    if not rows:
        raise SystemExit(f"{results}: no results yet")
    frame = pd.DataFrame([{k: v for k, v in row.items() if k not in ("shares", "crossings")} for row in rows])
    shares = _shares(rows)
    page = [_HEAD.format(date=date.today(), **versions(), machine=platform.machine())]
    if "lj7" in set(frame["part"]):
        page += ["## LJ7 with a bath", _LJ7, _divergences(frame)]
        _figure(frame).savefig(_FOLDER / "gap.png", dpi=120)
        page += ["![divergence](../../benchmarks/gap/gap.png)"]
    if "dimer" in set(frame["part"]):
        page += ["## A dimer in a fluid", _DIMER, _dimers(frame, shares)]
    if "rare" in set(frame["part"]):
        page += [
            "## Walkers that do not cross",
            _RARE,
            _rare(shares),
            "### The certificate",
            _named(rows, shares),
        ]
    page += ["## Calibration", _CALIBRATION, _calibration(shares)]
    (folder / "gap.md").write_text("\n\n".join(page) + "\n")
    table = pd.concat([shares[shares["part"] != "rare"], _rare_rows(shares)], ignore_index=True)
    table.to_csv(_FOLDER / "gap.csv", index=False, float_format="%.5g")


_HEAD = """# Without overlap, and without crossings

Written by `python -m benchmarks.gap.run --work WORK` on {date} ({machine}; latf_openmm {latf_openmm}, openmm {openmm}).
All methods weight the same frames. "latf-openmm" is the default: MBAR whose states only crossings connect,
conditional energies where temperatures do not overlap. "straight path" is the density ratio alone, linear in 1/kT.
"MBAR" takes every temperature for an equilibrium sample, as is usual."""
_LJ7 = """LJ7, frames of T = 0.2 and 0.5 (20 walkers each); so many harmonic degrees of freedom are added to the
energies, which takes the overlap away and changes nothing else. Jensen-Shannon divergence [nats] of the plane of two
moments of the coordination numbers to independent runs, densities smoothed alike; in brackets MBAR's share."""
_DIMER = """Two particles with a double well in their distance among 250 that repel each other, one run of 30,000 frames
at T = 0.8 and 1.6. Divergence of the distance's distribution, and share of the extended dimer with its error."""
_RARE = """Two basins of different width, ten walkers of 1,000 frames at T = 1 and 2; the barrier is in kT at T = 1; so
many walkers start on the right. Error of the right basin's share at T = 1, 1.4 and 2 over 15 repeats (root mean
square), and how often the truth is within two reported errors. With a bath of 300 degrees of freedom
energies do not overlap."""
_CALIBRATION = (
    "Truth within two reported errors (and those of the truth), all cases above, states of 0.5 % or more."
)


def _shares(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each state."""
    table = []
    for row in rows:
        base = {k: v for k, v in row.items() if k not in ("shares", "crossings")}
        for state, share in enumerate(row["shares"]):
            sigma = float(np.hypot(share["reported"], share["truth_error"]))
            off = share["share"] - share["truth"]
            table.append({**base, "state": state, **share, "off": off, "sigmas": off / max(sigma, 1e-12)})
    return pd.DataFrame(table)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _divergences(frame: pd.DataFrame) -> str:
    data = frame[frame["part"] == "lj7"]
    temperatures = sorted(data["temperature"].unique())
    rows = []
    for (frames, bath), case in sorted(
        data.groupby(["frames", "bath"]), key=lambda item: (-item[0][0], item[0][1])
    ):
        for method in METHODS:
            here = case[case["method"] == method]
            if here.empty:
                continue
            cells = []
            for temperature in temperatures:
                at = here[here["temperature"] == temperature]
                part = f" ({at['mbar_share'].mean():.1g})" if method == OURS else ""
                cells.append(f"{at['js'].mean():.4f}{part}")
            rows.append([f"{frames:.0f}", f"{bath:.0f}", method, *cells])
    return _table(["frames each", "bath", "method", *(f"T = {t:g}" for t in temperatures)], rows)


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
    figure.axes[0].legend(fontsize=7)
    return figure


def _dimers(frame: pd.DataFrame, shares: pd.DataFrame) -> str:
    rows = []
    data = shares[shares["part"] == "dimer"]
    for temperature in sorted(data["temperature"].unique()):
        at = data[data["temperature"] == temperature]
        truth, error = at["truth"].iloc[0], at["truth_error"].iloc[0]
        rows.append([f"{temperature:g}", "independent runs", "0", f"{truth:.3f} ± {error:.3f}"])
        for method in METHODS:
            row = at[at["method"] == method].iloc[0]
            rows.append(
                [
                    f"{temperature:g}",
                    method,
                    f"{row['js']:.4f}",
                    f"{row['share']:.3f} ± {row['reported']:.3f}",
                ]
            )
    return _table(["T", "method", "divergence", "extended"], rows)


def _rare(shares: pd.DataFrame) -> str:
    data = shares[shares["part"] == "rare"]
    rows = []
    for (bath, barrier, start), case in data.groupby(["bath", "barrier", "start"]):
        cells = [f"{bath:.0f}", f"{barrier:.0f}", f"{10 * start:.0f} of 10"]
        for method in (OURS, PLAIN, NEAREST):
            part = case[case["method"] == method]
            rms = float(np.sqrt((part["off"] ** 2).mean()))
            cells.append(f"{rms:.3f}, {100 * (part['sigmas'].abs() < 2).mean():.0f} %")
        rows.append(cells)
    return _table(
        ["bath", "barrier", "start right", *(f"{m}: error, within two" for m in (OURS, PLAIN, NEAREST))], rows
    )


def _rare_rows(shares: pd.DataFrame) -> pd.DataFrame:
    """One row for all repeats of a case: root mean square error, mean reported error, share within two of them."""
    data = shares[shares["part"] == "rare"]
    data = data.assign(square=data["off"] ** 2, within_two=data["sigmas"].abs() < 2)
    keys = ["part", "bath", "barrier", "start", "seed", "temperature", "method", "state"]
    rows = data.groupby(keys)[["square", "reported", "truth", "within_two", "named"]].mean().reset_index()
    return rows.assign(rms=np.sqrt(rows["square"])).drop(columns="square")


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
    for bath, case in worst.groupby("bath"):
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
