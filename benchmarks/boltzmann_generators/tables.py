"""The page of the benchmark: scores beside what is published."""

import json
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.boltzmann_generators.methods import METHODS
from benchmarks.boltzmann_generators.metrics import WIDTHS, free_energy_difference
from benchmarks.boltzmann_generators.parallel_tempering import Length, chunk_files
from benchmarks.boltzmann_generators.reference import EQUILIBRATION, RUNS, folder_of
from benchmarks.boltzmann_generators.scores import Reference
from benchmarks.boltzmann_generators.target import TEMPERATURES, TIMESTEP

PAGE = "boltzmann_generators.md"
_WIDTH = 118
"""Of lines."""
_COLUMNS = {
    "divergence": "divergence",
    "smoothed divergence": "divergence, smoothed",
    "torus": "torus-W2 [rad]",
    "energy": "energy-W2 [kT]",
    "free energy": "free energy of phi, 0 to 2 rad [kT]",
}
"""Scores, smaller is better, and their titles."""
_PUBLISHED = (
    ("TA-BG, 1200 K to 300 K", "7.6e7", "1e5 x 256 (training at 1200 K) + 10 x 5e6 (annealing)", "a"),
    ("reverse KL at 300 K (TA-BG's baseline)", "2.6e8", "2.5e5 x 1024 (training)", "a"),
    ("parallel tempering of PTSD, 300 to 1500 K", "5e7", "5 temperatures x 10 chains x 1e6 steps", "b"),
    ("molecular dynamics of boltzkit, 300 K", "1e10", "2 runs x 5 us with 1 fs, frames every 0.5 ps", "c"),
)
"""Method, evaluations of the target, what they are made of, source."""


def _rows(work: Path) -> pd.DataFrame:
    files = sorted((work / "scores").glob("*.json"))
    return pd.DataFrame([row for file in files for row in json.loads(file.read_text())["rows"]])


def root_mean_square(values: pd.Series) -> str:
    """Root mean square over seeds with its standard error, where there are several."""
    squares = values.to_numpy(np.float64) ** 2
    mean = float(np.sqrt(squares.mean()))
    if len(squares) == 1 or mean == 0:
        return f"{mean:.2g}"
    return f"{mean:.2g} ± {squares.std(ddof=1) / np.sqrt(len(squares)) / (2 * mean):.1g}"


def at_target(frame: pd.DataFrame) -> str:
    """Table of all scores at the lowest temperature."""
    rows = []
    for method in METHODS:
        some = frame[(frame["method"] == method) & (frame["temperature"] == TEMPERATURES[0])]
        if some.empty:
            continue
        row = {"method": method, "evaluations": f"{some['evaluations'].iloc[0]:,}"}
        row |= {title: root_mean_square(some[name]) for name, title in _COLUMNS.items()}
        row |= {"ESS of weights": f"{some['samples'].mean():,.0f} of {some['frames'].mean():,.0f}"}
        rows.append(row | {"seeds": str(some["seed"].nunique())})
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def by_temperature(frame: pd.DataFrame, references: list[Reference]) -> str:
    """Table of the smoothed divergence at all temperatures, beside what the reference itself is known to."""
    rows = []
    for reference in references:
        row: dict[str, Any] = {"T [K]": f"{reference.temperature:g}"}
        at_temperature = frame[frame["temperature"] == reference.temperature]
        for method in METHODS:
            some = at_temperature[at_temperature["method"] == method]
            if len(some):
                row[method] = root_mean_square(some["smoothed divergence"])
        rows.append(row | {"the reference itself": f"{reference.own_divergence:.2g}"})
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def reference_text(work: Path, references: list[Reference]) -> str:
    """Return a paragraph on the length of the reference and its errors."""
    chunks = [len(chunk_files(folder_of(work, run))) for run in RUNS]
    length = Length()
    each = length.frames * length.interval * TIMESTEP / 1000
    lowest = references[0]
    differences = [free_energy_difference(run.angles[:, 0], run.weights) for run in lowest.runs]
    smooth = [lowest.scores(run)["smoothed divergence"] for run in lowest.runs]
    text = f"""Reference: two parallel tempering runs that begin in different basins, {chunks[0]} and {chunks[1]} chunks
        of {each:g} ns at each temperature ({sum(chunks) * length.evaluations:.2g} evaluations together), the first
        {EQUILIBRATION} chunks of each left out. At 300 K they give {differences[0]:.2f} and {differences[1]:.2f} kT for
        the free energy of phi in [0, 2] rad. The histogram of both together is expected to diverge from the truth by
        {lowest.own_divergence:.2g} (the Jensen-Shannon divergence of the two), and the smoothed divergences of each
        from both together are {smooth[0]:.2g} and {smooth[1]:.2g}."""
    return fill(" ".join(text.split()), _WIDTH)


def write_page(work: Path, references: list[Reference], docs: Path) -> Path:
    """Write the page into `docs`, from what is in the work folder."""
    frame = _rows(work)
    costs = [f"| {what} | {cost} | {parts} | {source} |" for what, cost, parts, source in _PUBLISHED]
    text = _PAGE.format(
        temperatures=", ".join(f"{t:g}" for t in TEMPERATURES),
        reference=reference_text(work, references),
        at_target=at_target(frame),
        by_temperature=by_temperature(frame, references),
        torus=references[0].scores(references[0].frames, torus=True)["torus"],
        noise=references[0].own_divergence,
        published="\n".join(costs),
        widths=", ".join(f"{w:g}" for w in WIDTHS),
    )
    file = docs / PAGE
    file.write_text(text)
    return file


_PAGE = """# As Boltzmann generators are scored

Written by `python -m benchmarks.boltzmann_generators.run --work WORK`; no GPU. Papers on Boltzmann generators have a
system of their own: alanine dipeptide in ff96 with the implicit solvent OBC1 (`AlanineDipeptideImplicit` of
openmmtools), nothing constrained, at 300 K, often reached from 1200 K. They count evaluations of the target and score
the Ramachandran plot. Here loops of this package simulate ten temperatures, those that TA-BG anneals through, with at
most 13 million force evaluations for all of them:
{temperatures} K.

OpenMM has OBC1 as a `CustomGBForce`. Here it is a function of positions in torch that the package's compiler for biases
made a force of, with the same energies (to 1e-8 kJ/mol): 29,000 steps a second of one core, where the `CustomGBForce`
makes 3,400 on the CPU platform and 390 on Reference.

{reference}

## At 300 K

Root mean square over seeds. **exchange**, **fixed**: one walker at each temperature, which exchange (all pairs are
tried, or neighbours in turn) or stay; frames of all temperatures with the weights of `generate` (in a first run,
forces at frames, `generate --forces`, changed none).
**one temperature**: the frames of 300 K by themselves. **2 fs**: hydrogens of 3 amu, taken from what they are bound to,
and time steps of 2 fs in place of 1: the distribution of positions does not depend on masses.

{at_target}

* **divergence**: Kullback-Leibler divergence of the reference's histogram of (phi, psi) from the method's, 100 x 100
  cells, 1e-10 added to both densities, in nats. Noise alone is about (cells visited) / 2n of n independent samples,
  and more where cells stay empty. The papers draw 10 million samples from their model for it; those that they weight
  cost as many evaluations.
* **smoothed**: the method's histogram after a periodic Gaussian kernel, whose width makes blocks in time most likely
  that were left out (one of {widths} cells). The reference's own noise is in both:
  a method that is exact would have about {noise:.2g}, as in the last column of the next table.
* **torus-W2**: 2-Wasserstein distance of 1,000 samples of each side, by exact assignment, mean of five draws; two draws
  of the reference are {torus:.2g} apart.
* **energy-W2**: 2-Wasserstein distance of U/kT. **free energy**: error of that of phi in [0, 2] rad.
* **ESS of weights**: Kish's, of frames that are correlated in time. That of the papers is of independent samples of a
  model, as a fraction: the two say different things.

## At all temperatures

Smoothed divergence.

{by_temperature}

## What is published

| method | evaluations of the target | made of | source |
|---|---|---|---|
{published}

* (a) Configurations `paper/aldp`, `reverse_kl` and `default` of github.com/aimat-lab/TA-BG at 2f75235 (Schopmans and
  Friederich, ICML 2025, arXiv 2501.19077). Not counted: energies of the 10 million samples that the last evaluation
  weights. The abstract says up to three times fewer evaluations than the baseline.
* (b) `configs/pt_aldp.yaml` of github.com/cambridge-mlg/Progressive-Tempering-Sampler-with-Diffusion at 5853c23 (ICML
  2025, arXiv 2506.05231); the same target, cells of 64 x 64.
* (c) `docs/source/targets/molecular_boltzmann.rst` of github.com/ChristophervonKlitzing/boltzkit at fe9eaef. Its force
  field is in a data set that was not read.

Their scores are in the papers' tables, which were not at hand, so none is repeated here. Some of it would not compare:

* A Boltzmann generator gives independent samples and their density afterwards, at no further cost; a loop gives frames.
* An evaluation of a generator is an energy, and a gradient where it is trained on energies; here it is a step with
  forces. Training is not counted on either side.
* The evaluations of a generator are for 300 K and its steps on the way; those of a loop give all temperatures at once.
"""
