"""A small site's YAML that maps an extract, for tests that change one thing in it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from client.site import load_site
from shared_model.errors import ConfigError

SECRET = "hunter2-wolf"  # noqa: S105 - stands for a real one
Document = dict[str, Any]

DOCUMENT: Document = {
    "site": "Mercy",
    "store": "store",
    "timezone": "Europe/Berlin",
    "sources": {"files": {"path": "extract", "csv": {"delimiter": ";", "decimal": ","}}},
    "relations": {
        "stays": {"file": "stays.csv"},
        "labs": {"file": ["labs_*.csv"], "csv": {"skip": 1}, "join": [{"relation": "stays", "by": {"fall": "fall"}}]},
        "recent": {"from": "labs", "filter": "wert IS NOT NULL", "add": {"pwd": "wert"}},
        "drugs": {"file": "drugs.csv", "unpivot": {"columns": [1, 2]}},
    },
    "tables": {
        "patients": {
            "from": "stays",
            "columns": {
                "subject_id": "pat",
                "gender": {"column": "sex", "map": {"m": "M", "w": "F"}, "default": "unknown"},
                "anchor_age": "age",
                "anchor_year": {"value": 2020},
            },
        },
        "admissions": [
            {
                "from": "stays",
                "columns": {
                    "subject_id": "pat",
                    "hadm_id": "fall",
                    "admittime": {"column": "in", "format": ["%d.%m.%Y %H:%M", "%Y-%m-%d"], "zone": "UTC"},
                    "hospital_expire_flag": "died",
                },
            }
        ],
        "icustays": {
            "from": "stays",
            "columns": {
                "subject_id": "pat",
                "hadm_id": "fall",
                "stay_id": "stay",
                "intime": "icu_in",
                "outtime": {"column": "hours", "offset": "hours", "since": "intime"},
            },
        },
        "diagnoses_icd": {
            "from": "stays",
            "admission": "fall",
            "columns": {"icd_code": "icd", "icd_version": {"value": 10}},
        },
        "services": {"from": "stays", "patient": "pat", "columns": {"transfertime": "in", "curr_service": "service"}},
    },
    "events": [
        {
            "from": "recent",
            "stay": "stay",
            "time": "time",
            "code": "code",
            "value": "value",
            "codes": {
                "creatinine": ["KREA", "KREA2"],
                "sodium": {"code": 12, "unit": "mmol/L"},
                "bilirubin": [{"code": "BILI", "unit": "umol/L"}, {"pattern": "bili.*", "unit": "mg/dL"}],
                "gcs_verbal": {"code": "GCSV", "map": {"keine": 1, "klar": 5, "unbekannt": None}},
            },
            "ignore": ["NOTIZ", "/test.*/"],
        },
        {
            "from": "drugs",
            "stay": "stay",
            "time": "time",
            "code": "drug",
            "value": "rate",
            "weight": "kg",
            "codes": {"norepinephrine": {"code": "ARTERENOL", "unit": "mg/h"}},
        },
    ],
    "units": {"crp": {"bananas": 2.5}},
}


def place(document: Document, key: str) -> tuple[Any, str | int]:
    """What holds ``key`` (such as ``events/0/codes``), and its last part."""
    *parts, last = (int(part) if part.isdigit() else part for part in key.split("/"))
    node: Any = document
    for part in parts:
        node = node[part]
    return node, last


def changed(key: str, value: object) -> Document:
    """The document with one key, written as ``events/0/codes``, set."""
    document = copy.deepcopy(DOCUMENT)
    node, last = place(document, key)
    node[last] = value
    return document


def without(key: str) -> Document:
    """The document without a key."""
    document = copy.deepcopy(DOCUMENT)
    node, last = place(document, key)
    del node[last]
    return document


def write(folder: Path, document: object, name: str = "site.yaml") -> Path:
    """As a file; JSON is YAML."""
    path = folder / name
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def written(folder: Path, text: str, name: str = "site.yaml") -> Path:
    """A text as a file."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def refused(path: Path) -> str:
    """What is said about a file: one line, without its name."""
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable() and len(text) < 1200
    assert SECRET not in text and "pydantic" not in text
    return text.removeprefix(f"{path}: ")
