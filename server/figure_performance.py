"""The figures of one evaluation: ROC, precision and recall, calibration."""

import math
from typing import TYPE_CHECKING

from server.figure_style import BLUE, GUIDE, ORANGE, name_axes, unit_square
from server.report_words import number
from server.results import Curve, Performance, RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _drawable(curve: Curve) -> bool:
    return len(curve.x) > 1 and all(map(math.isfinite, [*curve.x, *curve.y]))


def _value(held: Performance, name: str) -> str:
    return number(held.metrics[name].value) if name in held.metrics else "not computed"


def draw_roc(axes: "Axes", results: RunResults) -> str:
    """Sensitivity against false alarms, with the chosen threshold."""
    held = results.performance
    if held is None or not _drawable(held.roc):
        return ""
    axes.plot([0, 1], [0, 1], **GUIDE, label="Chance")
    axes.plot(held.roc.x, held.roc.y, color=BLUE, clip_on=False, label="Federated model")
    specificity, sensitivity = (held.metrics.get(name) for name in ("specificity", "sensitivity"))
    if specificity and sensitivity and specificity.value is not None and sensitivity.value is not None:
        label = f"Threshold {held.threshold:.3f}"
        point = ([1 - specificity.value], [sensitivity.value])
        axes.plot(*point, "o", color=ORANGE, markeredgecolor="white", markersize=7, clip_on=False, label=label)
    unit_square(axes)
    name_axes(axes, "1 \u2212 specificity", "Sensitivity")
    axes.legend(loc="lower right", reverse=True)
    return f"ROC curve of the federated model; AUROC {_value(held, 'auroc')}, chance is 0.5."


def draw_precision_recall(axes: "Axes", results: RunResults) -> str:
    """Precision against recall, with the prevalence."""
    held = results.performance
    if held is None or not _drawable(held.precision_recall):
        return ""
    prevalence = held.deaths / held.patients if held.patients else 0.0
    label = f"Prevalence {prevalence:.3f}"
    axes.axhline(prevalence, **GUIDE, label=label)
    curve = held.precision_recall
    axes.plot(curve.x, curve.y, color=BLUE, clip_on=False, label="Federated model")
    unit_square(axes)
    name_axes(axes, "Recall (sensitivity)", "Precision")
    axes.legend(loc="best", reverse=True)
    score = _value(held, "auprc")
    return f"Precision-recall curve of the federated model; AUPRC {score}, chance is {prevalence:.3f}."


def _wilson(rate: float, count: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927): honest near 0, where the calibration points of low risk lie."""
    z = 1.96
    centre = rate + z * z / (2 * count)
    half = z * math.sqrt(max(rate * (1 - rate), 0) / count + z * z / (4 * count * count))
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def draw_calibration(axes: "Axes", results: RunResults) -> str:
    """Observed against predicted risk by tenths."""
    bins = [b for b in results.performance.calibration if b.count > 0] if results.performance else []
    if not bins:
        return ""
    intervals = [_wilson(b.observed, b.count) for b in bins]
    reach = max(max(high for _, high in intervals), max(b.predicted for b in bins))
    top = min(1.0, max(0.2, math.ceil(round(reach * 10, 6)) / 10))
    x, y = [b.predicted for b in bins], [b.observed for b in bins]
    axes.plot([0, top], [0, top], **GUIDE, label="Perfect calibration")
    axes.vlines(x, *zip(*intervals, strict=True), color=BLUE, linewidth=1.1)
    largest = max(b.count for b in bins)
    areas = [20 + 44 * b.count / largest for b in bins]
    axes.plot(x, y, color=BLUE, linewidth=1, alpha=0.45)
    axes.scatter(x, y, areas, color=BLUE, edgecolors="white", zorder=3, clip_on=False, label="Federated model")
    unit_square(axes, top)
    name_axes(axes, "Predicted risk", "Observed mortality")
    axes.legend(loc="upper left", reverse=True)
    return f"Calibration in {len(bins)} groups of predicted risk, from {min(x):.2f} to {max(x):.2f}."
