"""How every figure of the report looks: colours, sizes, and what axes have in common."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY, INK, RULE = "#0067a5", "#c85a00", "#737d8a", "#1d2733", "#c4cbd4"
SQUARE, WIDE = (4.0, 3.9), (4.0, 3.0)  # inches; both leave 3.14 in for the axes, so columns align
LEFT, RIGHT, BOTTOM, TOP = 0.74, 0.12, 0.54, 0.12  # margins, inches
STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "consilium",
    "text.parse_math": False,
    "font.size": 9,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
}
GUIDE: dict[str, Any] = {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 1}


def name_axes(axes: "Axes", x: str, y: str) -> None:
    """Axis names; the vertical ones stand at one place in all figures, however wide the tick labels are."""
    axes.set_xlabel(x, labelpad=6)
    axes.set_ylabel(y)
    axes.yaxis.set_label_coords(-(LEFT - 0.19) / (SQUARE[0] - LEFT - RIGHT), 0.5)


def unit_square(axes: "Axes", top: float = 1.0) -> None:
    """The same scale from 0 to ``top`` on both axes, so that a diagonal is one."""
    from matplotlib.ticker import MaxNLocator

    ticks = [tick for tick in MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(0, top) if tick <= top + 1e-9]
    axes.set(xlim=(0, top), ylim=(0, top), xticks=ticks, yticks=ticks, box_aspect=1)
    labels = [f"{tick:.2f}".rstrip("0").rstrip(".") for tick in ticks]
    axes.set_xticklabels(labels)
    axes.set_yticklabels(labels)
