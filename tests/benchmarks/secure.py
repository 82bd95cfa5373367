"""Secure aggregation of a 4 MB update over ten sites: what masks cost a site and the server, and what goes over the
wire, against the same update in the clear. Sites take their turns in this process; nothing else is timed.
Alone: python -m tests.benchmarks.secure
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from flwr.app import MetricRecord, RecordDict
from rich.console import Console
from rich.table import Table

from shared_model.mergeable import SCORE_BINS
from shared_model.records import METRICS, serialised
from shared_model.secure.encoding import scale_for, to_integers, to_words
from shared_model.secure.messages import Keys, MaskedReply, Purpose, Sealed, Told, roster_lists
from shared_model.secure.ring import Vector
from shared_model.trial import THE_RUN

sys.path.insert(0, str(Path(__file__).parents[1]))
from secure_session import Session, session_of, total

SITES, WEIGHTS, REPEATS, RANGE, STAYS = 10, 1_000_000, 5, 8.0, 1000
CLEAR = {"num-examples": STAYS, "negatives": [3] * SCORE_BINS, "positives": [1] * SCORE_BINS, "round": 1}


def measure(folder: Path) -> Table:
    """The table of figures; ``folder`` stays empty."""
    rng = np.random.default_rng(0)
    deltas = {f"S{n:02}": rng.normal(0, 0.01, WEIGHTS) for n in range(SITES)}
    layout, integers = to_integers({METRICS: CLEAR})
    scale = scale_for(SITES * STAYS, RANGE, SITES)
    session = session_of(SITES)

    def encoded(name: str) -> Vector:
        return Vector.of(to_words(deltas[name], STAYS, scale, RANGE), integers)

    plain = {name: encoded(name) for name in session.held}
    one = next(iter(plain))
    table = Table("figure", "measured", "against the clear", title="secure aggregation: 4 MB, 10 sites")
    table.title_justify = "left"
    keys = _seconds(lambda: session_of(SITES)) / SITES
    table.add_row("keys and shares, seconds a site", f"{keys:.4f}", "")
    table.add_row("fixed point, seconds a site", f"{_seconds(lambda: encoded(one)):.3f}", "")
    masking = _seconds(lambda: session.masked({one: plain[one]}))
    table.add_row("masks, seconds a site", f"{masking:.3f}", "")
    adding = _seconds(lambda: sum(deltas[name] * STAYS for name in deltas))
    masked = session.masked(plain)
    summing = _seconds(lambda: total(masked.values()))
    table.add_row("sum, seconds at the server", f"{summing:.3f}", f"{summing / adding:.2f} x the weighted mean")
    for lost in (0, 1, 3):
        seconds = _opening(session, plain, masked, lost)
        what = f"unmasking with {lost} lost, seconds at the server"
        table.add_row(what, f"{seconds:.3f}", f"{seconds / adding:.2f} x the weighted mean")
    for way, (ours, theirs) in _wire(session, masked[one], layout).items():
        table.add_row(f"bytes {way}, a site and round", f"{ours:,}", f"{ours / theirs:.4f} x {theirs:,}")
    return table


def _opening(session: Session, plain: dict[str, Vector], masked: dict[str, Vector], lost: int) -> float:
    """Of a sum that is right; a wrong one is no figure."""
    left = list(session.held)[lost:]
    summed, answers = total(masked[name] for name in left), session.told(left, left[: session.least])
    opening = session.opening(left)
    expected = sum(plain[name].words().astype(np.int64) for name in left)
    if not np.array_equal(opening.opened(summed, answers).words(), expected):
        raise RuntimeError("the opened sum is wrong")
    return _seconds(lambda: opening.opened(summed, answers))


def _wire(session: Session, vector: Vector, layout: str) -> dict[str, tuple[int, int]]:
    """Bytes of all messages of a round to one site and from it: ours, and in the clear."""
    purpose = Purpose(session=session.session, kind="train", round=1, trial=THE_RUN, sites=SITES)
    seat, names = session.seats["S00"], list(session.held)
    sealed = seat.share_out(session.least)
    others = Sealed(shares={name: share for name, share in sealed.items() if name != "S00"}).content()
    told = Told(shares=session.told(names, ["S00"])["S00"]).content()
    own = session.roster.of("S00")
    keys = Keys(encryption=own.encryption, masking=own.masking, commitment=own.commitment).content()
    answer = MaskedReply(session=session.session, layout=layout, vector=vector).content()
    weights = 4 * WEIGHTS
    clear_up = weights + len(serialised(RecordDict({METRICS: MetricRecord(CLEAR)})))
    up = sum(len(serialised(content)) for content in (keys, others, answer, told))
    questions = purpose.content(), purpose.content(**roster_lists(session.roster)), purpose.content(survivors=names)
    down = weights + sum(len(serialised(content)) for content in (*questions, others))
    return {"from it": (up, clear_up), "to it": (down, weights)}


def _seconds(work: Callable[[], object]) -> float:
    """Median of ``REPEATS``."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as place:
        Console(width=110).print(measure(Path(place)))
