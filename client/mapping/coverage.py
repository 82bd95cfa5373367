"""How much of each concept an extract has, and in which range."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from client.events import create_items
from client.mapping.domains import words_of
from client.mapping.targets import TARGETS
from client.queries import fill
from shared_model import concepts

WORDS = "words"  # in place of a unit
SMALLEST = 10  # patients, for quantiles to be told
_QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_MOST_EXACT = 20_000_000  # values, for exact quantiles


@dataclass(frozen=True, kw_only=True)
class ConceptCoverage:
    """``patients``: of those with an ICU stay; ``in_range``: share of values in the plausible range; ``quantiles`` of
    all values in the concept's unit, empty below ten patients."""

    concept: str
    unit: str
    events: int
    patients: int
    patients_share: float
    in_range: float
    quantiles: dict[str, float]


def cover_concepts(connection: duckdb.DuckDBPyConnection) -> tuple[ConceptCoverage, ...]:
    """Coverage of every concept of the dictionary, also of those that the extract does not have."""
    create_items(connection)
    levels = list(_QUANTILES.values())
    everyone = _one(connection, "SELECT count(DISTINCT subject_id) FROM icustays")
    fill(
        connection,
        "looked_at",
        "concept VARCHAR, low DOUBLE, high DOUBLE",
        [(c.name, c.low, c.high) for c in _LOOKED_AT],
    )
    events = sum(_one(connection, f"SELECT count(*) FROM {table}") for table in ("chartevents", "labevents"))
    quantiles = "quantile_cont" if events < _MOST_EXACT else "approx_quantile"
    found = connection.execute(
        f"""SELECT concept, count(*), count(DISTINCT subject_id), count(*) FILTER (value BETWEEN low AND high),
            {quantiles}(value, {levels})
        FROM ({_VALUES}) SEMI JOIN icustays USING (subject_id) JOIN looked_at USING (concept)
        WHERE value IS NOT NULL GROUP BY concept"""
    ).fetchall()
    by_name = {row[0]: row[1:] for row in found}
    return (
        *(_coverage(c.name, c.unit, by_name.get(c.name, _NOTHING), everyone) for c in _LOOKED_AT),
        *_cover_words(connection, everyone),
    )


def _cover_words(connection: duckdb.DuckDBPyConnection, everyone: int) -> Iterator[ConceptCoverage]:
    """Concepts of words: in range are those that the pipeline knows."""
    for name in _WORDS:
        query = f"""SELECT count(*), count(DISTINCT subject_id), count(*) FILTER (trim(value) IN {words_of(name)})
            FROM chartevents WHERE itemid IN ({", ".join(map(str, TARGETS[name].items))})"""
        [(events, patients, known)] = connection.execute(query).fetchall()
        yield _coverage(name, WORDS, (events, patients, known, []), everyone)


def _coverage(concept: str, unit: str, row: tuple[Any, ...], everyone: int) -> ConceptCoverage:
    events, patients, fitting, quantiles = row
    enough = patients >= SMALLEST
    return ConceptCoverage(
        concept=concept,
        unit=unit,
        events=events,
        patients=patients,
        patients_share=patients / everyone if everyone else 0.0,
        in_range=fitting / events if events else 0.0,
        quantiles=dict(zip(_QUANTILES, quantiles, strict=True)) if enough and quantiles else {},
    )


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


_NOTHING: tuple[Any, ...] = (0, 0, 0, [])
_WORDS = ("oxygen_device", "ventilator_mode")
# Rates in their own unit; the range is that of what they are worth in norepinephrine.
_WORTH = {
    target: worth
    for target in TARGETS.values()
    for item, worth in concepts.NOREPINEPHRINE_EQUIVALENT.items()
    if item in target.items
}
RATES = tuple(
    concepts.Concept(name=target.name, unit=target.unit, low=0, high=concepts.VASOPRESSOR.high / worth)
    for target, worth in _WORTH.items()
)
_LOOKED_AT = (*concepts.CONCEPTS, concepts.GCS, concepts.URINE, *RATES)
_RATE_ITEMS = ", ".join(f"({target.items[0]}, '{target.name}')" for target in _WORTH)
_VALUES = f"""
SELECT i.concept, e.subject_id, e.valuenum * i.factor + i.shift AS value
FROM chartevents AS e JOIN items AS i ON i.source = 'chart' AND i.itemid = e.itemid
UNION ALL
SELECT i.concept, e.subject_id, e.valuenum * i.factor + i.shift
FROM labevents AS e JOIN items AS i ON i.source = 'lab' AND i.itemid = e.itemid
UNION ALL
SELECT '{concepts.GCS.name}', e.subject_id, e.valuenum FROM chartevents AS e WHERE e.itemid = {concepts.GCS_TOTAL}
UNION ALL
SELECT '{concepts.URINE.name}', e.subject_id, e.value FROM outputevents AS e
WHERE e.itemid IN {concepts.URINE_ITEMIDS} AND e.itemid <> {concepts.URINE_IRRIGANT_IN}
UNION ALL
SELECT r.name, e.subject_id, e.rate
FROM inputevents AS e JOIN (VALUES {_RATE_ITEMS}) AS r(itemid, name) USING (itemid)"""
