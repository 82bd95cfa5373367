"""MIMIC-style tables become one long table of events in the concepts' units; what does not fit is kept with its reason.

``events(stay_id, concept, charttime, storetime, value)`` holds what was known about a cohort stay at its prediction
time: charttime within the lookback before admission up to the prediction time, and storetime not after it. A missing
storetime counts as known at the charttime. ``rejects`` has the same rows that break a rule, and ``reason``.
"""

import duckdb

from shared_model import concepts
from shared_model.features import LOOKBACK_HOURS


def map_events(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Create ``events`` and ``rejects`` for the stays in ``cohort``; returns counts by concept and by reject reason."""
    _create_items(connection)
    connection.execute(
        f"CREATE TABLE candidates AS SELECT DISTINCT * FROM"
        f" ({_CHART} UNION ALL {_LAB} UNION ALL {_VASOPRESSOR} UNION ALL {_URINE})"
    )
    connection.execute(
        """CREATE TABLE judged AS
        SELECT c.*, CASE WHEN value IS NULL THEN coalesce(problem, 'not a number')
                         WHEN NOT isfinite(value) OR value < low OR value > high THEN 'outside plausible range'
                    END AS reason
        FROM candidates AS c JOIN ranges USING (concept)"""
    )
    kept = "stay_id, concept, charttime, storetime, value"
    connection.execute(f"CREATE TABLE events AS SELECT {kept} FROM judged WHERE reason IS NULL ORDER BY ALL")
    connection.execute(
        f"CREATE TABLE rejects AS SELECT {kept}, reason FROM judged WHERE reason IS NOT NULL ORDER BY ALL"
    )
    return {
        "events": _counts(connection, "SELECT concept, count(*) FROM events GROUP BY 1 ORDER BY 1"),
        "rejects": _counts(connection, "SELECT concept || ': ' || reason, count(*) FROM rejects GROUP BY 1 ORDER BY 1"),
    }


def _create_items(connection: duckdb.DuckDBPyConnection) -> None:
    """The concept dictionary as two small tables: codes with conversions, and ranges."""
    connection.execute(
        "CREATE TABLE items (source VARCHAR, itemid INTEGER, concept VARCHAR, factor DOUBLE, offset_ DOUBLE)"
    )
    rows = [
        (source, itemid, concept.name, *concept.conversions.get(itemid, (1.0, 0.0)))
        for concept in concepts.CONCEPTS
        for source, itemids in (("chart", concept.chart), ("lab", concept.lab))
        for itemid in itemids
    ]
    connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)
    connection.execute("CREATE TABLE ranges (concept VARCHAR, low DOUBLE, high DOUBLE)")
    ranges = [(c.name, c.low, c.high) for c in concepts.BY_NAME.values()]
    connection.executemany("INSERT INTO ranges VALUES (?, ?, ?)", ranges)


def _counts(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    return {str(name): int(count) for name, count in connection.execute(query).fetchall()}


def _known(row: str, at: str, stored: str) -> str:
    """SQL for: charted in the observed past and stored by the prediction time."""
    return (
        f"{row}.{at} >= c.intime - INTERVAL {LOOKBACK_HOURS} HOUR AND {row}.{at} <= c.prediction_time"
        f" AND coalesce({row}.{stored}, {row}.{at}) <= c.prediction_time"
    )


# Charted FiO2 is written as percent or as fraction (CLINICAL_FACTS; sepsis_rules.yaml, fio2).
_CHART = f"""
SELECT c.stay_id, e.itemid, i.concept, e.charttime, e.storetime,
       CASE WHEN i.concept = 'fio2' AND e.valuenum > 0.2 AND e.valuenum <= 1 THEN e.valuenum * 100
            ELSE e.valuenum * i.factor + i.offset_ END AS value,
       CAST(NULL AS VARCHAR) AS problem
FROM chartevents AS e
JOIN items AS i ON i.source = 'chart' AND i.itemid = e.itemid
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE {_known("e", "charttime", "storetime")}"""

# Emergency-department rows carry no hadm_id, so laboratory rows belong to a stay by patient and time.
_LAB = f"""
SELECT c.stay_id, e.itemid, i.concept, e.charttime, e.storetime, e.valuenum * i.factor + i.offset_ AS value,
       CASE WHEN e.value IS NULL THEN 'empty' ELSE 'not a number' END AS problem
FROM labevents AS e
JOIN items AS i ON i.source = 'lab' AND i.itemid = e.itemid
JOIN cohort AS c ON c.subject_id = e.subject_id
WHERE {_known("e", "charttime", "storetime")}"""

_EQUIVALENT = " ".join(f"WHEN {i} THEN {f!r}" for i, f in concepts.NOREPINEPHRINE_EQUIVALENT.items())
# A weight of 1 kg marks rows whose mg/kg/min is really mcg/kg/min.
_VASOPRESSOR = f"""
SELECT c.stay_id, e.itemid, '{concepts.VASOPRESSOR.name}' AS concept, e.starttime AS charttime, e.storetime,
       CASE e.itemid {_EQUIVALENT} END * e.rate * CASE
           WHEN e.rateuom = 'mcg/kg/min' THEN 1
           WHEN e.rateuom = 'mg/kg/min' THEN CASE WHEN e.patientweight = 1 THEN 1 ELSE 1000 END
           WHEN e.rateuom = 'units/hour' AND e.itemid = 222315 THEN 1
           WHEN e.rateuom = 'units/min' AND e.itemid = 222315 THEN 60
       END AS value,
       CASE WHEN e.rate IS NULL THEN 'no rate' ELSE 'unit has no conversion' END AS problem
FROM inputevents AS e
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE e.itemid IN {tuple(concepts.NOREPINEPHRINE_EQUIVALENT)} AND {_known("e", "starttime", "storetime")}"""

_URINE = f"""
SELECT c.stay_id, e.itemid, '{concepts.URINE.name}' AS concept, e.charttime, e.storetime,
       CASE WHEN e.itemid = {concepts.URINE_IRRIGANT_IN} AND e.value > 0 THEN -e.value ELSE e.value END AS value,
       CAST(NULL AS VARCHAR) AS problem
FROM outputevents AS e
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE e.itemid IN {concepts.URINE_ITEMIDS} AND {_known("e", "charttime", "storetime")}"""
