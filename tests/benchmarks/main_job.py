"""The default of `make simulate`, twice: time, distance to the best possible and to pooled, repeatability, overhead."""

import subprocess
import sys
import time
from pathlib import Path

from rich.table import Table

from server.results import RunResults, read_results

SIMULATE = str(Path(sys.executable).with_name("consilium-simulate"))


def measure(folder: Path) -> Table:
    """Two runs with the same seed."""
    (first, seconds), (second, again) = _run(folder / "first"), _run(folder / "second")
    federated, pooled = (_auroc(first, model) for model in ("federated", "pooled"))
    best = (first.data and first.data.oracle_auroc) or float("nan")
    table = Table(title="the main job on the synthetic default", title_justify="left")
    for column in ("figure", "measured", "aim"):
        table.add_column(column)
    table.add_row("seconds, first and second run", f"{seconds:.0f}, {again:.0f}", "< 300")
    table.add_row("federated AUROC", f"{federated:.3f}", "")
    table.add_row("best possible - federated", f"{best - federated:+.3f}", "<= 0.03")
    table.add_row("pooled - federated", f"{pooled - federated:+.3f}", "<= 0.015")
    table.add_row("same seed, same metrics", "yes" if _metrics(first) == _metrics(second) else "NO", "yes")
    table.add_row("rounds' wall time over local training", f"{first.timing.federation_overhead or 0:.2f}", "")
    for stage, spent in first.timing.stages.items():
        table.add_row(f"seconds, {stage}", f"{spent:.0f}", "")
    return table


def _run(out: Path) -> tuple[RunResults, float]:
    start = time.monotonic()
    subprocess.run([SIMULATE, "--out", str(out)], check=True, capture_output=True)
    return read_results(out / "results.json"), time.monotonic() - start


def _auroc(results: RunResults, model: str) -> float:
    return next(row.auroc.value for row in results.comparison if row.model == model) or float("nan")


def _metrics(results: RunResults) -> dict[str, object]:
    """All that must repeat: everything but the clock and the folders."""
    return results.model_dump(exclude={"timing": True, "config": {"output", "heldout"}})
