"""Golden examples of the row checks: tiny tables in, the rows that are left and the rejected ones out; and what the
manifest of a prepared store tells of them."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from mimic_tables import Row, antibiotic, at, hospital, infusion, output, patient
from site_builders import TINY, tiny_folder

from client.prepare import prepare_mimic
from client.row_checks import CHECKED, check_rows
from shared_model.errors import ConsiliumError

MINUTE = 1 / 60
NOREPINEPHRINE, FOLEY = 221906, 226559
ENDS_FIRST, OUTSIDE, NO_TIMES = "ends before it starts", "outside its admission", "no intime or no outtime"
ROWS = {**patient(1, stay=100), "inputevents": infusion(NOREPINEPHRINE, 2, 3, 0.1), "outputevents": output(FOLEY, 2, 9)}


def as_views(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    for name in CHECKED:
        connection.execute(f"ALTER TABLE {name} RENAME TO {name}_raw; CREATE VIEW {name} AS FROM {name}_raw")
    return connection


def checked(*people: dict[str, Row], **rows: list[Row]) -> duckdb.DuckDBPyConnection:
    connection = as_views(hospital(*people, **rows))
    check_rows(connection)
    return connection


def told(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    query = "SELECT source, rule, action, count(*) FROM rejected_rows GROUP BY ALL ORDER BY ALL"
    return connection.execute(query).fetchall()


def count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def broken_rule(stay: dict[str, Row]) -> str | None:
    """The rule under which the ICU stay was dropped; it is kept or dropped under one rule."""
    connection = checked(stay)
    rules = [
        rule for source, rule, action, rows in told(connection) if (source, action, rows) == ("icustays", "dropped", 1)
    ]
    assert count(connection, "icustays") == 1 - len(rules)
    return rules[0] if rules else None


def test_rows_without_fault_are_left_as_they_are() -> None:
    connection = checked(inputevents=[ROWS["inputevents"]], outputevents=[ROWS["outputevents"]])
    assert told(connection) == []
    for name in CHECKED:
        assert connection.execute(f"FROM {name}").fetchall() == connection.execute(f"FROM {name}_raw").fetchall() != []


@pytest.mark.parametrize(("end", "rule"), [(-1, ENDS_FIRST), (0, ENDS_FIRST), (MINUTE, None)])
def test_a_stay_ends_after_it_starts(end: float, rule: str | None) -> None:
    assert broken_rule(patient(1, stay=100, end=end)) == rule


@pytest.mark.parametrize(
    ("times", "rule"),
    [
        ({"admittime": at(70), "dischtime": at(80)}, OUTSIDE),  # the stay is from hour 0 to 60
        ({"admittime": at(-9), "dischtime": at(-3)}, OUTSIDE),
        ({"admittime": at(60)}, OUTSIDE),
        ({"dischtime": at(0)}, OUTSIDE),
        ({"admittime": at(60 - MINUTE)}, None),
        ({"dischtime": at(MINUTE)}, None),
        ({"admittime": at(10), "dischtime": at(20)}, None),
        ({"admittime": None, "dischtime": None}, None),
        ({"dischtime": None}, None),
        ({"admittime": at(70), "dischtime": None}, OUTSIDE),
    ],
)
def test_a_stay_that_shares_no_time_with_its_admission_is_dropped(times: Row, rule: str | None) -> None:
    assert broken_rule(patient(1, stay=100, **times)) == rule


def test_a_stay_whose_admission_is_not_in_the_extract_is_no_contradiction() -> None:
    stay = patient(1, stay=100)
    del stay["admissions"]
    assert broken_rule(stay) is None


def test_only_its_own_admission_is_compared() -> None:
    other = patient(1, stay=101, admittime=at(500), dischtime=at(600), start=500, end=560)
    assert told(checked(patient(1, stay=100), {"admissions": other["admissions"]})) == []


@pytest.mark.parametrize("missing", [{"intime": None}, {"outtime": None}, {"intime": None, "outtime": None}])
def test_a_stay_without_its_times_is_dropped(missing: Row) -> None:
    assert broken_rule(patient(1, stay=100, **missing)) == NO_TIMES


def test_a_row_that_breaks_two_rules_is_dropped_and_counted_once() -> None:
    connection = checked(patient(1, stay=100, end=-1, admittime=at(500), dischtime=at(600)))
    assert told(connection) == [("icustays", ENDS_FIRST, "dropped", 1)]


@pytest.mark.parametrize(("end", "kept"), [(5 - MINUTE, 0), (5, 1), (6, 1), (None, 1)])
def test_an_infusion_does_not_end_before_it_starts(end: float | None, kept: int) -> None:
    row = infusion(NOREPINEPHRINE, 5, 6, 0.1) | {"endtime": None if end is None else at(end)}
    connection = checked(inputevents=[row])
    assert count(connection, "inputevents") == kept
    assert told(connection) == [("inputevents", ENDS_FIRST, "dropped", 1)] * (1 - kept)


@pytest.mark.parametrize("table", CHECKED)
def test_a_row_that_is_written_three_times_is_kept_once(table: str) -> None:
    stay = {name: ROWS[name] for name in ("patients", "admissions", "icustays")}
    connection = checked(stay, *[{table: ROWS[table]}] * (3 - (table in stay)))
    assert count(connection, table) == 1
    assert told(connection) == [(table, "duplicate row", "dropped", 2)]


def test_rows_of_one_stay_that_differ_are_no_duplicates() -> None:
    urine = [output(FOLEY, 2, 9), output(FOLEY, 2, 10), output(FOLEY, 3, 9)]
    drips = [infusion(NOREPINEPHRINE, 2, 3, 0.1), infusion(NOREPINEPHRINE, 2, 3, 0.1, patientweight=None)]
    connection = checked(outputevents=urine, inputevents=drips)
    assert (count(connection, "outputevents"), count(connection, "inputevents"), told(connection)) == (3, 2, [])


@pytest.mark.parametrize(
    ("table", "key", "column", "values"),
    [
        ("patients", "subject_id", "anchor_age", (60, 61, None)),
        ("admissions", "hadm_id", "hospital_expire_flag", (0, 1, None)),
        ("icustays", "stay_id", "outtime", (at(50), at(60), at(70))),
    ],
)
def test_of_rows_that_contradict_each_other_the_first_by_value_is_kept_in_any_order(
    table: str, key: str, column: str, values: tuple[Any, ...]
) -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        people = {name: row for name, row in patient(1, stay=100).items() if name != table}
        rows = [{table: ROWS[table] | {column: values[n]}} for n in order]
        connection = checked(people, *rows)
        assert connection.execute(f"SELECT {column} FROM {table}").fetchall() == [(values[0],)]
        assert told(connection) == [(table, f"contradicts another row of the same {key}", "dropped", 2)]


def test_rows_that_differ_only_in_the_flag_contradict_each_other_in_any_order() -> None:
    found = []
    for words in (("yes", "no"), ("no", "yes")):
        connection = hospital(patient(1, stay=100), {"icustays": ROWS["icustays"]})
        connection.execute("ALTER TABLE icustays ADD COLUMN septic VARCHAR")
        for row, word in enumerate(words):
            connection.execute("UPDATE icustays SET septic = ? WHERE rowid = ?", [word, row])
        check_rows(as_views(connection), "icustays.septic")
        found.append((connection.execute("FROM flagged").fetchall(), told(connection)))
    assert found[0] == found[1]
    assert found[0][1] == [("icustays", "contradicts another row of the same stay_id", "dropped", 1)]


def test_a_broken_second_row_does_not_cost_the_stay() -> None:
    broken = {"icustays": ROWS["icustays"] | {"outtime": at(-1)}}
    assert count(checked(patient(1, stay=100), broken), "icustays") == 1


def test_a_flag_that_names_a_column_of_the_schema_is_no_crash(tmp_path: Path) -> None:
    source = tiny_folder(tmp_path / "mimic")
    with pytest.raises(ConsiliumError):  # refused, or nobody is flagged by an age of 60
        prepare_mimic(source, tmp_path / "store", cohort="flag", flag="patients.anchor_age", encoder="none")


def test_what_is_dropped_is_kept_as_json() -> None:
    connection = checked(
        patient(1, stay=100, end=-1), patient(2, stay=200), inputevents=[infusion(NOREPINEPHRINE, 5, 4, 0.1)]
    )
    rows = connection.execute("SELECT source, row_text FROM rejected_rows ORDER BY source").fetchall()
    assert [source for source, _ in rows] == ["icustays", "inputevents"]
    stay, drip = (json.loads(text) for _, text in rows)
    assert stay == {
        "subject_id": 1,
        "hadm_id": 1000,
        "stay_id": 100,
        "first_careunit": "MICU",
        "intime": "2150-03-10 00:00:00",
        "outtime": "2150-03-09 23:00:00",
    }
    assert (drip["itemid"], drip["rate"], drip["storetime"]) == (NOREPINEPHRINE, 0.1, None)


def test_a_prescription_that_stops_before_it_starts_is_kept_and_told() -> None:
    fine = [antibiotic(4), antibiotic(5) | {"stoptime": at(5)}, antibiotic(6) | {"stoptime": None}]
    connection = checked(prescriptions=[*fine, antibiotic(3) | {"stoptime": at(2)}])
    assert count(connection, "prescriptions") == 4
    rule = "stops before it starts; only the start is read"
    assert told(connection) == [("prescriptions", rule, "kept", 1)]
    assert connection.execute("SELECT row_text FROM rejected_rows").fetchall() == [(None,)]


STAYS = (
    *("1,1000,100,Medical Intensive Care Unit (MICU),2150-03-10 00:00:00,2150-03-13 00:00:00\n",) * 2,
    "1,1000,101,MICU,2150-03-11 00:00:00,2150-03-10 23:00:00\n",
    "1,1000,102,MICU,2151-03-11 00:00:00,2151-03-12 23:00:00\n",
    "1,1000,103,MICU,soon,2150-03-12 23:00:00\n",
)
CHART = (
    "1,100,2150-03-10 03:00:00,2150-03-10 03:05:00,220045,4000,4000,bpm\n",
    "1,100,2150-03-10 03:00:00,2150-03-10 03:05:00,223762,98.6,98.6,C\n",
    "1,100,2150-03-10 04:00:00,2150-03-10 04:05:00,220045,high,high,bpm\n",
    *("1,100,2150-03-10 05:00:00,2150-03-10 05:05:00,220045,80,80,bpm\n",) * 3,
)
ORDER = "1,1000,2150-03-10 08:00:00,2150-03-10 07:00:00,MAIN,Cefepime,IV\n"


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the tiny extract with faulty rows in it."""
    folder = tmp_path_factory.mktemp("dirty")
    source = tiny_folder(
        folder / "mimic",
        icustays=TINY["icustays"].split("\n")[0] + "\n" + "".join(STAYS),
        chartevents=TINY["chartevents"] + "".join(CHART),
        prescriptions=TINY["prescriptions"] + ORDER,
    )
    prepare_mimic(source, folder / "store", cohort="all_icu", encoder="none", memory_limit="1GB")
    return folder / "store"


def _manifest(store: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((store / "manifest.json").read_text())
    return manifest


def _line(table: str, rule: str, action: str = "dropped", rows: int = 1) -> dict[str, Any]:
    return {"table": table, "rule": rule, "action": action, "rows": rows}


def test_the_manifest_tells_rule_and_table_of_every_faulty_row(dirty: Path) -> None:
    assert _manifest(dirty)["row_checks"] == [
        _line("chartevents", "valuenum: not DOUBLE"),
        _line("icustays", "duplicate row"),
        _line("icustays", ENDS_FIRST),
        _line("icustays", "intime: not TIMESTAMP"),
        _line("icustays", OUTSIDE),
        _line("prescriptions", "stops before it starts; only the start is read", "kept"),
    ]


def test_the_manifest_tells_what_became_of_impossible_values(dirty: Path) -> None:
    assert _manifest(dirty)["event_checks"] == [
        _line("chartevents", "duplicate row", rows=2),
        _line("chartevents", "heart_rate: outside plausible range"),
        _line("chartevents", "temperature: Fahrenheit in a Celsius item", "converted"),
    ]
    assert _manifest(dirty)["events"]["heart_rate"] == 3  # 88, 90.5, 80
    assert _manifest(dirty)["events"]["temperature"] == 1


def test_the_rejects_hold_the_rows(dirty: Path) -> None:
    held = {file.stem: pd.read_parquet(file) for file in (dirty / "rejects").iterdir()}
    assert held.keys() == {"events", "rows", "unreadable-chartevents", "unreadable-icustays"}
    rows = held["rows"]
    stays = [(rule, json.loads(text)["stay_id"]) for rule, text in zip(rows["rule"], rows["row_text"], strict=True)]
    assert set(rows["source"]) == {"icustays"}
    assert sorted(stays) == [("duplicate row", 100), (ENDS_FIRST, 101), (OUTSIDE, 102)]
    assert held["unreadable-icustays"]["row_text"].tolist() == [STAYS[-1].strip()]
    assert held["unreadable-chartevents"]["row_text"].tolist() == [CHART[2].strip()]
    [event] = held["events"].to_dict("records")
    assert (event["concept"], event["value"], event["source"]) == ("heart_rate", 4000, "chartevents")


def test_rows_in_are_rows_kept_and_rows_rejected(dirty: Path) -> None:
    manifest, stays = _manifest(dirty), pd.read_parquet(dirty / "stays.parquet")
    rejected = sum(c["rows"] for c in manifest["row_checks"] if (c["table"], c["action"]) == ("icustays", "dropped"))
    assert len(STAYS) == len(stays) + rejected == manifest["flow"][0]["stays"] + rejected
    unreadable = pd.read_parquet(dirty / "rejects" / "unreadable-icustays.parquet")
    assert manifest["rows"]["icustays"] == len(STAYS) - len(unreadable)


def test_the_working_tables_that_a_store_keeps_hold_the_rows_as_they_were_read(dirty: Path) -> None:
    """A changed rule must find the dropped rows again."""
    assert sorted(pd.read_parquet(dirty / "tables" / "icustays.parquet")["stay_id"]) == [100, 100, 101, 102]
