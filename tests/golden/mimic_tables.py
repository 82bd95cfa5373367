"""MIMIC-IV-style tables for golden examples: rows by the handful, in hours not dates; and the demo."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from client import cohort
from shared_model.schema import TABLES

HEART_RATE = 220045

Row = dict[str, Any]


def at(hours: float) -> datetime:
    """The time ``hours`` after midnight of the ICU admission."""
    return datetime.fromisoformat("2150-03-10T00:00:00") + timedelta(minutes=round(hours * 60))


def patient(number: int, *, stay: int, start: float = 0, end: float = 60, **more: Any) -> dict[str, Row]:
    """The patient, admission and ICU stay rows of one stay; ``more`` overrides any column."""
    person: Row = {"subject_id": number, "gender": "F", "anchor_age": 60, "anchor_year": 2150}
    admission: Row = {"admittime": at(start - 5), "dischtime": at(end + 5)}
    admission |= {"deathtime": None, "hospital_expire_flag": 0}
    bed: Row = {"stay_id": stay, "first_careunit": "MICU", "intime": at(start), "outtime": at(end)}
    keys: Row = {"subject_id": number, "hadm_id": stay * 10}
    rows = {"patients": person, "admissions": keys | admission, "icustays": keys | bed}
    return {name: row | {k: v for k, v in more.items() if k in row} for name, row in rows.items()}


def chart(itemid: int, hours: float, value: float | str, **more: Any) -> Row:
    number = None if isinstance(value, str) else value
    row = {"subject_id": 1, "stay_id": 100, "itemid": itemid, "charttime": at(hours), "storetime": at(hours)}
    return row | {"value": str(value), "valuenum": number} | more


def lab(itemid: int, hours: float, value: float | str, **more: Any) -> Row:
    row = chart(itemid, hours, value) | {"hadm_id": 1000, "specimen_id": round(hours * 60)} | more
    del row["stay_id"]
    return row


def output(itemid: int, hours: float, value: float) -> Row:
    return {"subject_id": 1, "stay_id": 100, "itemid": itemid, "charttime": at(hours), "value": value}


def infusion(itemid: int, start: float, end: float, rate: float, **more: Any) -> Row:
    row = {"subject_id": 1, "stay_id": 100, "itemid": itemid, "starttime": at(start), "endtime": at(end)}
    return row | {"rate": rate, "rateuom": "mcg/kg/min", "patientweight": 80.0} | more


def antibiotic(hours: float, **more: Any) -> Row:
    row = {"subject_id": 1, "hadm_id": 1000, "drug_type": "MAIN", "drug": "Vancomycin", "route": "IV"}
    return row | {"starttime": at(hours), "stoptime": at(hours + 24)} | more


def culture(hours: float, number: int = 1, *, timed: bool = True, **more: Any) -> Row:
    day = at(hours).replace(hour=0, minute=0)
    row = {"subject_id": 1, "micro_specimen_id": number, "chartdate": day, "spec_type_desc": "BLOOD CULTURE"}
    return row | {"charttime": at(hours) if timed else None} | more


def heart_rates(*hours: float) -> list[Row]:
    return [chart(HEART_RATE, hour, 80) for hour in hours]


def hospital(*patients: dict[str, Row], **events: list[Row]) -> duckdb.DuckDBPyConnection:
    """A connection with every declared table; one default patient, in the ICU from hour 0 to 60."""
    connection = duckdb.connect()
    stored = {table.name: list(events.get(table.name, [])) for table in TABLES}
    for rows in patients or (patient(1, stay=100),):
        for name, row in rows.items():
            stored[name].append(row)
    for table in TABLES:
        columns = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
        connection.execute(f"CREATE TABLE {table.name} ({columns})")
        for row in stored[table.name]:
            marks = ", ".join("?" for _ in row)
            insert = f"INSERT INTO {table.name} ({', '.join(row)}) VALUES ({marks})"
            connection.execute(insert, list(row.values()))
    return connection


def read_demo(folder: Path) -> duckdb.DuckDBPyConnection:
    """The demo's tables, filtered to the items that the rules read, as a site's extract is."""
    items = {"chartevents": cohort.CHART_ITEMIDS, "labevents": cohort.LAB_ITEMIDS}
    items |= {"inputevents": cohort.INPUT_ITEMIDS, "outputevents": cohort.OUTPUT_ITEMIDS}
    connection = duckdb.connect()
    for table in TABLES:
        if table.folder == "note":
            continue
        file = folder / table.folder / f"{table.name}.csv.gz"
        columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in table.columns.items())
        keep = f"WHERE itemid IN {tuple(items[table.name])}" if table.name in items else ""
        source = f"(SELECT {columns} FROM read_csv('{file}', all_varchar = true)) {keep}"
        connection.execute(f"CREATE TABLE {table.name} AS SELECT * FROM {source}")
    return connection
