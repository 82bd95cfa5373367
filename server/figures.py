"""The report's figures as inline SVG.

Why SVG with real text (``svg.fonttype: none``): the page's own font draws it, a reader can search it, and it
stays sharp at phone width. Why no pyplot: its global state would leak between runs in one process. Every id
is prefixed with its figure's name, because several SVGs share one page and matplotlib numbers its groups and
clip paths alike in each.

A painter draws on given axes and returns the sentence that a screen reader says; "" means there is nothing to
draw.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING

from server.results import Curve, Estimate, RoundSummary, RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK, RULE = "#0067a5", "#c85a00", "#737d8a", "#1d2733", "#c4cbd4"
SQUARE, WIDE = (4.0, 3.9), (4.0, 3.0)  # inches; both leave 3.14 in for the axes, so columns align
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.74, 0.12, 0.54, 0.12  # margins, inches
_STYLE: dict[str, object] = {
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
Painter = Callable[["Axes", RunResults], str]


def draw_figures(results: RunResults) -> dict[str, str]:
    """Every figure that the results can fill, as name -> ``<svg>``; a missing name has nothing to show."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", _STYLE]):
        warnings.simplefilter("ignore")  # a glyph the measuring font lacks is drawn by the browser's font
        drawn = {name: _draw(name, size, paint, results) for name, (size, paint) in _PAINTERS.items()}
    return {name: svg for name, svg in drawn.items() if svg}


def _draw(name: str, size: tuple[float, float], paint: Painter, results: RunResults) -> str:
    """One figure with fixed margins: axes of neighbouring figures line up, whatever their tick labels."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure(figsize=size)
    box = (_LEFT / width, _BOTTOM / height, 1 - (_LEFT + _RIGHT) / width, 1 - (_BOTTOM + _TOP) / height)
    label = paint(figure.add_axes(box), results)
    return _inline_svg(figure, name, label) if label else ""


def _inline_svg(figure: "Figure", name: str, label: str) -> str:
    """The figure's SVG element: no XML prologue, no page-wide style rule, no date, and ids of its own."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    body = re.sub(r"<style.*?</style>", "", buffer.getvalue(), flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _own_ids(tag.group(), name), body[body.index("<svg") :])
    view = re.search(r'viewBox="[^"]*"', body)
    opening = f'<svg role="img" aria-label="{escape(label)}" {view.group() if view else ""}>'
    return opening + body[body.index(">") + 1 :].strip()


def _own_ids(tag: str, name: str) -> str:
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", tag)


def _name_axes(axes: "Axes", x: str, y: str) -> None:
    """Axis names; the vertical ones stand at one place in all figures, however wide the tick labels are."""
    axes.set_xlabel(x, labelpad=6)
    axes.set_ylabel(y)
    axes.yaxis.set_label_coords(-(_LEFT - 0.19) / (SQUARE[0] - _LEFT - _RIGHT), 0.5)


def _unit_square(axes: "Axes", top: float = 1.0) -> None:
    """The same scale from 0 to ``top`` on both axes, so that a diagonal is one."""
    ticks = [top * step / 5 for step in range(6)]
    axes.set(xlim=(0, top), ylim=(0, top), xticks=ticks, yticks=ticks, box_aspect=1)
    labels = [f"{tick:.2f}".rstrip("0").rstrip(".") for tick in ticks]
    axes.set_xticklabels(labels)
    axes.set_yticklabels(labels)


def _drawable(curve: Curve) -> bool:
    return len(curve.x) > 1 and all(map(math.isfinite, [*curve.x, *curve.y]))


def three(estimate: Estimate | None) -> str:
    """A metric's value for a label: three decimals, or words."""
    known = estimate is not None and estimate.value is not None and math.isfinite(estimate.value)
    return f"{estimate.value:.3f}" if estimate and known else "not defined"


def _roc(axes: "Axes", results: RunResults) -> str:
    held = results.heldout
    if held is None or not _drawable(held.roc):
        return ""
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1, label="Chance")
    axes.plot(held.roc.x, held.roc.y, color=BLUE, clip_on=False, label="Federated model")
    specificity, sensitivity = (held.metrics.get(name) for name in ("specificity", "sensitivity"))
    if specificity and sensitivity and specificity.value is not None and sensitivity.value is not None:
        label = f"Threshold {held.threshold:.3f}"
        point = ([1 - specificity.value], [sensitivity.value])
        axes.plot(*point, "o", color=ORANGE, markeredgecolor="white", markersize=7, clip_on=False, label=label)
    _unit_square(axes)
    _name_axes(axes, "1 \u2212 specificity", "Sensitivity")
    axes.legend(loc="lower right", reverse=True)
    return f"ROC curve of the federated model; AUROC {three(held.metrics.get('auroc'))}, chance is 0.5."


def _precision_recall(axes: "Axes", results: RunResults) -> str:
    held = results.heldout
    if held is None or not _drawable(held.precision_recall):
        return ""
    prevalence = held.deaths / held.patients if held.patients else 0.0
    label = f"Prevalence {prevalence:.3f}"
    axes.axhline(prevalence, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=label)
    curve = held.precision_recall
    axes.plot(curve.x, curve.y, color=BLUE, clip_on=False, label="Federated model")
    _unit_square(axes)
    _name_axes(axes, "Recall (sensitivity)", "Precision")
    axes.legend(loc="best", reverse=True)
    score = three(held.metrics.get("auprc"))
    return f"Precision-recall curve of the federated model; AUPRC {score}, chance is {prevalence:.3f}."


def _wilson(rate: float, count: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927): honest near 0, where the calibration points of low risk lie."""
    z = 1.96
    centre = rate + z * z / (2 * count)
    half = z * math.sqrt(max(rate * (1 - rate), 0) / count + z * z / (4 * count * count))
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def _calibration(axes: "Axes", results: RunResults) -> str:
    bins = [b for b in results.heldout.calibration if b.count > 0] if results.heldout else []
    if not bins:
        return ""
    intervals = [_wilson(b.observed, b.count) for b in bins]
    reach = max(max(high for _, high in intervals), max(b.predicted for b in bins))
    top = min(1.0, max(0.2, math.ceil(round(reach * 10, 6)) / 10))
    x, y = [b.predicted for b in bins], [b.observed for b in bins]
    axes.plot([0, top], [0, top], color=GREY, linestyle=(0, (4, 3)), linewidth=1, label="Perfect calibration")
    axes.vlines(x, *zip(*intervals, strict=True), color=BLUE, linewidth=1.1)
    largest = max(b.count for b in bins)
    areas = [20 + 44 * b.count / largest for b in bins]
    axes.plot(x, y, color=BLUE, linewidth=1, alpha=0.45)
    axes.scatter(x, y, areas, color=BLUE, edgecolors="white", zorder=3, clip_on=False, label="Federated model")
    _unit_square(axes, top)
    _name_axes(axes, "Predicted risk", "Observed mortality")
    axes.legend(loc="upper left", reverse=True)
    return f"Calibration in {len(bins)} groups of predicted risk, from {min(x):.2f} to {max(x):.2f}."


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
    _name_axes(axes, "Round", ylabel)


def _validation(axes: "Axes", results: RunResults) -> str:
    numbers, values = _points(results.rounds, "validation_auroc")
    if not numbers:
        return ""
    held = results.heldout.metrics.get("auroc") if results.heldout else None
    if held and held.value is not None and math.isfinite(held.value):
        label = f"Held-out {held.value:.3f}"
        axes.axhline(held.value, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=label)
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


def _loss(axes: "Axes", results: RunResults) -> str:
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


def _learning_rate(axes: "Axes", results: RunResults) -> str:
    numbers, values = _points(results.rounds, "learning_rate")
    if not numbers:
        return ""
    unit = 10.0 ** math.floor(math.log10(max(values))) if max(values) > 0 else 1.0
    axes.plot(numbers, [value / unit for value in values], "o-", color=BLUE, markersize=3.5)
    _by_round(axes, results, "Learning rate" + (f" (units of {unit:g})" if unit < 0.1 else ""))
    axes.set_ylim(0, max(values) / unit * 1.12 or 1)
    return f"Learning rate by round, from {values[0]:.3g} to {values[-1]:.3g}."


_PAINTERS: dict[str, tuple[tuple[float, float], Painter]] = {
    "roc": (SQUARE, _roc),
    "pr": (SQUARE, _precision_recall),
    "calibration": (SQUARE, _calibration),
    "validation": (WIDE, _validation),
    "loss": (WIDE, _loss),
    "rate": (WIDE, _learning_rate),
}
