"""Sepsis-3 on the MIMIC-IV demo: the figures that docs/decisions/0005 states."""

import os
from pathlib import Path

import pytest
from mimic_tables import read_demo

from client.cohort import derive_sepsis3, select_cohort

DATA = Path(os.environ.get("CONSILIUM_DATA", Path(__file__).parents[3] / "shared" / "data"))
DEMO = DATA / "mimic-iv-demo-2.2"
ORGANS = ("respiration", "coagulation", "liver", "cardiovascular", "cns", "renal")


@pytest.mark.skipif(not DEMO.is_dir(), reason=f"no MIMIC-IV demo at {DEMO}; set CONSILIUM_DATA")
def test_mimic_demo() -> None:
    connection = read_demo(DEMO)
    flow = select_cohort(connection, "sepsis3")
    assert [step.stays for step in flow] == [140, 140, 140, 100, 85, 40]

    def number(query: str) -> int:
        [(value,)] = connection.execute(query).fetchall()
        return int(value)

    assert number("SELECT count(*) FROM sepsis3") == 63
    assert number("SELECT count(DISTINCT subject_id) FROM sepsis3") == 48
    out_of_range = " OR ".join(f"{organ}_24hours NOT BETWEEN 0 AND 4" for organ in ORGANS)
    total = " + ".join(f"{organ}_24hours" for organ in ORGANS)
    assert number(f"SELECT count(*) FROM sofa_hourly WHERE {out_of_range} OR sofa_24hours <> {total}") == 0
    window = "sofa_time BETWEEN suspected_time - INTERVAL 48 HOUR AND suspected_time + INTERVAL 24 HOUR"
    assert number(f"SELECT count(*) FROM sepsis3 WHERE NOT ({window} AND sofa_score >= 2 AND sepsis3)") == 0
    assert number("SELECT count(*) - count(DISTINCT (stay_id, hr)) FROM sofa_hourly") == 0
    assert number("SELECT count(*) FROM cohort WHERE onset_time IS NULL OR age < 18 OR label IS NULL") == 0


@pytest.mark.skipif(not DEMO.is_dir(), reason=f"no MIMIC-IV demo at {DEMO}; set CONSILIUM_DATA")
def test_only_labs_without_an_admission_part_us_from_the_reference() -> None:
    """The figures of docs/decisions/0005: joined as the reference joins, 62 stays; by patient and time, 63."""
    connection = read_demo(DEMO)
    derive_sepsis3(connection, labs_of_admission=True)
    assert connection.execute("SELECT count(*) FROM sepsis3 WHERE sepsis3").fetchall() == [(62,)]
    connection.execute("CREATE TABLE as_reference AS SELECT stay_id, hr, sofa_24hours FROM sofa_hourly")
    derive_sepsis3(connection)
    differ = connection.execute(
        "SELECT count(*), count(DISTINCT stay_id), min(s.sofa_24hours - r.sofa_24hours) > 0 FROM as_reference AS r"
        " JOIN sofa_hourly AS s USING (stay_id, hr) WHERE s.sofa_24hours <> r.sofa_24hours"
    ).fetchall()
    assert differ == [(265, 30, True)]
