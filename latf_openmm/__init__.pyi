"""Public names and where they are defined; read by lazy-loader at run time and by type checkers."""

from . import plotting as plotting
from .bias.biased_system import add_bias as add_bias
from .bias.cv import (
    FeatureCV as FeatureCV,
    ModuleCV as ModuleCV,
    distance_cv as distance_cv,
    export_cv as export_cv,
    torsion_cv as torsion_cv,
)
from .bias.export import export_bias as export_bias
from .bias.exported import ExportedBias as ExportedBias, load_exported_bias as load_exported_bias
from .bias.latent_cv import latent_cv as latent_cv
from .bias.multistep import MultistepStepper as MultistepStepper
from .bias.plumed import export_plumed as export_plumed
from .bias.potentials import BiasContext as BiasContext
from .bias.potentials.base import bias_context as bias_context, cv_context as cv_context
from .bias.potentials.flow_barrier import FlowBarrierSettings as FlowBarrierSettings
from .bias.potentials.frozen import frozen as frozen
from .bias.potentials.harmonic import (
    HarmonicSettings as HarmonicSettings,
    MovingHarmonicSettings as MovingHarmonicSettings,
)
from .bias.potentials.metadynamics import MetadynamicsSettings as MetadynamicsSettings
from .bias.potentials.opes import OpesSettings as OpesSettings
from .bias.potentials.sum import SumSettings as SumSettings
from .bias.potentials.walls import WallSettings as WallSettings
from .bias.reporter import LatentReporter as LatentReporter
from .bias.updater import BiasUpdater as BiasUpdater, load_bias as load_bias
from .ensembles.files import write_structures as write_structures
from .ensembles.latent import generate as generate, write_ensemble as write_ensemble
from .ensembles.reweighter import ensemble_at as ensemble_at
from .ensembles.two_state import two_state as two_state
from .errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    LatfError as LatfError,
    SimulationError as SimulationError,
)
from .features.base_vectors import BaseVectorSettings as BaseVectorSettings
from .features.contacts import (
    ContactSettings as ContactSettings,
    NativeContactSettings as NativeContactSettings,
)
from .features.coordinates import CoordinateSettings as CoordinateSettings
from .features.coordination import CoordinationSettings as CoordinationSettings
from .features.distances import DistanceSettings as DistanceSettings
from .features.hydrogen_bonds import HydrogenBondSettings as HydrogenBondSettings
from .features.joined import build_features as build_features, resolve_features as resolve_features
from .features.torsions import TorsionSettings as TorsionSettings
from .frames.moves import read_moves as read_moves, temperature_paths as temperature_paths
from .frames.trajectory import FeatureTrajectory as FeatureTrajectory
from .model.checkpoint import load_model as load_model, save_model as save_model
from .model.latf import ModelSettings as ModelSettings
from .progress import make_progress as make_progress
from .report.observed import write_compared as write_compared
from .report.page import write_report as write_report
from .reweighting.biased_run import BiasedRun as BiasedRun
from .reweighting.free_energy import LatentGrid as LatentGrid
from .reweighting.mbar import combine as combine
from .reweighting.surface import (
    flow_free_energy as flow_free_energy,
    free_energy_difference as free_energy_difference,
    free_energy_surface as free_energy_surface,
)
from .reweighting.weighted import weighted as weighted
from .run.compared import compare_runs as compare_runs
from .run.config import (
    GenerateSettings as GenerateSettings,
    LoopSettings as LoopSettings,
    RunConfig as RunConfig,
    load_config as load_config,
)
from .run.ensembles import ensembles_at as ensembles_at
from .run.explained import explain as explain
from .run.folder import RunFolder as RunFolder
from .run.imported import ImportedTrajectory as ImportedTrajectory, import_run as import_run
from .run.loop import run_loop as run_loop
from .run.observed import observe as observe
from .run.slopes import reweighter_of_round as reweighter_of_round
from .sampling.langevin import langevin_integrator as langevin_integrator
from .sampling.stage import SimulationSettings as SimulationSettings
from .sampling.umbrella.plan import UmbrellaSettings as UmbrellaSettings, window_centres as window_centres
from .sampling.umbrella.samples import window_runs as window_runs
from .sampling.umbrella.umbrella_windows import UmbrellaWindows as UmbrellaWindows
from .systems.copies import many_copies as many_copies
from .systems.library import library_folder as library_folder
from .training.fit import fit as fit
from .training.settings import TrainingSettings as TrainingSettings

__version__: str
__all__: list[str]
