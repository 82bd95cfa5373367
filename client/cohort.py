"""Who is studied: Sepsis-3, coded or flagged sepsis, or every ICU stay, from MIMIC-IV-style tables.

Why SQL: the rules are joins over time, MIMIC-IV has 94,000 ICU stays, and a reader can lay each file of
``client/sql`` beside the rule it restates. Tables in, tables out: every step is a table of the connection,
so a surprising patient can be followed from prescription to onset.

Sources: Singer et al., JAMA 2016 (Sepsis-3); Seymour et al., JAMA 2016 (suspected infection); Vincent et
al., Intensive Care Medicine 1996 (SOFA); MIT-LCP/mimic-code, ``mimic-iv/concepts`` (all three on MIMIC-IV).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import duckdb

from client import icd_codes, sepsis_rules
from client.queries import fill, run_query
from shared_model.errors import ConfigError, EmptyCohortError
from shared_model.study import EARLY, Cohort, Stays, Study

CHART_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.CHART_ITEMS.values())
LAB_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.LAB_ITEMS.values())
INPUT_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.INPUT_ITEMS.values())
OUTPUT_ITEMIDS: frozenset[int] = frozenset().union(*sepsis_rules.OUTPUT_ITEMS.values())

# What derive_sepsis3 leaves, in the order in which it is derived.
DERIVED_TABLES = (
    "antibiotic",
    "culture",
    "suspicion",
    "ventilation",
    "gcs",
    "oxygenation",
    "sofa_hourly",
    "sepsis3",
)
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


_CODED = """hadm_id IN (
    SELECT hadm_id
    FROM diagnoses_icd
    SEMI JOIN sepsis_code
        ON diagnoses_icd.icd_version = sepsis_code.icd_version
        AND starts_with(upper(replace(trim(icd_code), '.', '')), prefix)
)"""


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


_MEMBERS: dict[Cohort, _Rule] = {
    "sepsis3": _Rule(
        step="Sepsis-3",
        condition="stay_id IN (SELECT stay_id FROM sepsis3 WHERE sepsis3)",
        look_at="prescriptions, microbiologyevents and the heart rate",
    ),
    "icd": _Rule(step="coded sepsis (ICD-9, ICD-10)", condition=_CODED, look_at="diagnoses_icd"),
    "flag": _Rule(
        step="flagged by the site",
        condition="stay_id IN (SELECT stay_id FROM flagged)",
        look_at="the column that `flag` names",
    ),
}


def derive_sepsis3(connection: duckdb.DuckDBPyConnection, *, labs_of_admission: bool = False) -> None:
    """Create ``DERIVED_TABLES``, so that every component of the definition is visible as a table.

    Reads icustays, chartevents, labevents, microbiologyevents, prescriptions, inputevents and outputevents
    as ``shared_model.schema`` declares them; the last four may be empty. Existing tables of the same names
    are replaced. ``labs_of_admission`` takes platelets, bilirubin and creatinine by admission id as the reference
    does, so without those of the emergency department; it is for comparisons only (docs/decisions/0005).
    """
    _load_rules(connection, labs_of_admission)
    for name in _SEPSIS_FILES:
        run_query(connection, name)


def select_cohort(
    connection: duckdb.DuckDBPyConnection,
    cohort: Cohort,
    study: Study = EARLY,
    *,
    minimum_age: int = 18,
    stays: Stays = "first",
) -> list[FlowStep]:
    """Create the table ``cohort``, one row an ICU stay, and tell how many each inclusion rule left.

    ``onset_time`` is the time of suspected infection (Seymour 2016), NULL but for ``sepsis3``; it can lie after
    ``prediction_time``. The table sepsis3 is derived when it is needed and absent; a caller whose source tables have
    changed calls ``derive_sepsis3`` first. ``icd`` reads diagnoses_icd, ``flag`` the table ``flagged(stay_id)``.

    Raises ConfigError for an unusable argument, EmptyCohortError at the step where nobody is left.
    """
    _check_arguments(connection, cohort, stays)
    if cohort == "sepsis3" and not _has_table(connection, "sepsis3"):
        derive_sepsis3(connection)
    if cohort == "icd":
        fill(connection, "sepsis_code", "icd_version INTEGER, prefix VARCHAR", icd_codes.SEPSIS.prefixes)
    run_query(connection, "cohort_candidate.sql", hours=study.prediction_hours, label=study.label)
    flow = [_count(connection, "ICU stays with valid times", "icustays.intime and outtime", cohort, before=None)]
    for rule in _rules(cohort, study, minimum_age, stays):
        connection.execute(f"DELETE FROM sepsis_candidate WHERE ({rule.condition}) IS NOT TRUE")
        flow.append(_count(connection, rule.step, rule.look_at, cohort, before=flow[-1].stays))
    if cohort == "sepsis3":
        run_query(connection, "cohort_onset.sql")
    run_query(connection, "cohort.sql", retrospective=study.retrospective)
    return flow


def _rules(cohort: Cohort, study: Study, minimum_age: int, stays: Stays) -> Iterable[_Rule]:
    """Yield the inclusion rules in order; a patient's first stay is chosen before its length counts."""
    yield _Rule(
        step=f"adults (age {minimum_age} or older)",
        condition=f"age >= {int(minimum_age)}",
        look_at="patients.anchor_age, patients.anchor_year and admissions.admittime",
    )
    yield _Rule(
        step="with a known outcome",
        condition="label IS NOT NULL",
        look_at="admissions.hospital_expire_flag and deathtime",
    )
    if stays == "first":
        yield _Rule(step="first ICU stay of each patient", condition=_FIRST_STAY, look_at="icustays")
    yield _Rule(
        step=f"in the ICU and alive {study.prediction_hours:g} h after admission to it",
        condition="outtime >= prediction_time AND (deathtime IS NULL OR deathtime > prediction_time)",
        look_at="icustays.outtime, admissions.deathtime and the prediction time",
    )
    if cohort in _MEMBERS:
        yield _MEMBERS[cohort]


def _count(
    connection: duckdb.DuckDBPyConnection, step: str, look_at: str, cohort: str, *, before: int | None
) -> FlowStep:
    """Count who is left, and refuse an empty cohort at the step that emptied it."""
    query = "SELECT count(DISTINCT subject_id), count(*) FROM sepsis_candidate"
    [(patients, stays)] = connection.execute(query).fetchall()
    if stays == 0:
        of = "" if before is None else f" of {before:,} ICU stays"
        raise EmptyCohortError(f"cohort '{cohort}': nobody{of} is left at step '{step}'; check {look_at}")
    return FlowStep(step=step, patients=patients, stays=stays)


def _check_arguments(connection: duckdb.DuckDBPyConnection, cohort: str, stays: str) -> None:
    for name, value, known in (("cohort", cohort, get_args(Cohort)), ("stays", stays, get_args(Stays))):
        if value not in known:
            raise ConfigError(f"{name} '{value}' is unknown; use one of {', '.join(known)}")
    if cohort == "flag" and not _has_table(connection, "flagged"):
        raise ConfigError("cohort 'flag' needs `flag: TABLE.COLUMN` in the site config")


def _has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_name = ?"
    [(tables,)] = connection.execute(query, [name]).fetchall()
    return bool(tables > 0)


def _load_rules(connection: duckdb.DuckDBPyConnection, labs_of_admission: bool) -> None:
    """Lay the lists of ``client.sepsis_rules`` out as the small tables that the queries join."""
    fill(connection, "sepsis_setting", "labs_of_admission BOOLEAN", [(labs_of_admission,)])
    for table, words in _WORD_LISTS.items():
        fill(connection, table, "part VARCHAR", [(word,) for word in words])
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
    fill(connection, "sepsis_item", "concept VARCHAR, itemid INTEGER", items)
    words_of_status = [
        (priority, status, concept, word)
        for priority, (status, concept, words) in enumerate(sepsis_rules.VENTILATION_WORDS)
        for word in words
    ]
    columns = "priority INTEGER, status VARCHAR, concept VARCHAR, word VARCHAR"
    fill(connection, "sepsis_ventilation_word", columns, words_of_status)
