"""The paper's Figures 4, 5 and 6 with a curve for each federation. Painters as in server/figures.py."""

from typing import TYPE_CHECKING, Any

from server.figure_style import BLUE, GUIDE, ORANGE, RULE, name_axes, unit_square
from server.report_words import number
from server.results import Curve
from simulations.paper_results import Paper, PaperRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"early": BLUE, "paper": ORANGE}
_ON_WHITE: dict[str, Any] = {"frameon": True, "framealpha": 1, "edgecolor": "white"}
_STROKES = {"focal": "solid", "cross_entropy": (0, (2, 1.5))}


def draw_roc(axes: "Axes", paper: Paper) -> str:
    """Figure 5."""
    runs = [run for run in paper.runs if run.heldout.roc.x]
    if not runs:
        return ""
    axes.plot([0, 1], [0, 1], **GUIDE)
    for run in runs:
        _curve(axes, run, run.heldout.roc, "auroc")
    unit_square(axes)
    name_axes(axes, "1 \u2212 specificity", "Sensitivity")
    axes.legend(loc="lower right", **_ON_WHITE)
    return f"ROC curves. AUROC: {_spoken(runs, 'auroc')}."


def draw_pr(axes: "Axes", paper: Paper) -> str:
    """Figure 6."""
    runs = [run for run in paper.runs if run.heldout.precision_recall.x]
    if not runs:
        return ""
    axes.axhline(runs[0].heldout.deaths / runs[0].heldout.patients, **GUIDE)
    for run in runs:
        _curve(axes, run, run.heldout.precision_recall, "auprc")
    unit_square(axes)
    name_axes(axes, "Recall", "Precision")
    axes.legend(loc="best", **_ON_WHITE)
    return f"Precision-recall curves. AUPRC: {_spoken(runs, 'auprc')}."


def draw_rates(axes: "Axes", paper: Paper) -> str:
    """Figure 4."""
    from matplotlib.ticker import MaxNLocator

    rates = paper.runs[0].learning_rates
    if not rates:
        return ""
    axes.plot(range(1, len(rates) + 1), [1000 * rate for rate in rates], "o-", color=BLUE, markersize=3.5)
    axes.grid(axis="y", color=RULE, linewidth=0.5, alpha=0.6)
    axes.set(xlim=(0.5, len(rates) + 0.5), ylim=(0, 1120 * max(rates)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    name_axes(axes, "Round", "Learning rate (units of 0.001)")
    return f"Learning rate by round, from {rates[0]:.3g} to {rates[-1]:.3g}."


def _curve(axes: "Axes", run: PaperRun, curve: Curve, metric: str) -> None:
    label = f"{number(run.heldout.metrics[metric].value)}  {run.name}"
    style: dict[str, Any] = {"color": _COLOURS[run.profile], "linestyle": _STROKES[run.loss], "linewidth": 1.4}
    axes.plot(curve.x, curve.y, clip_on=False, label=label, **style)


def _spoken(runs: list[PaperRun], metric: str) -> str:
    return "; ".join(f"{run.name} {number(run.heldout.metrics[metric].value)}" for run in runs)
