"""The whole mapping, read top to bottom: staged copies -> relations -> tables -> events -> files and an account.

The database in which this happens may read and write its own folder and nothing else, and cannot change that: what an
expression of the YAML could do wrong ends there.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb

from client.extract import tables_read, working_database
from client.mapping.account import Account, Line
from client.mapping.columns import MACROS
from client.mapping.config import EVENT_TABLES, FIRST_TABLES, Mapping
from client.mapping.events import collected, map_events
from client.mapping.faults import told_apart
from client.mapping.owners import KEYS, create_owners
from client.mapping.relations import build_frames
from client.mapping.staging import stage_relations
from client.mapping.state import Run
from client.mapping.tables import map_table
from client.mapping.targets import TARGETS
from client.mapping.wanted import wanted_columns
from client.source import as_glob, quoted
from shared_model.errors import MissingTableError
from shared_model.schema import Table

LONGEST_RATE = "6 HOUR"  # how long a rate without an end is taken to run when no other follows
CHARTED_AGAIN, LONGEST_STATE = "8 HOUR", "60 DAY"
_COLUMNS_OF_EVENT = {
    "starttime": "charttime",
    "valuenum": "number",
    "rate": "number",
    "patientweight": "weight",
    "endtime": f"coalesce(endtime, least(charttime + INTERVAL {LONGEST_RATE}, lead(charttime) OVER"
    " (PARTITION BY stay_id, itemid ORDER BY charttime, number)), charttime)",
}


def map_extract(
    mapping: Mapping,
    folder: Path,
    *,
    flag: str = "",
    memory_limit: str = "4GB",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Account:
    """Write every MIMIC-IV-style table as ``folder/tables/NAME.parquet`` and what is rejected into ``folder/rejects``.

    Raises ConfigError for what the YAML says wrong about the extract, DataError's kinds for the extract.
    """
    wanted = wanted_columns(mapping)
    for name in ("staged", "tables", "rejects"):
        (folder / name).mkdir(exist_ok=True)
    with working_database(folder, memory_limit=memory_limit, name="mapping") as connection:
        connection.execute("SET preserve_insertion_order = true")
        on_stage("reading the extract")
        staged = stage_relations(connection, mapping, wanted, folder, on_stage)
        connection.execute("SET preserve_insertion_order = false")  # steps that need the order have #line
        _lock(connection, folder)
        connection.execute(MACROS)
        on_stage("mapping to MIMIC-IV-style tables")
        run = Run(connection, mapping, folder, flag, build_frames(connection, mapping, wanted, staged))
        _account_relations(run)
        run.account.unread.extend(name for name in mapping.relations if name not in wanted)
        _create(run)
        _map_all(run)
        _write(run)
    return run.account


def _lock(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    places = {str(folder.resolve()), str(folder), as_glob(folder.resolve()), as_glob(folder)}
    connection.execute(f"SET allowed_directories = [{', '.join(map(quoted, sorted(places)))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _account_relations(run: Run) -> None:
    for name, frame in run.frames.items():
        if frame.absent:
            run.account.absent.append(name)
            continue
        with told_apart(f"relations.{name}"):
            passed = run.connection.execute(f"SELECT count(*) FROM {frame.view}").fetchall()[0][0]
        rejected = {"line cannot be read": frame.unreadable} if frame.unreadable else {}
        line = Line(
            step=f"relations.{name}",
            source=run.mapping.relations[name].relation or "extract",
            rows=frame.read,
            mapped=int(passed),
            rejected=rejected,
            ignored=frame.ignored,
        )
        run.account.lines.append(line)


def _create(run: Run) -> None:
    for table in tables_read(run.flag):
        if table.name not in EVENT_TABLES:
            columns = ", ".join(f'"{name}" {kind}' for name, kind in table.columns.items())
            run.connection.execute(f"CREATE TABLE {table.name} ({columns})")
    for name in KEYS:
        run.connection.execute(f"CREATE TABLE local_{name} (key VARCHAR, id BIGINT)")
        run.connection.execute(f"CREATE TABLE left_out_{name} (key VARCHAR)")


def _map_all(run: Run) -> None:
    mapping = run.mapping
    later = [name for name in mapping.tables if name not in FIRST_TABLES]
    for name in FIRST_TABLES:
        _map_table(run, name)
    # An age without its year is the age at the first admission.
    run.connection.execute(
        """UPDATE patients SET anchor_year = (SELECT year(min(admittime)) FROM admissions AS a
        WHERE a.subject_id = patients.subject_id) WHERE anchor_year IS NULL"""
    )
    if not run.connection.execute("SELECT count(*) FROM icustays").fetchall()[0][0]:
        raise MissingTableError(_why_no_stays(run))
    create_owners(run.connection)
    for name in later:
        _map_table(run, name)
    for number, use in enumerate(mapping.events):
        with told_apart(f"events[{number}]"):
            map_events(run, use, number)
    run.connection.execute(f"CREATE TEMP VIEW event AS {collected(mapping)}")


def _why_no_stays(run: Run) -> str:
    lines = [line for line in run.account.lines if line.step.startswith("tables.icustays")]
    reasons = [f"{rule} ({rows:,} rows)" for line in lines for rule, rows in (line.rejected | line.ignored).items()]
    return f"tables.icustays: no row of the extract became an ICU stay: {'; '.join(reasons[:3]) or 'there is none'}"


def _map_table(run: Run, name: str) -> None:
    for number, use in enumerate(run.mapping.tables.get(name, [])):
        with told_apart(f"tables.{name}[{number}]"):
            map_table(run, name, use, number)


def _write(run: Run) -> None:
    for table in tables_read(run.flag):
        target = run.folder / "tables" / f"{table.name}.parquet"
        rows = _events_of(run, table) if table.name in EVENT_TABLES else f"SELECT * FROM {table.name}"
        run.connection.execute(f"COPY ({rows}) TO {quoted(target)} (FORMAT parquet)")


def _events_of(run: Run, table: Table) -> str:
    unit = " ".join(f"WHEN {i} THEN {quoted(unit)}" for i, unit in _units(table.name))
    special = _COLUMNS_OF_EVENT | {"valueuom": f"CASE itemid {unit} END", "rateuom": f"CASE itemid {unit} END"}
    if table.name == "outputevents":
        special["value"] = "number"
    rows = f"SELECT {_columns(table, special)} FROM event WHERE target = {quoted(table.name)}"
    if table.name == "chartevents" and any(use.end is not None for use in run.mapping.events):
        rows += f" UNION ALL {_states_that_last(table, special)}"
    if table.name == "labevents" and not _knows_specimens(run):
        rows += f" UNION ALL {_arterial(table)}"
    return rows


def _columns(table: Table, special: dict[str, str]) -> str:
    """A table's columns from those of an event, ``special`` ones by their SQL."""
    return ", ".join(f'CAST({special.get(name, name)} AS {kind}) AS "{name}"' for name, kind in table.columns.items())


def _states_that_last(table: Table, special: dict[str, str]) -> str:
    """A state of breathing support with an end is charted again until then: the pipeline ends an episode where nothing
    is charted for hours (client/sql/sepsis3_3_ventilation.sql)."""
    chosen = _columns(table, special | {"charttime": "moment", "storetime": "greatest(storetime, moment)"})
    until = f"least(endtime, outtime, charttime + INTERVAL {LONGEST_STATE})"
    again = f"generate_series(charttime + INTERVAL {CHARTED_AGAIN}, {until}, INTERVAL {CHARTED_AGAIN})"
    moments = f"unnest(list_distinct(list_append({again}, {until})))"
    stays = "JOIN (SELECT stay_id, outtime FROM icustays) USING (stay_id)"
    lasting = f"FROM event {stays} WHERE target = 'chartevents' AND endtime > charttime AND outtime > charttime"
    held = f"SELECT *, {moments} AS moment {lasting}"
    return f"SELECT {chosen} FROM ({held})"


def _units(table: str) -> Iterable[tuple[int, str]]:
    for target in TARGETS.values():
        items = target.items if target.table == table else target.bedside_items if table == "chartevents" else ()
        yield from ((item, target.unit) for item in items)


def _knows_specimens(run: Run) -> bool:
    return any("specimen_type" in use.codes for use in run.mapping.events)


def _arterial(table: Table) -> str:
    """A site that does not tell specimens apart maps to ``pao2`` what is arterial: the specimen's type, as MIMIC-IV has
    it in a row of its own."""
    item, gas = TARGETS["specimen_type"].items[0], TARGETS["pao2"].items[0]
    own = {"itemid": str(item), "value": "'ART.'", "valuenum": "NULL", "valueuom": "NULL"}
    return f"SELECT DISTINCT {_columns(table, own)} FROM event WHERE itemid = {gas}"
