"""The patients of a MIMIC-IV folder in OMOP Common Data Model 5.4.

Conventions, where the model leaves them to the site: ICU stays are visit details with a care site; services are visit
details without one. Local codes (MIMIC item ids) stand in ``*_source_value``; those laboratory tests that have a LOINC
code here carry it through ``measurement_concept_id``. Blood samples and cultures are specimens: a value names its own
by ``measurement_event_id``. An organism is a measurement dated when it was reported. Infusion rates are drug exposures
(quantity = rate), prescriptions too, told apart by their type. Storing times of laboratory and bedside values have no
place in the model, so a value counts as known when it was measured (in MIMIC-IV's demo both times are equal).
"""

from pathlib import Path

import duckdb

from client import sepsis_rules
from client.mapping.expressions import literal
from client.source import quoted
from shared_model import concepts
from simulations.dialects.omop_ddl import columns_of
from simulations.dialects.source import mimic_views

ICU, INPATIENT, PRESCRIBED, GIVEN = 32037, 9201, 32838, 32818
MALE, FEMALE = 8507, 8532
FIRST_CONCEPT = 2_000_000_000  # the model's range for local concepts
# MIMIC item id: LOINC, for tests whose concept has one laboratory item only.
LOINC = {
    50912: "2160-0",
    50885: "1975-2",
    50983: "2951-2",
    50971: "2823-3",
    50902: "2075-0",
    50882: "1963-8",
    51265: "777-3",
    51006: "3094-0",
    50862: "1751-7",
    50863: "6768-6",
    50861: "1742-6",
    50878: "1920-8",
    50960: "19123-9",
}
_WORDS = tuple(
    item for name in ("oxygen_device", "ventilator_mode", "hamilton_mode") for item in sepsis_rules.CHART_ITEMS[name]
)


def write_omop(mimic: Path, out: Path) -> None:
    """Write the tables as CSV files with a header into the new folder ``out``. Raises RunFolderError where it exists,
    DataError's kinds for the MIMIC-IV folder."""
    with mimic_views(mimic, out) as (connection, folder):
        _number_concepts(connection)
        for name, query in _QUERIES.items():
            _write(connection, name, query, folder)


def _number_concepts(connection: duckdb.DuckDBPyConnection) -> None:
    values = ", ".join(f"({item}, {literal(code)})" for item, code in LOINC.items())
    connection.execute(
        f"""CREATE TABLE concept AS SELECT
            CAST({FIRST_CONCEPT} + row_number() OVER (ORDER BY vocabulary_id, concept_code) AS INTEGER) AS concept_id, *
        FROM (
            SELECT DISTINCT 'ICD' || icd_version || 'CM' AS vocabulary_id, icd_code AS concept_code,
                CAST(NULL AS INTEGER) AS itemid FROM diagnoses_icd
            UNION ALL SELECT 'LOINC', code, item FROM (VALUES {values}) AS t(item, code))"""
    )


def _write(connection: duckdb.DuckDBPyConnection, name: str, query: str, out: Path) -> None:
    """``query`` names its columns; the model's others are empty."""
    held = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM ({query})").fetchall()}
    chosen = ", ".join(c if c in held else f"NULL AS {c}" for c in columns_of(name))
    target = quoted(out / f"{name}.csv")
    connection.execute(f"COPY (SELECT {chosen} FROM ({query}) ORDER BY ALL) TO {target} (FORMAT csv, HEADER)")


def _dated(name: str, time: str) -> str:
    return f"CAST({time} AS DATE) AS {name}_date, {time} AS {name}_datetime"


def _ids(*items: int) -> str:
    return f"({', '.join(map(str, items))})"


def _numbered(name: str, query: str) -> str:
    return f"SELECT CAST(row_number() OVER () AS INTEGER) AS {name}, * FROM (SELECT * FROM ({query}) ORDER BY ALL)"


_MEASURED = f"""
SELECT subject_id AS person_id, 0 AS measurement_concept_id, {_dated("measurement", "charttime")},
    valuenum AS value_as_number, NULL AS visit_occurrence_id, stay_id AS visit_detail_id,
    CAST(itemid AS VARCHAR) AS measurement_source_value, valueuom AS unit_source_value, value AS value_source_value,
    NULL AS measurement_event_id
FROM chartevents WHERE itemid NOT IN {_ids(*_WORDS)}
UNION ALL
SELECT subject_id, coalesce(concept_id, 0), CAST(charttime AS DATE), charttime, valuenum, hadm_id, NULL,
    CAST(e.itemid AS VARCHAR), valueuom, value, specimen_id
FROM labevents AS e LEFT JOIN concept ON concept.itemid = e.itemid
UNION ALL
SELECT subject_id, 0, CAST(charttime AS DATE), charttime, value, NULL, stay_id, CAST(itemid AS VARCHAR), 'mL', NULL,
    NULL
FROM outputevents
UNION ALL
SELECT e.subject_id, 0, CAST(e.storetime AS DATE), e.storetime, NULL, e.hadm_id, NULL,
    'organism', NULL, coalesce(CAST(e.org_itemid AS VARCHAR), e.org_name), s.specimen_id
FROM microbiologyevents AS e JOIN specimen_number AS s
    ON s.micro_specimen_id = e.micro_specimen_id AND s.subject_id = e.subject_id
    AND s.charttime IS NOT DISTINCT FROM e.charttime AND s.chartdate IS NOT DISTINCT FROM e.chartdate
WHERE e.org_itemid IS NOT NULL OR e.org_name IS NOT NULL"""
# Blood samples keep their numbers; cultures are numbered after them.
_CULTURES = """
SELECT *, CAST(1900000000 + row_number() OVER (ORDER BY subject_id, micro_specimen_id, chartdate, charttime) AS INTEGER)
    AS specimen_id
FROM (SELECT subject_id, micro_specimen_id, chartdate, charttime, max(spec_type_desc) AS kind
      FROM microbiologyevents GROUP BY ALL)"""
_QUERIES: dict[str, str] = {
    "person": f"""SELECT subject_id AS person_id, CASE gender WHEN 'M' THEN {MALE} WHEN 'F' THEN {FEMALE} ELSE 0 END
        AS gender_concept_id, CAST(anchor_year - anchor_age AS INTEGER) AS year_of_birth, 0 AS race_concept_id,
        0 AS ethnicity_concept_id, CAST(subject_id AS VARCHAR) AS person_source_value,
        gender AS gender_source_value FROM patients""",
    "visit_occurrence": f"""SELECT hadm_id AS visit_occurrence_id, subject_id AS person_id,
        {INPATIENT} AS visit_concept_id, {_dated("visit_start", "admittime")}, {_dated("visit_end", "dischtime")},
        32817 AS visit_type_concept_id,
        admission_type AS visit_source_value,
        CASE hospital_expire_flag WHEN 1 THEN 'DIED' WHEN 0 THEN 'ALIVE' END AS discharged_to_source_value
        FROM admissions""",
    "care_site": """SELECT CAST(row_number() OVER (ORDER BY first_careunit) AS INTEGER) AS care_site_id,
        first_careunit AS care_site_name, 32037 AS place_of_service_concept_id
        FROM (SELECT DISTINCT first_careunit FROM icustays)""",
    "visit_detail": f"""SELECT stay_id AS visit_detail_id, s.subject_id AS person_id, {ICU} AS visit_detail_concept_id,
        {_dated("visit_detail_start", "intime")}, {_dated("visit_detail_end", "outtime")},
        32817 AS visit_detail_type_concept_id, care_site_id, CAST(stay_id AS VARCHAR) AS visit_detail_source_value,
        hadm_id AS visit_occurrence_id
        FROM icustays AS s JOIN (SELECT first_careunit, CAST(row_number() OVER (ORDER BY first_careunit) AS INTEGER)
            AS care_site_id FROM (SELECT DISTINCT first_careunit FROM icustays)) USING (first_careunit)
        UNION ALL
        SELECT CAST(1800000000 + row_number() OVER (ORDER BY hadm_id, transfertime, curr_service) AS INTEGER),
            subject_id, 0, CAST(transfertime AS DATE), transfertime, NULL, NULL, 32817, NULL, curr_service, hadm_id
        FROM services""",
    "death": f"""SELECT subject_id AS person_id, {_dated("death", "max(deathtime)")}, 32817 AS death_type_concept_id
        FROM admissions WHERE deathtime IS NOT NULL GROUP BY subject_id""",
    "condition_occurrence": _numbered(
        "condition_occurrence_id",
        f"""SELECT code.subject_id AS person_id, 0 AS condition_concept_id, {_dated("condition_start", "admittime")},
        32817 AS condition_type_concept_id, code.hadm_id AS visit_occurrence_id, icd_code AS condition_source_value,
        concept_id AS condition_source_concept_id
        FROM diagnoses_icd AS code LEFT JOIN admissions USING (hadm_id)
        JOIN concept ON concept_code = icd_code AND vocabulary_id = 'ICD' || icd_version || 'CM'""",
    ),
    "drug_exposure": _numbered(
        "drug_exposure_id",
        f"""SELECT subject_id AS person_id, 0 AS drug_concept_id, {_dated("drug_exposure_start", "starttime")},
        {_dated("drug_exposure_end", "stoptime")}, {PRESCRIBED} AS drug_type_concept_id, NULL AS quantity,
        drug_type AS sig, hadm_id AS visit_occurrence_id, NULL AS visit_detail_id, drug AS drug_source_value,
        route AS route_source_value, NULL AS dose_unit_source_value FROM prescriptions
        UNION ALL
        SELECT subject_id, 0, CAST(starttime AS DATE), starttime, CAST(endtime AS DATE), endtime, {GIVEN}, rate, NULL,
        NULL, stay_id, CAST(itemid AS VARCHAR), 'IV', rateuom FROM inputevents
        WHERE itemid IN {_ids(*concepts.NOREPINEPHRINE_EQUIVALENT, *sepsis_rules.INPUT_ITEMS["dobutamine"])}""",
    ),
    "measurement": _numbered("measurement_id", f"WITH specimen_number AS ({_CULTURES}) {_MEASURED}"),
    "observation": _numbered(
        "observation_id",
        f"""SELECT subject_id AS person_id, 0 AS observation_concept_id, {_dated("observation", "charttime")},
        value AS value_as_string, stay_id AS visit_detail_id, CAST(itemid AS VARCHAR) AS observation_source_value
        FROM chartevents WHERE itemid IN {_ids(*_WORDS)}""",
    ),
    "specimen": f"""SELECT specimen_id, subject_id AS person_id, 0 AS specimen_concept_id,
        CAST(coalesce(chartdate, charttime) AS DATE) AS specimen_date, charttime AS specimen_datetime,
        micro_specimen_id AS specimen_source_id, kind AS specimen_source_value FROM ({_CULTURES})""",
    "note": _numbered(
        "note_id",
        f"""SELECT subject_id AS person_id, {_dated("note", "charttime")}, 'radiology' AS note_title, text AS note_text,
        hadm_id AS visit_occurrence_id, note_id AS note_source_value FROM radiology
        UNION ALL
        SELECT subject_id, CAST(charttime AS DATE), charttime, 'discharge', text, hadm_id, note_id FROM discharge""",
    ),
    "concept": """SELECT concept_id, concept_code AS concept_name, vocabulary_id, concept_code,
        CASE vocabulary_id WHEN 'LOINC' THEN 'Measurement' ELSE 'Condition' END AS domain_id FROM concept""",
}
