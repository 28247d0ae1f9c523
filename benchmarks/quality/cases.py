"""The cases of the quality benchmark: systems, regimes of data, and the plane the encoder did not choose."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latf_openmm.features import AnyFeature
from latf_openmm.features.coordinates import CoordinateSettings
from latf_openmm.features.coordination import CoordinationSettings
from latf_openmm.features.distances import DistanceSettings
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.model.latf import ModelSettings
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.systems import SystemSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings
from latf_openmm.systems.lj7 import LJ7Settings
from latf_openmm.systems.three_hole import ThreeHoleSettings
from latf_openmm.training.settings import TrainingSettings

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Plane:
    """Two physical coordinates computed from the descriptors, binned on a fixed grid.

    Attributes
    ----------
    name, axes
        For figures.
    project
        Descriptors (n, n_features) -> (n, 2).
    edges
        Cell borders along each axis.
    periodic
        Whether both axes are angles.
    """

    name: str
    axes: tuple[str, str]
    project: Callable[[Array], Array]
    edges: tuple[Array, Array]
    periodic: bool = False


@dataclass(frozen=True)
class Regime:
    """How much is simulated, and where."""

    temperatures: tuple[float, ...]
    walkers: int
    frames: int
    interval: int
    lag: int

    @property
    def frames_each(self) -> int:
        """Frames at each temperature."""
        return self.walkers * self.frames


def short_training(lag: int) -> TrainingSettings:
    """A training that loops of many rounds repeat."""
    return TrainingSettings(
        lag=lag,
        initial_states=15,
        refinements=8,
        restarts=1,
        epochs_states=6,
        epochs_joint=3,
        epochs_flow=8,
        pairs_per_epoch=5000,
        committee=3,
    )


@dataclass(frozen=True)
class SystemCase:
    """One system of the benchmark."""

    name: str
    settings: SystemSettings
    features: tuple[AnyFeature, ...]
    model: ModelSettings
    plane: Plane
    timestep: float
    friction: float
    equilibration: int
    temperatures: tuple[float, ...]
    regimes: dict[str, Regime]

    def simulation(self, regime: Regime, processes: int) -> SimulationSettings:
        """Settings of the stage that makes a regime's data."""
        return SimulationSettings(
            temperatures=list(regime.temperatures),
            walkers=regime.walkers,
            frames=regime.frames,
            frame_interval=regime.interval,
            timestep=self.timestep,
            friction=self.friction,
            equilibration=self.equilibration,
            processes=processes,
        )


def _moments(features: Array) -> Array:
    """Second and third central moments of the coordination numbers."""
    centred = features - features.mean(axis=1, keepdims=True)
    return np.stack([(centred**2).mean(axis=1), (centred**3).mean(axis=1)], axis=1)


def _dihedrals(features: Array) -> Array:
    """Angles phi and psi [degrees] from their sines and cosines, the first four descriptors."""
    return np.degrees(np.arctan2(features[:, :2], features[:, 2:4]))


THREE_HOLE = SystemCase(
    name="three_hole",
    settings=ThreeHoleSettings(),
    features=(CoordinateSettings(axes="xy"),),
    model=ModelSettings(),
    plane=Plane(
        "x, y", ("x", "y"), lambda f: f[:, :2], (np.linspace(-2.6, 2.6, 61), np.linspace(-2.2, 3.0, 61))
    ),
    timestep=0.01,
    friction=1.0,
    equilibration=2000,
    temperatures=(0.5, 0.7, 1.0, 1.3, 1.6, 2.0),
    regimes={
        "plentiful": Regime((0.7, 1.3), 40, 2500, 20, 5),
        "scarce": Regime((0.7, 1.3), 10, 100, 100, 1),
        "wide": Regime((0.5, 2.0), 10, 100, 100, 1),
        "one": Regime((1.0,), 10, 1000, 100, 1),
    },
)

LJ7 = SystemCase(
    name="lj7",
    settings=LJ7Settings(),
    features=(CoordinationSettings(r0=1.5),),
    model=ModelSettings(),
    plane=Plane(
        "moments of the coordination numbers",
        ("second moment", "third moment"),
        _moments,
        (np.linspace(0.0, 1.8, 61), np.linspace(-1.2, 2.2, 61)),
    ),
    timestep=0.005,
    friction=0.5,
    equilibration=4000,
    temperatures=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    regimes={
        "plentiful": Regime((0.2, 0.5), 20, 5000, 20, 2),
        "scarce": Regime((0.2, 0.5), 20, 50, 1000, 1),
        "wide": Regime((0.2, 0.7), 20, 50, 1000, 1),
        "one": Regime((0.4,), 10, 1000, 20, 2),
    },
)

DIPEPTIDE = SystemCase(
    name="alanine_dipeptide",
    settings=AlanineDipeptideSettings(hydrogen_mass=3.0),
    features=(
        TorsionSettings(angles=["phi", "psi"]),
        DistanceSettings(selection="element != H", minimum_bonds=3),
    ),
    model=ModelSettings(encoder_hidden=[32]),
    plane=Plane(
        "phi, psi",
        ("phi [deg]", "psi [deg]"),
        _dihedrals,
        (np.linspace(-180, 180, 61), np.linspace(-180, 180, 61)),
        periodic=True,
    ),
    timestep=0.004,
    friction=1.0,
    equilibration=5000,
    temperatures=(300.0, 350.0, 400.0, 500.0, 600.0, 700.0),
    regimes={
        "plentiful": Regime((400.0, 600.0), 2, 50_000, 25, 10),
        "scarce": Regime((400.0, 600.0), 2, 500, 250, 1),
        "wide": Regime((300.0, 700.0), 2, 500, 250, 1),
        "one": Regime((500.0,), 2, 5000, 250, 1),
    },
)

SYSTEMS = {case.name: case for case in (THREE_HOLE, LJ7, DIPEPTIDE)}
