"""Figure of the moves of walkers among temperatures."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from latf_openmm import plotting
from latf_openmm.frames.moves import temperature_paths
from latf_openmm.frames.walkers import WalkerFrames
from latf_openmm.run.records import RoundRecord
from latf_openmm.units import TemperatureScale


def moves_figure(
    walkers: Sequence[WalkerFrames], record: RoundRecord, scale: TemperatureScale
) -> Figure | None:
    """Draw the ways of a few walkers, the time of all at each temperature, and the acceptance between neighbours.

    Parameters
    ----------
    walkers, record
        Of one round; None is returned where its walkers stayed at their temperatures.
    """
    paths = temperature_paths(walkers)
    if record.tempering is None or not paths:
        return None
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    way, time, acceptance = figure.subplots(1, 3, width_ratios=[2, 1, 1])
    plotting.temperature_paths(paths, scale, ax=way)
    plotting.temperature_shares(paths, record.temperatures, scale, ax=time)
    plotting.acceptance(record.tempering, record.temperatures, scale, ax=acceptance)
    return figure
