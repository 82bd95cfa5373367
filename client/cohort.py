"""Who is studied: the Sepsis-3 cohort, or every ICU stay, from MIMIC-IV-style tables.

Why SQL: the rules are joins over time, MIMIC-IV has 94,000 ICU stays, and a reader can lay each file of
``client/sql`` beside the rule it restates. Tables in, tables out: every step is a table of the connection,
so a surprising patient can be followed from prescription to onset.

Sources: Singer et al., JAMA 2016 (Sepsis-3); Seymour et al., JAMA 2016 (suspected infection); Vincent et
al., Intensive Care Medicine 1996 (SOFA); MIT-LCP/mimic-code, ``mimic-iv/concepts`` (all three on MIMIC-IV).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import duckdb

from client import sepsis_rules
from client.sepsis_rules import RULES_VERSION
from shared_model.errors import ConfigError, EmptyCohortError

__all__ = [
    "CHART_ITEMIDS",
    "INPUT_ITEMIDS",
    "LAB_ITEMIDS",
    "OUTPUT_ITEMIDS",
    "RULES_VERSION",
    "FlowStep",
    "derive_sepsis3",
    "select_cohort",
]

CHART_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.CHART_ITEMS.values())
LAB_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.LAB_ITEMS.values())
INPUT_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.INPUT_ITEMS.values())
OUTPUT_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.OUTPUT_ITEMS.values())

_SEPSIS_FILES = (
    "sepsis3_1_antibiotic.sql",
    "sepsis3_2_suspicion.sql",
    "sepsis3_3_ventilation.sql",
    "sepsis3_4_gcs.sql",
    "sepsis3_5_hours.sql",
    "sepsis3_6_oxygenation.sql",
    "sepsis3_7_sofa.sql",
    "sepsis3_8_onset.sql",
)
_FIRST_STAY = "stay_id IN (SELECT first(stay_id ORDER BY intime, stay_id) FROM sepsis_candidate GROUP BY subject_id)"
_WORD_LISTS = {
    "sepsis_antibiotic_part": sepsis_rules.ANTIBIOTIC_NAME_PARTS,
    "sepsis_excluded_drug_part": sepsis_rules.EXCLUDED_DRUG_PARTS,
    "sepsis_excluded_drug_type": sepsis_rules.EXCLUDED_DRUG_TYPES,
    "sepsis_excluded_route": sepsis_rules.EXCLUDED_ROUTES,
    "sepsis_excluded_route_part": sepsis_rules.EXCLUDED_ROUTE_PARTS,
}


@dataclass(frozen=True, kw_only=True)
class FlowStep:
    """One line of the cohort's flow chart: how many patients and ICU stays were left after ``step``."""

    step: str
    patients: int
    stays: int


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """An inclusion rule: its name in the flow chart, what a candidate must meet, and where to look."""

    step: str
    condition: str
    look_at: str


def derive_sepsis3(connection: duckdb.DuckDBPyConnection) -> None:
    """Create antibiotic, suspicion, ventilation, gcs, sofa_hourly and sepsis3, each visible as a table.

    Reads icustays, chartevents, labevents, microbiologyevents, prescriptions, inputevents and outputevents
    as ``shared_model.schema`` declares them; the last four may be empty. Existing tables of the six names
    are replaced.
    """
    _load_rules(connection)
    for name in _SEPSIS_FILES:
        connection.execute(_query(name))


def select_cohort(
    connection: duckdb.DuckDBPyConnection,
    cohort: Literal["sepsis3", "all_icu"],
    *,
    prediction_hours: float = 24.0,
    minimum_age: int = 18,
    stays: Literal["first", "all"] = "first",
) -> list[FlowStep]:
    """Create the table ``cohort``, one row an ICU stay, and tell how many each inclusion rule left.

    The label is death in hospital. ``onset_time`` is the time of suspected infection (Seymour 2016), NULL
    for ``all_icu``; it can lie after ``prediction_time``. The table sepsis3 is derived when it is needed
    and absent; a caller whose source tables have changed calls ``derive_sepsis3`` first.

    Raises ConfigError for an unusable argument, EmptyCohortError at the step where nobody is left.
    """
    _check_arguments(cohort, prediction_hours, stays)
    if cohort == "sepsis3" and not _has_table(connection, "sepsis3"):
        derive_sepsis3(connection)
    connection.execute(_query("cohort_candidate.sql"), {"hours": prediction_hours})
    flow = [_count(connection, "ICU stays with valid times", "icustays.intime and outtime", cohort)]
    for rule in _rules(cohort, prediction_hours, minimum_age, stays):
        connection.execute(f"DELETE FROM sepsis_candidate WHERE ({rule.condition}) IS NOT TRUE")
        flow.append(_count(connection, rule.step, rule.look_at, cohort))
    if cohort == "sepsis3":
        connection.execute(_query("cohort_onset.sql"))
    connection.execute(_query("cohort.sql"))
    return flow


def _rules(cohort: str, prediction_hours: float, minimum_age: int, stays: str) -> Iterable[_Rule]:
    """Yield the inclusion rules in order; a patient's first stay is chosen before its length counts."""
    yield _Rule(
        step=f"adults (age {minimum_age} or older)",
        condition=f"age >= {int(minimum_age)}",
        look_at="patients.anchor_age, patients.anchor_year and admissions.admittime",
    )
    yield _Rule(
        step="with a known outcome",
        condition="label IS NOT NULL",
        look_at="admissions.hospital_expire_flag",
    )
    if stays == "first":
        yield _Rule(step="first ICU stay of each patient", condition=_FIRST_STAY, look_at="icustays")
    yield _Rule(
        step=f"in the ICU and alive {prediction_hours:g} h after admission to it",
        condition="outtime >= prediction_time AND (deathtime IS NULL OR deathtime > prediction_time)",
        look_at="icustays.outtime, admissions.deathtime and the prediction time",
    )
    if cohort == "sepsis3":
        yield _Rule(
            step="Sepsis-3",
            condition="stay_id IN (SELECT stay_id FROM sepsis3 WHERE sepsis3)",
            look_at="prescriptions, microbiologyevents and the heart rate (220045) in chartevents",
        )


def _count(connection: duckdb.DuckDBPyConnection, step: str, look_at: str, cohort: str) -> FlowStep:
    """Count who is left, and refuse an empty cohort at the step that emptied it."""
    query = "SELECT count(DISTINCT subject_id), count(*) FROM sepsis_candidate"
    [(patients, stays)] = connection.execute(query).fetchall()
    if stays == 0:
        raise EmptyCohortError(f"cohort '{cohort}': nobody is left at step '{step}'; check {look_at}")
    return FlowStep(step=step, patients=patients, stays=stays)


def _check_arguments(cohort: str, prediction_hours: float, stays: str) -> None:
    if cohort not in ("sepsis3", "all_icu"):
        raise ConfigError(f"cohort '{cohort}' is unknown; use 'sepsis3' or 'all_icu'")
    if stays not in ("first", "all"):
        raise ConfigError(f"stays '{stays}' is unknown; use 'first' or 'all'")
    if not 0 < prediction_hours < float("inf"):
        raise ConfigError(f"prediction_hours {prediction_hours} is out of range; use a positive number of hours")


def _has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_name = ?"
    [(tables,)] = connection.execute(query, [name]).fetchall()
    return bool(tables > 0)


def _load_rules(connection: duckdb.DuckDBPyConnection) -> None:
    """Lay the lists of ``client.sepsis_rules`` out as the small tables that the queries join."""
    for table, words in _WORD_LISTS.items():
        _fill(connection, table, "part VARCHAR", [(word,) for word in words])
    items = [
        (concept, itemid)
        for table in (
            sepsis_rules.CHART_ITEMS,
            sepsis_rules.LAB_ITEMS,
            sepsis_rules.INPUT_ITEMS,
            sepsis_rules.OUTPUT_ITEMS,
        )
        for concept, itemids in table.items()
        for itemid in itemids
    ]
    _fill(connection, "sepsis_item", "concept VARCHAR, itemid INTEGER", items)
    words_of_status = [
        (priority, status, concept, word)
        for priority, (status, concept, words) in enumerate(sepsis_rules.VENTILATION_WORDS)
        for word in words
    ]
    columns = "priority INTEGER, status VARCHAR, concept VARCHAR, word VARCHAR"
    _fill(connection, "sepsis_ventilation_word", columns, words_of_status)


def _fill(
    connection: duckdb.DuckDBPyConnection, table: str, columns: str, rows: Sequence[tuple[str | int, ...]]
) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({columns})")
    marks = ", ".join("?" for _ in rows[0])
    values = ", ".join(f"({marks})" for _ in rows)
    connection.execute(f"INSERT INTO {table} VALUES {values}", [cell for row in rows for cell in row])


def _query(name: str) -> str:
    return files("client").joinpath("sql", name).read_text(encoding="utf-8")
