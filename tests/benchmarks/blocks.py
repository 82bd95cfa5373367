"""What it costs a site of 100,000 patients to tell of whole blocks: the dearest answer in the clear, statistics,
made and judged block by block against all at once, with the audit log of a thousand answers beside the store.
Alone: python -m tests.benchmarks.blocks
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from client.audit import AuditLog
from client.block_memory import confirmed, memory_of, open_blocks
from client.policy import KINDS, ReleasePolicy
from client.small_cells import suppressed
from client.statistics import block_statistics, local_statistics
from shared_model.batch import PatientData, open_store
from shared_model.study import EARLY
from shared_model.trial import THE_RUN

sys.path.insert(0, str(Path(__file__).parents[1]))
from builders import patients, write_store

PATIENTS, TIMES, REPEATS, ANSWERS, CELL = 100_000, 10, 5, 1_000, 10


def measure(folder: Path) -> Table:
    """The table of figures."""
    folder.mkdir(parents=True, exist_ok=True)
    store = write_store(folder / "store", _many())
    making = _seconds(lambda: open_blocks(store, CELL), 1)
    _answers(store)
    opening = _seconds(lambda: open_blocks(store, CELL))
    blocks, data = open_blocks(store, CELL), open_store(store)
    found = blocks.open(data, THE_RUN, 0.15, 1)
    policy = ReleasePolicy(allow=KINDS, smallest_cell=CELL)
    whole, held = local_statistics(found.training, EARLY), block_statistics(found, EARLY)
    at_once = replace(whole, parts=((whole, whole),))
    pairs = [
        [_seconds(work, 1) for work in (
            lambda: local_statistics(found.training, EARLY), lambda: block_statistics(found, EARLY),
            lambda: suppressed(at_once, policy), lambda: suppressed(held, policy),
        )]
        for _ in range(REPEATS)
    ]  # fmt: skip
    making_plain, making_blocks, judging_plain, judging_blocks = map(median, zip(*pairs, strict=True))
    confirming = _seconds(lambda: confirmed(store, blocks.line))
    judging = judging_blocks - judging_plain
    guard = opening + confirming + judging
    allowed = 0.005 + 0.01 * making_plain
    memory = memory_of(store)
    table = Table("figure", "measured", "aim", title="blocks of patients: 100,000 patients, one stay each")
    table.title_justify = "left"
    table.add_row("blocks made, seconds, once a prepared store", f"{making:.2f}", "")
    table.add_row("memory and log looked at, milliseconds an answer", f"{1000 * (opening + confirming):.1f}", "")
    table.add_row("statistics judged block by block less at once, milliseconds", f"{1000 * judging:.1f}", "")
    told = f"{1000 * guard:.1f} = 5 + {100 * (guard - 0.005) / making_plain:.2f} % of {making_plain:.2f} s"
    table.add_row("the guard, milliseconds a statistics answer", told, f"5 + 1 %: {1000 * allowed:.1f}")
    table.add_row("statistics made block by block over all at once", f"{making_blocks / making_plain:.2f}", "")
    lines, cache = (file.stat().st_size / PATIENTS for file in (memory.path, memory.cache_file))
    table.add_row("bytes a patient on the disk, all kinds of answer: lines, cache", f"{lines:.1f}, {cache:.1f}", "64")
    return table


def _many() -> PatientData:
    """The same ten thousand patients ten times over, under numbers of their own."""
    one = patients(PATIENTS // TIMES, notes=0)
    by_stay = [field.name for field in fields(one) if field.name.endswith(("_N", "_NF", "_NTC"))]
    tensors = {name: torch.cat([getattr(one, name)] * TIMES) for name in by_stay}
    return replace(one, **tensors | {"patient_N": torch.arange(PATIENTS)})


def _answers(store: Path) -> None:
    """As many lines as a site of some years has, each as long as an update's."""
    line = memory_of(store).newest
    arrays = [[f"arrays/layer.{n}.weight", [64, 64], "float32"] for n in range(40)]
    entry = {"site": "Mercy", "kind": "train", "outcome": "released", "arrays": arrays, "told": list(line)}
    with AuditLog.held(store.with_name(f"{store.name}.audit.jsonl")) as audit:
        for _ in range(ANSWERS):
            audit.append(entry)


def _seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of some."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as place:
        Console(width=120).print(measure(Path(place)))
