"""Derives client/mapping/reference.json from open data: python -m tests.reference_quantiles DATA_FOLDER

Quantiles of values in the plausible range: of the PhysioNet/CinC Challenge 2012 (sets a and b) where it has a concept,
else of the MIMIC-IV Clinical Database Demo 2.2.
"""

import json
import sys
from pathlib import Path

import duckdb

from client.mapping.coverage import RATES
from client.mapping.targets import TARGETS
from shared_model import concepts

PHYSIONET = {
    "heart_rate": ("HR",),
    "resp_rate": ("RespRate",),
    "sbp": ("NISysABP", "SysABP"),
    "dbp": ("NIDiasABP", "DiasABP"),
    "mbp": ("NIMAP", "MAP"),
    "temperature": ("Temp",),
    "spo2": ("SaO2",),
    "glucose": ("Glucose",),
    "lactate": ("Lactate",),
    "ph": ("pH",),
    "pao2": ("PaO2",),
    "paco2": ("PaCO2",),
    "creatinine": ("Creatinine",),
    "bun": ("BUN",),
    "bilirubin": ("Bilirubin",),
    "platelets": ("Platelets",),
    "wbc": ("WBC",),
    "hematocrit": ("HCT",),
    "sodium": ("Na",),
    "potassium": ("K",),
    "bicarbonate": ("HCO3",),
    "albumin": ("Albumin",),
    "alp": ("ALP",),
    "alt": ("ALT",),
    "ast": ("AST",),
    "magnesium": ("Mg",),
    "urine": ("Urine",),
    "weight": ("Weight",),
    "height": ("Height",),
}
LEVELS = {"p01": 0.01, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
SOURCES = {
    "physionet-2012": "PhysioNet/CinC Challenge 2012, sets a and b (ODC-By 1.0)",
    "mimic-iv-demo-2.2": "MIMIC-IV Clinical Database Demo 2.2 (ODbL 1.0)",
}


def derive(data: Path) -> dict[str, object]:
    with duckdb.connect() as connection:
        quantiles = _mimic(connection, data / "mimic-iv-demo-2.2") | _physionet(connection, data / "physionet-2012")
    return {"sources": SOURCES, "quantiles": dict(sorted(quantiles.items()))}


def _physionet(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, object]:
    rows = f"(SELECT Parameter AS name, Value AS value FROM read_csv('{folder}/set-*.csv.gz') WHERE Value > -1)"
    found = {}
    for name, parameters in PHYSIONET.items():
        codes = ", ".join(f"'{p}'" for p in parameters)
        found[name] = _of(connection, name, f"SELECT value FROM {rows} WHERE name IN ({codes})", "physionet-2012")
    return found


def _mimic(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, object]:
    rows = {concept.name: _charted(folder, concept.name) for concept in concepts.CONCEPTS}
    for rate in RATES:
        [item] = TARGETS[rate.name].items
        events = f"read_csv('{folder}/icu/inputevents.csv.gz')"
        rows[rate.name] = f"SELECT rate AS value FROM {events} WHERE itemid = {item} AND rateuom = '{rate.unit}'"
    found = {name: _of(connection, name, query, "mimic-iv-demo-2.2") for name, query in rows.items()}
    return {name: held for name, held in found.items() if held is not None}


def _charted(folder: Path, name: str) -> str:
    target = TARGETS[name]
    table = "hosp/labevents" if target.table == "labevents" else "icu/chartevents"
    events = f"read_csv('{folder}/{table}.csv.gz', types = {{'value': 'VARCHAR'}})"
    return f"SELECT valuenum AS value FROM {events} WHERE itemid IN ({', '.join(map(str, target.items))})"


def _of(connection: duckdb.DuckDBPyConnection, name: str, rows: str, source: str) -> dict[str, object] | None:
    concept = ({rate.name: rate for rate in RATES} | concepts.BY_NAME)[name]
    query = f"""SELECT count(*), quantile_cont(value, {list(LEVELS.values())}) FROM ({rows})
        WHERE value BETWEEN {concept.low} AND {concept.high}"""
    [(count, values)] = connection.execute(query).fetchall()
    if count < 100:
        return None
    return {"n": count, "source": source} | {k: round(v, 4) for k, v in zip(LEVELS, values, strict=True)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(derive(Path(sys.argv[1])), indent=1) + "\n")
