"""States in a chemist's terms: lifetimes of a Markov chain, means inside states, the command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.ensembles import plenty, pool_of, trained, walk
from typer.testing import CliRunner

from latf_openmm.cli import app
from latf_openmm.ensembles.reweighter import ensemble_at
from latf_openmm.ensembles.states import lifetimes, state_table
from latf_openmm.errors import ConfigError
from latf_openmm.run.folder import RunFolder

RUNNER = CliRunner()


def test_lifetimes_of_a_markov_chain() -> None:
    """Left with probability 0.02 and 0.05 a frame of 1 ps: 1 / 0.02 = 50 and 20 ps, less what returns within a lag."""
    rng = np.random.default_rng(0)
    states = np.zeros(200_000, dtype=np.int64)
    leave = rng.random(len(states)) < np.array([[0.02], [0.05]])
    for i in range(1, len(states)):
        states[i] = states[i - 1] ^ leave[states[i - 1], i]
    pool = replace(pool_of(walk(1.0, len(states), 1, 0.0, 0.0)), states=states)
    for found, exact in zip(lifetimes(pool, 1.0, 1), (-1 / np.log(0.98), -1 / np.log(0.95)), strict=True):
        assert abs(found.value - exact) < 3.5 * found.error
        assert 0 < found.error < 0.05 * exact
    assert np.isnan(lifetimes(pool, 2.0, 1)[0].value)
    biased = replace(pool_of(walk(1.0, len(states), 1, 0.4, 0.0)), states=states)
    assert np.isnan(lifetimes(biased, 1.0, 1)[0].value)


def test_means_inside_states() -> None:
    pool = plenty(n=2000)
    found = ensemble_at(trained(), pool, 1.4)
    table = state_table(found, pool, 2, {"x0": pool.z[:, 0]})
    assert table["population"].sum() == pytest.approx(1.0)
    assert table["x0"][0] < 0.5 < table["x0"][1]
    mean = (table["population"] * table["x0"]).sum()
    assert mean == pytest.approx(found.expectation(pool.z[:, 0]).value)
    inside = found.weights[pool.states == 1]
    x = pool.z[pool.states == 1, 0]
    exact = np.sqrt(np.average((x - np.average(x, weights=inside)) ** 2, weights=inside))
    assert table["x0_spread"][1] == pytest.approx(exact)


def test_the_command(small_run: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def height(trajectory):\n    return trajectory.xyz[:, 0, 1]\n")
    out = tmp_path / "out"
    arguments = [
        "states",
        str(small_run.path),
        "-o",
        str(out),
        "--method",
        "reweighted",
        "--observable",
        f"{mine}:height",
    ]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code in (0, 3), result.output
    table = pd.read_csv(out / "states.csv")
    assert {"state", "population", "error", "lifetime_ps", "height", "height_spread", "told_by"} <= set(
        table.columns
    )
    visited = sorted(int(path.stem[6:]) for path in out.glob("state_*.pdb"))
    assert visited == sorted(table["state"][table["population"] > 0])
    bad = RUNNER.invoke(app, ["states", str(small_run.path), "-o", str(out), "--observable", "heat_capacity"])
    assert isinstance(bad.exception, ConfigError)
    assert str(bad.exception) == "--observable: heat_capacity is not a function of single structures"


def test_observables_of_the_library() -> None:
    import mdtraj

    from latf_openmm.ensembles.observables import structure_observable
    from latf_openmm.systems import SYSTEM_KINDS, library_folder

    for kind, values in (
        ("chignolin", {"folded": 1.0}),
        ("rna_tetraloop", {"pairs": 3.0, "stem": 1.0, "sheared": 1.0}),
    ):
        built = SYSTEM_KINDS[kind]().build()
        start = mdtraj.Trajectory(built.positions[0], built.mdtraj_topology())
        for name, value in values.items():
            function = structure_observable(f"{library_folder(kind) / 'observables.py'}:{name}", start)
            assert function(start) == [value]
