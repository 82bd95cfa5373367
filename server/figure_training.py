"""The figures by round."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from server.figure_style import BLUE, GUIDE, ORANGE, RULE, name_axes
from server.results import RoundSummary, RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _points(rounds: Iterable[RoundSummary], field: str) -> tuple[list[int], list[float]]:
    """The rounds that have a finite value of a field, and the values."""
    pairs = [(r.round, getattr(r, field)) for r in rounds]
    known = [(number, value) for number, value in pairs if value is not None and math.isfinite(value)]
    return [number for number, _ in known], [value for _, value in known]


def _by_round(axes: "Axes", results: RunResults, ylabel: str) -> None:
    """What the figures by round share: whole rounds on x, quiet guide lines, a legend where it is free."""
    from matplotlib.ticker import MaxNLocator

    numbers = [r.round for r in results.rounds]
    axes.set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    name_axes(axes, "Round", ylabel)


def draw_validation(axes: "Axes", results: RunResults) -> str:
    """AUROC on the sites' validation patients, with the kept round."""
    numbers, values = _points(results.rounds, "validation_auroc")
    if not numbers:
        return ""
    held = results.heldout.metrics.get("auroc") if results.heldout else None
    if held and held.value is not None and math.isfinite(held.value):
        label = f"Held-out {held.value:.3f}"
        axes.axhline(held.value, **GUIDE, label=label)
    axes.plot(numbers, values, "o-", color=BLUE, markersize=3.5, label="Validation")
    spoken = ""
    if results.best_round in numbers:
        best = values[numbers.index(results.best_round)]
        axes.plot(
            [results.best_round],
            [best],
            "o",
            color=ORANGE,
            markersize=9,
            markerfacecolor="none",
            markeredgewidth=1.6,
            label=f"Kept: round {results.best_round}",
        )
        spoken = f"; round {results.best_round} was kept"
    _by_round(axes, results, "AUROC")
    axes.legend(loc="best")
    return f"Validation AUROC from {values[0]:.3f} to {values[-1]:.3f} in {len(values)} rounds{spoken}."


def draw_loss(axes: "Axes", results: RunResults) -> str:
    """Loss in training and on validation patients."""
    training, validation = _points(results.rounds, "train_loss"), _points(results.rounds, "validation_loss")
    if not training[0] and not validation[0]:
        return ""
    if training[0]:
        axes.plot(*training, "s--", color=ORANGE, markersize=3.2, linewidth=1.3, label="Training")
    if validation[0]:
        axes.plot(*validation, "o-", color=BLUE, markersize=3.5, label="Validation")
    _by_round(axes, results, "Loss")
    axes.legend(loc="best")
    first, last = (validation[1] or training[1])[0], (validation[1] or training[1])[-1]
    return f"Training and validation loss by round; the last goes from {first:.4f} to {last:.4f}."


def draw_learning_rate(axes: "Axes", results: RunResults) -> str:
    """The rate of every round."""
    numbers, values = _points(results.rounds, "learning_rate")
    if not numbers:
        return ""
    unit = 10.0 ** math.floor(math.log10(max(values))) if max(values) > 0 else 1.0
    axes.plot(numbers, [value / unit for value in values], "o-", color=BLUE, markersize=3.5)
    _by_round(axes, results, "Learning rate" + (f" (units of {unit:g})" if unit < 0.1 else ""))
    axes.set_ylim(0, max(values) / unit * 1.12 or 1)
    return f"Learning rate by round, from {values[0]:.3g} to {values[-1]:.3g}."
