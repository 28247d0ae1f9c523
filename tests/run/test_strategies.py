"""What is decided after a round: against oscillators, whose overlaps are known, and in real loops."""

import json
import shutil
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import small_config
from helpers.ensembles import DIM, plenty, pool_of, trained, walk
from helpers.folders import killed_before_its_decision, resealed

from latf_openmm.ensembles.pool import Pool
from latf_openmm.errors import ConfigError, DataError
from latf_openmm.frames.trajectory import FeatureTrajectory
from latf_openmm.report.page import write_report
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.run.strategies import STRATEGY_KINDS, RoundState
from latf_openmm.run.strategies.active import ActiveSettings
from latf_openmm.run.strategies.error_model import ErrorModel
from latf_openmm.run.strategies.fixed import FixedSettings
from latf_openmm.run.strategies.uniform import UniformSettings
from latf_openmm.sampling.tempering.exchange import ExchangeSettings
from latf_openmm.settings import validate
from latf_openmm.storage import write_record

CASES = {"active": ActiveSettings(), "fixed": FixedSettings(), "uniform": UniformSettings()}


def round_state(
    pool: Pool | None = None, targets: tuple[float, ...] = (0.7, 1.5), **changes: object
) -> RoundState:
    pool = plenty() if pool is None else pool
    found = RoundState(trained(), pool, 0, targets, (1.0, 2.0), 3, 500, True, 5)
    return replace(found, **changes)  # type: ignore[arg-type]


def test_every_kind_is_here() -> None:
    assert set(CASES) == set(STRATEGY_KINDS)


@pytest.mark.parametrize("kind", CASES)
def test_a_decision_is_whole(kind: str) -> None:
    s = round_state()
    made = CASES[kind].decide(s)
    again = CASES[kind].decide(round_state())
    assert len(set(made.temperatures)) == len(made.temperatures) == len(s.configured)
    assert set(made.biased) <= set(made.temperatures)
    assert set(made.starts) == set(made.temperatures)
    for temperature, frames in made.starts.items():
        assert frames.shape == (s.walkers,)
        assert ((frames >= 0) & (frames < len(s.pool.z))).all()
        np.testing.assert_array_equal(frames, again.starts[temperature])
    assert made.reasons
    json.dumps(made.diagnostics, allow_nan=False)
    assert CASES[kind].decide(replace(s, can_bias=False)).biased == ()


def test_fixed_and_uniform_temperatures() -> None:
    s = round_state(targets=(0.5, 4.0))
    assert FixedSettings().decide(s).temperatures == (1.0, 2.0)
    seen: list[float] = []
    for rounds in range(1, 9):
        first = [replace(walker, run="000/T1") for walker in s.pool.walkers]
        walkers = (*first, *(replace(first[0], run=f"{index:03d}/T1") for index in range(1, rounds)))
        made = UniformSettings().decide(replace(s, pool=replace(s.pool, walkers=walkers)))
        assert all(0.5 <= t <= 4.0 for t in made.temperatures)
        seen += made.temperatures
    # Evenly over ln T: each eighth has its share.
    counts = np.histogram(np.log(seen), bins=8, range=(np.log(0.5), np.log(4.0)))[0]
    assert counts.max() <= 3
    assert counts.min() >= 1


def exact_share(start: float, target: float) -> float:
    """Of oscillators: U is Gamma distributed, E[exp(-d U)] = (1 + d kT)^(-DIM/2)."""
    d = 1 / target - 1 / start
    k = DIM / 2
    if 1 + 2 * d * start <= 0:
        return 0.0
    return float((1 + 2 * d * start) ** k / (1 + d * start) ** (2 * k))


def test_the_share_of_frames_that_count_elsewhere() -> None:
    known = ErrorModel(round_state(plenty(n=8000)), ActiveSettings())
    for start, target in ((1.0, 1.2), (1.0, 0.8), (2.0, 1.5), (1.0, 0.6), (1.5, 1.0)):
        assert known.share(start, target) == pytest.approx(exact_share(start, target), abs=0.06)
    assert known.share(1.3, 1.3) == 1.0
    # Where no frames reach, energies are taken for Gaussian, with the heat capacity of the nearest temperature.
    beta = 1 / 0.02 - 1 / 1.0
    assert known.share(1.0, 0.02) == pytest.approx(np.exp(-(beta**2) * DIM / 2), rel=0.2)


def test_a_rounds_effective_samples() -> None:
    """g = (1 + c) / (1 - c) of these walks."""
    cold = [walk(1.0, 8000, i, 0.0, 0.95) for i in range(2)]
    hot = [walk(2.0, 8000, 7 + i, 0.0, 0.5) for i in range(2)]
    known = ErrorModel(round_state(pool_of(*cold, *hot)), ActiveSettings())
    assert known.new_frames(1.0) == pytest.approx(3 * 500 / 39, rel=0.3)
    assert known.new_frames(2.0) == pytest.approx(3 * 500 / 3, rel=0.3)
    assert known.new_frames(1.0) < known.new_frames(1.4) < known.new_frames(2.0)
    assert known.new_frames(5.0) == known.new_frames(2.0)


def test_temperatures_go_to_where_frames_are_missing() -> None:
    pool = pool_of(*(walk(2.0, 4000, i, 0.0, 0.8) for i in range(4)))
    far = replace(round_state(pool, targets=(0.3,)), configured=(2.0,))
    (chosen,) = ActiveSettings().decide(far).temperatures
    assert chosen < 0.6
    near = replace(round_state(pool, targets=(2.5,)), configured=(2.0,))
    (chosen,) = ActiveSettings().decide(near).temperatures
    assert chosen >= 2.0
    made = ActiveSettings().decide(far)
    rows = made.diagnostics["candidates"]
    best = min(rows, key=lambda row: row["error expected"])
    assert best["chosen"] == 1
    assert all(row["error expected"] <= row["error now"] * 1.0001 for row in rows)
    assert "the error is largest at T = 0.3" in made.reasons[0]


def test_the_error_expected_is_what_a_round_brings() -> None:
    """The fall of the target's error that is promised, against that of a real round there."""
    few = pool_of(*(walk(1.0, 1500, i, 0.0, 0.8) for i in range(3)))
    s = replace(round_state(few, targets=(1.6,)), configured=(1.0,), walkers=6, frames=1500)
    known = ErrorModel(s, ActiveSettings())
    before = known.target(1.6)
    gain = known.new_frames(1.6) * known.share(1.6, 1.6)
    more = pool_of(
        *(walk(1.0, 1500, i, 0.0, 0.8) for i in range(3)),
        *(walk(1.6, 1500, 50 + i, 0.0, 0.8) for i in range(6)),
    )
    after = ErrorModel(replace(s, pool=more), ActiveSettings()).target(1.6)
    assert after.n_effective == pytest.approx(before.n_effective + gain, rel=0.3)


def test_bias_where_walkers_are_stuck() -> None:
    """x0 > 0.5 is entered often at a correlation of 0.8, hardly ever at 0.9999."""
    free = ActiveSettings().decide(round_state())
    assert free.biased == ()
    assert "bias nowhere" in free.reasons[1]
    stuck = pool_of(*(walk(t, 500, i, 0.0, 0.99999) for i, t in enumerate((1.0, 1.0, 2.0, 2.0))))
    made = ActiveSettings().decide(round_state(stuck))
    assert made.biased == made.temperatures
    half = pool_of(
        *(walk(1.0, 500, i, 0.0, 0.99999) for i in range(2)),
        *(walk(2.0, 500, 5 + i, 0.0, 0.5) for i in range(2)),
    )
    known = ErrorModel(round_state(half), ActiveSettings())
    assert known.visits(1.0) < 2 < 50 < known.visits(2.0)
    assert known.visits(1.0) < known.visits(1.4) < known.visits(2.0)


@pytest.mark.parametrize("kind", ["fixed", "uniform"])
def test_other_strategies_always_move_walkers_that_can(kind: str) -> None:
    assert CASES[kind].decide(round_state(tempering=ExchangeSettings())).moving
    assert not CASES[kind].decide(round_state()).moving


def test_walkers_start_in_what_is_missing() -> None:
    """All frames at T = 1 have x0 < 0.5; those at 2 tell how many should not."""
    one_sided = replace(walk(1.0, 4000, 0, 0.0, 0.8))
    kept = one_sided.features[:, 0] < 0.5
    one_sided = replace(
        one_sided,
        features=one_sided.features[kept],
        potential_energy=one_sided.potential_energy[kept],
        log_weights=one_sided.log_weights[kept],
    )
    pool = pool_of(one_sided, *(walk(1.6, 6000, 9 + i, 0.0, 0.8) for i in range(4)))
    s = replace(round_state(pool, targets=(1.0,)), walkers=400, frames=50)
    known = ErrorModel(s, ActiveSettings())
    n, wanted = int(kept.sum()), known.shares(1.0)
    starts = known.starts((1.0, 1.3), ())
    new = (pool.states[starts[1.0]] == 1).mean() * 400 * 50
    assert new / (n + 400 * 50) == pytest.approx(wanted[1], abs=0.01)
    # Nothing was simulated at 1.3: walkers start in equilibrium, by the weights at that temperature.
    x = pool.z[starts[1.3], 0]
    assert (pool.states[starts[1.3]] == 1).mean() == pytest.approx(known.shares(1.3)[1], abs=0.005)
    assert (x**2).mean() == pytest.approx(1.3, rel=0.15)
    # Biased walkers start evenly over the states.
    assert (pool.states[known.starts((1.3,), (1.3,))[1.3]] == 1).mean() == pytest.approx(0.5, abs=0.005)


def test_the_committee_counts_where_the_flow_speaks() -> None:
    known = ErrorModel(round_state(targets=(1.5, 0.05)), ActiveSettings())
    near, far = known.target(1.5), known.target(0.05)
    assert (near.method, far.method) == ("reweighted", "flow")
    frames = max(max(p.error for p in near.populations) / 0.02, near.energy.error / 0.1)
    assert near.error == pytest.approx(frames)
    assert far.error >= far.committee.max() / 0.02


def test_it_stops_when_errors_and_changes_are_small() -> None:
    pool = plenty(n=4000)
    loose = ActiveSettings(population_tolerance=0.2, energy_tolerance=0.5)
    assert not loose.decide(round_state(pool, targets=(1.5,))).stop  # nothing to compare with yet
    later = round_state(pool, targets=(1.5,), before=3)
    made = loose.decide(later)
    assert made.stop
    assert "within the tolerances" in made.reasons[-1]
    assert not loose.model_copy(update={"stop": False}).decide(later).stop
    assert not ActiveSettings(population_tolerance=1e-4).decide(later).stop
    assert not loose.decide(round_state(pool, targets=(1.5, 0.01), before=3)).stop  # no frame reaches 0.01


# --- temperatures without overlap, and the certificate ------------------------------------------------------------


def bathed(*trajectories: FeatureTrajectory, bath: int = 2000) -> Pool:
    """The same with oscillators that are coupled to nothing, which take all overlap away."""
    rng = np.random.default_rng(4)
    return pool_of(
        *(
            replace(
                t, potential_energy=t.potential_energy + 0.5 * t.temperature * rng.chisquare(bath, t.n_frames)
            )
            for t in trajectories
        )
    )


def latent_share(start: float, target: float, dim: int = 2) -> float:
    """1 / integral of p_target^2 / p_start of normal densities of these variances in z."""
    d, k = 1 / target - 1 / start, dim / 2
    return float((1 + 2 * d * start) ** k / (1 + d * start) ** (2 * k))


def test_without_overlap_frames_count_by_their_collective_variables() -> None:
    pool = bathed(*(walk(t, 4000, i, 0.0, 0.5) for i, t in enumerate((1.0, 1.0, 2.0, 2.0))))
    known = ErrorModel(round_state(pool), ActiveSettings())
    assert known.reweighter.reach(1.4) < 5
    for start, target in ((1.0, 1.3), (2.0, 1.4), (1.4, 1.0)):
        # Energies alone would say that next to nothing counts.
        assert np.exp(-((1 / target - 1 / start) ** 2) * 1000 * start**2) < 1e-9
        assert known.share(start, target) == pytest.approx(latent_share(start, target), abs=0.12)
    # Beyond what conditional energies claim, energies are all there is.
    assert not known.reweighter.weighting.claims(8.0)  # type: ignore[union-attr]
    assert known.share(2.0, 8.0) < 1e-9
    assert known.share(1.5, 1.5) == 1.0


def test_with_overlap_measured_shares_are_taken() -> None:
    """Not those of z alone, which know two of the four oscillators."""
    known = ErrorModel(round_state(plenty(n=8000)), ActiveSettings())
    assert known.share(1.0, 1.6) == pytest.approx(exact_share(1.0, 1.6), abs=0.06)
    assert abs(known.share(1.0, 1.6) - latent_share(1.0, 1.6)) > 0.08


def stuck_at_one() -> Pool:
    """At T = 1 every walker stays where x0 < 0.5, at 2 all cross."""
    cold = []
    for i in range(4):
        t = walk(1.0, 3000, i, 0.0, 0.8)
        kept = t.features[:, 0] < 0.5
        cold.append(
            replace(
                t,
                features=t.features[kept],
                potential_energy=t.potential_energy[kept],
                log_weights=t.log_weights[kept],
            )
        )
    return pool_of(*cold, *(walk(2.0, 3000, 9 + i, 0.0, 0.8) for i in range(4)))


def test_a_temperature_that_is_not_in_proportion_is_biased() -> None:
    """By the certificate alone: `visits` is zero. Others are not, nor those without a bias."""
    settings = ActiveSettings(visits=0.0)
    many = tuple(float(t) for t in np.linspace(1.0, 2.0, 12))
    s = replace(round_state(stuck_at_one(), targets=(1.0, 2.0)), configured=many)
    test = s.reweighter.certificate
    assert test.off and test.temperatures == {1.0}
    made = settings.decide(s)
    known = ErrorModel(s, settings)
    assert made.biased == tuple(t for t in made.temperatures if known.nearest(t) == 1.0)
    assert 0 < len(made.biased) < len(made.temperatures)
    assert any("not sampled in proportion at T = 1" in reason for reason in made.reasons)
    assert settings.decide(replace(s, can_bias=False)).biased == ()
    assert settings.decide(round_state()).biased == ()  # nothing is wrong there


def test_a_region_that_is_not_in_proportion_is_biased_at_both_temperatures() -> None:
    """At T = 1 the sign of x1 is held: inside both states half of z is missing, which states do not show."""
    cold = []
    for i in range(4):
        t = walk(1.0, 3000, i, 0.0, 0.8)
        x = t.features.copy()
        x[:, 1] = np.abs(x[:, 1])
        cold.append(replace(t, features=x))
    s = round_state(pool_of(*cold, *(walk(1.6, 3000, 9 + i, 0.0, 0.8) for i in range(4))), targets=(1.0, 1.6))
    test = s.reweighter.certificate
    assert not test.off and not test.rare
    assert test.temperatures == {1.0, 1.6}
    made = ActiveSettings(visits=0.0).decide(s)
    assert made.biased == made.temperatures
    assert any("not sampled in proportion inside the state" in reason for reason in made.reasons)


def test_the_nearest_simulated_temperature() -> None:
    known = ErrorModel(round_state(), ActiveSettings())
    assert [known.nearest(t) for t in (0.1, 1.0, 1.4, 1.45, 9.0)] == [1.0, 1.0, 1.0, 2.0, 2.0]


def test_unknown_energies_leave_the_temperatures_alone() -> None:
    flat = pool_of(*(replace(t, potential_energy=np.zeros(t.n_frames)) for t in plenty().trajectories))
    made = ActiveSettings().decide(round_state(flat))
    assert made.temperatures == (1.0, 2.0)
    assert "energies are not known" in made.reasons[0]


# --- in loops -------------------------------------------------------------------------------------------------


def active_config(**loop: object) -> RunConfig:
    data = small_config().model_dump(mode="json")
    data["loop"] = {"rounds": 3, "strategy": {"kind": "active", "visits": 1.0}} | loop
    data["generate"] = {"samples": 200, "temperatures": [0.9, 2.0]}
    data["validation"] = None
    return validate(RunConfig, data, "active")


@pytest.fixture(scope="module")
def active_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_loop(active_config(), tmp_path_factory.mktemp("active") / "run")


def test_a_loop_does_what_was_decided(active_run: RunFolder) -> None:
    for index in (1, 2):
        plan = active_run.round(index - 1).read_decision()
        walkers = [w for w in active_run.walkers(index) if w.run.startswith(f"{index:03d}")]
        assert sorted({w.temperature for w in walkers}) == pytest.approx(sorted(plan.temperatures))
        for walker in walkers:
            biased = walker.temperature in plan.biased
            assert (np.ptp(walker.table["bias_energy"]) > 0) == biased
        summary = active_run.round(index).summary()
        assert summary.temperatures == plan.temperatures
        assert len(plan.reasons) >= 2
    assert {t for i in range(2) for t in active_run.round(i).read_decision().temperatures} != {0.7, 1.3}


def test_the_report_shows_the_numbers_of_the_last_decision(active_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(active_run.path, tmp_path / "run", symlinks=True)
    run = RunFolder.open(tmp_path / "run")
    page = write_report(run, 2).read_text()
    plan = run.round(2).read_decision()
    for reason in plan.reasons:
        assert escape(reason) in page
    for name in (*plan.diagnostics["targets"][0], *plan.diagnostics["states"][0]):
        assert name == "temperature" or f"<th>{name}</th>" in page


@pytest.mark.slow
def test_a_killed_decision_is_made_again(active_run: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    whole = active_run.path / "rounds" / "001"
    before, starts = (whole / "decision.json").read_text(), dict(np.load(whole / "starts.npz"))
    first = killed_before_its_decision(active_run.path, copy, 1)
    run_loop(active_config(), copy)
    assert (first / "decision.json").read_text() == before
    again = np.load(first / "starts.npz")
    assert all(np.array_equal(starts[name], again[name]) for name in again.files)
    a, b = (RunFolder.open(path).walkers(2)[-1].table for path in (copy, active_run.path))
    assert a.equals(b)


def test_a_damaged_plan_is_named(active_run: RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(active_run.path, copy)
    shutil.rmtree(copy / "rounds" / "002")
    write_record(copy / "rounds" / "001" / "decision.json", {"temperatures": ["hot"]})
    resealed(copy)
    with pytest.raises(DataError, match=r"decision.json: damaged .*expected the plan of a round"):
        run_loop(active_config(), copy)


def test_the_budget_ends_a_run(tmp_path: Path) -> None:
    steps = 0.001 * 60 * small_config().simulation.frame_interval * small_config().simulation.timestep * 6
    run = run_loop(active_config(rounds=9, max_simulated_ns=1.5 * steps), tmp_path / "run")
    assert len(run.complete_rounds()) == 2
    run = run_loop(
        active_config(rounds=9, max_wall_hours=1e-6), tmp_path / "run"
    )  # the same, limited in hours
    assert len(run.complete_rounds()) == 2


def test_bad_strategies() -> None:
    data = small_config().model_dump(mode="json")
    for strategy, message in (
        (
            {"kind": "greedy"},
            "loop.strategy: there is no kind 'greedy'; expected one of 'active', 'fixed', 'uniform'",
        ),
        (
            {"kind": "active", "population_tolerance": 0},
            "loop.strategy.population_tolerance: .*greater than 0",
        ),
        ({"kind": "fixed", "visits": 3}, "loop.strategy.visits: unknown key"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(
                RunConfig, yaml.safe_load(yaml.safe_dump(data | {"loop": {"strategy": strategy}})), "bad"
            )
