"""What is known of each stay becomes one long table of events in the concepts' units; what does not fit is kept apart.

``events(stay_id, concept, charttime, storetime, value)`` reads the schema ``known`` (client/sql/known.sql), so it can
hold nothing later than the stay's cutoff; it begins ``LOOKBACK_HOURS`` before the ICU admission. ``rejects`` has the
same rows that break a rule, with the table they came from and the ``rule``.
"""

import duckdb

from client.queries import fill, run_query
from shared_model import concepts
from shared_model.features import LOOKBACK_HOURS


def map_events(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Create ``events`` and ``rejects`` from the schema ``known``, and ``event_check(source, rule, action, count)``.

    Returns the number of events by concept.
    """
    create_items(connection)
    sources = " UNION ALL ".join((_CHART, _LAB, _VASOPRESSOR, _URINE, _DERIVED))
    connection.execute(f"CREATE TABLE candidates AS SELECT *, count(*) AS copies FROM ({sources}) GROUP BY ALL")
    run_query(connection, "judged.sql")
    kept = "stay_id, concept, charttime, storetime, value"
    connection.execute(f"CREATE TABLE events AS SELECT {kept} FROM judged WHERE fits ORDER BY ALL")
    connection.execute(
        "CREATE TABLE rejects AS SELECT stay_id, concept, charttime, storetime, raw AS value, source, rule FROM judged"
        " WHERE NOT fits ORDER BY ALL"
    )
    connection.execute(
        """CREATE TABLE event_check AS
        SELECT source, concept || ': ' || rule AS rule, if(fits, 'converted', 'dropped') AS action, count(*) AS count
        FROM judged WHERE rule IS NOT NULL GROUP BY ALL
        UNION ALL
        SELECT source, 'duplicate row', 'dropped', sum(copies - 1) FROM judged WHERE copies > 1 GROUP BY ALL"""
    )
    found = connection.execute("SELECT concept, count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall()
    return {str(name): int(count) for name, count in found}


def create_items(connection: duckdb.DuckDBPyConnection) -> None:
    """The concept dictionary as small tables: codes with conversions, ranges with other readings, support levels."""
    items = [
        (source, itemid, concept.name, *concept.conversions.get(itemid, (1.0, 0.0)))
        for concept in concepts.CONCEPTS
        for source, itemids in (("chart", concept.chart), ("lab", concept.lab))
        for itemid in itemids
    ]
    every = concepts.BY_NAME.values()
    ranges = [(c.name, c.low, c.high) for c in every]
    alternates = [
        (c.name, a.rule, a.low, a.high, a.factor, a.offset, c.low, c.high) for c in every for a in c.alternates
    ]
    fill(connection, "items", "source VARCHAR, itemid INTEGER, concept VARCHAR, factor DOUBLE, shift DOUBLE", items)
    fill(connection, "ranges", "concept VARCHAR, low DOUBLE, high DOUBLE", ranges)
    columns = "concept VARCHAR, rule VARCHAR, above DOUBLE, until DOUBLE, factor DOUBLE, shift DOUBLE"
    fill(connection, "alternates", f"{columns}, low DOUBLE, high DOUBLE", alternates)
    levels = list(concepts.VENTILATION_LEVELS.items())
    fill(connection, "ventilation_level", "status VARCHAR, level INTEGER", levels)


_SINCE = f"c.intime - INTERVAL {LOOKBACK_HOURS} HOUR"

_CHART = f"""
SELECT 'chartevents' AS source, e.stay_id, e.itemid, i.concept, e.charttime, e.storetime, e.valuenum AS raw,
       e.valuenum * i.factor + i.shift AS converted, 'not a number' AS problem
FROM known.chartevents AS e
JOIN items AS i ON i.source = 'chart' AND i.itemid = e.itemid
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE e.charttime >= {_SINCE}"""

_LAB = f"""
SELECT 'labevents', e.stay_id, e.itemid, i.concept, e.charttime, e.storetime, e.valuenum,
       e.valuenum * i.factor + i.shift, CASE WHEN e.value IS NULL THEN 'empty' ELSE 'not a number' END
FROM known.labevents AS e
JOIN items AS i ON i.source = 'lab' AND i.itemid = e.itemid
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE e.charttime >= {_SINCE}"""

_EQUIVALENT = " ".join(f"WHEN {i} THEN {f!r}" for i, f in concepts.NOREPINEPHRINE_EQUIVALENT.items())
# A weight of 1 kg marks rows whose mg/kg/min is really mcg/kg/min.
_VASOPRESSOR = f"""
SELECT 'inputevents', e.stay_id, e.itemid, '{concepts.VASOPRESSOR.name}', e.starttime, e.storetime, e.rate,
       CASE e.itemid {_EQUIVALENT} END * e.rate * CASE
           WHEN e.rateuom = 'mcg/kg/min' THEN 1
           WHEN e.rateuom = 'mg/kg/min' THEN CASE WHEN e.patientweight = 1 THEN 1 ELSE 1000 END
           WHEN e.rateuom = 'units/hour' AND e.itemid = 222315 THEN 1
           WHEN e.rateuom = 'units/min' AND e.itemid = 222315 THEN 60
       END,
       CASE WHEN e.rate IS NULL THEN 'no rate' ELSE 'unit has no conversion' END
FROM known.inputevents AS e
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE e.itemid IN {tuple(concepts.NOREPINEPHRINE_EQUIVALENT)} AND e.starttime >= {_SINCE}"""

_URINE = f"""
SELECT 'outputevents', e.stay_id, e.itemid, '{concepts.URINE.name}', e.charttime, e.storetime, e.value,
       CASE WHEN e.itemid = {concepts.URINE_IRRIGANT_IN} AND e.value > 0 THEN -e.value ELSE e.value END, 'not a number'
FROM known.outputevents AS e
JOIN cohort AS c ON c.stay_id = e.stay_id
WHERE e.itemid IN {concepts.URINE_ITEMIDS} AND e.charttime >= {_SINCE}"""

# Derived from known rows only, so known as soon as charted. A spell of support is an event at its start and every hour;
# at the time of a change the new one counts.
_DERIVED = f"""
SELECT 'chartevents', g.stay_id, NULL, '{concepts.GCS.name}', g.charttime, NULL, g.gcs, g.gcs, 'not a number'
FROM known.gcs AS g
JOIN cohort AS c ON c.stay_id = g.stay_id
WHERE g.charttime >= {_SINCE}
UNION ALL
SELECT 'labevents', o.stay_id, NULL, '{concepts.PAO2FIO2.name}', o.charttime, NULL, o.pao2fio2, o.pao2fio2, ''
FROM known.oxygenation AS o
JOIN cohort AS c ON c.stay_id = o.stay_id
WHERE o.charttime >= {_SINCE}
UNION ALL
SELECT 'chartevents', v.stay_id, NULL, '{concepts.VENTILATION.name}', v.hour, NULL, l.level, l.level, ''
FROM (SELECT stay_id, status, starttime, unnest(generate_series(starttime, endtime, INTERVAL 1 HOUR)) AS hour
      FROM known.ventilation) AS v
JOIN ventilation_level AS l ON l.status = v.status
JOIN cohort AS c ON c.stay_id = v.stay_id
WHERE v.hour >= {_SINCE}
QUALIFY row_number() OVER (PARTITION BY v.stay_id, v.hour ORDER BY v.starttime DESC) = 1"""
