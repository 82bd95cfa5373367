"""A small extract with its YAML, for tests that change a file or a key and map it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from client.mapping.account import Account, Line
from client.mapping.config import Mapping
from client.mapping.names import check_names
from client.mapping.run import map_extract

Document = dict[str, Any]
STAYS = "pat;fall;stay;unit;sex;born;in;out;died\n" + "".join(
    f"P{n};F{n};{100 + n};MICU;{'mw'[n % 2]};{1950 + n};2150-03-1{n} 00:00:00;2150-03-1{n} 23:00:00;{n == 2}\n"
    for n in range(4)
)
LABS = "stay;at;code;value;unit\n100;2150-03-10 01:00:00;KREA;1,5;mg/dl\n100;2150-03-10 02:00:00;HF;88;\n"
DOCUMENT: Document = {
    "sources": {"files": {"path": "extract", "csv": {"delimiter": ";", "decimal": ","}}},
    "relations": {"stays": {"file": "stays.csv"}, "labs": {"file": "labs.csv"}},
    "tables": {
        "patients": {
            "from": "stays",
            "columns": {
                "subject_id": "pat",
                "gender": {"column": "sex", "map": {"m": "M", "w": "F"}},
                "anchor_age": {"value": 0},
                "anchor_year": "born",
            },
        },
        "admissions": {
            "from": "stays",
            "columns": {
                "subject_id": "pat",
                "hadm_id": "fall",
                "admittime": "in",
                "hospital_expire_flag": {"column": "died", "map": {"True": 1, "False": 0}},
            },
        },
        "icustays": {
            "from": "stays",
            "columns": {
                "subject_id": "pat",
                "hadm_id": "fall",
                "stay_id": "stay",
                "first_careunit": "unit",
                "intime": "in",
                "outtime": "out",
            },
        },
    },
    "events": [
        {
            "from": "labs",
            "stay": "stay",
            "time": "at",
            "code": "code",
            "value": "value",
            "unit": "unit",
            "codes": {"creatinine": "KREA", "heart_rate": "HF"},
        }
    ],
}


class Mapped:
    """What a mapping made: the folder, the account, and the tables as data frames."""

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder, self.account = folder, account

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "tables" / f"{name}.parquet")

    def line(self, step: str) -> Line:
        return next(line for line in self.account.lines if line.step == step)

    def values(self, table: str = "labevents") -> list[float]:
        return [round(float(v), 6) for v in self.table(table).sort_values("charttime")["valuenum"].dropna()]


def map_files(
    folder: Path,
    *,
    files: dict[str, str | bytes] | None = None,
    change: Callable[[Document], None] = lambda document: None,
    labs: str | None = None,
) -> Mapped:
    """Write the extract below ``folder``, change the document, and map. ``labs``: rows of labs.csv after its header."""
    extract = folder / "extract"
    extract.mkdir(parents=True, exist_ok=True)
    rows = LABS if labs is None else LABS.splitlines()[0] + "\n" + labs
    for name, content in ({"stays.csv": STAYS, "labs.csv": rows} | (files or {})).items():
        (extract / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    document = copy.deepcopy(DOCUMENT)
    document["sources"]["files"]["path"] = str(extract)
    change(document)
    mapping = Mapping.model_validate(document)
    check_names(mapping)
    building = folder / "building"
    building.mkdir(exist_ok=True)
    return Mapped(building, map_extract(mapping, building, memory_limit="1GB"))


def rejected(mapped: Mapped, name: str) -> list[tuple[str, str]]:
    """Rule and row of what was kept of a step."""
    found = duckdb.execute(f"SELECT rule, row_text FROM '{mapped.folder}/rejects/{name}.parquet'").fetchall()
    return [(str(rule), str(row)) for rule, row in found]
