"""Clock changes do not exist in naive hospital times, and a transfer between units does not make another patient."""

import time
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pytest
from mimic_tables import HEART_RATE, antibiotic, at, chart, culture, heart_rates, hospital, lab, patient

from client.cohort import derive_sepsis3, select_cohort
from client.events import map_events
from client.known import cut_to_known
from client.windows import build_features
from shared_model.study import EARLY

CLOCKS_CHANGE = [datetime.fromisoformat(day) for day in ("2023-03-12", "2023-11-05")]  # at 2 h in New York


def shifted(connection: duckdb.DuckDBPyConnection, by: timedelta) -> duckdb.DuckDBPyConnection:
    """The same patient at another time of history."""
    columns = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type = 'TIMESTAMP'"
    ).fetchall()
    for table, column in columns:
        connection.execute(f"UPDATE {table} SET {column} = {column} + ?", [by])
    connection.execute("UPDATE patients SET anchor_year = (SELECT year(admittime) FROM admissions)")
    return connection


def septic() -> duckdb.DuckDBPyConnection:
    return hospital(
        chartevents=[*heart_rates(*range(60)), *(chart(220052, hour, 60) for hour in range(0, 50, 3))],
        labevents=[lab(51265, 2.5, 40), lab(50912, 3.5, 2.5)],
        microbiologyevents=[culture(1)],
        prescriptions=[antibiotic(2)],
    )


def derived(connection: duckdb.DuckDBPyConnection) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    derive_sepsis3(connection)
    select_cohort(connection, "sepsis3")
    cut_to_known(connection, EARLY)
    map_events(connection)
    static_NF, series_NTC = build_features(connection, EARLY)
    return connection.execute("SELECT hr, sofa_24hours FROM sofa_hourly ORDER BY hr").fetchall(), static_NF, series_NTC


@pytest.mark.parametrize("night", CLOCKS_CHANGE, ids=["an hour that is left out", "an hour that comes twice"])
def test_the_night_of_a_clock_change_is_as_long_as_any(night: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        plain = derived(septic())
        changing = derived(shifted(septic(), night - at(0)))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert plain[0] == changing[0] and [hour for hour, _ in plain[0]] == list(range(60))
    for one, other in zip(plain[1:], changing[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(plain[2][0, :, EARLY.series.index("heart_rate")]).all()


def test_a_stay_belongs_to_the_unit_it_began_in_and_a_transfer_starts_no_new_one() -> None:
    stay = patient(1, stay=100)
    stay["icustays"]["first_careunit"] = "Coronary Care Unit (CCU)"
    connection = hospital(stay, chartevents=[chart(HEART_RATE, 2, 80)])
    select_cohort(connection, "all_icu")
    assert connection.execute("SELECT stay_id, unit FROM cohort").fetchall() == [(100, "Coronary Care Unit (CCU)")]


def test_a_return_to_intensive_care_is_the_second_stay_of_the_same_patient() -> None:
    first, second = patient(1, stay=100), patient(1, stay=200, start=100, end=160)
    second["icustays"] |= {"hadm_id": 1000, "first_careunit": "Surgical Intensive Care Unit (SICU)"}
    first["admissions"] |= {"dischtime": at(400)}
    for stays, expected in (("first", [100]), ("all", [100, 200])):
        connection = hospital(first, {"icustays": second["icustays"]}, chartevents=heart_rates(1, 101))
        select_cohort(connection, "all_icu", stays=stays)
        assert [stay for (stay,) in connection.execute("SELECT stay_id FROM cohort").fetchall()] == expected
