"""Tables and figure of the ensembles benchmark."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
import matplotlib.pyplot as plt

METHODS = (
    "latf-openmm",
    "MBAR alone",
    "flow alone",
    "prior-only, nearest frames",
    "replica exchange",
)
_COLOURS = dict(zip(METHODS, ("#1b6ca8", "#e08214", "#7f7f7f", "#c9a0dc", "#3a9d5d"), strict=True))
_SYSTEMS = ("three_hole", "lj7", "alanine_dipeptide")
_REGIMES = ("plentiful", "scarce", "wide")
_INSIDE = 2.0
_FOLDER = Path(__file__).parent


def write_tables(results: Path, docs: Path) -> None:
    """Write ``ensembles.md`` into `docs`, its table and figure beside this file, from the JSON files in `results`."""
    rows = [
        {**row, "system": record["system"], "regime": record["regime"], "seed": record["seed"]}
        for path in sorted(results.glob("*.json"))
        for record in [json.loads(path.read_text())]
        for row in record["rows"]
    ]
    if not rows:
        return
    docs.mkdir(parents=True, exist_ok=True)
    long, places = _long(rows), _places(rows)
    long.to_csv(_FOLDER / "ensembles.csv", index=False, float_format="%.6g")
    parts = [
        "# Ensembles at temperatures nobody simulated\n",
        "![errors](../../benchmarks/ensembles/ensembles.png)\n",
        _what(long),
        "## Errors of each method\n",
        _errors(long, places),
        "## Levels and verdicts\n",
        _levels(places),
        "## Coverage of the error bars\n",
        _coverage(long),
        "## Alanine dipeptide, free energy of C7ax over C7eq\n",
        _free_energy(long),
        "## LJ7, temperature by temperature\n",
        _by_temperature(long, "lj7"),
        "## Structures\n",
        _structures(rows),
        *_memory(results.parent / "memory.json"),
    ]
    (docs / "ensembles.md").write_text("\n".join(parts))
    _figure(long, _FOLDER / "ensembles.png")


def _long(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each observable of each method, temperature and seed."""
    found = []
    for row in rows:
        for name, value in row["values"].items():
            found.append(
                {
                    key: row.get(key)
                    for key in ("system", "regime", "seed", "temperature", "method", "simulated")
                }
                | {
                    "level": row.get("level", "").replace("refined", "annealed"),
                    "verdict": row.get("verdict", ""),
                    "observable": name,
                    "value": value,
                    "error": row.get("errors", {}).get(name, np.nan),
                    "truth": row["truth"][name],
                    "truth_error": row["truth_errors"][name],
                    "evaluations": row["evaluations"],
                }
            )
    frame = pd.DataFrame(found)
    frame["off"] = frame["value"] - frame["truth"]
    return frame


def _places(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row for each method, temperature and seed."""
    keys = [
        "system",
        "regime",
        "seed",
        "temperature",
        "method",
        "simulated",
        "level",
        "verdict",
        "independent",
    ]
    keys += ["reached", "divergence", "floor", "energies_apart", "evaluations", "evaluations_simulated"]
    return pd.DataFrame([{key: row.get(key) for key in keys} for row in rows])


def _what(long: pd.DataFrame) -> str:
    seeds = long.groupby(["system", "regime"])["seed"].nunique()
    counted = ", ".join(f"{s} {r} {n}" for (s, r), n in seeds.items())
    return (
        "Made by `python -m benchmarks.ensembles.run --work WORK`; the cases are those of "
        "`benchmarks/quality/cases.py`. Each is one round of the loop (simulate, train), then what `latf-openmm "
        "generate` gives at each temperature, with the level it chose itself. Beside it, from the same frames: MBAR "
        "alone; the flow's samples with the frames near them; a flow in the paper's form, its samples mapped to the "
        "nearest frame. And replica exchange over the six temperatures with as many force evaluations as simulation "
        "and refinement took together (of one case, for all temperatures). Truth: quadrature (three_hole), 100 long "
        f"unbiased runs (LJ7), replica exchange of 2 x 6 x 20 ns (dipeptide). Seeds: {counted}.\n"
    )


def _errors(long: pd.DataFrame, places: pd.DataFrame) -> str:
    lines = [
        "Root mean square over seeds and the temperatures that were not simulated: mean energy in kT; heat capacity in "
        "percent; the largest error of a state's population; divergence in the plane the encoder did not choose, over "
        "the floor that two halves of the truth have. Force evaluations in millions.",
        "",
        "| system | data | method | energy (kT) | heat capacity (%) | population | divergence / floor | evaluations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    new = long[~long["simulated"].astype(bool)]
    for system in _SYSTEMS:
        for regime in _REGIMES:
            for method in METHODS:
                mine = new[(new["system"] == system) & (new["regime"] == regime) & (new["method"] == method)]
                where = places[
                    (places["system"] == system) & (places["regime"] == regime) & (places["method"] == method)
                ]
                where = where[~where["simulated"].astype(bool)]
                if mine.empty:
                    continue
                energy = mine[mine["observable"] == "energy"]
                kT = energy["temperature"] * (0.0083144626 if system == "alanine_dipeptide" else 1.0)
                capacity = mine[mine["observable"] == "heat capacity"]
                shares = mine[mine["observable"].str.startswith("population")]
                worst = shares.assign(off=shares["off"].abs()).groupby(["seed", "temperature"])["off"].max()
                ratio = np.sqrt((where["divergence"] ** 2).mean()) / where["floor"].mean()
                all_of_them = method in ("latf-openmm", "replica exchange")
                evaluations = where["evaluations" if all_of_them else "evaluations_simulated"].mean() / 1e6
                lines.append(
                    f"| {system} | {regime} | {method} | {_rms(energy['off'] / kT):.3f} | "
                    f"{100 * _rms(capacity['off'] / capacity['truth']):.1f} | {_rms(worst):.3f} | {ratio:.2f} | "
                    f"{evaluations:.1f} |"
                )
    return "\n".join(lines) + "\n"


def _rms(values: Any) -> float:
    return float(np.sqrt((np.asarray(values, dtype=float) ** 2).mean()))


def _levels(places: pd.DataFrame) -> str:
    mine = places[places["method"] == "latf-openmm"]
    lines = [
        "| system | data | temperature | frames that reach it | level (seeds) | independent frames | verdict (seeds) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (system, regime, temperature), group in mine.groupby(["system", "regime", "temperature"], sort=False):
        levels = ", ".join(f"{name} {n}" for name, n in group["level"].value_counts().items())
        verdicts = ", ".join(f"{name} {n}" for name, n in group["verdict"].value_counts().items())
        star = " (simulated)" if group["simulated"].any() else ""
        lines.append(
            f"| {system} | {regime} | {temperature:g}{star} | {group['reached'].median():.0f} | {levels} | "
            f"{group['independent'].median():.0f} | {verdicts} |"
        )
    return "\n".join(lines) + "\n"


def _coverage(long: pd.DataFrame) -> str:
    mine = long[(long["method"].isin(METHODS[:3])) & long["error"].notna()].copy()
    both = np.hypot(mine["error"], mine["truth_error"])
    mine["inside"] = mine["off"].abs() <= _INSIDE * both
    mine["kind"] = np.where(
        mine["observable"].str.startswith("population"), "populations", mine["observable"]
    )
    lines = [
        "Share of (temperature, seed) whose truth lies within two reported standard errors (of the truth too).",
        "",
        "| | energy | heat capacity | populations | all |",
        "|---|---|---|---|---|",
    ]
    ours = mine[mine["method"] == METHODS[0]]
    parts = [(f"latf-openmm, {name}", ours[ours["system"] == name]) for name in _SYSTEMS]
    parts += [
        (f"latf-openmm, {level}", ours[ours["level"] == level])
        for level in ("reweighted", "annealed", "flow")
    ]
    parts += [("**latf-openmm**", ours), ("latf-openmm, verdict not poor", ours[ours["verdict"] != "poor"])]
    parts += [(method, mine[mine["method"] == method]) for method in METHODS[1:3]]
    for title, part in parts:
        if part.empty:
            continue
        cells = [part[part["kind"] == kind]["inside"] for kind in ("energy", "heat capacity", "populations")]
        cells.append(part["inside"])
        lines.append(
            f"| {title} | " + " | ".join(f"{100 * c.mean():.0f} % of {len(c)}" for c in cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _free_energy(long: pd.DataFrame) -> str:
    mine = long[long["observable"] == "free energy C7ax"].copy()
    if mine.empty:
        return ""
    mine["kcal"] = mine["off"].abs() / 4.184
    lines = [
        "Absolute error [kcal/mol], median over seeds (largest); phi between 0 and 150 degrees is C7ax.",
        "",
        "| data | method | " + " | ".join(f"{t:g} K" for t in sorted(mine["temperature"].unique())) + " |",
        "|---|---|" + "---|" * mine["temperature"].nunique(),
    ]
    for regime in _REGIMES:
        for method in METHODS:
            part = mine[(mine["regime"] == regime) & (mine["method"] == method)]
            if part.empty:
                continue
            cells = [
                f"{group['kcal'].median():.2f} ({group['kcal'].max():.2f})"
                for _, group in part.groupby("temperature")
            ]
            lines.append(f"| {regime} | {method} | " + " | ".join(cells) + " |")
    truth = mine.groupby("temperature")[["truth", "truth_error"]].mean() / 4.184
    cells = [f"{row.truth:.2f} ± {row.truth_error:.2f}" for row in truth.itertuples()]
    return "\n".join([*lines, "| | truth | " + " | ".join(cells) + " |"]) + "\n"


def _by_temperature(long: pd.DataFrame, system: str) -> str:
    mine = long[
        (long["system"] == system) & long["method"].isin(("latf-openmm", "MBAR alone", "replica exchange"))
    ]
    lines = [
        "Median over seeds of |error| in percent of the truth (worst seed): mean energy / heat capacity.",
        "",
        "| data | method | " + " | ".join(f"{t:g}" for t in sorted(mine["temperature"].unique())) + " |",
        "|---|---|" + "---|" * mine["temperature"].nunique(),
    ]
    for regime in _REGIMES:
        for method in ("latf-openmm", "MBAR alone", "replica exchange"):
            part = mine[(mine["regime"] == regime) & (mine["method"] == method)]
            cells = []
            for _, group in part.groupby("temperature"):
                texts = []
                for name in ("energy", "heat capacity"):
                    one = group[group["observable"] == name]
                    percent = 100 * (one["off"] / one["truth"]).abs()
                    texts.append(f"{percent.median():.2g} ({percent.max():.2g})")
                cells.append(" / ".join(texts))
            if cells:
                lines.append(f"| {regime} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _structures(rows: list[dict[str, Any]]) -> str:
    found = [row for row in rows if row.get("geometry")]
    lines = [
        "Alanine dipeptide, 1000 structures each beside 3,900 of the force field's own run at the same temperature: "
        "bond lengths and angles outside what those show, the largest shift of a bond's or an angle's mean (in its "
        "standard deviations), structures of the wrong hand. All systems: largest distance of the "
        "cumulative distributions of energy.",
        "",
        "| data | level | bonds outside | angles outside | largest shift | wrong hand |",
        "|---|---|---|---|---|---|",
    ]
    table = pd.DataFrame(
        [{**row["geometry"], "regime": row["regime"], "level": row["level"]} for row in found]
    )
    if not table.empty:
        for (regime, level), group in table.groupby(["regime", "level"]):
            shift = group[["bonds_shift", "angles_shift"]].max(axis=None)
            lines.append(
                f"| {regime} | {level} | {100 * group['bonds_outside'].mean():.3f} % | "
                f"{100 * group['angles_outside'].mean():.3f} % | {shift:.2f} | "
                f"{100 * group['wrong_hand'].mean():.2f} % |"
            )
    apart = pd.DataFrame(rows)
    lines += ["", "| system | data | " + " | ".join(METHODS) + " |", "|---|---|" + "---|" * len(METHODS)]
    for (system, regime), group in apart.groupby(["system", "regime"], sort=False):
        means = group.groupby("method")["energies_apart"].mean()
        lines.append(f"| {system} | {regime} | " + " | ".join(f"{means[m]:.3f}" for m in METHODS) + " |")
    return "\n".join(lines) + "\n"


def _memory(path: Path) -> list[str]:
    if not path.is_file():
        return []
    rows = json.loads(path.read_text())
    lines = [
        "## Memory\n",
        f"`python -m benchmarks.ensembles.memory --work WORK` on {rows[0]['frames']:,} frames of chignolin (166 "
        "atoms), the same short run repeated: this tests the size, not the physics. Peak of the process.\n",
        "| command | peak memory (GB) | time (s) |",
        "|---|---|---|",
    ]
    lines += [f"| {row['command']} | {row['gigabytes']:.2f} | {row['seconds']:.0f} |" for row in rows]
    return ["\n".join(lines) + "\n"]


def _figure(long: pd.DataFrame, path: Path) -> None:
    """Errors against temperature for the hard cases."""
    panels = [
        ("lj7", "wide", "energy", "LJ7, 0.2 and 0.7: error of the mean energy"),
        ("lj7", "wide", "heat capacity", "LJ7, 0.2 and 0.7: error of the heat capacity"),
        ("alanine_dipeptide", "scarce", "energy", "dipeptide, 400 and 600 K, 1 ns each: energy [kJ/mol]"),
        ("alanine_dipeptide", "scarce", "free energy C7ax", "dipeptide: free energy of C7ax [kJ/mol]"),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), constrained_layout=True)
    for ax, (system, regime, name, title) in zip(axes.flat, panels, strict=True):
        mine = long[(long["system"] == system) & (long["regime"] == regime) & (long["observable"] == name)]
        temperatures = sorted(mine["temperature"].unique())
        places = np.arange(len(temperatures))
        for shift, method in enumerate(METHODS):
            part = mine[mine["method"] == method]
            groups = [part[part["temperature"] == t]["off"].to_numpy() for t in temperatures]
            for at, group in zip(places, groups, strict=True):
                ax.plot(
                    np.full(len(group), at + 0.14 * (shift - 2)),
                    group,
                    "o",
                    ms=4,
                    color=_COLOURS[method],
                    alpha=0.8,
                    label=method if at == 0 else None,
                )
        ax.axhline(0, color="black", lw=0.8)
        simulated = [t for t in temperatures if mine[mine["temperature"] == t]["simulated"].any()]
        ax.set_xticks(places, [f"{t:g}" + ("*" if t in simulated else "") for t in temperatures])
        ax.set_xlabel("temperature (* simulated)")
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        others = mine[mine["method"] != METHODS[3]]["off"].abs().replace(np.inf, np.nan)
        limit = 1.2 * others.max() if len(others) else 1.0  # the paper's form may lie outside
        ax.set_ylim(-limit, limit)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
