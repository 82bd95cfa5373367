"""The report's figures as inline SVG.

Why SVG with real text (``svg.fonttype: none``): the page's own font draws it, a reader can search it, and it
stays sharp at phone width. Why no pyplot: its global state would leak between runs in one process. Every id
is prefixed with its figure's name, because several SVGs share one page and matplotlib numbers its groups and
clip paths alike in each.

A painter draws on given axes and returns the sentence that a screen reader says; "" means there is nothing to
draw.
"""

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from server.figure_performance import draw_calibration, draw_precision_recall, draw_roc
from server.figure_style import BOTTOM, LEFT, RIGHT, SQUARE, STYLE, TOP, WIDE
from server.figure_training import draw_learning_rate, draw_loss, draw_validation
from server.figure_tuning import draw_tuning
from server.results import RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Painter = Callable[["Axes", RunResults], str]


def draw_figures(results: RunResults) -> dict[str, str]:
    """Every figure that the results can fill, as name -> ``<svg>``; a missing name has nothing to show."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", STYLE]):
        warnings.simplefilter("ignore")  # a glyph the measuring font lacks is drawn by the browser's font
        drawn = {name: _draw(name, size, paint, results) for name, (size, paint) in _PAINTERS.items()}
    return {name: svg for name, svg in drawn.items() if svg}


def _draw(name: str, size: tuple[float, float], paint: Painter, results: RunResults) -> str:
    """One figure with fixed margins: axes of neighbouring figures line up, whatever their tick labels."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure(figsize=size)
    box = (LEFT / width, BOTTOM / height, 1 - (LEFT + RIGHT) / width, 1 - (BOTTOM + TOP) / height)
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


_PAINTERS: dict[str, tuple[tuple[float, float], Painter]] = {
    "roc": (SQUARE, draw_roc),
    "pr": (SQUARE, draw_precision_recall),
    "calibration": (SQUARE, draw_calibration),
    "validation": (WIDE, draw_validation),
    "loss": (WIDE, draw_loss),
    "rate": (WIDE, draw_learning_rate),
    "tuning": (WIDE, draw_tuning),
}
