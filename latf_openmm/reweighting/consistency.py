"""A test of whether the frames of every simulated temperature are in equilibrium with those of the others.

Energies say how shares of states change with temperature: inside a state, MBAR or mean energies give the free energy
between temperatures (`latf_openmm.reweighting.connected`). So the crossings at the other temperatures and the
energies of all say what each state's share at a temperature has to be. Where walkers at that temperature hold another
share, by more than the errors of both, they did not sample the states in proportion. It needs no simulation and no
overlap.

And <U> at neighbouring temperatures has to differ by the integral of the heat capacity, Var U / kT^2: where it does
not, energies are not those that the frames were simulated with, or are in another unit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.display import Table, card, with_error
from latf_openmm.reweighting.along import DensityStep, density_steps
from latf_openmm.reweighting.connected import Links
from latf_openmm.reweighting.slopes import SlopeStep, slope_steps
from latf_openmm.reweighting.temperatures import Reweighting
from latf_openmm.reweighting.weighting import TemperatureWeighting
from latf_openmm.sentences import condensed
from latf_openmm.units import KELVIN, KILOCALORIE, TemperatureScale, factor_of_calories

Array = NDArray[np.float64]

LIMIT = 3.0
"""Errors by which a share is off where it is said."""
_LEAST = 0.02
"""Difference of shares that is said, at least."""
_FEW = 30.0
"""Crossings below which a temperature is named beside one that has fewer."""
_RARE = 5.0
"""Crossings below which the share of the frames says nothing."""
_RATIO = 2.0
"""Factor between the difference of mean energies and what their fluctuations say that is said."""
_NEAR = 1.2
"""Factor within which a ratio is taken for that of kilocalories."""
_SOLVED = 30
"""Bootstrap samples that shares are solved again in."""


@dataclass(frozen=True)
class StateShare:
    """Share of a state at a simulated temperature: what its frames hold, and what the rest says.

    Attributes
    ----------
    temperature, state
        Which.
    held, held_error
        Share of the frames, and its error by their blocks.
    expected, expected_error
        Share by energies and the crossings at other temperatures, and its error.
    crossings
        Independent crossings in and out of the state at this temperature.
    """

    temperature: float
    state: int
    held: float
    held_error: float
    expected: float
    expected_error: float
    crossings: float

    @property
    def residual(self) -> float:
        """Held less expected, in errors of both."""
        return (self.held - self.expected) / float(np.hypot(self.held_error, self.expected_error))

    @property
    def off(self) -> bool:
        """True where the state is not sampled in proportion."""
        return abs(self.residual) > LIMIT and abs(self.held - self.expected) > _LEAST

    @property
    def rare(self) -> bool:
        """True where walkers crossed too rarely for the share of their frames to say anything."""
        return self.crossings < _RARE and self.expected + 2 * self.expected_error > _LEAST

    def text(self, scale: TemperatureScale) -> str:
        """For people."""
        label = scale.label(self.temperature)
        if not self.off:
            return (
                f"at {label} only {self.crossings:.0f} crossings into or out of state {self.state} were seen: its "
                f"share there, {self.expected:.2g} ± {self.expected_error:.1g}, comes from energies and the other "
                "temperatures"
            )
        return (
            f"state {self.state} at {label} holds {self.held:.2g}, the energies and the other temperatures say "
            f"{self.expected:.2g} ± {self.expected_error:.1g}: not sampled in proportion at {label} "
            f"({self.crossings:.0f} independent crossings)"
        )


@dataclass(frozen=True)
class EnergyStep:
    """Mean energies of two neighbouring temperatures against their fluctuations.

    Attributes
    ----------
    temperatures
        Both.
    ratio
        <U> of the second less that of the first, over the integral of Var U / kT^2 between them.
    """

    temperatures: tuple[float, float]
    ratio: float

    @property
    def off(self) -> bool:
        """True where they contradict each other."""
        return not 1 / _RATIO < self.ratio < _RATIO

    def text(self, scale: TemperatureScale) -> str:
        """For people."""
        first, second = (scale.label(t) for t in self.temperatures)
        text = (
            f"mean energies at {first} and {second} differ by {self.ratio:.3g} times what their fluctuations say: they "
            "are not the energies that these frames were simulated with, or temperatures are wrong"
        )
        if factor_of_calories(self.ratio, _NEAR) == KILOCALORIE:
            text += f"; {KILOCALORIE} is what energies in kcal/mol would give"
        return text


@dataclass(frozen=True, repr=False)
class Certificate:
    """Test of consistency of the simulated temperatures with each other.

    Attributes
    ----------
    shares
        Of every state at every temperature; none of a single temperature or state.
    energies
        Of neighbouring temperatures.
    densities
        Of neighbouring temperatures along z inside each state.
    slopes
        Of the distributions of energies of neighbouring temperatures.
    scale
        Of the temperatures.
    """

    shares: tuple[StateShare, ...]
    energies: tuple[EnergyStep, ...]
    densities: tuple[DensityStep, ...] = ()
    slopes: tuple[SlopeStep, ...] = ()
    scale: TemperatureScale = KELVIN

    def __repr__(self) -> str:
        temperatures = sorted({share.temperature for share in self.shares})
        at = f"{len(temperatures)} temperatures" if temperatures else "one temperature or state"
        return f"Certificate({at}: {self.verdict})"

    def _repr_html_(self) -> str:
        header = ["state", "temperature", "share of frames", "expected", "crossings"]
        rows = [
            [
                str(share.state),
                self.scale.label(share.temperature),
                with_error(share.held, share.held_error),
                with_error(share.expected, share.expected_error),
                f"{share.crossings:.0f}",
            ]
            for share in self.shares
        ]
        notes = [*self.texts(self.scale), *self.untested(self.scale)]
        return card(
            "Consistency of the simulated temperatures",
            {"verdict": self.verdict},
            [Table(header, rows)] if rows else [],
            [f"{text[0].upper()}{text[1:]}." for text in notes],
        )

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if self.wrong:
            return "something contradicts that the frames are in equilibrium"
        if not (self.shares or self.energies):
            return "nothing could be tested"
        return "walkers hardly cross somewhere" if self.rare else "nothing contradicts equilibrium"

    @property
    def off(self) -> list[StateShare]:
        """States that are not sampled in proportion, at the temperatures that are most likely to blame.

        Two temperatures contradict each other: the one with the fewer crossings is named, and others with few.
        """
        chosen = []
        for state in sorted({share.state for share in self.shares}):
            wrong = [share for share in self.shares if share.state == state and share.off]
            fewest = min((share.crossings for share in wrong), default=0.0)
            chosen += [share for share in wrong if share.crossings <= max(fewest, _FEW)]
        return chosen

    @property
    def wrong(self) -> bool:
        """True where something contradicts; rare crossings do not."""
        wrong = [*(step.off for step in self.energies), *(step.off for step in self.densities)]
        return bool(self.off) or any(wrong) or any(step.off for step in self.slopes)

    @property
    def rare(self) -> list[StateShare]:
        """States that walkers hardly enter or leave at a temperature; but for the one with the largest share there."""
        chosen = []
        for temperature in sorted({share.temperature for share in self.shares}):
            at = [share for share in self.shares if share.temperature == temperature]
            largest = max(at, key=lambda share: share.expected)
            chosen += [share for share in at if share.rare and not share.off and share is not largest]
        return chosen

    def untested(self, scale: TemperatureScale) -> list[str]:
        """Sentences about what could not be tested."""
        return condensed((step.text(scale), _pair(step, scale)) for step in self.slopes if not step.tested)

    def texts(self, scale: TemperatureScale) -> list[str]:
        """Sentences for people about all that is wrong; empty where nothing is."""
        energies = sorted(
            (step for step in self.energies if step.off), key=lambda step: -abs(np.log(max(step.ratio, 1e-9)))
        )
        slopes = sorted((step for step in self.slopes if step.off), key=lambda step: step.chance)
        return [
            *condensed((step.text(scale), _pair(step, scale)) for step in energies),
            *condensed((step.text(scale), _pair(step, scale)) for step in slopes),
            *self.reasons(scale),
        ]

    @property
    def temperatures(self) -> frozenset[float]:
        """Simulated temperatures at which states, or regions of them, are not sampled in proportion, or rarely."""
        inside = [t for step in self.densities if step.off for t in step.temperatures]
        return frozenset([*inside, *(share.temperature for share in [*self.off, *self.rare])])

    def reasons(self, scale: TemperatureScale) -> list[str]:
        """Sentences about what is not sampled in proportion, one a subject, with the worst of it."""
        shares = [*sorted(self.off, key=lambda share: -abs(share.residual)), *self.rare]
        inside = sorted((step for step in self.densities if step.off), key=lambda step: step.chance)
        return [
            *condensed(
                (share.text(scale), f"state {share.state} at {scale.label(share.temperature)}")
                for share in shares
            ),
            *condensed(
                (step.text(scale), f"state {step.state} between {_pair(step, scale)}") for step in inside
            ),
        ]


def _pair(step: EnergyStep | SlopeStep | DensityStep, scale: TemperatureScale) -> str:
    """Name two neighbouring temperatures."""
    first, second = (scale.label(t) for t in step.temperatures)
    return f"{first} and {second}"


def certificate(weighting: TemperatureWeighting) -> Certificate:
    """Return the test of consistency of all simulated temperatures."""
    mbar = weighting.mbar
    shares: list[StateShare] = []
    if len(mbar.simulated) > 1 and mbar.n_states > 1:
        links, crossings = mbar.links(), mbar.crossings()
        for level in range(len(mbar.simulated)):
            shares += _shares(weighting, level, _of_links(links, level), crossings[level])
    return Certificate(
        tuple(shares),
        tuple(_energy_steps(mbar)),
        density_steps(weighting),
        slope_steps(weighting),
        weighting.scale,
    )


def _shares(
    weighting: TemperatureWeighting, level: int, missed: Array | float, crossings: Array
) -> list[StateShare]:
    """The shares of all states at one temperature, with errors of links and crossings in and out (n_states,)."""
    mbar, temperature = weighting.mbar, float(weighting.mbar.simulated[level])
    samples = weighting.resamples[:_SOLVED]
    held = mbar.held(mbar.log_w)[level]
    held_errors = np.std([mbar.held(s.log_w)[level] for s in samples], axis=0, ddof=1)
    every = np.eye(mbar.n_states)[mbar.states]
    weighted = weighting.replicates(temperature, weighting.mbar_share(temperature))
    redone = weighted.means(every)[:_SOLVED]
    rng = np.random.default_rng([weighting.seed, 3, level])
    seen = mbar.counts[level] > 0
    expected = _expected(seen, mbar.without_crossings(level)[level], weighted.weights @ every)
    redrawn = [
        _expected(seen, mbar.without_crossings(level, sample, rng)[level], row)
        for sample, row in zip(samples, redone, strict=True)
    ]
    errors = weighting.widening * np.std(redrawn, axis=0, ddof=1)
    n = float((1.0 / weighting.inefficiency[mbar.level == level]).sum()) + 4.0
    least = np.sqrt(np.maximum(expected * (1 - expected), 1.0 / n) / n)
    columns = (
        held,
        np.maximum(weighting.widening * held_errors, least),
        expected,
        np.hypot(errors, expected * (1 - expected) * missed),
        crossings,
    )
    return [
        StateShare(temperature, state, *(float(column[state]) for column in columns))
        for state in range(mbar.n_states)
        if seen[state] or expected[state] > 0
    ]


def _of_links(links: Links | None, level: int) -> Array | float:
    """Errors of free energies by mean energies to the neighbouring temperatures, shape (n_states,)."""
    if links is None:
        return 0.0
    near = links.errors[max(0, level - 1) : level + 1]
    return np.asarray(np.where(np.isfinite(near), near, 0.0).max(axis=0))


def _expected(seen: NDArray[np.bool_], f: Array, weighted: Array) -> Array:
    """Shares (n_states,) at a temperature by free energies; of states not seen there, by weights of all frames."""
    logs = np.where(seen, -f, -np.inf)
    shares = np.exp(logs - logs.max())
    shares[~seen] = weighted[~seen] * shares.sum() / max(float(weighted[seen].sum()), 1e-12)
    return np.asarray(shares / shares.sum())


def _energy_steps(mbar: Reweighting) -> list[EnergyStep]:
    """Neighbouring temperatures, inside states: what shares of states do is not in it."""
    energies = mbar.energies_of_states()
    counts, means, capacities = energies.counts, energies.means, energies.variances * mbar.betas[:, None] ** 2
    steps = []
    for k in range(len(mbar.betas) - 1):
        both = np.minimum(counts[k], counts[k + 1])
        if both.sum() == 0:
            continue
        integrals = 0.5 * (capacities[k] + capacities[k + 1]) * (1 / mbar.betas[k + 1] - 1 / mbar.betas[k])
        pair = (float(mbar.simulated[k]), float(mbar.simulated[k + 1]))
        rise = float(both @ (means[k + 1] - means[k]))
        steps.append(EnergyStep(pair, rise / max(float(both @ integrals), 1e-300)))
    return steps
