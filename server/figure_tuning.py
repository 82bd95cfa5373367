"""The figure of a tuning: every trial's folds, and their mean."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.figure_style import BLUE, GREY, ORANGE, RULE, name_axes
from server.report_tuning import Tried, shown
from server.report_words import known
from server.results import RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 100  # values that span this factor stand on a logarithmic axis


def draw_tuning(axes: "Axes", results: RunResults) -> str:
    """AUROC by the value of the one number that was tuned, or else by rank."""
    tuning = results.tuning
    tried = [row for row in shown(tuning) if known(row.trial.mean)] if tuning else []
    if not tuning or not tried:
        return ""
    numbers = _numbers(tuning.parameters, tried)
    means = _folds_and_means(axes, numbers or [float(row.rank) for row in tried], tried)
    _scale_axes(axes, numbers, len(tried))
    name_axes(axes, tuning.parameters[0] if numbers else "Trial, best mean first", "AUROC")
    return f"AUROC of {len(tried)} settings in {tuning.folds} folds; means from {min(means):.3f} to {max(means):.3f}."


def _folds_and_means(axes: "Axes", x: list[float], tried: list[Tried]) -> list[float]:
    means = [row.trial.mean or 0.0 for row in tried]
    spread = [row.trial.sd if known(row.trial.sd) else 0.0 for row in tried]
    for place, row in zip(x, tried, strict=True):
        folds = [value for value in row.trial.fold_auroc if known(value)]
        axes.plot([place] * len(folds), folds, "_", color=GREY, markersize=9, markeredgewidth=1)
    axes.errorbar(x, means, spread, fmt="o", color=BLUE, markersize=5, elinewidth=1.2)
    for place, mean, row in zip(x, means, tried, strict=True):
        if row.chosen:
            axes.plot(place, mean, "o", color=ORANGE, markersize=10, markerfacecolor="none", markeredgewidth=1.6)
    return means


def _numbers(parameters: Sequence[str], tried: list[Tried]) -> list[float]:
    """The values of the one tuned parameter; empty when there are several, or when they are no numbers."""
    if len(parameters) != 1:
        return []
    values = [row.trial.settings.get(parameters[0]) for row in tried]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and known(v)]
    return numbers if len(numbers) == len(values) else []


def _scale_axes(axes: "Axes", numbers: list[float], many: int) -> None:
    """A logarithmic x axis where the values span two decades, and few ticks anywhere."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if numbers and min(numbers) > 0 and max(numbers) / min(numbers) >= DECADES:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=not numbers, min_n_ticks=1))
    if not numbers:
        axes.set_xlim(0.4, many + 0.6)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
