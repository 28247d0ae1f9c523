"""Axes to draw into, and the colours that all figures have in common."""

from matplotlib.axes import Axes

COLOURS = (  # of states; Okabe and Ito's, then others
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip


def axes_or_new(ax: Axes | None, width: float = 4.8, height: float = 3.6) -> Axes:
    """Return the Axes given, or those of a new figure [inches] that notebooks show."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def state_colour(state: int) -> str:
    """Colour of a state, the same in all figures."""
    return COLOURS[state % len(COLOURS)]


def legend(ax: Axes, wanted: bool, columns: int = 1) -> None:
    """Draw the legend of what has a label, where it is wanted."""
    if wanted and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8, ncols=columns)
