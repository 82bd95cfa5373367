"""A deployed round: two SuperNodes on loopback over TLS, a model of 4 MB, next to no training; against the same with a
plain Flower app that trains and evaluates in messages of their own. Where the time goes, and what it sends."""

import json
import re
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from uuid import uuid4

from rich.table import Table

from server.results import read_results
from simulations.runner import ended_afterwards
from tests.benchmarks.naive_app import naive_round

sys.path.insert(0, str(Path(__file__).parents[1]))
from consortium import Consortium

ROUNDS = 6
SIZES = {"series_hidden": 232, "fusion_width": 192, "static_hidden": 64, "text_hidden": 32}
START = """
import time
begin = time.perf_counter()
from flwr.supernode.runtime.run_clientapp import run_clientapp
import client.app
from client import task, training
from shared_model import batch, config, inputs, model
import sys
heavy = [name for name in ("opacus", "transformers", "sklearn", "torch._dynamo") if name in sys.modules]
sys.stdout.write(" ".join(heavy))
"""


def measure(folder: Path) -> Table:
    """Rounds of a run, the first left out, since it loads the plan and the app."""
    mark = uuid4().hex
    with ended_afterwards(mark):
        consortium = Consortium(folder / "consortium", mark)
        consortium.open(Mercy=60, Avon=60)
        consortium.train("bench", rounds=ROUNDS, local_steps=1, batch_size=8, **SIZES)
        consortium.close()
    results = read_results(consortium.centre / "runs" / "bench" / "results.json")
    last = results.rounds[-1]
    table = Table(title="a deployed round: 2 SuperNodes on loopback, TLS, one step of training", title_justify="left")
    for column in ("figure", "measured", "aim"):
        table.add_column(column)
    rounds = results.timing.rounds[1:]
    table.add_row(
        "seconds a round, median (range)", f"{median(rounds):.1f} ({min(rounds):.1f}-{max(rounds):.1f})", "<= 6"
    )
    for part, seconds in _parts(consortium).items():
        table.add_row(f"  of it: {part}", f"{seconds:.1f}", "")
    naive = naive_round(folder / "naive")
    table.add_row("a plain Flower app with train and evaluate, seconds a round", f"{naive:.1f}", "")
    table.add_row("ours over the plain app", f"{median(rounds) / naive:.2f}", "")
    started, heavy = _start_up()
    table.add_row("ClientApp process until it can work, seconds", f"{started:.1f}", "<= 2.5")
    table.add_row("libraries of text and privacy loaded by then", heavy or "none", "none")
    table.add_row("parameters", f"{results.parameters:,}", "")
    table.add_row("MB a round to a site, from a site", f"{last.bytes_down / 1e6:.2f}, {last.bytes_up / 2e6:.2f}", "")
    return table


def _start_up() -> tuple[float, str]:
    spent, heavy = [], ""
    for _ in range(3):
        start = time.perf_counter()
        heavy = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True, text=True).stdout
        spent.append(time.perf_counter() - start)
    return median(spent), heavy


def _parts(consortium: Consortium) -> dict[str, float]:
    """Medians over rounds and sites, from the sites' logs, their audit logs and the server's progress."""
    progress = consortium.centre / "runs" / "bench" / "progress.jsonl"
    told = [json.loads(line) for line in progress.read_text(encoding="utf-8").splitlines()]
    ended = {event["round"]: event["time"] for event in told if event["event"] == "round"}
    parts: dict[str, list[float]] = {}
    for site, path in consortium.sites.items():
        log = (path.parent / "site.federation" / "logs" / "supernode.log").read_text(encoding="utf-8")
        received, started = _times(log, "Receiving: train"), _times(log, "Start `flwr-clientapp`")
        released = {
            entry["round"]: datetime.fromisoformat(entry["time"]).timestamp()
            for entry in consortium.audit(site)
            if entry["kind"] == "train"
        }
        for number in range(2, ROUNDS + 1):
            taken = received[number - 1]
            begun = min(time for time in started if time > taken)
            steps = [ended[number - 1], taken, begun, released[number], ended[number]]
            for name, (before, after) in zip(PARTS, pairwise(steps), strict=True):
                parts.setdefault(name, []).append(after - before)
    return {name: median(spent) for name, spent in parts.items()}


PARTS = (
    "checkpoint written, model sent, message noticed",
    "process started (Python, Flower)",
    "app loaded (torch), trained, released",
    "reply sent, noticed, aggregated",
)


def _times(log: str, words: str) -> list[float]:
    stamps = re.findall(rf"^(\S+ \S+) .*{re.escape(words)}", log, re.MULTILINE)
    return [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() for stamp in stamps]


if __name__ == "__main__":
    import tempfile

    from rich.console import Console

    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as place:
        Console(width=110).print(measure(Path(place)))
