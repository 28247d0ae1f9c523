"""Ensembles at temperatures that were never simulated, written into folders: what ``latf-openmm generate`` does.

::

    OUTPUT/T0.35/frames.parquet           every frame that has a weight
    OUTPUT/T0.35/ensemble.{FORMAT,pdb}    structures that stand for the ensemble without weights
    OUTPUT/T0.35/state_0.pdb, ...         one structure of each state
    OUTPUT/T0.35/populations.csv          populations of the states, with errors
    OUTPUT/T0.35/ensemble.json            the record: method, reliability, energies, warnings
    OUTPUT/T0.35/latent/                  latent samples of the flow, and its free energy F_T(z)
    OUTPUT/T0.35/manifest.json            names, sizes and hashes of all of these
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from latf_openmm.ensembles.ensemble import StructureEnsemble
from latf_openmm.ensembles.files import write_structures
from latf_openmm.ensembles.latent import GeneratedEnsemble, generate, write_ensemble
from latf_openmm.errors import ConfigError
from latf_openmm.frames.formats import FormatName
from latf_openmm.run.ensembles import Choice, ensembles_at
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.slopes import reweighter_of_round
from latf_openmm.storage import atomic_folder, check_output
from latf_openmm.units import check_temperature, temperature_name

LATENT = "latent"
"""Folder, inside that of an ensemble, with the latent samples of the flow."""


@dataclass(frozen=True)
class GeneratedFolder:
    """One temperature.

    Attributes
    ----------
    folder
        Written files.
    structures
        Structures with weights: populations and observables are theirs.
    latent
        Latent samples of the flow.
    """

    folder: Path
    structures: StructureEnsemble
    latent: GeneratedEnsemble

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that a reader must know, each once; what is said of the structures is first, since results are theirs."""
        samples = set(self.latent.warnings)
        texts = [
            f"{'samples and structures' if text in samples else 'structures'}: {text}"
            for text in self.structures.warnings
        ]
        others = samples - set(self.structures.warnings)
        return (*texts, *(f"samples: {text}" for text in self.latent.warnings if text in others))


def generate_ensembles(
    run: RunFolder,
    temperatures: Sequence[float],
    output: Path,
    *,
    round_index: int | None = None,
    samples: int = 20_000,
    structures: int = 1000,
    method: Choice = "auto",
    minutes: float = 15.0,
    forces: bool = False,
    trajectory: FormatName = "dcd",
    progress: Progress | None = None,
) -> list[GeneratedFolder]:
    """Generate at each temperature and write one folder for each; where frames are too few, walkers are simulated.

    Parameters
    ----------
    run
        A run with a complete round.
    temperatures
        In the scale of the system.
    output
        Folder to write into; that of each temperature must not exist.
    round_index
        Round whose model and frames are used; None: the last complete one.
    samples, structures
        Latent samples, and structures without weights, at each temperature.
    method, minutes
        As for `latf_openmm.ensembles_at`.
    forces
        Whether forces at the frames correct weights where that lowers errors.
    trajectory
        Format of the structures.

    Raises
    ------
    ConfigError
        If a temperature is not possible or given twice, or there is a folder already.
    DataError
        If a file that is used was damaged.
    """
    index = run.chosen_round(round_index)
    for temperature in temperatures:
        check_temperature("--temperature", temperature)
        name = temperature_name(temperature)
        check_output(output / name, folder=True, new="structures are never overwritten")
    names = [temperature_name(temperature) for temperature in temperatures]
    if len(set(names)) < len(names):
        given = ", ".join(f"{temperature:g}" for temperature in temperatures)
        raise ConfigError(f"--temperature: expected each once, got {given}")
    reweighter = reweighter_of_round(run, index, forces)
    trained, pool = reweighter.trained, reweighter.pool
    ensembles = ensembles_at(
        run, index, temperatures, method, minutes, progress=progress, reweighter=reweighter
    )
    results = []
    for temperature, ensemble in zip(temperatures, ensembles, strict=True):
        latent = generate(trained, pool, temperature, samples, run.config.seed)
        target = output / temperature_name(temperature)
        with atomic_folder(target, manifest=False) as folder:
            write_ensemble(latent, trained, pool, run.topology(), folder / LATENT, max_structures=0)
            write_structures(
                ensemble,
                run.topology(),
                folder,
                structures,
                run.config.seed,
                trajectory,
                run.source(index),
            )  # last: its manifest is of all files below the folder
        results.append(GeneratedFolder(target, ensemble, latent))
    return results
