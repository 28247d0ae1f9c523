"""Collect the results of all cases into docs/benchmarks/quality.md, and the table and figures beside this file."""

import json
import platform
from collections.abc import Iterator
from datetime import date
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_rand_score

from benchmarks.quality.cases import SYSTEMS
from latf_openmm.model.checkpoint import versions

OURS = "latf-openmm"
_METHODS = (OURS, "MBAR kernel", "MBAR histogram", "nearest T kernel", "prior-only")
_COLOURS = ("#d55e00", "#0072b2", "#56b4e9", "#999999", "#009e73")
_REGIMES = ("plentiful", "scarce", "wide", "one")
_PLANES = ("latent", "physical")

_FOLDER = Path(__file__).parent


def write_tables(results: Path, folder: Path) -> None:
    """Write the page into `folder`, its table and figures beside this file, from the JSON files in `results`."""
    files = sorted(results.glob("*.json"))
    if not files:
        raise SystemExit(f"{results}: no results yet")
    records = [_read(file) for file in files]
    frame = pd.concat([record["frame"] for record in records], ignore_index=True)
    for plane in _PLANES:
        # The divergence of an exact answer from a truth of two halves is a quarter of that between the halves.
        frame[f"{plane}_excess"] = frame[f"{plane}_js"] - 0.25 * frame[f"{plane}_floor"]
    folder.mkdir(parents=True, exist_ok=True)
    for plane in _PLANES:
        _curves(frame, plane).savefig(_FOLDER / f"quality_{plane}.png", dpi=120)
    page = [_HEAD.format(date=date.today(), **versions(), machine=platform.machine())]
    page += ["## In short", _summary(frame), "## State populations", _populations(frame)]
    page += ["## Calibration", _calibration(frame), "## States", _states(records)]
    page += ["## Mean energy and heat capacity", _energies(frame), "## Training time", _times(records)]
    for plane in _PLANES:
        page += [
            f"## Jensen-Shannon divergence, {plane} plane (nats)",
            f"![{plane}](../../benchmarks/quality/quality_{plane}.png)",
        ]
        page += [_divergences(frame, plane)]
    (folder / "quality.md").write_text("\n\n".join(page) + "\n")
    frame.drop(columns="populations").to_csv(_FOLDER / "quality.csv", index=False, float_format="%.5g")


_HEAD = """# Quality at temperatures that were not simulated

Written by `python -m benchmarks.quality.run --work WORK` on {date} ({machine}, one thread a case; latf_openmm
{latf_openmm}, torch {torch}, openmm {openmm}). All methods get the same frames. Figures are means over seeds (other
frames and other initial weights), with the standard deviation over seeds.

* **latf-openmm**: the defaults of this package (energies, context, a committee of four flows).
* **prior-only**: the paper's form (one flow; only the prior knows the temperature; energies ignored), in its own latent
  plane.
* **MBAR histogram**, **MBAR kernel**: the frames with their MBAR weights at T, binned; or smoothed by a Gaussian kernel
  whose bandwidth has the best likelihood on left-out blocks. **nearest T kernel**: only the frames of the nearest
  simulated temperature, smoothed in the same way.

The latent plane is that of latf-openmm's encoder. The physical plane is one the encoder did not choose: x, y
(three_hole), second and third moments of the coordination numbers (lj7), phi and psi (alanine dipeptide); there
latf-openmm's frames are weighted by drawing points from r_T(z) and sharing each among the nearest frames by their
MBAR weights, then smoothed as above. Truth: exact samples (three_hole), 2 x 200,000 frames of independent long runs at
each T (lj7), two independent replica exchanges of 6 x 20 ns (dipeptide). **Excess** is the divergence less what the
truth's own sampling noise leaves (a quarter of the divergence between its two halves)."""


def _read(file: Path) -> dict[str, Any]:
    record = json.loads(file.read_text())
    system, regime, seed = file.stem.rsplit("_", 2)
    frame = pd.DataFrame(record["rows"])
    frame[["system", "regime", "seed"]] = system, regime, int(seed)
    return {**record, "frame": frame, "system": system, "regime": regime, "seed": int(seed)}


def _table(rows: list[list[str]], header: list[str]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cases(frame: pd.DataFrame) -> list[tuple[str, str]]:
    there = set(zip(frame["system"], frame["regime"], strict=True))
    return [(s, r) for s in SYSTEMS for r in _REGIMES if (s, r) in there]


def _by_case(records: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for system, regime in product(SYSTEMS, _REGIMES):
        mine = [r for r in records if r["system"] == system and r["regime"] == regime]
        if mine:
            yield system, regime, mine


def _of(frame: pd.DataFrame, system: str, regime: str) -> pd.DataFrame:
    return frame[(frame["system"] == system) & (frame["regime"] == regime)]


def _summary(frame: pd.DataFrame) -> str:
    """Mean excess over the temperatures that were not simulated, and ours relative to the best competitor."""
    rows = []
    for plane in _PLANES:
        for system, regime in _cases(frame):
            part = _of(frame, system, regime)
            part = part[~part["simulated"]]
            mean = part.groupby("method")[f"{plane}_excess"].mean()
            others = mean.drop(OURS)
            cells = [f"{mean[m]:.4f}" for m in _METHODS]
            best = others.idxmin()
            ratio = f"{mean[OURS] / others[best]:.2f} ({best})"
            seeds = str(part["seed"].nunique())
            rows.append([plane, system, regime, seeds, *cells, ratio])
        totals = frame[~frame["simulated"]].groupby(["system", "regime", "method"])[f"{plane}_excess"].mean()
        over = totals.groupby("method").mean()
        best = over.drop(OURS).idxmin()
        rows.append(
            [
                plane,
                "**all**",
                "",
                "",
                *[f"**{over[m]:.4f}**" for m in _METHODS],
                f"**{over[OURS] / over[best]:.2f}** ({best})",
            ]
        )
    header = ["plane", "system", "regime", "seeds", *_METHODS, "ours / best other"]
    text = "Mean excess divergence (nats) over the temperatures that were not simulated."
    return text + "\n\n" + _table(rows, header)


def _populations(frame: pd.DataFrame) -> str:
    rows = []
    # The kernel leaves the populations of MBAR as they are.
    shown = [m for m in _METHODS if m != "MBAR kernel"]
    for system, regime in _cases(frame):
        part = _of(frame, system, regime)
        part = part[~part["simulated"]]
        found = part.groupby("method")["population_error"].agg(["mean", "max"])
        cells = [f"{found['mean'][m]:.3f} ({found['max'][m]:.3f})" for m in shown]
        rows.append([system, regime, *cells])
    header = ["system", "regime", *shown]
    text = "Largest error of a state's population at unsimulated temperatures: mean over seeds and T (and the worst)."
    return text + "\n\n" + _table(rows, header)


def _calibration(frame: pd.DataFrame) -> str:
    ours = frame[frame["method"] == OURS]
    rows, ratios = [], []
    for system, regime in _cases(frame):
        part = _of(ours, system, regime)
        cases = [p for row in part["populations"] for p in row if isinstance(row, list)]
        within = [abs(p["off"]) < 2 * np.hypot(p["reported"], p["truth"]) for p in cases]
        ratios += within
        off = np.sqrt(np.mean([p["off"] ** 2 for p in cases]))
        said = np.sqrt(np.mean([p["reported"] ** 2 for p in cases]))
        surface = part["surface_within_two"].mean()
        rows.append(
            [
                system,
                regime,
                str(len(cases)),
                f"{100 * np.mean(within):.0f} %",
                f"{off:.4f}",
                f"{said:.4f}",
                f"{100 * surface:.0f} %",
            ]
        )
    rows.append(
        [
            "**all**",
            "",
            str(len(ratios)),
            f"**{100 * np.mean(ratios):.0f} %**",
            "",
            "",
            f"**{100 * ours['surface_within_two'].mean():.0f} %**",
        ]
    )
    header = [
        "system",
        "regime",
        "populations",
        "within 2 errors",
        "RMS error",
        "RMS reported",
        "cells of F_T(z) < 5 kT within 2 errors",
    ]
    text = (
        "How often the truth lies within two reported standard errors (populations: of all states at all temperatures, "
        "the truth's own error included; 95 % would be ideal)."
    )
    return text + "\n\n" + _table(rows, header)


def _states(records: list[dict[str, Any]]) -> str:
    rows = []
    for system, regime, mine in _by_case(records):
        scores = [adjusted_rand_score(a["labels"], b["labels"]) for a, b in combinations(mine, 2)]
        numbers = ", ".join(str(r[f"{OURS} states"]) for r in mine)
        index = f"{np.mean(scores):.2f} ({min(scores):.2f})" if scores else ""
        rows.append([system, regime, numbers, index])
    text = (
        "States found with each seed (other frames and initial weights), and the adjusted Rand index between the "
        "assignments of the truth's frames: mean over pairs of seeds (and the lowest)."
    )
    return text + "\n\n" + _table(rows, ["system", "regime", "states", "adjusted Rand index"])


def _energies(frame: pd.DataFrame) -> str:
    rows = []
    chosen = ("MBAR histogram", "nearest T kernel", OURS)
    for system, regime in _cases(frame):
        part = _of(frame, system, regime)
        part = part[~part["simulated"]].copy()
        scale = SYSTEMS[system].settings.scale
        part["energy_kt"] = part["energy_error"].abs() / [scale.kT(t) for t in part["temperature"]]
        part["capacity"] = part["capacity_error"].abs()
        found = part.groupby("method")[["energy_kt", "capacity"]].mean()
        rows.append(
            [
                system,
                regime,
                *[f"{found['energy_kt'][m]:.3f} kT" for m in chosen],
                *[f"{100 * found['capacity'][m]:.0f} %" for m in chosen],
            ]
        )
    header = ["system", "regime", *[f"energy, {m}" for m in chosen], *[f"capacity, {m}" for m in chosen]]
    text = (
        "Mean absolute error at unsimulated temperatures: of the mean potential energy, and of its variance over "
        "(kT)^2 (relative). latf-openmm averages with plain MBAR weights where their effective sample size is at "
        "least 200."
    )
    return text + "\n\n" + _table(rows, header)


def _times(records: list[dict[str, Any]]) -> str:
    rows = []
    for system, regime, mine in _by_case(records):
        each = SYSTEMS[system].regimes[regime].frames_each
        seconds = np.median([r[f"{OURS} seconds"] for r in mine])
        rows.append([system, regime, f"{each}", f"{seconds:.0f} s"])
    return "Median over seeds, one thread, wall time on a machine shared with other work.\n\n" + _table(
        rows, ["system", "regime", "frames at each temperature", "training, all stages"]
    )


def _divergences(frame: pd.DataFrame, plane: str) -> str:
    text = []
    for system in SYSTEMS:
        part = frame[frame["system"] == system]
        if part.empty:
            continue
        temperatures = sorted(part["temperature"].unique())
        rows = []
        for regime in [r for r in _REGIMES if r in set(part["regime"])]:
            mine = part[part["regime"] == regime]
            simulated = set(mine[mine["simulated"]]["temperature"])
            for method in _METHODS:
                cells = []
                for t in temperatures:
                    values = mine[(mine["method"] == method) & (mine["temperature"] == t)][f"{plane}_js"]
                    mark = "*" if t in simulated else ""
                    cells.append(
                        f"{values.mean():.4f} ± {values.std():.4f}{mark}"
                        if len(values) > 1
                        else f"{values.mean():.4f}{mark}"
                    )
                rows.append([regime, method, *cells])
        floors = [f"{part[part['temperature'] == t][f'{plane}_floor'].mean():.4f}" for t in temperatures]
        rows.append(["", "two halves of the truth", *floors])
        text.append(
            f"{system}; * simulated\n\n"
            + _table(rows, ["regime", "method", *[f"{t:g}" for t in temperatures]])
        )
    return "\n\n".join(text)


def _curves(frame: pd.DataFrame, plane: str) -> Figure:
    """Excess divergence against temperature, one panel for each system and regime."""
    systems = [s for s in SYSTEMS if s in set(frame["system"])]
    regimes = [r for r in _REGIMES if r in set(frame["regime"])]
    figure = Figure(figsize=(3.1 * len(regimes) + 0.6, 2.3 * len(systems) + 0.6), layout="constrained")
    axes = figure.subplots(len(systems), len(regimes), squeeze=False)
    for row, system in enumerate(systems):
        for column, regime in enumerate(regimes):
            axis, part = axes[row, column], _of(frame, system, regime)
            for method, colour in zip(_METHODS, _COLOURS, strict=True):
                mine = part[part["method"] == method].groupby("temperature")[f"{plane}_excess"]
                mean, sd = mine.mean(), mine.std().fillna(0.0)
                front = 3 if method == OURS else 2
                axis.errorbar(
                    mean.index,
                    mean.clip(lower=2e-4),
                    sd,
                    color=colour,
                    lw=1.3,
                    marker="o",
                    ms=3,
                    label=method,
                    zorder=front,
                )
            for t in part[part["simulated"]]["temperature"].unique():
                axis.axvline(t, color="0.8", lw=4, zorder=0)
            axis.set(yscale="log", ylim=(1e-4, 1.0), title=f"{system}, {regime}")
            axis.title.set_fontsize(9)
            if row == len(systems) - 1:
                axis.set_xlabel("temperature (grey: simulated)")
        axes[row, 0].set_ylabel("excess JS [nats]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    return figure
