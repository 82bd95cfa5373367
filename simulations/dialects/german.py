"""An invented German hospital's export of the patients of a MIMIC-IV folder, messy in the ways that exports are.

Semicolons, decimal commas, thousands points, one file in cp1252, text identifiers, local codes with a catalogue, SI
units beside each value, years of birth, German words, '-' for missing, blanks around texts, columns that nobody needs,
codes that nobody maps, vital signs in several files, blood gases in a wide sheet. Laboratory times are UTC, vital signs
carry +01:00, everything else is local time of the fixed zone Etc/GMT-1, infusions are minutes since ICU admission.
Numbers are written in full, so that the way back is exact to rounding.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb

from client.mapping.expressions import literal
from client.mapping.targets import TARGETS
from client.mapping.units import conversion
from client.source import quoted
from shared_model.errors import ConfigError
from simulations.dialects import german_words as words
from simulations.dialects.source import mimic_views

ZONE = "Etc/GMT-1"
VITAL_FILES = 3
_CONCEPTS = {item: name for name, target in TARGETS.items() for item in (*target.items, *target.bedside_items)}
_SAME = {223761: "temperature", 226531: "weight", 226707: "height"}  # items that MIMIC-IV keeps in another unit
_TO_CANONICAL = {223761: (5 / 9, -160 / 9), 226531: (0.45359237, 0.0), 226707: (2.54, 0.0)}


def write_german(mimic: Path, out: Path) -> None:
    """Write the export into the new folder ``out``. Raises RunFolderError where it exists, DataError's kinds for the
    MIMIC-IV folder."""
    with mimic_views(mimic, out) as (connection, folder):
        for name, query in _TABLES.items():
            _write(connection, query(), folder / name)
        for part in range(VITAL_FILES):
            _write(
                connection,
                f"{_vitals()} WHERE e.stay_id % {VITAL_FILES} = {part}",
                folder / f"vitalwerte_{part + 1}.csv.gz",
            )
        _write_catalogue(connection, folder / "katalog.csv")
        _recode(folder / "faelle.csv", "cp1252")


def _write(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    connection.execute(
        f"COPY (SELECT * FROM ({query}) ORDER BY ALL) TO {quoted(file)} (FORMAT csv, HEADER, DELIMITER ';',"
        f" NULLSTR '-', COMPRESSION {'gzip' if file.suffix == '.gz' else 'none'})"
    )


def _recode(file: Path, encoding: str) -> None:
    file.write_bytes(file.read_text(encoding="utf-8").encode(encoding))


def _write_catalogue(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    rows = [(code, name) for code, name, _ in (*words.CHART.values(), *words.LAB.values())]
    rows += [("ZZ_TEST", "Testanforderung"), ("KALZ", "Kalzium ionisiert")]
    values = ", ".join(f"({literal(code)}, {literal(name)})" for code, name in rows)
    _write(connection, f'SELECT * FROM (VALUES {values}) AS t("Code", "Bezeichnung")', file)


def _patient(column: str = "subject_id") -> str:
    return f"'P-' || lpad(CAST({column} AS VARCHAR), 10, '0')"


def _case(column: str = "hadm_id") -> str:
    return f"'F/' || CAST({column} AS VARCHAR)"


def _stay(column: str = "stay_id") -> str:
    return f"'ITS-' || CAST({column} AS VARCHAR)"


def _local(time: str) -> str:
    return f"strftime({time}, '%d.%m.%Y %H:%M:%S')"


def _zoned(time: str) -> str:
    return f"strftime({time}, '%Y-%m-%dT%H:%M:%S') || '+01:00'"


def _utc(time: str) -> str:
    return f"strftime({time} - INTERVAL 1 HOUR, '%Y-%m-%dT%H:%M:%SZ')"


def _number(sql: str) -> str:
    return f"replace(CAST({sql} AS VARCHAR), '.', ',')"


def _with_points(sql: str) -> str:
    """Thousands points as well: 1.234,5."""
    whole, rest = f"CAST(trunc(abs({sql})) AS BIGINT)", f"split_part(CAST({sql} AS VARCHAR), '.', 2)"
    last = f"lpad(CAST({whole} % 1000 AS VARCHAR), 3, '0')"
    grouped = f"CASE WHEN {whole} >= 1000 THEN {whole} // 1000 || '.' || {last} ELSE {whole} || '' END"
    decimals = f"CASE WHEN {rest} = '' THEN '' ELSE ',' || {rest} END"
    return f"CASE WHEN {sql} < 0 THEN '-' ELSE '' END || {grouped} || {decimals}"


def _cases(column: str, held: Mapping[int, str]) -> str:
    return f"CASE {column} " + " ".join(f"WHEN {key} THEN {value}" for key, value in held.items()) + " END"


def _in_unit(item: int, unit: str | None, value: str) -> str:
    """SQL of a MIMIC value in the hospital's unit."""
    first, shift = _TO_CANONICAL.get(item, (1.0, 0.0))
    concept = _SAME.get(item) or _CONCEPTS[item]
    found = conversion(concept, "fraction" if unit == "Fraktion" else unit or "")
    if found is None:
        raise ConfigError(f"{concept} is not measured in {unit}")
    return f"(({value} * {first!r} + {shift!r}) - {found[1]!r}) / {found[0]!r}"


def _vitals() -> str:
    numbers = {i: _number(_in_unit(i, unit, "valuenum")) for i, (_, _, unit) in words.CHART.items() if unit is not None}
    texts = {i: "value" for i, (_, _, unit) in words.CHART.items() if unit is None}
    for item, scores in words.GCS_WORDS.items():
        spelled = _cases("CAST(valuenum AS INTEGER)", {score: literal(word) for score, word in scores.items()})
        texts[item] = f"CASE WHEN trim(value) = 'No Response-ETT' THEN {literal(words.INTUBATED)} ELSE {spelled} END"
    value = _cases("itemid", numbers | texts)
    code = _cases("itemid", {i: literal(code) for i, (code, _, _) in words.CHART.items()})
    unit = _cases("itemid", {i: literal(unit) for i, (_, _, unit) in words.CHART.items() if unit})
    return f"""SELECT {_stay("e.stay_id")} AS "Aufenthalt", {_zoned("charttime")} AS "Zeit",
        {_zoned("storetime")} AS "Dokumentiert", {code} AS "Code", '  ' || ({value}) || ' ' AS "Wert",
        {unit} AS "Einheit", 'PDMS' AS "Quelle" FROM chartevents AS e"""


def _labs() -> str:
    value = _cases("itemid", {i: _number(_in_unit(i, unit, "valuenum")) for i, (_, _, unit) in words.LAB.items()})
    code = _cases("itemid", {i: literal(code) for i, (code, _, _) in words.LAB.items()})
    unit = _cases("itemid", {i: literal(unit) for i, (_, _, unit) in words.LAB.items() if unit})
    return f"""SELECT {_patient()} AS "Patientennr", {_case()} AS "Fallnr", specimen_id AS "Probe", {code} AS "Code",
        {_utc("charttime")} AS "Abnahme", {_utc("storetime")} AS "Befund_um", {value} AS "Wert", {unit} AS "Einheit"
        FROM labevents WHERE itemid IN ({", ".join(map(str, words.LAB))})
        UNION ALL
        (SELECT {_patient()}, NULL, NULL, CASE WHEN subject_id % 2 = 0 THEN 'ZZ_TEST' ELSE 'KALZ' END,
            {_utc("min(charttime)")}, NULL, '1,2', 'mmol/l' FROM labevents GROUP BY subject_id)"""


def _gases() -> str:
    """A row a sample; values that one sample has twice, or that were stored at another time, make another row."""
    values = {item: _in_unit(item, unit, "valuenum") for item, (_, unit) in words.GASES.items()}
    chosen = {i: _number(f"max({value}) FILTER (WHERE itemid = {i})") for i, value in values.items()}
    wide = "".join(f', {sql} AS "{words.GASES[item][0]}"' for item, sql in chosen.items())
    items = ", ".join(map(str, (*words.GASES, words.SPECIMEN_TYPE)))
    return f"""SELECT {_patient()} AS "Patientennr", {_case()} AS "Fallnr", specimen_id AS "Probe",
        {_local("charttime")} AS "Abnahme", {_local("storetime")} AS "Befund_um",
        max(CASE trim(value) WHEN 'ART.' THEN 'arteriell' WHEN 'VEN.' THEN 'venös' ELSE trim(value) END)
            FILTER (WHERE itemid = {words.SPECIMEN_TYPE}) AS "Probenart"{wide}
        FROM (SELECT *, row_number() OVER (PARTITION BY subject_id, specimen_id, charttime, itemid
                                           ORDER BY storetime, valuenum, value) AS copy
              FROM labevents WHERE itemid IN ({items}))
        GROUP BY subject_id, hadm_id, specimen_id, charttime, storetime, copy"""


def _infusions() -> str:
    def minutes(time: str) -> str:
        return _number(f"date_diff('microsecond', s.intime, e.{time}) / 60000000")

    drug = _cases("itemid", {i: literal(drug) for i, (drug, _, _) in words.INFUSIONS.items()})
    unit = _cases("itemid", {i: literal(unit) for i, (_, unit, _) in words.INFUSIONS.items()})
    weighed = next(iter(words.INFUSIONS))
    rate = _cases("itemid", {i: f"rate * {f!r}" for i, (_, _, f) in words.INFUSIONS.items()})
    return f"""SELECT {_stay("e.stay_id")} AS "Aufenthalt", {minutes("starttime")} AS "Start_min",
        {minutes("endtime")} AS "Ende_min", {minutes("storetime")} AS "Doku_min", {drug} AS "Mittel",
        {_number(f"({rate}) * CASE WHEN itemid = {weighed} THEN patientweight ELSE 1 END")} AS "Rate",
        {unit} AS "Einheit", {_number("patientweight")} AS "Gewicht"
        FROM inputevents AS e JOIN icustays AS s USING (stay_id)
        WHERE itemid IN ({", ".join(map(str, words.INFUSIONS))})"""


def _outputs() -> str:
    amount = _cases(
        "itemid", {i: "value" if unit == "ml" else "value / 1000" for i, (_, unit) in words.OUTPUTS.items()}
    )
    return f"""SELECT {_stay()} AS "Aufenthalt", {_local("charttime")} AS "Zeit", {_local("storetime")} AS "Doku",
        {_cases("itemid", {i: literal(code) for i, (code, _) in words.OUTPUTS.items()})} AS "Code",
        {_with_points(f"({amount})")} AS "Menge",
        {_cases("itemid", {i: literal(unit) for i, (_, unit) in words.OUTPUTS.items()})} AS "Einheit"
        FROM outputevents"""


def _admissions() -> str:
    kinds = " ".join(f"WHEN {literal(k)} THEN {literal(v)}" for k, v in words.ADMISSION_TYPES.items())
    return f"""SELECT {_case()} AS "Fallnr", {_patient()} AS "Patientennr", {_local("admittime")} AS "Aufnahme",
        {_local("dischtime")} AS "Entlassung", {_local("deathtime")} AS "Verstorben_am",
        CASE admission_type {kinds} ELSE admission_type END AS "Aufnahmeart",
        CASE hospital_expire_flag WHEN 1 THEN 'verstorben' WHEN 0 THEN 'entlassen' END AS "Entlassart",
        'gesetzlich' AS "Kostenträger" FROM admissions"""


def _notes() -> str:
    parts = [
        f"""SELECT note_id AS "Befundnr", {_patient()} AS "Patientennr", {_case()} AS "Fallnr",
        {_local("charttime")} AS "Zeit", {_local("storetime")} AS "Freigabe", {literal(kind)} AS "Art",
        text AS "Text" FROM {table}"""
        for table, kind in (("radiology", "Radiologie"), ("discharge", "Arztbrief"))
    ]
    return " UNION ALL ".join(parts)


_TABLES: dict[str, Callable[[], str]] = {
    "patienten.csv": lambda: (
        f"""SELECT {_patient()} AS "Patientennr",
        CASE gender WHEN 'M' THEN 'm' WHEN 'F' THEN 'w' END AS "Geschlecht",
        CAST(anchor_year - anchor_age AS INTEGER) AS "Geburtsjahr", 'Musterstadt' AS "Ort" FROM patients"""
    ),
    "faelle.csv": _admissions,
    "intensivaufenthalte.csv": lambda: (
        f"""SELECT {_stay()} AS "Aufenthalt", {_case()} AS "Fallnr",
        {_patient()} AS "Patientennr", first_careunit AS "Station", intime AS "Beginn", outtime AS "Ende"
        FROM icustays"""
    ),
    "diagnosen.csv": lambda: (
        f"""SELECT {_patient()} AS "Patientennr", {_case()} AS "Fallnr", icd_code AS "Kode",
        'ICD-' || icd_version AS "System" FROM diagnoses_icd"""
    ),
    "fachabteilungen.csv": lambda: (
        f"""SELECT {_patient()} AS "Patientennr", {_case()} AS "Fallnr",
        {_local("transfertime")} AS "Zeit", curr_service AS "Abteilung" FROM services"""
    ),
    "labor.csv.gz": _labs,
    "blutgase.csv": _gases,
    "medikation.csv": lambda: (
        f"""SELECT {_patient()} AS "Patientennr", {_case()} AS "Fallnr", {_local("starttime")} AS "Beginn",
        {_local("stoptime")} AS "Ende", drug_type AS "Art", drug AS "Arznei", route AS "Weg" FROM prescriptions"""
    ),
    "perfusoren.csv": _infusions,
    "ausfuhr.csv": _outputs,
    "mikrobiologie.csv": lambda: (
        f"""SELECT {_patient()} AS "Patientennr", {_case()} AS "Fallnr",
        micro_specimen_id AS "Probe", {_local("chartdate")} AS "Datum", {_local("charttime")} AS "Entnahme",
        {_local("storetime")} AS "Befund_um", spec_type_desc AS "Material", org_itemid AS "Keimnr", org_name AS "Keim"
        FROM microbiologyevents"""
    ),
    "befunde.csv": _notes,
}
