"""`consilium-site prepare` on copies of the MIMIC-IV demo: time, memory and growth.

Why a yardstick: seconds of one machine say little on another. DuckDB must read the two largest files whatever is made
of them, so the preparation is told as a multiple of that, measured in turns with it. Every run is a fresh process and
every first preparation has a folder of its own, so that nothing is kept from the run before.

Alone: python -m tests.benchmarks.preparation [COPIES...]
"""

import gzip
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.replica import write_replica

DATA = Path(os.environ.get("CONSILIUM_DATA", Path(__file__).parents[3] / "shared" / "data"))
DEMO = DATA / "mimic-iv-demo-2.2"
COPIES = (10, 50)
REPEATS = 2
SMALL_MEMORY = "2GB"
PREPARE = str(Path(sys.executable).with_name("consilium-site"))
_SITE = "site: replica\nsource: {{path: '{source}'}}\nstore: store\ncohort: sepsis3\nencoder: none\n"
_READ = """
import csv, gzip, sys
import duckdb
from shared_model.schema import TABLES
for table in TABLES:
    if table.name in ("chartevents", "labevents"):
        file = f"{sys.argv[1]}/{table.folder}/{table.name}.csv.gz"
        with gzip.open(file, "rt") as text:
            header = next(csv.reader(text))
        kinds = {name: table.columns.get(name, "VARCHAR") for name in header}
        consumed = ", ".join(f'count("{name}")' for name in table.columns)
        duckdb.execute(f"SELECT {consumed} FROM read_csv('{file}', header = true, auto_detect = false, delim = ',',"
                       f" quote = '\\"', escape = '\\"', nullstr = '', columns = {kinds})").fetchall()
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process with its children: wall time, and the most memory resident at once."""

    seconds: float
    gigabytes: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What was measured on so many copies."""

    chart_events: int
    read: float
    prepare: float
    gigabytes: float
    again: float
    changed: float
    small: Run | None

    @property
    def ratio(self) -> float:
        return self.prepare / self.read


def measure(folder: Path, copies: tuple[int, ...] = COPIES) -> Table:
    """Each number of copies in turn; the largest also with little memory."""
    table = Table(title="preparation of the MIMIC-IV demo, multiplied", title_justify="left")
    if not DEMO.is_dir():
        table.add_column("skipped")
        table.add_row(f"no MIMIC-IV demo at {DEMO}; set CONSILIUM_DATA")
        return table
    imported = [
        measured([sys.executable, "-c", "import client.prepare"]).seconds for _ in range(2)
    ]  # the first warms up
    scales = {many: _measure(folder / f"x{many}", many, little_memory=many == max(copies)) for many in copies}
    for column in ("figure", *(f"x{many}" for many in copies), "aim"):
        table.add_column(column)
    for name, aim, cells in _figures(list(scales.values())):
        table.add_row(name, *cells, aim)
    small, large = min(copies), max(copies)
    table.add_row("seconds, to import client.prepare alone", *[f"{imported[-1]:.1f}"] * len(copies), "")
    if large > small:
        growth = f"{scales[large].prepare / scales[small].prepare:.1f}"
        table.add_row(f"seconds, x{large} over x{small}", *[""] * (len(copies) - 1), growth, f"{large / small:g}")
    return table


def _figures(scales: list[Scale]) -> list[tuple[str, str, list[str]]]:
    """Name, aim, and a cell for each scale."""
    little = [(f"{s.small.seconds:.1f}", f"{s.small.gigabytes:.2f}") if s.small else ("", "") for s in scales]
    return [
        ("chart events", "", [f"{s.chart_events:,}" for s in scales]),
        ("seconds, DuckDB reads chart and lab events", "", [f"{s.read:.1f}" for s in scales]),
        ("seconds, consilium-site prepare", "", [f"{s.prepare:.1f}" for s in scales]),
        ("  over DuckDB's read", "<= 2", [f"{s.ratio:.2f}" for s in scales]),
        ("  peak memory, GB", "", [f"{s.gigabytes:.2f}" for s in scales]),
        ("seconds, prepared again, nothing changed", "< 2", [f"{s.again:.1f}" for s in scales]),
        ("seconds, prepared again, prescriptions changed", "", [f"{s.changed:.1f}" for s in scales]),
        (f"seconds, --memory-limit {SMALL_MEMORY}", "", [seconds for seconds, _ in little]),
        ("  peak memory, GB", "", [gigabytes for _, gigabytes in little]),
    ]


def _measure(folder: Path, copies: int, *, little_memory: bool) -> Scale:
    """Reads and preparations in turns, so that a busy minute of this machine slows both."""
    source = folder / "mimic"
    chart_events = write_replica(DEMO, source, copies)
    reads, prepared = [], []
    for repeat in range(REPEATS):
        reads.append(measured([sys.executable, "-c", _READ, str(source)]))
        site = _site(folder / f"site-{repeat}", source)
        prepared.append(measured([PREPARE, "prepare", str(site)]))
    small = None
    if little_memory:
        fresh = _site(folder / "site-small", source)
        small = measured([PREPARE, "prepare", str(fresh), "--memory-limit", SMALL_MEMORY])
    again = measured([PREPARE, "prepare", str(site)])
    _drop_last_row(source / "hosp" / "prescriptions.csv.gz")
    changed = measured([PREPARE, "prepare", str(site)])
    shutil.rmtree(folder)
    return Scale(
        chart_events=chart_events,
        read=median(run.seconds for run in reads),
        prepare=median(run.seconds for run in prepared),
        gigabytes=max(run.gigabytes for run in prepared),
        again=again.seconds,
        changed=changed.seconds,
        small=small,
    )


def _site(folder: Path, source: Path) -> Path:
    """A site that nothing was prepared for; without an encoder, for the demo has no notes."""
    folder.mkdir()
    file = folder / "site.yaml"
    file.write_text(_SITE.format(source=source), encoding="utf-8")
    return file


def _drop_last_row(file: Path) -> None:
    text = gzip.decompress(file.read_bytes())
    end = text.rindex(b"\n", 0, len(text) - 1) + 1
    file.write_bytes(gzip.compress(text[:end], 6))


def measured(command: list[str]) -> Run:
    """Run to the end, looking at the memory 20 times a second. Raises RuntimeError with the command's last words."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as words:
        start = time.monotonic()
        process = psutil.Popen(command, stdout=words, stderr=words)
        peak = 0
        while True:
            peak = max(peak, _resident(process))
            with suppress(psutil.TimeoutExpired):
                process.wait(timeout=0.05)
                break
        seconds = time.monotonic() - start
        if process.returncode:
            words.seek(0)
            raise RuntimeError(f"{' '.join(command[:2])} ended with {process.returncode}: {words.read()[-500:]}")
    return Run(seconds=seconds, gigabytes=peak / 1e9)


def _resident(process: psutil.Process) -> int:
    """Bytes that a process and its children hold in memory now."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as scratch:
        wanted = tuple(int(word) for word in sys.argv[1:]) or COPIES
        Console(width=110).print(measure(Path(scratch), wanted))
