"""The MIMIC-IV demo's patients many times over, as a MIMIC-IV folder of the size that a benchmark needs.

Why copies: what real rows look like (which items are charted, how often a field is empty, how well a file compresses)
decides how long their preparation takes, and no generator has it right. Every id of copy k is the demo's plus k times
100,000,000, so each copy is another hundred patients; times stay.

Why by text: an id below 100,000,000 moves by k times that when k is written before its eight digits. A table is then
parsed once, and a copy of it is one replacement and one gzip member, so that 33 million rows take a minute.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared_model.schema import TABLES

SHIFT = 100_000_000
FILES = (
    *((table.folder, table.name) for table in TABLES),
    ("hosp", "diagnoses_icd"),
    ("hosp", "services"),
)
IDS = frozenset(
    (
        "subject_id",
        "hadm_id",
        "stay_id",
        "specimen_id",
        "micro_specimen_id",
        "labevent_id",
        "microevent_id",
        "pharmacy_id",
        "orderid",
        "linkorderid",
    )
)
_MARK, _DIGITS = "\0", len(str(SHIFT)) - 1
_LEVEL = 6  # gzip's default, and about what PhysioNet's files have
_WORKERS = 2  # threads: zlib lets go of Python's lock


def write_replica(demo: Path, out: Path, copies: int) -> int:
    """Write each table of the schema that ``demo`` has, ``copies`` times, to ``out``; returns the chart events."""
    rows = {}
    for folder, name in FILES:
        source = demo / folder / f"{name}.csv.gz"
        if source.is_file():
            target = out / folder / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            rows[name] = _write_copies(source, target, copies) * copies
    return rows["chartevents"]


def _write_copies(source: Path, target: Path, copies: int) -> int:
    """One gzip member a copy, in the order of the copies. Returns the rows of one copy."""
    with gzip.open(source, "rt", encoding="utf-8", newline="") as text:
        reader = csv.reader(text)
        header = next(reader)
        template, rows = _template(header, reader)

    def member(copy: int) -> bytes:
        return gzip.compress(template.replace(_MARK.encode(), str(copy).encode()), _LEVEL)

    with source.open("rb") as first, target.open("wb") as file, ThreadPoolExecutor(_WORKERS) as pool:
        while part := first.read(1 << 20):
            file.write(part)
        for start in range(1, copies, _WORKERS):  # a few at a time, or finished members pile up in memory
            file.writelines(pool.map(member, range(start, min(start + _WORKERS, copies))))
    return rows


def _template(header: list[str], reader: Iterator[list[str]]) -> tuple[bytes, int]:
    """All rows with a mark before each id, where a copy's number goes; empty fields stay empty."""
    places = [place for place, name in enumerate(header) if name in IDS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = 0
    for row in reader:
        rows += 1
        for place in places:
            if row[place]:
                row[place] = _MARK + _eight_digits(row[place])
        writer.writerow(row)
    return text.getvalue().encode(), rows


def _eight_digits(number: str) -> str:
    if len(number) > _DIGITS or not number.isdecimal():
        raise ValueError(f"id {number!r} is no whole number below {SHIFT:,}: copies of it would not be distinct")
    return number.zfill(_DIGITS)
