"""Events become static features and an hourly series. A stay is a row; NaN is "not measured".

Row order is (subject_id, intime, stay_id). Sums are rounded (values to 4 decimals), so that the order in which threads
add does not reach the features: two preparations of one extract are identical.
"""

import duckdb
import numpy as np
from numpy.typing import NDArray

from shared_model.features import AGGREGATES, DEMOGRAPHICS, SERIES, STATIC, WINDOW_HOURS

Floats = NDArray[np.float32]


def build_features(connection: duckdb.DuckDBPyConnection, prediction_hours: float) -> tuple[Floats, Floats]:
    """Static features [N, F] and series [N, T, C] of the stays in ``cohort``; T covers admission to prediction time."""
    connection.execute(
        "CREATE TABLE numbered AS SELECT *, row_number() OVER (ORDER BY subject_id, intime, stay_id) - 1 AS n"
        " FROM cohort"
    )
    stays = int(connection.execute("SELECT count(*) FROM numbered").fetchall()[0][0])
    windows = int(np.ceil(prediction_hours / WINDOW_HOURS))
    return _static(connection, stays), _series(connection, stays, windows)


def _series(connection: duckdb.DuckDBPyConnection, stays: int, windows: int) -> Floats:
    """Mean of each concept in each window; events before admission are in no window."""
    series_NTC = np.full((stays, windows, len(SERIES)), np.nan, dtype=np.float32)
    found = connection.execute(
        f"""SELECT n, t, list_position({list(SERIES)}, concept) - 1 AS c, round(avg(value), 4) AS v
        FROM (SELECT n, concept, value,
                     CAST(floor(date_diff('second', intime, charttime) / {WINDOW_HOURS * 3600}) AS INTEGER) AS t
              FROM events JOIN numbered USING (stay_id))
        WHERE t >= 0 AND t < {windows} AND concept IN {SERIES} GROUP BY ALL"""
    ).fetchnumpy()
    place = tuple(np.asarray(found[axis], dtype=np.int64) for axis in ("n", "t", "c"))
    series_NTC[place] = found["v"]
    return series_NTC


def _static(connection: duckdb.DuckDBPyConnection, stays: int) -> Floats:
    static_NF = np.full((stays, len(STATIC)), np.nan, dtype=np.float32)
    for name, values in _demographics(connection).items():
        static_NF[:, STATIC.index(name)] = values
    found = connection.execute(
        """SELECT n, concept, min(value) AS "min", max(value) AS "max", round(avg(value), 4) AS "mean",
                  round(sum(value), 4) AS "sum", arg_max(value, {'t': charttime, 's': storetime, 'v': value}) AS "last"
           FROM events JOIN numbered USING (stay_id) GROUP BY ALL"""
    ).fetchnumpy()
    stay, concept = np.asarray(found["n"], dtype=np.int64), np.asarray(found["concept"], dtype=str)
    for aggregate in AGGREGATES:
        rows = concept == aggregate.concept
        static_NF[stay[rows], STATIC.index(aggregate.name)] = found[aggregate.statistic][rows]
    return static_NF


def _demographics(connection: duckdb.DuckDBPyConnection) -> dict[str, NDArray[np.float64]]:
    """In row order. Antibiotics and cultures: distinct ones from a day before admission to the prediction time."""
    found = connection.execute(
        """SELECT least(age, 91) AS age, gender = 'M' AS male,
                  coalesce(a.admission_type LIKE '%EMER%' OR a.admission_type = 'URGENT', false) AS emergency,
                  (SELECT count(DISTINCT b.antibiotic) FROM antibiotic AS b
                   WHERE b.subject_id = c.subject_id AND b.starttime > c.intime - INTERVAL 1 DAY
                     AND b.starttime <= c.prediction_time) AS antibiotic_count,
                  (SELECT count(DISTINCT m.micro_specimen_id) FROM microbiologyevents AS m
                   WHERE m.subject_id = c.subject_id AND m.charttime > c.intime - INTERVAL 1 DAY
                     AND m.charttime <= c.prediction_time) AS culture_count
           FROM numbered AS c LEFT JOIN (SELECT hadm_id, min(admission_type) AS admission_type FROM admissions
                                         GROUP BY hadm_id) AS a USING (hadm_id) ORDER BY n"""
    ).fetchnumpy()
    return {name: np.asarray(found[name], dtype=np.float64) for name in DEMOGRAPHICS}
