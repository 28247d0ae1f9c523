"""Single steps of the loop by themselves: a stage of simulation, a training, a scan of lag times, an export."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from latf_openmm.bias.cv import export_cv
from latf_openmm.bias.export import export_bias
from latf_openmm.bias.latent_cv import latent_cv
from latf_openmm.bias.plumed import export_plumed
from latf_openmm.bias.potentials.base import AdaptiveBias, bias_context
from latf_openmm.bias.updater import load_bias
from latf_openmm.errors import ConfigError, ModelError
from latf_openmm.features import resolve_features
from latf_openmm.model.checkpoint import MODEL_RECORD, TrainedModel, load_model
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import EXECUTION, RunFolder
from latf_openmm.run.frames import featurise_stages
from latf_openmm.run.trainings import train_model
from latf_openmm.sampling.dynamics import BiasSource
from latf_openmm.sampling.segments import BIAS_STATE
from latf_openmm.sampling.stage import Stage, run_stage
from latf_openmm.storage import check_file, check_output, is_listed
from latf_openmm.systems import shared_system
from latf_openmm.training.feature_selection import select_features
from latf_openmm.training.kept_lags import lags_beside
from latf_openmm.training.lag_scan import LagScan, check_lags, default_lags, scan_lags


def simulate_stage(
    config: RunConfig,
    output: Path,
    model: Path | None = None,
    progress: Progress | None = None,
    source: str = "the configuration",
) -> None:
    """Run one stage of simulation, with the configuration's bias where a model is given; resumable.

    Parameters
    ----------
    config
        Its system, simulation and bias are used.
    output
        Folder of the stage; made if missing.
    model
        Folder of a trained model; None: no bias.
    source
        Name of the configuration, for messages.

    Raises
    ------
    ConfigError
        If there is a model and no bias, or the output cannot be written.
    ModelError
        If the model is not one of this system.
    """
    config.execution.check()
    check_output(output, folder=True)
    bias = None
    if model is not None:
        if config.bias is None:
            raise ConfigError(f"--model: {source} has no 'bias' section, so a model has nothing to do")
        try:
            load_model(model).check_topology(shared_system(config.system).mdtraj_topology())
        except ModelError as error:
            raise ModelError(f"--model: {model}: {str(error).removeprefix(f'{model}: ')}") from error
        bias = BiasSource(model=model, bias=config.bias)
    stage = Stage(config.system, config.simulation, bias, {}, config.seed, output)
    with config.execution.workers(output / EXECUTION) as executor:
        run_stage(stage, progress, executor=executor)


def train_on_stages(
    config: RunConfig, stages: Sequence[Path], output: Path, progress: Progress | None = None
) -> TrainedModel:
    """Train a model on stages of simulation, and write its folder, which must not exist.

    Raises
    ------
    ConfigError
        If there is such a folder already.
    DataError
        If a stage cannot be read.
    """
    check_output(output, folder=True, new="a model is never overwritten")
    trajectories = featurise_stages(config, stages, output)
    return train_model(config, trajectories, output, config.seed, progress)


def scan_stages(
    config: RunConfig,
    stages: Sequence[Path],
    output: Path,
    lags: Sequence[int] = (),
    progress: Progress | None = None,
) -> LagScan:
    """Return the states at several lag times, and the lag to train with.

    Parameters
    ----------
    output
        Folder that the scan will be written to; must not exist.
    lags
        In frames; none: about six.

    Raises
    ------
    ConfigError
        If a lag is too long for the trajectories, or there is such a folder already.
    """
    check_output(output, folder=True, new="a scan is never overwritten")
    resolved = resolve_features(config.features, shared_system(config.system).mdtraj_topology())
    every = featurise_stages(config, stages, output)
    _, trajectories, _ = select_features(resolved, every, config.feature_selection)
    chosen = list(lags) or default_lags(trajectories)
    check_lags(trajectories, chosen, "--lag")
    kept = lags_beside(output)
    return scan_lags(trajectories, config.model, config.training, chosen, config.seed, progress, kept)


def export_variables(
    folder: Path,
    output: Path,
    *,
    round_index: int | None = None,
    plumed: bool = False,
    trust: bool = False,
) -> TrainedModel:
    """Write the collective variables of a model, or of a round of a run, as TorchScript or for PLUMED.

    Parameters
    ----------
    folder
        Of a run, or of a trained model.
    output
        File; with `plumed` a folder.
    round_index
        Of a run; None: the last complete one.
    trust
        As for `latf_openmm.RunFolder.open`.
    """
    check_output(output, folder=plumed)
    periodic = True
    if (folder / MODEL_RECORD).is_file():
        trained = load_model(folder)
    else:
        run = RunFolder.open(folder, trust)
        trained = run.trained(run.chosen_round(round_index))
        periodic = shared_system(run.config.system).periodic
    if plumed:
        export_plumed(trained, output, periodic)
    else:
        export_cv(latent_cv(trained), output)
    return trained


def export_round_bias(
    folder: Path,
    output: Path,
    temperature: float | None = None,
    *,
    state: Path | None = None,
    round_index: int | None = None,
    trust: bool = False,
) -> None:
    """Write the bias of a run along the variables of a round, for scripts without torch; see `export_bias`.

    Parameters
    ----------
    folder
        Of a run.
    output
        Folder; must not exist.
    temperature
        Of the simulation that it is for, in the run's scale; None: the lowest of the run.
    state
        File ``bias.pt`` of a segment, with what an adaptive bias has learned.
    round_index
        None: the last complete one.
    trust
        As for `latf_openmm.RunFolder.open`.

    Raises
    ------
    ConfigError
        If the run has no bias, or an adaptive one is given no state.
    """
    check_output(output, folder=True, new="an exported bias is never overwritten")
    run = RunFolder.open(folder, trust)
    settings = run.config.bias
    if settings is None:
        raise ConfigError(f"{folder}: its configuration has no 'bias' section; expected one to export")
    trained = run.trained(run.chosen_round(round_index))
    at = min(run.config.simulation.temperatures) if temperature is None else temperature
    bias = settings.build(bias_context(trained, at))
    if isinstance(bias, AdaptiveBias):
        if state is None:
            files = sorted(run.path.rglob(BIAS_STATE))
            example = f", for example {files[-1]}" if files else ""
            raise ConfigError(f"--state: a new bias has learned nothing; expected the file of one{example}")
        if is_listed(state):
            check_file(state)
        load_bias(bias, state)
    elif state is not None:
        raise ConfigError(f"--state: a {type(bias).__name__} learns nothing; leave it out")
    system = shared_system(run.config.system)
    scale = run.config.system.scale.name
    export_bias(
        latent_cv(trained),
        bias,
        output,
        periodic=system.periodic,
        atoms=trained.atoms,
        temperature=at,
        temperature_scale=scale,
    )
