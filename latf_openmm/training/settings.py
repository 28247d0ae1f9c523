"""How a model is trained; the defaults are meant to need no expert."""

from typing import Any, Literal

from pydantic import Field, field_validator

from latf_openmm.settings import Settings


class TrainingSettings(Settings):
    """Settings for training the model."""

    lag: int | Literal["auto"] = Field(
        "auto", description="lag time [frames]; 'auto': the one a short scan of lags recommends"
    )
    beta: float = Field(
        1e-4,
        gt=0,
        description="weight of the information-bottleneck term; larger: collective variables keep less of the features "
        "and follow the prior more; smaller: they keep more, noise included",
    )
    decorrelation: float = Field(
        0.05,
        ge=0,
        description="weight of the squared correlation of collective variables; larger where two of them show the "
        "same; 0: the paper's form",
    )
    initial_states: int = Field(60, ge=2, description="k-means clusters that start the state refinement")
    minimum_population: float = Field(0.005, gt=0, lt=0.5, description="states below it are dropped")
    restarts: int = Field(3, ge=1, description="refinements from scratch; the most predictive one is kept")
    refinements: int = Field(60, ge=1, description="at most this many relabellings")
    label_tolerance: float = Field(0.005, gt=0, description="settled when fewer labels change [fraction]")
    epochs_states: int = Field(15, ge=1, description="at most this many epochs between relabellings")
    epochs_joint: int = Field(20, ge=1, description="at most this many epochs of the joint stage")
    epochs_flow: int = Field(15, ge=1, description="epochs of the flow stage")
    patience: int = Field(
        5, ge=1, description="epochs without improvement before the joint stage has settled"
    )
    batch_size: int = Field(1024, ge=8, description="pairs in a batch; fewer where there are few pairs")
    pairs_per_epoch: int = Field(60_000, ge=8, description="at most this many pairs are drawn an epoch")
    learning_rate: float = Field(3e-3, gt=0, description="of Adam, while states are refined and jointly")
    learning_rate_flow: float = Field(2e-2, gt=0, description="of Adam, flow stage: the peak of one cycle")
    committee: int = Field(
        4, ge=1, le=32, description="flows whose mean is the density; their spread its error"
    )
    smoothing: float = Field(
        0.7,
        ge=0,
        description="blur of latent points, flow stage [distance to the tenth neighbour]; larger: smoother free "
        "energies with lower barriers; smaller: bumps of single frames; 0: none",
    )
    energies: Literal["auto", "ignore"] = Field(
        "auto",
        description="'auto': where potential energies are known, the flow is trained on frames reweighted (MBAR) "
        "to a ladder of temperatures; 'ignore': only on each frame's own temperature, the paper's form",
    )
    rungs: int = Field(24, ge=2, le=200, description="temperatures of the ladder")
    minimum_overlap: float = Field(
        0.01, gt=0, le=1, description="least effective sample size of a rung, relative to simulated ones"
    )
    held_out: float = Field(0.2, gt=0, lt=0.9, description="fraction of blocks held out")
    blocks: int = Field(10, ge=1, description="blocks a trajectory is cut into for the split")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    threads: int = Field(1, ge=1, description="CPU threads; networks this small are slower on several")

    @field_validator("lag", mode="before")
    @classmethod
    def _lag(cls, value: Any) -> Any:
        """Say in one line what is wrong, not one for each part of the union."""
        integer = isinstance(value, int) and not isinstance(value, bool)
        if value != "auto" and not (integer and value >= 1):
            raise ValueError(f"expected 'auto' or a whole number of frames, 1 or more, got {value!r}")
        return value
