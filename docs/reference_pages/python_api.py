"""Page on the Python API, from the public names."""

import inspect

import latf_openmm
from latf_openmm import plotting

GROUPS = {
    "Runs": (
        "load_config",
        "RunConfig",
        "run_loop",
        "import_run",
        "ImportedTrajectory",
        "RunFolder",
        "write_report",
        "read_moves",
        "temperature_paths",
        "make_progress",
        "library_folder",
    ),
    "Sections of a configuration": (
        "SimulationSettings",
        "ModelSettings",
        "TrainingSettings",
        "LoopSettings",
        "GenerateSettings",
    ),
    "Features": (
        "resolve_features",
        "build_features",
        "TorsionSettings",
        "DistanceSettings",
        "ContactSettings",
        "NativeContactSettings",
        "HydrogenBondSettings",
        "BaseVectorSettings",
        "CoordinateSettings",
        "CoordinationSettings",
    ),
    "Models": ("load_model", "save_model", "fit", "FeatureTrajectory"),
    "Ensembles": (
        "ensembles_at",
        "observe",
        "compare_runs",
        "write_compared",
        "two_state",
        "explain",
        "reweighter_of_round",
        "ensemble_at",
        "write_structures",
        "generate",
        "write_ensemble",
    ),
    "Collective variables": (
        "latent_cv",
        "FeatureCV",
        "ModuleCV",
        "distance_cv",
        "torsion_cv",
        "export_cv",
        "export_plumed",
    ),
    "Biased simulations": (
        "add_bias",
        "bias_context",
        "cv_context",
        "BiasContext",
        "BiasUpdater",
        "load_bias",
        "frozen",
        "LatentReporter",
        "MultistepStepper",
        "langevin_integrator",
        "many_copies",
        "export_bias",
        "ExportedBias",
        "load_exported_bias",
    ),
    "Umbrella windows": ("UmbrellaSettings", "UmbrellaWindows", "window_centres", "window_runs"),
    "Reweighting": (
        "BiasedRun",
        "weighted",
        "combine",
        "free_energy_surface",
        "free_energy_difference",
        "flow_free_energy",
        "LatentGrid",
    ),
    "Biases": (
        "HarmonicSettings",
        "MovingHarmonicSettings",
        "WallSettings",
        "FlowBarrierSettings",
        "MetadynamicsSettings",
        "OpesSettings",
        "SumSettings",
    ),
    "Errors": ("LatfError", "ConfigError", "DataError", "SimulationError"),
}
"""Every public name but the version, under the heading it belongs to."""

FIGURES = "Figures"
"""Heading of the functions of `latf_openmm.plotting`."""

MODULES = {
    "What ensembles are": (
        "latf_openmm.ensembles.ensemble.StructureEnsemble",
        "latf_openmm.ensembles.pool.Pool",
    ),
    "To be extended": (
        "latf_openmm.systems.base.SystemSettings",
        "latf_openmm.systems.base.BuiltSystem",
        "latf_openmm.features.base.FeatureSettings",
        "latf_openmm.features.base.Features",
        "latf_openmm.bias.potentials.base.BiasSettings",
        "latf_openmm.bias.potentials.base.Bias",
        "latf_openmm.bias.potentials.base.AdaptiveBias",
        "latf_openmm.run.strategies.base.StrategySettings",
        "latf_openmm.run.strategies.base.RoundState",
        "latf_openmm.run.strategies.base.Decision",
    ),
}
"""Modules and names of the reference, by their heading."""

_INHERITED = {"RunFolder": ("    options:", "      inherited_members: true")}
"""Options of names whose members are, in part, those of what they are made from."""


def python_api() -> str:
    """The public names, and the classes that extensions are made of."""
    lines = [
        "# Python API",
        "",
        "`import latf_openmm as latf` before `import openmm`. The names in the first sections are attributes of "
        "`latf_openmm`; they are imported when first used.",
        "",
        "Numbers without a unit are in nm, ps, kJ/mol and amu; temperatures in the scale of the system.",
    ]
    for title, names in GROUPS.items():
        lines += ["", f"## {title}", ""]
        for name in names:
            module = inspect.getmodule(getattr(latf_openmm, name))
            assert module is not None, name
            lines += [f"::: {module.__name__}.{name}", *_INHERITED.get(name, ()), ""]
    lines += ["", f"## {FIGURES}", "", *_figures()]
    for title, paths in MODULES.items():
        lines += ["", f"## {title}", "", *(f"::: {path}\n" for path in paths)]
    return "\n".join(lines) + "\n"


def _figures() -> list[str]:
    """Lines on the functions that draw."""
    text = (inspect.getdoc(plotting) or "").partition("\n\n")[2]
    names = [getattr(plotting, name) for name in plotting.__all__]
    return [f"`latf.plotting`: {text}", "", *(f"::: {item.__module__}.{item.__name__}\n" for item in names)]
