"""Mapping to MIMIC-IV-style tables: rows a second, against a plain DuckDB `CREATE TABLE AS` of the same files.

Both in turns, each in a fresh process with a database on disk. A PostgreSQL table is copied in batches: its peak memory
is told for one and for four times the rows. Alone: python -m tests.benchmarks.mapping [COPIES]
"""

import gzip
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from simulations.dialects.german import write_german
from simulations.dialects.omop import write_omop
from tests.benchmarks.preparation import DATA, DEMO, measured
from tests.benchmarks.replica import write_replica
from tests.integration.postgres import load_omop, running_postgres

CONFIGS = Path(__file__).resolve().parents[2] / "site_configs"
COPIES, REPEATS = 20, 3
_PLAIN = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1] + "/plain.duckdb")
for number, file in enumerate(sys.argv[3:]):
    encoding = ", encoding = 'latin-1'" if file.endswith("faelle.csv") else ""
    connection.execute(f"CREATE TABLE t{number} AS FROM read_csv('{file}'{encoding})")
"""
_MAP = """
import sys
from pathlib import Path
from client.mapping.run import map_extract
from client.site import load_site
site = load_site(Path(sys.argv[2]))
map_extract(site.mapping, Path(sys.argv[1]))
"""

_READ = """
import sys
from pathlib import Path
from client.extract import working_database
from client.mapping.staging import stage_relations
from client.mapping.wanted import wanted_columns
from client.site import load_site
mapping, folder = load_site(Path(sys.argv[2])).mapping, Path(sys.argv[1])
with working_database(folder, memory_limit="4GB") as connection:
    stage_relations(connection, mapping, wanted_columns(mapping), folder)
"""


def measure(folder: Path, copies: int = COPIES) -> Table:
    """The table of figures; ``folder`` is for scratch."""
    table = Table("extract", "rows", "plain read, s", "mapping, s", "ratio", "rows a second", "peak GB")
    table.title, table.title_justify = "mapping over a plain CREATE TABLE AS of the same files (aim: 2.5)", "left"
    if not DEMO.is_dir():
        table.add_row(f"no MIMIC-IV demo at {DEMO}; set CONSILIUM_DATA")
        return table
    folder.mkdir(exist_ok=True)
    write_replica(DEMO, folder / "replica", copies)
    write_german(folder / "replica", folder / "german")
    _measure(table, folder, f"German export, demo x{copies}", CONFIGS / "german-csv.yaml", folder / "german")
    for many in (max(1, copies // 4), copies):
        _measure_postgres(table, folder / f"omop-{many}", many)
    if (DATA / "physionet-2012").is_dir():
        _measure(table, folder, "PhysioNet 2012", CONFIGS / "physionet-2012.yaml", DATA / "physionet-2012")
    return table


def _measure(table: Table, folder: Path, name: str, config: Path, extract: Path) -> None:
    site = folder / f"{config.stem}.yaml"
    source = {"german-csv": "export", "physionet-2012": "challenge"}[config.stem]
    site.write_text(f"extends: {config}\nstore: store\nsources: {{{source}: {{path: {extract}}}}}\n", encoding="utf-8")
    files = sorted(str(file) for file in extract.iterdir())
    plain, mapped = [], []
    for turn in range(REPEATS):
        for code, runs in ((_PLAIN, plain), (_MAP, mapped)):
            place = folder / f"{config.stem}-{turn}-{len(plain)}-{len(mapped)}"
            place.mkdir()
            runs.append(measured([sys.executable, "-c", code, str(place), str(site), *files]))
    rows = sum(_rows(file) for file in files)
    seconds, base = median(r.seconds for r in mapped), median(r.seconds for r in plain)
    ratio = median(m.seconds / p.seconds for m, p in zip(mapped, plain, strict=True))
    peak = max(r.gigabytes for r in mapped)
    table.add_row(
        name, f"{rows:,}", f"{base:.1f}", f"{seconds:.1f}", f"{ratio:.2f}", f"{rows / seconds:,.0f}", f"{peak:.2f}"
    )


def _measure_postgres(table: Table, folder: Path, copies: int) -> None:
    """The memory of reading must not grow with the tables; that of mapping stays below the limit (4 GB)."""
    write_replica(DEMO, folder / "replica", copies)
    write_omop(folder / "replica", folder / "cdm")
    site = folder / "site.yaml"
    site.write_text(f"extends: {CONFIGS / 'omop-cdm-5.4.yaml'}\nstore: store\n", encoding="utf-8")
    with running_postgres() as url:
        load_omop(url, folder / "cdm")
        os.environ["OMOP_URL"] = url
        rows = sum(_rows(str(file)) for file in (folder / "cdm").iterdir())
        for what, code in (("read alone", _READ), ("mapped", _MAP)):
            place = folder / what
            place.mkdir()
            run = measured([sys.executable, "-c", code, str(place), str(site)])
            cells = (f"{rows:,}", "", f"{run.seconds:.1f}", "", f"{rows / run.seconds:,.0f}", f"{run.gigabytes:.2f}")
            table.add_row(f"OMOP in PostgreSQL, demo x{copies}, {what}", *cells)


def _rows(file: str) -> int:
    opener = gzip.open if file.endswith(".gz") else open
    with opener(file, "rb") as lines:
        return sum(1 for _ in lines) - 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as scratch:
        Console(width=120).print(measure(Path(scratch), *map(int, sys.argv[1:])))
