"""Structures of the metastable states, for the page to draw and for a viewer to open."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from latf_openmm.ensembles.ensemble import Estimate, StructureEnsemble
from latf_openmm.ensembles.files import write_structure
from latf_openmm.ensembles.state_words import StateWords, describe_states
from latf_openmm.features.base import Features
from latf_openmm.features.solute import without_hydrogens
from latf_openmm.plotting import state_colour
from latf_openmm.report.solute import chain_traces, lined_up, solute_of, to_screen
from latf_openmm.reweighting.reliability import MEANINGS, Reliability
from latf_openmm.reweighting.weights import systematic
from latf_openmm.run.folder import RunFolder
from latf_openmm.sentences import listed

_OTHERS = 4
"""Further structures of a state that are drawn over the first one."""
_PRESENT = 0.02
"""Population from which a state counts as there at a temperature."""
_ALL_ATOMS = 60
"""Atoms up to which hydrogens are drawn."""
_STICKS = 1500
"""Atoms up to which a chain's atoms are drawn beside its tube."""
_DRAWN = 12
"""States that are drawn; the others have files."""


@dataclass(frozen=True)
class StateStructure:
    """One state as it looks at a temperature where it is populated.

    Attributes
    ----------
    state
        Its number.
    temperature, population
        Where its structures are taken from, and its population there.
    file
        PDB file beside the page.
    words
        Ranges of descriptors that tell it from the others there; None where it is the only one.
    structures
        Solute of the representative structure, then of a few others, drawn by their weights.
    label
        The temperature, for people.
    reliability
        Of structures at the temperature.
    passed_over
        Temperatures, for people, with a larger population, whose reliability is poor.
    """

    state: int
    temperature: float
    population: Estimate
    file: str
    words: StateWords | None
    structures: mdtraj.Trajectory
    label: str
    reliability: Reliability = "good"
    passed_over: tuple[str, ...] = ()

    def where(self) -> str:
        """Say at which temperature its structures are, why not at another, and how large its population is there."""
        value, error = self.population.value, self.population.error
        spread = f" ± {error:.2f}" if error == error else ""
        poor = f" (poor: {MEANINGS['poor']})" if self.reliability == "poor" else ""
        said = f"population {value:.2f}{spread} at {self.label}{poor}."
        if self.passed_over:
            elsewhere = listed(self.passed_over)
            said += f" Not at {elsewhere}, where its population is larger but poor: {MEANINGS['poor']}."
        return said


@dataclass(frozen=True)
class View:
    """One state for the renderer: coordinates [0.1 nm] of the atoms shown, x, y, z one after the other."""

    state: int
    colour: str
    xyz: list[float]
    others: list[list[float]]


@dataclass(frozen=True)
class Scene:
    """Content of the renderer.

    Attributes
    ----------
    kind
        ``particles``: spheres; ``molecule``: sticks; ``chains``: sticks and a tube; ``tubes``: tubes alone.
    elements
        Of the atoms shown.
    bonds
        Pairs of atoms shown.
    traces
        Atoms that each tube passes.
    other_bonds
        Pairs of atoms of further structures, which for chains have the atoms of the traces only.
    radius
        Of a particle [0.1 nm].
    views
        One for each state drawn.
    """

    kind: str
    elements: list[str]
    bonds: list[list[int]]
    traces: list[list[int]]
    other_bonds: list[list[int]]
    radius: float
    views: list[View]

    def record(self) -> dict[str, object]:
        """Return it as plain numbers and texts."""
        return asdict(self)


def state_structures(
    run: RunFolder, ensembles: Sequence[StructureEnsemble], features: Features, seed: int
) -> list[StateStructure]:
    """Return the structures of every state that frames visited; empty for particles in an external field.

    Parameters
    ----------
    ensembles
        One for each temperature of the run.
    features
        Descriptors of the model, which say what tells states apart.
    """
    topology = run.topology()
    if topology.n_atoms < 3:
        return []
    states: list[StateStructure] = []
    words: dict[float, dict[int, StateWords]] = {}
    rng = np.random.default_rng(seed)
    for state in range(ensembles[0].n_states):
        ensemble, passed_over = _where_populated(ensembles, state)
        representative = ensemble.representatives().get(state)
        if representative is None:
            continue
        frames = np.concatenate([[representative], _others(ensemble, state, representative, rng)])
        structures = solute_of(ensemble.pool.structures(frames, topology))
        if structures.topology.n_bonds:
            first = states[0].structures[0] if states else structures[0]
            structures = lined_up(structures, first)
        population, at = ensemble.populations()[state], ensemble.temperature
        if at not in words:
            words[at] = describe_states(ensemble, features, topology, seed=seed)
        states.append(
            StateStructure(
                state,
                at,
                population,
                f"state_{state}.pdb",
                words[at].get(state),
                structures,
                ensemble.scale.label(at),
                ensemble.reliability,
                passed_over,
            )
        )
    return states


def _where_populated(
    ensembles: Sequence[StructureEnsemble], state: int
) -> tuple[StructureEnsemble, tuple[str, ...]]:
    """Ensemble in which a state has the largest population, one whose reliability is not poor, where there is one.

    And the temperatures passed over for it, for people.
    """

    def share(ensemble: StructureEnsemble) -> float:
        return float(ensemble.weights[ensemble.pool.states == state].sum())

    relied = [
        ensemble for ensemble in ensembles if ensemble.reliability != "poor" and share(ensemble) >= _PRESENT
    ]
    chosen = max(relied or ensembles, key=share)
    larger = [ensemble for ensemble in ensembles if share(ensemble) > share(chosen)]
    return chosen, tuple(ensemble.scale.label(ensemble.temperature) for ensemble in larger)


def _others(
    ensemble: StructureEnsemble, state: int, representative: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Frames of a state drawn by their weights, without doubles."""
    weights = np.where(ensemble.pool.states == state, ensemble.weights, 0.0)
    weights[representative] = 0.0
    if weights.sum() <= 0:
        return np.empty(0, np.int64)
    return np.unique(systematic(weights / weights.sum(), _OTHERS, rng))


def write_structures(states: Sequence[StateStructure], folder: Path) -> None:
    """Write the representative structure of each state as PDB, and remove those of an earlier report."""
    for path in folder.glob("state_*.pdb"):
        if path.name not in {state.file for state in states}:
            path.unlink()
    for state in states:
        write_structure(state.structures[0], folder / state.file)


def scene(states: Sequence[StateStructure]) -> Scene:
    """Return what is drawn of the states that are populated most; there has to be one."""
    topology = states[0].structures.topology
    traces = chain_traces(topology)
    kind = "particles" if topology.n_bonds == 0 else "chains" if traces else "molecule"
    shown = _shown(topology, traces)
    if traces and len(shown) > _STICKS:
        kind, shown = "tubes", [atom for piece in traces for atom in piece]
    place = {atom: i for i, atom in enumerate(shown)}
    bonds = [] if kind == "tubes" else _bonds(topology, place)
    pieces = [[place[atom] for atom in piece] for piece in traces]
    others = [atom for piece in traces for atom in piece] if traces else shown
    turn = to_screen(states[0].structures.xyz[0][shown])
    chosen = sorted(states, key=lambda state: -state.population.value)[:_DRAWN]
    return Scene(
        kind,
        [topology.atom(atom).element.symbol for atom in shown],
        bonds,
        pieces,
        _links(pieces) if traces else bonds,
        _radius(states) if kind == "particles" else 0.0,
        [_view(state, shown, others, turn) for state in sorted(chosen, key=lambda state: state.state)],
    )


def _shown(topology: mdtraj.Topology, traces: list[list[int]]) -> list[int]:
    """Atoms to draw: of larger molecules without hydrogens."""
    if topology.n_atoms <= _ALL_ATOMS and not traces:
        return list(range(topology.n_atoms))
    return [int(atom) for atom in without_hydrogens(topology, range(topology.n_atoms))]


def _bonds(topology: mdtraj.Topology, place: Mapping[int, int]) -> list[list[int]]:
    return [
        [place[a.index], place[b.index]] for a, b in topology.bonds if a.index in place and b.index in place
    ]


def _links(pieces: list[list[int]]) -> list[list[int]]:
    """Pairs of neighbours along pieces, numbered through."""
    links, first = [], 0
    for piece in pieces:
        links += [[first + i, first + i + 1] for i in range(len(piece) - 1)]
        first += len(piece)
    return links


def _radius(states: Sequence[StateStructure]) -> float:
    """Half the usual distance of nearest neighbours [0.1 nm]."""
    nearest = []
    for state in states:
        distances = squareform(pdist(state.structures.xyz[0]))
        np.fill_diagonal(distances, np.inf)
        nearest.append(distances.min(axis=1))
    return round(5.0 * float(np.median(nearest)), 3)


def _view(state: StateStructure, shown: list[int], others: list[int], turn: NDArray[np.float32]) -> View:
    """Coordinates about the centre of the representative; clusters lie as they are seen best."""
    first = state.structures.xyz[0]
    if state.structures.topology.n_bonds == 0:
        return View(state.state, state_colour(state.state), _flat(_centred(first) @ to_screen(first)), [])
    centre = first[shown].mean(axis=0)
    return View(
        state.state,
        state_colour(state.state),
        _flat((first[shown] - centre) @ turn),
        [_flat((xyz[others] - centre) @ turn) for xyz in state.structures.xyz[1:]],
    )


def _centred(xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(xyz - xyz.mean(axis=0))


def _flat(xyz: NDArray[np.float32]) -> list[float]:
    """Numbers in 0.1 nm, short."""
    return [round(10 * float(x), 2) for x in xyz.ravel()]
