"""One YAML file for each hospital: its short forms, what YAML would read as something else, and `extends`."""

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from mapped_site import DOCUMENT, SECRET, changed, refused, write, written
from rich.console import Console

from client.mapping import schema, tables
from client.mapping.config import CodeSpec, Mapping
from client.mapping.loading import LARGEST, load_document
from client.mapping.names import REQUIRED
from client.mapping.targets import TARGETS
from client.site import SiteConfig, load_site
from shared_model.errors import ConfigError


def value_map(folder: Path, text: str) -> dict[str, Any]:
    """A value map as a site gets it, written in YAML."""
    block = yaml.safe_dump(DOCUMENT).replace("curr_service: service", f"curr_service: {text}")
    spec = load_site(written(folder, block)).tables["services"][0].columns["curr_service"]
    return {"map": spec.map, "value": spec.value, "default": spec.default}


# What is right.


def test_a_mapping_is_read_with_its_short_forms(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, DOCUMENT))
    assert isinstance(site.mapping, Mapping)
    assert site.mapping.sources["files"].path == tmp_path / "extract"
    assert site.store == tmp_path / "store"
    patients = site.tables["patients"][0]
    assert patients.columns["subject_id"].column == "pat"
    assert patients.columns["gender"].map == {"m": "M", "w": "F"}
    codes = site.events[0].codes
    assert codes["creatinine"] == [CodeSpec(code=["KREA", "KREA2"])]
    assert codes["sodium"] == [CodeSpec(code=["12"], unit="mmol/L")]
    assert [spec.pattern for spec in codes["bilirubin"]] == [None, "bili.*"]
    assert site.relations["drugs"].unpivot is not None and site.relations["drugs"].unpivot.columns == ["1", "2"]
    assert site.relations["labs"].csv == {"skip": 1}


def test_one_code_and_several_and_mixed_with_keys(tmp_path: Path) -> None:
    for given, wanted in [
        ("A", [CodeSpec(code=["A"])]),
        (7, [CodeSpec(code=["7"])]),
        (["A", 7], [CodeSpec(code=["A", "7"])]),
        (["A", {"code": "B", "unit": "mg/dL"}], [CodeSpec(code=["A"]), CodeSpec(code=["B"], unit="mg/dL")]),
    ]:
        assert (
            load_site(write(tmp_path, changed("events/0/codes/creatinine", given))).events[0].codes["creatinine"]
            == wanted
        )


def test_a_mimic_folder_needs_no_mapping(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, {"site": "Mercy", "store": "s", "source": {"path": "mimic"}}))
    assert site.mapping is None and site.source is not None and site.source.path == tmp_path / "mimic"


def test_a_mapping_is_frozen_and_equal_to_itself(tmp_path: Path) -> None:
    path = write(tmp_path, DOCUMENT)
    assert load_site(path) == load_site(path)
    with pytest.raises(ValueError, match="frozen"):
        load_site(path).tables["patients"][0].relation = "x"  # type: ignore[misc]


def test_a_tab_may_be_written_as_it_is_told(tmp_path: Path) -> None:
    for text in ("\t", "\\t"):
        site = load_site(write(tmp_path, changed("sources/files/csv/delimiter", text)))
        assert site.sources["files"].csv.delimiter == "\t"


# YAML that means something else than it looks like.


def test_words_and_clock_times_stay_text(tmp_path: Path) -> None:
    assert value_map(tmp_path, "{column: x, map: {No: 0, Yes: 1, off: 2, 12:30: 3, 2020-01-01: 4, 007: 5, 1.50: 6}}")[
        "map"
    ] == {"No": 0, "Yes": 1, "off": 2, "12:30": 3, "2020-01-01": 4, "007": 5, "1.50": 6}
    assert value_map(tmp_path, "{value: no}")["value"] == "no"
    assert value_map(tmp_path, "{value: 12:30}")["value"] == "12:30"
    assert value_map(tmp_path, "{value: 2020-01-01}")["value"] == "2020-01-01"
    assert value_map(tmp_path, "{value: true}")["value"] is True
    assert value_map(tmp_path, "{value: 0o17}")["value"] == "0o17"
    assert value_map(tmp_path, "{column: x, map: {true: 1, ? 1 : 2}}")["map"] == {"true": 1, "1": 2}


@pytest.mark.parametrize(
    "code", ["3.10", "1.0", "1e5", "5E2", "007", "0x1F", "1_000", "1:30", "+5", ".5", "12345678901234567890"]
)
def test_a_code_is_read_as_it_is_written(tmp_path: Path, code: str) -> None:
    text = json.dumps(changed("events/0/codes/creatinine", "CODE")).replace('"CODE"', code)
    assert load_site(written(tmp_path, text)).events[0].codes["creatinine"] == [CodeSpec(code=[code])]


@pytest.mark.parametrize("number", ["24.0", "24", "2.4e1", '"24"'])
def test_numbers_are_numbers(tmp_path: Path, number: str) -> None:
    assert load_site(written(tmp_path, f"site: M\nstore: s\nprediction_hours: {number}\n")).prediction_hours == 24.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site: a\nstore: s\nsite: b\n", "'site' is written twice (line 3)"),
        ("relations:\n  labs: {file: a}\n  labs: {file: b}\n", "'labs' is written twice (line 3)"),
        ("units: {crp: {1: 2, '1': 3}}\n", "'1' is written twice (line 1)"),
        ("? [a]\n: b\n", "a key is no text (line 1)"),
        ("site: a\n~: b\n", "a key is no text (line 2)"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "<< (a merge key) is not read; write the keys out (line 3)"),
        (f"store: *{SECRET}\n", "* begins an alias, and nothing is called that; put the text in quotes (line 1)"),
        (f"store: !{SECRET} x\n", "! begins a tag, and tags are not read; put the text in quotes (line 1)"),
        (f"store: !{SECRET}!x y\n", "not readable as YAML (line 1): a tag is not defined"),
        (f"a: &{SECRET} 1\nb: &{SECRET} 2\n", "an anchor (&) is set twice (line 2)"),
        ("site: !!python/object/apply:os.system ['true']\n", "! begins a tag"),
        ("a: !!bool maybe\n", "! begins a tag"),
        ("a: !!int ''\n", "! begins a tag"),
        ("a: !!map [x]\n", "! begins a tag"),
        ("a: 1\n---\nb: 2\n", "not readable as YAML (line 2): but found another document"),
        ("site: a\nb: \x07\n", "not readable as YAML (line 2): a character that YAML does not allow"),
        ('site: "\\ud800"\n', "holds a character that is no text"),
        ('site: "a\\0b"\n', "holds a character that is no text"),
        ('"a\\nb": 1\nsite: M\nstore: s\n', "a\\nb: unknown key"),
        ("[" * 3000, "not readable as YAML (RecursionError)"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper or larger than a site config can be"),
        ("site: &a [*a]\n", "not readable as YAML (line 1): found unconstructable recursive node"),
        ("- &a [*a]\n", "nested deeper or larger"),
        ("#" * (LARGEST + 1), "longer than a megabyte; a site config is not"),
    ],
)
def test_yaml_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert refused(written(tmp_path, text)).startswith(said)


def test_a_text_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes("site: Köln\n".encode("latin-1"))
    assert refused(path) == "not readable as YAML: its text is not UTF-8; save it as UTF-8"
    path.write_bytes(b"\xef\xbb\xbf" + "site: Köln\nstore: s\n".encode())
    assert load_site(path).site == "Köln"


def test_anchors_are_read_and_a_billion_laughs_are_not(tmp_path: Path) -> None:
    text = "site: M\nstore: s\nrelease: &r {smallest_cell: 20}\nunits: {crp: &u {a: 2}, pct: *u}\n"
    assert load_site(written(tmp_path, text)).units == {"crp": {"a": 2.0}, "pct": {"a": 2.0}}
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 35))
    assert refused(written(tmp_path, laughs)) == "nested deeper or larger than a site config can be"


# extends.


def test_a_site_takes_from_another_what_it_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "bert").mkdir()
    write(tmp_path / "base", DOCUMENT | {"encoder": "bert", "cohort": "icd"}, "all.yaml")
    child = {
        "extends": "base/all.yaml",
        "site": "Coronary",
        "store": "coronary",
        "tables": {
            "icustays": {"filter": "unit = 1", "columns": {"first_careunit": "unit"}},
            "patients": {"columns": {"gender": {"default": None, "map": {"w": None, "d": "unknown"}}}},
            "services": None,
            "radiology": None,
        },
        "relations": {"labs": {"csv": {"skip": None}, "file": "l.csv"}},
        "units": {"pct": {"new": 2, "old": None}},
        "cohort": None,
    }
    site = load_site(write(tmp_path, child))
    assert (site.site, site.store, site.encoder) == ("Coronary", tmp_path / "coronary", str(tmp_path / "base" / "bert"))
    assert site.cohort == "sepsis3"
    assert site.sources["files"].path == tmp_path / "base" / "extract"
    stays = site.tables["icustays"][0]
    assert (stays.filter, stays.columns["first_careunit"].column, stays.columns["intime"].column) == (
        "unit = 1",
        "unit",
        "icu_in",
    )
    gender = site.tables["patients"][0].columns["gender"]
    assert gender.default is None and gender.map == {"m": "M", "w": None, "d": "unknown"}
    assert "services" not in site.tables and "diagnoses_icd" in site.tables
    assert site.relations["labs"].csv == {} and site.relations["labs"].file == ["l.csv"]
    assert len(site.relations["labs"].join) == 1
    assert site.units == {"crp": {"bananas": 2.5}, "pct": {"new": 2.0}}


def test_a_grandchild_is_a_child_of_its_parent(tmp_path: Path) -> None:
    write(tmp_path, {"store": "s", "site": "a", "stays": "all"}, "a.yaml")
    write(tmp_path, {"extends": "a.yaml", "site": "b", "cohort": "all_icu"}, "b.yaml")
    site = load_site(write(tmp_path, {"extends": "./b.yaml", "site": "c"}, "c.yaml"))
    assert (site.site, site.cohort, site.stays) == ("c", "all_icu", "all")


def test_a_mistake_of_a_parent_is_told_of_the_file_that_was_given(tmp_path: Path) -> None:
    write(tmp_path, changed("timezone", "Mars"), "a.yaml")
    assert refused(write(tmp_path, {"extends": "a.yaml"})).startswith("timezone: no time zone 'Mars'")


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ({"extends": "no.yaml"}, "extends: no file 'no.yaml' beside it"),
        ({"extends": "x" * 400}, "extends: no file"),
        ({"extends": "."}, "extends: no file '.' beside it"),
        ({"extends": ""}, "extends: name one file"),
        ({"extends": None}, "extends: name one file"),
        ({"extends": ["a.yaml"]}, "extends: name one file"),
        ({"extends": "site.yaml"}, "extends: site.yaml -> site.yaml is a circle: a file cannot extend itself"),
    ],
)
def test_a_parent_that_is_none_is_told(tmp_path: Path, child: dict[str, object], said: str) -> None:
    assert refused(write(tmp_path, child)).startswith(said)


def test_a_circle_names_all_its_files(tmp_path: Path) -> None:
    write(tmp_path, {"extends": "b.yaml"}, "a.yaml")
    write(tmp_path, {"extends": "a.yaml"}, "b.yaml")
    with pytest.raises(ConfigError, match=r"b\.yaml: extends: a\.yaml -> b\.yaml -> a\.yaml is a circle"):
        load_site(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["- a\n", "", f"a: [{SECRET}\n", f"password: {SECRET}\n"])
def test_a_broken_parent_is_named_itself(tmp_path: Path, text: str) -> None:
    parent = written(tmp_path, text, "parent.yaml")
    child = write(tmp_path, {"extends": "parent.yaml", "site": "a", "store": "s"})
    with pytest.raises(ConfigError) as caught:
        load_site(child)
    assert str(caught.value).startswith(f"{parent}: ") and SECRET not in str(caught.value)


def test_paths_that_no_file_can_have_are_no_crash(tmp_path: Path) -> None:
    document = {"site": "a", "store": "~nobody-has-this/x", "encoder": "é" * 190, "source": {"path": "x" * 5000}}
    assert load_site(write(tmp_path, document)).encoder == "é" * 190


# What people and editors are told.


def test_every_key_has_a_meaning_and_is_told() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(schema.document())
    told = console.export_text()
    for model in (SiteConfig, *(model for _, model in schema.PARTS)):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert f" {field.alias or name} " in told
    assert all(f" {name} " in told for name in REQUIRED)
    console.print(schema.concept_table())
    listed = console.export_text()
    assert all(name in listed for name in TARGETS) and "2160-0" in listed


def test_the_json_schema_is_one_and_takes_what_the_checks_take(root: Path) -> None:
    document = schema.json_schema()
    validator = jsonschema.Draft202012Validator(document)
    validator.check_schema(document)
    assert document["$schema"].endswith("2020-12/schema") and "$id" not in document
    shipped = sorted((root / "site_configs").glob("*.yaml"))
    assert shipped
    for good in (
        DOCUMENT,
        {"extends": "a.yaml", "tables": {"services": None}, "cohort": None},
        *map(load_document, shipped),
    ):
        assert [error.message for error in validator.iter_errors(good)] == []


def test_shipped_site_configs_are_right(root: Path) -> None:
    for path in sorted((root / "site_configs").glob("*.yaml")):
        load_site(path)


def test_what_a_mapping_must_fill_is_what_a_row_cannot_do_without() -> None:
    assert REQUIRED.keys() == tables.NEEDED.keys()
    for name, needed in tables.NEEDED.items():
        assert set(needed) <= set(REQUIRED[name])
