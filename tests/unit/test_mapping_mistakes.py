"""Every mistake in a site's YAML is told in one line with file, key and rule, and no secret is."""

import warnings
from pathlib import Path

import jsonschema
import pytest
from mapped_site import DOCUMENT, SECRET, changed, refused, without, write, written

from client.mapping import schema
from client.mapping.config import Strict
from client.mapping.loading import load_document
from client.mapping.mistakes import nearest, one_line
from client.site import SiteConfig, load_site

MISTAKES: list[tuple[str, object, str]] = [
    ("tables/icustays/columns/intme", "x",
     "tables.icustays[0].columns.intme: no column 'intme'; is it 'intime'? There are"),
    ("tables/patients/filte", "x",
     "tables.patients[0].filte: unknown key; is it 'filter'? There are from, "),
    ("tables/patients/columns/gender", {"colum": "x"},
     "tables.patients[0].columns.gender.colum: unknown key; is it "),
    ("relations/labs/csv", {"delimiters": ";"},
     "relations.labs.csv.delimiters: unknown key; is it 'delimiter'"),
    ("relations/labs/join/0/colums", ["x"],
     "relations.labs.join[0].colums: unknown key; is it 'columns'?"),
    ("events/0/codes/creatinine", {"cod": 1},
     "events[0].codes.creatinine[0].cod: unknown key; is it 'code'?"),
    ("sources/csv", {"path": "x", "csvv": {}},
     "sources.csv.csvv: unknown key; is it 'csv'? There are path,"),
    ("timezon", "UTC",
     "timezon: unknown key; is it 'timezone'?"),
    ("extend", "x",
     "extend: unknown key; is it 'extends'?"),
    ("SITE", "x",
     "SITE: unknown key; is it 'site'?"),
    # wrong types
    ("tables/patients/columns/gender", 5,
     "tables.patients[0].columns.gender: input should be a valid dictionary, `key: value` pairs, not a whole numbe"),
    ("tables/patients/columns/anchor_year/value", [1],
     "tables.patients[0].columns.anchor_year.value: input should be a valid boolean or a valid integer or a valid"),
    ("relations/labs/join/0/columns", 5,
     "relations.labs.join[0].columns: input should be a valid list or a valid dictionary,"),
    ("relations/labs/join", {},
     "relations.labs.join: input should be a valid list, not `key: value` pairs"),
    ("relations/labs/csv", {"skip": "x"},
     "relations.labs.csv.skip: input should be a valid integer"),
    ("relations/labs/file", {"a": "b"},
     "relations.labs.file[0]: input should be a valid string, not `key: value` pairs"),
    ("units", {"crp": {"x": SECRET}},
     "units.crp.x: input should be a valid number, unable to parse string as a number"),
    ("release", {"smallest_cell": 0},
     "release.smallest_cell: input should be greater than or equal to 1, not 0"),
    ("release", {"smallest_cell": None},
     "release.smallest_cell: input should be a valid integer, not nothing"),
    ("source", {"path": [1]},
     "source.path: input should be a path, not a list"),
    ("sources", {"db": {"url_env": "$DB"}},
     "sources.db.url_env: input should be a name of letters, digits and _"),
    ("tables/icustays/columns/outtime/offset", "weeks",
     "tables.icustays[0].columns.outtime.offset: input should be 'millisec"),
    ("store", "  ",
     "store: is empty"),
    ("sources/files/path", "",
     "sources.files.path: is empty"),
    # one of several
    ("relations/labs/table", "x",
     "relations.labs: give one of `file`, `table` or `from`"),
    ("sources/files/url_env", "X",
     "sources.files: give either `path` (a folder of files) or `url_env` (a database)"),
    ("events/0/codes/creatinine", None,
     "events[0].codes.creatinine[0]: give either `code` or `pattern`"),
    ("tables/patients/columns/gender/expr", "x",
     "tables.patients[0].columns.gender: give one of `column`, `expr` or `value`"),
    ("source", {"path": "x"},
     "give `source` (a MIMIC-IV folder) or `sources` (any other extract), not both"),
    ("flag", "icustays.septic",
     "cohort 'flag' and `flag: TABLE.COLUMN` need each other"),
    # tables
    ("tables/labevents", {"from": "x", "columns": {}},
     "tables.labevents: measured values are mapped under `events`, by concept"),
    ("tables/patient", {"from": "stays", "columns": {}},
     "tables.patient: no table 'patient'; is it 'patients'? There are"),
    ("tables/icustays/stay", "x",
     "tables.icustays[0].stay: not in icustays, where identifiers stand under `columns`"),
    ("tables/services/patient", None,
     "tables.services[0].columns: services needs hadm_id"),
    ("tables/services/columns", {"curr_service": "x"},
     "tables.services[0].columns: services needs hadm_id, transfertime"),
    ("tables/microbiologyevents", {"from": "stays", "patient": "p", "columns": {"micro_specimen_id": "m"}},
     "tables.microbiologyevents[0].columns: microbiologyevents needs charttime or chartdate"),
    # relations and sources
    ("tables/patients/from", "stay",
     "tables.patients[0].from: no relation 'stay'; is it 'stays'? There are stays, labs, "),
    ("events/0/from", "x",
     "events[0].from: no relation 'x'; there are stays, labs, recent, drugs"),
    ("relations/recent/from", "lab",
     "relations.recent.from: no relation 'lab'; is it 'labs'?"),
    ("relations/labs/join/0/relation", "stay",
     "relations.labs.join[0].relation: no relation 'stay'; is it 'stays'?"),
    ("relations/labs/join/0/relation", "recent",
     "relations.labs: labs -> recent -> labs is a circle"),
    ("relations/stays", {"from": "recent"},
     "relations.stays: stays -> recent -> labs -> stays is a circle"),
    ("relations/stays", {"from": "stays"},
     "relations.stays: stays -> stays is a circle"),
    ("relations/stays/source", "file",
     "relations.stays.source: no source 'file'; is it 'files'?"),
    ("relations/recent/source", "files",
     "relations.recent.source: `from` reads another relation, which has the source"),
    ("relations/a b", {"file": "x"},
     "relations.a b: a relation's name is letters, digits, - and _"),
    ("sources/db", {"url_env": "DB"},
     "relations.stays.source: there are several; name one of files, db"),
    ("sources", {"db": {"url_env": "DB"}},
     "relations.stays.file: its source is a database; name a `table`"),
    ("relations/stays", {"table": "x"},
     "relations.stays.table: its source is a folder (`path`); name a `file`"),
    ("sources", {},
     "sources: say where the extract lies"),
    ("sources/files/csv/encoding", "utf9",
     "sources.files.csv.encoding: no text encoding that Python knows; write such as utf-8, latin-1 or cp1252"),
    ("relations/labs/csv", {"encoding": "hex"},
     "relations.labs.csv.encoding: no text encoding that Python knows"),
    ("sources/files/csv/thousands", ",",
     "relations.stays.csv: decimal and thousands are the same sign, here or in the source's `csv`"),
    ("relations/labs/csv", {"quote": ";"},
     "relations.labs.csv: delimiter and quote are the same sign"),
    # times
    ("timezone", "Europe/Berln",
     "timezone: no time zone 'Europe/Berln'; write such as Europe/Berlin or Etc/GMT-1"),
    ("timezone", "../../etc/passwd",
     "timezone: no time zone '../../etc/passwd'"),
    ("tables/admissions/0/columns/admittime/zone", "Mars",
     "tables.admissions[0].columns.admittime.zone: no time zone 'Mars'"),
    ("tables/admissions/0/columns/admittime/format", "dd.mm.yyyy",
     "tables.admissions[0].columns.admittime.format: 'dd.mm.yyyy' names no day and year; write such as '%d.%m.%Y %"),
    ("tables/admissions/0/columns/admittime/format", "%d.%m.%Y %k",
     "tables.admissions[0].columns.admittime.format: '%d.%m.%Y %k' has %k, which is no part of a time"),
    ("events/0/time", {"column": "t", "format": "%H:%M"},
     "events[0].time.format: '%H:%M' names no day and year"),
    # codes and units
    ("events/0/codes/sodium", "KREA",
     "events[0].codes: code 'KREA' is mapped twice: creatinine and sodium"),
    ("events/0/codes/sodium", ["A", {"code": "A ", "unit": "mmol/L"}],
     "events[0].codes: code 'A' is mapped twice: both under sodium"),
    ("events/0/ignore", ["KREA"],
     "events[0].ignore: code 'KREA' is mapped to creatinine"),
    ("events/0/ignore", ["/(/"],
     "events[0].ignore: '(' is no regular expression"),
    ("events/0/codes/bilirubin/1/pattern", "(",
     "events[0].codes.bilirubin.pattern: '(' is no regular expression (missing )"),
    ("events/0/codes/creatinin", "X",
     "events[0].codes.creatinin: no concept 'creatinin'; is it 'creatinine'? (`consilium-site"),
    ("events/0/codes/Noradrenalin", "X",
     "events[0].codes.Noradrenalin: no concept 'Noradrenalin'; is it 'norepinephrine'?"),
    ("events/0/codes/zzz", "X",
     "events[0].codes.zzz: no concept 'zzz' (`consilium-site concepts` lists them)"),
    ("events/0/codes/bilirubin/0/unit", "umol/furlong",
     "events[0].codes.bilirubin.unit: 'umol/furlong' has no conversion to mg/dL; add it under units.bilirubin"),
    ("events/0/codes/oxygen_device", {"code": "Q", "unit": "x"},
     "events[0].codes.oxygen_device.unit: oxygen_device is a word"),
    ("events/1/weight", None,
     "events[1].codes.norepinephrine.unit: 'mg/h' has no conversion to mcg/kg/min without the patient's"),
    ("units", {"crpp": {"x": 1}},
     "units.crpp: no concept 'crpp'; is it 'crp'?"),
    ("units", {"crp": {"x": -1}},
     "units.crp.x: a factor is greater than 0, not -1.0"),
    ("events/0/codes", {},
     "events[0].codes: map at least one code, or give `loinc`"),
    ("events/0/stay", None,
     "events[0]: give one of `stay`, `admission` or `patient`: whose value it is"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "said"), MISTAKES, ids=[f"{key}={str(value)[:30]}" for key, value, _ in MISTAKES]
)
def test_a_mistake_is_told_with_its_key_and_rule(tmp_path: Path, key: str, value: object, said: str) -> None:
    found = refused(write(tmp_path, changed(key, value)))
    assert found.startswith(said), found


@pytest.mark.parametrize("name", ["patients", "admissions", "icustays"])
def test_every_site_maps_patients_admissions_and_stays(tmp_path: Path, name: str) -> None:
    said = f"tables: {name} has no mapping; every site has patients, admissions, icustays"
    assert refused(write(tmp_path, without(f"tables/{name}"))) == said
    assert refused(write(tmp_path, changed(f"tables/{name}", []))) == said


def test_what_a_table_needs_is_told(tmp_path: Path) -> None:
    said = "tables.icustays[0].columns: icustays needs stay_id, intime"
    document = changed("tables/icustays/columns", {"subject_id": "p", "hadm_id": "h", "outtime": "o"})
    assert refused(write(tmp_path, document)) == said


def test_a_flag_names_a_column_that_a_mapping_fills(tmp_path: Path) -> None:
    flagged = changed("tables/icustays/columns/septic", "sepsis_yn") | {"cohort": "flag", "flag": "icustays.septic"}
    assert load_site(write(tmp_path, flagged)).flag == "icustays.septic"
    said = "flag: no mapping of tables.icustays has a column 'septic'"
    assert refused(write(tmp_path, DOCUMENT | {"cohort": "flag", "flag": "icustays.septic"})) == said


def test_a_long_value_is_shortened_and_a_message_ends(tmp_path: Path) -> None:
    found = refused(write(tmp_path, changed("timezone", "x" * 5000)))
    assert "x" * 77 + "..." in found and "x" * 78 not in found
    assert len(refused(write(tmp_path, DOCUMENT | {"y" * 5000: 1}))) < 1100
    assert one_line("a\nb\x1b[31m\u202e\ud800") == "a\\nb\\x1b[31m\\u202e\\ud800"


def test_a_pattern_that_python_warns_of_is_read_in_silence(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_site(write(tmp_path, changed("events/0/codes/bilirubin/1/pattern", "[[a]b]")))


def test_the_nearest_word_is_found_in_any_case_and_many_are_not_listed() -> None:
    assert nearest("INTIME", ["intime", "outtime"]) == "; is it 'intime'? There are intime, outtime"
    assert nearest("zzz", ["a", "b"]) == "; there are a, b"
    assert nearest("zzz", map(str, range(100))) == ""
    assert nearest("zzz", []) == ""


# Secrets.


@pytest.mark.parametrize(
    "key",
    [
        *("password", "passwd", "pwd", "pass", "pw", "secret", "token", "api_key", "apikey", "API-KEY", "db_password"),
        *("dbPassword", "user_pass", "access_token", "client_secret", "credentials", "private_key", "Kennwort", "auth"),
    ],
)
@pytest.mark.parametrize(
    "place", ["", "sources/files/", "relations/labs/csv/", "tables/patients/", "events/0/codes/sodium/"]
)
def test_a_secret_is_refused_by_its_key(tmp_path: Path, key: str, place: str) -> None:
    found = refused(write(tmp_path, changed(f"{place}{key}", SECRET)))
    assert f"{key}: this file holds no secrets; put it into an environment variable" in found
    assert "`url_env`" in found


def test_a_column_may_be_called_as_a_secret_is(tmp_path: Path) -> None:
    document = changed("relations/recent/add", {"token": "wert", "pwd": "wert"})
    document["sources"]["files"]["csv"] = {"columns": ["password", "pass"]}
    document["tables"]["patients"]["columns"]["gender"]["map"]["token"] = "F"  # noqa: S105 - a text of the extract
    assert load_site(write(tmp_path, document)).relations["recent"].add == {"token": "wert", "pwd": "wert"}


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://reader:{SECRET}@db.hospital.example/icu",
        f"mysql+pymysql://:{SECRET}@db",
        f"postgresql://reader:a/{SECRET}@db/icu",
        f"look at oracle://a:{SECRET} b@h",
        f"Server=db;Uid=reader;Pwd={SECRET};",
        f"host=db user=reader password = {SECRET}",
    ],
)
@pytest.mark.parametrize(
    "key", ["sources/files/path", "sources/files/url_env", "relations/labs/filter", "site", "events/0/code"]
)
def test_an_address_with_a_password_is_refused_wherever_it_stands(tmp_path: Path, key: str, text: str) -> None:
    found = refused(write(tmp_path, changed(key, text)))
    assert "holds a database's address with a password; put it into an environment variable" in found
    assert key.split("/")[-1] in found.split(": ")[0]


@pytest.mark.parametrize("key", ["url", "uri", "dsn", "connection_string", "database_url"])
def test_an_address_is_named_by_its_environment_variable(tmp_path: Path, key: str) -> None:
    found = refused(write(tmp_path, changed(f"sources/files/{key}", f"postgresql://db/{SECRET}")))
    assert found.startswith(f"sources.files.{key}: this file holds no URL of a database; put it into an")


def test_no_key_that_a_file_may_have_looks_like_a_secret(tmp_path: Path) -> None:
    models = [SiteConfig, *(model for model in Strict.__subclasses__() if model.__module__.startswith("client."))]
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    path = write(tmp_path, dict.fromkeys(keys - {"extends", "store"}, 1))
    assert load_document(path).keys() == keys - {"store"}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, value, said in MISTAKES if "unknown key" in said])
def test_the_json_schema_refuses_an_unknown_key(key: str, value: object) -> None:
    assert not jsonschema.Draft202012Validator(schema.json_schema()).is_valid(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sources", {f"postgresql://u:{SECRET}@h/db": {"path": "x", "foo": 1}}),
        ("relations", {f"https://h/?token={SECRET}": {"file": "x"}}),
        (f"postgresql://u:{SECRET}@h/db", 1),
        ("sources/files/path", f"postgresql://h/db?password={SECRET}"),
        ("sources/files/path", f"jdbc:oracle:thin:scott/{SECRET}@//h"),
        ("relations/labs/file", f"https://h/x?token={SECRET}"),
        ("timezone", f"pw={SECRET}"),
    ],
)
def test_a_secret_is_told_by_its_place_alone(tmp_path: Path, key: str, value: object) -> None:
    document = DOCUMENT | {key: value} if "://" in key else changed(key, value)
    assert SECRET not in refused(write(tmp_path, document))


def test_a_key_that_is_an_address_and_stands_twice_is_not_told(tmp_path: Path) -> None:
    line = f'"postgresql://u:{SECRET}@h": 1\n'
    assert refused(written(tmp_path, line + line)) == "a key is written twice (line 2)"


def test_every_blank_that_is_left_is_named(tmp_path: Path) -> None:
    document = changed("tables/icustays/columns/outtime", "FILL_IN")
    document["events"][0]["stay"] = "FILL_IN"
    assert refused(write(tmp_path, document)) == ("still to fill in: tables.icustays.columns.outtime, events[0].stay")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("store", "extract/store", "store: lies in the extract's own folder, sources.files.path"),
        ("tables/patients/columns/gender/map", {"m": "M", "M ": "F"}, "map: has a text twice; case and outer blanks"),
        ("tables/patients/columns/gender/map", {"m": "male"}, "gender: 'male' is none of F, M, unknown"),
        ("events/0/value", {"column": "v", "map": {"a": 1}}, "events[0].value: words are mapped for each code"),
        ("events/0/end", "x", "events[0].end: a rate of a drug or a state of breathing support has an end"),
        ("relations/labs/csv/skip", 10**11, "relations.labs.csv.skip: input should be less than or equal to 10000"),
    ],
)
def test_what_would_be_wrong_in_silence_is_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    assert said in refused(write(tmp_path, changed(key, value)))


def test_a_comma_in_braces_is_told(tmp_path: Path) -> None:
    text = "site: a\nstore: s\ntables: {patients: {from: x, columns: {subject_id: {expr: left(a, 2)}}}}\n"
    assert "between { } a text that holds a comma needs quotes" in refused(written(tmp_path, text))
