"""Number of rounds, and the end of the loop."""

from pydantic import Field

from latf_openmm.settings import Settings


class LoopLimits(Settings):
    """Number of rounds, and what ends the loop before."""

    rounds: int = Field(
        2, ge=1, le=1000, description="rounds of simulation and training; the first is unbiased"
    )
    max_simulated_ns: float | None = Field(
        None,
        gt=0,
        description="no new round after so much simulated time of all walkers [ns]; "
        "imported trajectories do not count, they were not simulated by this loop; reduced: 1000 units",
    )
    max_wall_hours: float | None = Field(
        None, gt=0, description="no new round after so many hours of all rounds"
    )
    convergence_threshold: float | None = Field(
        None,
        gt=0,
        description="stop early when r_T(z) changes less than this from round to round, at every temperature "
        "(Jensen-Shannon divergence, nats)",
    )
