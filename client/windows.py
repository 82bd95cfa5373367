"""Events become static features and a windowed series. A stay is a row; NaN is "not measured".

Row order is (subject_id, intime, stay_id). Sums are rounded (values to 4 decimals), so that the order in which threads
add does not reach the features: two preparations of one extract are identical.
"""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from client.queries import load_query, run_query
from client.scores import derive_charlson, derive_sapsii
from shared_model.features import AGGREGATES, MEASURED, SERIES_CONCEPTS
from shared_model.study import Study

Floats = NDArray[np.float32]
_BATCH_ROWS = 500_000
_STATISTIC_SQL = {
    "mean": "round(avg(value), 4)",
    "min": "min(value)",
    "max": "max(value)",
    "sd": "round(stddev_samp(value), 4)",
    "sum": "round(sum(value), 4)",
    "last": "arg_max(value, {'t': charttime, 's': coalesce(storetime, charttime), 'v': value})",
}


def build_features(connection: duckdb.DuckDBPyConnection, study: Study) -> tuple[Floats, Floats]:
    """Static features [N, F] and series [N, T, C] of the stays in ``cohort``, in the order of ``study``'s names."""
    connection.execute(
        "CREATE TABLE numbered AS SELECT *, row_number() OVER (ORDER BY subject_id, intime, stay_id) - 1 AS n"
        " FROM cohort"
    )
    run_query(connection, "sapsii_input.sql")
    derive_sapsii(connection)
    derive_charlson(connection)
    stays = int(connection.execute("SELECT count(*) FROM numbered").fetchall()[0][0])
    return _static(connection, stays, study), _series(connection, stays, study)


def _series(connection: duckdb.DuckDBPyConnection, stays: int, study: Study) -> Floats:
    """Each statistic of each concept in each window [end - length, end); an empty window is NaN."""
    series_NTC = np.full((stays, study.windows, len(study.series)), np.nan, dtype=np.float32)
    chosen = ", ".join(f'{_STATISTIC_SQL[name]} AS "{name}"' for name in study.statistics)
    query = f"""SELECT n, t, list_position({list(SERIES_CONCEPTS)}, concept) - 1 AS c, {chosen}
        FROM (SELECT n, concept, value, {_window_numbers(study)} AS t
              FROM (SELECT *, date_diff('second', intime, charttime) AS s FROM events JOIN numbered USING (stay_id)))
        WHERE t >= 0 AND t < {study.windows} AND concept IN {SERIES_CONCEPTS} GROUP BY ALL"""
    for found in _batches(connection, query):
        for number, name in enumerate(study.statistics):
            channel = found["c"] * len(study.statistics) + number
            series_NTC[found["n"], found["t"], channel] = found[name]
    return series_NTC


def _batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns of a large result, a part at a time; a NULL number is NaN."""
    for batch in connection.sql(query).to_arrow_reader(_BATCH_ROWS):
        yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}


def _window_numbers(study: Study) -> str:
    """SQL for the windows that hold an event ``s`` seconds after admission: window t ends at (t + 1) steps."""
    step, length = round(study.window_step_hours * 3600), round(study.window_hours * 3600)
    first = f"CAST(floor(s / {step}) AS INTEGER)"
    if step == length:
        return first
    last = f"CAST(floor((s + {length}) / {step}) AS INTEGER) - 1"
    return f"unnest(range(greatest({first}, 0), least({last}, {study.windows - 1}) + 1))"


def _static(connection: duckdb.DuckDBPyConnection, stays: int, study: Study) -> Floats:
    static_NF = np.full((stays, len(study.static)), np.nan, dtype=np.float32)
    derived = connection.execute(load_query("derived.sql")).fetchnumpy()
    for column, name in enumerate(study.static):
        if name in derived:
            static_NF[:, column] = np.ma.filled(np.ma.asarray(derived[name], dtype=np.float64), np.nan)
    concepts = list(MEASURED)
    chosen = ", ".join(f'{_STATISTIC_SQL[name]} AS "{name}"' for name in ("min", "max", "mean", "sum", "last"))
    query = f"""SELECT n, list_position({concepts}, concept) - 1 AS c, {chosen}
        FROM events JOIN numbered USING (stay_id) GROUP BY ALL"""
    for found in _batches(connection, query):
        for aggregate in AGGREGATES:
            rows = found["c"] == concepts.index(aggregate.concept)
            static_NF[found["n"][rows], study.static.index(aggregate.name)] = found[aggregate.statistic][rows]
    return static_NF
