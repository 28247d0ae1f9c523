"""Many sentences on one subject are said as one."""

from latf_openmm.reweighting.along import DensityStep
from latf_openmm.reweighting.consistency import Certificate, StateShare
from latf_openmm.sentences import condensed, listed, states_text
from latf_openmm.units import KELVIN


def test_few_names_are_listed_and_many_are_counted() -> None:
    assert listed(["a"], 3) == "a"
    assert listed(["a", "b", "c", "d"], 3) == "a, b, c and d"  # as short as the number
    assert listed(list("abcde"), 3) == "a, b, c and 2 more"
    assert states_text(["4", "5"]) == "states 4 and 5"


def test_sentences_that_differ_in_their_numbers_are_one() -> None:
    remarks = [
        (f"only about {n:.3g} effective samples stand for {t} K", f"{t} K")
        for t, n in ((300, 1.9), (310, 22))
    ]
    states = [
        ("fewer than 3 effective samples stand for state 1 (0.08 ± 0.17)", "300 K"),
        (
            "fewer than 3 effective samples stand for states 1 (0.3 ± 0.1), 3 (0.1 ± 0.2) and 7 (0.1 ± 0.1)",
            "310 K",
        ),
        (
            "fewer than 3 effective samples stand for states 2 (1e-05 ± 2e-05), 3 (0.1 ± 0.2), 5 (0.1) and 4 more",
            "320 K",
        ),
    ]
    assert condensed([*remarks, *states, ("something else", "300 K")]) == [
        "only about 1.9 effective samples stand for 300 K; likewise 310 K",
        "fewer than 3 effective samples stand for state 1 (0.08 ± 0.17); likewise 310 K and 320 K",
        "something else",
    ]
    assert condensed([]) == []


def test_a_certificate_names_the_worst_state_and_the_places_of_the_others() -> None:
    shares = [
        StateShare(t, state, 0.1 * state, 0.01, 0.5, 0.01, 9.0)
        for t in (300.0, 450.0)
        for state in range(1, 4)
    ]
    inside = [DensityStep((300.0, 450.0), s, (0.3,), 1.0, 0.1, 1e-3 / (s + 1)) for s in (0, 1, 2)]
    assert all(share.off for share in shares) and all(step.off for step in inside)
    share, density = Certificate(tuple(shares), (), tuple(inside)).texts(KELVIN)
    assert share.startswith(
        "state 1 at 300 K holds 0.1, the energies and the other temperatures say 0.5 ± 0.01"
    )
    assert share.endswith("; likewise state 1 at 450 K, state 2 at 300 K, state 2 at 450 K and 2 more")
    assert density.startswith("state 2 between 300 K and 450 K: the density")
    assert density.endswith("; likewise state 1 between 300 K and 450 K and state 0 between 300 K and 450 K")
