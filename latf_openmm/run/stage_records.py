"""Records of simulations: settings of a stage and of an annealing path, as their files hold them."""

from latf_openmm.run.records import Record
from latf_openmm.sampling.annealing import AnnealingSettings
from latf_openmm.sampling.dynamics import BiasSource, DynamicsSettings
from latf_openmm.sampling.stage import SimulationSettings
from latf_openmm.storage import Facts


class StageRecord(Record):
    """``stage.json``, as far as it says what the files of a stage should be."""

    content = "the settings of the stage"
    settings: SimulationSettings
    bias: BiasSource | None
    unbiased: frozenset[float]


class AnnealingRecord(Record):
    """``annealing.json``: a path over temperatures."""

    content = "targets, settings and dynamics of a path"
    targets: list[float]
    settings: AnnealingSettings
    dynamics: DynamicsSettings
    files: dict[str, Facts]
