"""Whose a row is: the stay, admission or patient that it names, and the ICU stay that its time falls into.

Rows of stays that the site's own filter left out are ignored, not rejected: a site that is one of several units of an
extract does not fill its rejects with the others' patients.
"""

from dataclasses import dataclass

import duckdb

from client.mapping.columns import Reader
from client.mapping.config import Column, EventMap, TableMap
from client.mapping.expressions import literal
from shared_model.errors import ConfigError
from shared_model.features import LOOKBACK_HOURS

OWNERS = ("stay", "admission", "patient")
_TABLE = {"stay": "icustays", "admission": "admissions", "patient": "patients"}
KEYS = {"patients": "subject_id", "admissions": "hadm_id", "icustays": "stay_id"}


@dataclass(frozen=True)
class Owner:
    """``key``: SQL of the text that names the owner; ``join``: SQL that brings the owner's columns to rows ``r``."""

    kind: str
    key: str
    join: str

    @property
    def table(self) -> str:
        """The table that the owner is a row of."""
        return _TABLE[self.kind]


def owner_of(use: TableMap | EventMap, reader: Reader) -> Owner | None:
    """Who the rows of a mapping belong to; None where it does not say."""
    for kind in OWNERS:
        spec: Column | None = getattr(use, kind)
        if spec is not None:
            key = reader.key(spec, kind).sql
            left_out = f'LEFT JOIN (SELECT DISTINCT key FROM left_out_{_TABLE[kind]}) AS l ON l.key = r."#key"'
            return Owner(kind, key, f'LEFT JOIN owner_{kind} AS o ON o.key = r."#key" {left_out}')
    return None


def needed_owner(use: EventMap, reader: Reader) -> Owner:
    """Who the rows of an events entry belong to; the config has made sure that it says so."""
    owner = owner_of(use, reader)
    if owner is None:
        raise ConfigError(f"{reader.where}: give one of `stay`, `admission` or `patient`")
    return owner


_OWNED = ("subject_id", "hadm_id", "stay_id", "intime", "outtime", "admittime")
# What a joined owner adds to a row, each name with a # before it.
OWNED_COLUMNS = ", ".join([*(f'o.{n} AS "#{n}"' for n in _OWNED), 'o.key AS "#found"', 'l.key AS "#left_out"'])


def owner_rules(owner: Owner) -> str:
    """What may be wrong with the owner of a row, as branches of a CASE; a rule that begins with '-' ignores the row."""
    return (
        f'WHEN r."#key" IS NULL THEN {literal(f"no identifier of the {owner.kind}")}'
        f' WHEN r."#found" IS NULL AND r."#left_out" IS NOT NULL THEN {literal(f"-{owner.kind} left out by the site")}'
        f' WHEN r."#found" IS NULL THEN {literal(f"{owner.kind} is not in {owner.table}")}'
    )


def create_owners(connection: duckdb.DuckDBPyConnection) -> None:
    """Look-up tables of patients, admissions and stays by the text of their local identifier.

    Reads patients, admissions and icustays, each with the texts in ``local_patients`` and so on.
    """
    connection.execute(
        """CREATE TABLE owner_patient AS SELECT key, subject_id, CAST(NULL AS BIGINT) AS hadm_id,
            CAST(NULL AS BIGINT) AS stay_id, CAST(NULL AS TIMESTAMP) AS intime, CAST(NULL AS TIMESTAMP) AS outtime,
            CAST(NULL AS TIMESTAMP) AS admittime
        FROM local_patients JOIN patients ON id = subject_id GROUP BY ALL;
        CREATE TABLE owner_admission AS SELECT key, any_value(subject_id) AS subject_id, hadm_id,
            CAST(NULL AS BIGINT) AS stay_id, CAST(NULL AS TIMESTAMP) AS intime, CAST(NULL AS TIMESTAMP) AS outtime,
            any_value(admittime) AS admittime
        FROM local_admissions JOIN admissions ON id = hadm_id GROUP BY key, hadm_id;
        CREATE TABLE owner_stay AS SELECT key, any_value(s.subject_id) AS subject_id, any_value(s.hadm_id) AS hadm_id,
            s.stay_id, any_value(s.intime) AS intime, any_value(s.outtime) AS outtime,
            any_value(a.admittime) AS admittime
        FROM local_icustays JOIN icustays AS s ON id = s.stay_id LEFT JOIN admissions AS a USING (hadm_id)
        GROUP BY key, s.stay_id"""
    )
    connection.execute(
        f"""CREATE TABLE stay_time AS SELECT subject_id, hadm_id, stay_id, intime, outtime,
            least(intime, greatest(intime - INTERVAL {LOOKBACK_HOURS} HOUR,
                lag(outtime) OVER (PARTITION BY subject_id ORDER BY intime, outtime))) AS since
        FROM icustays WHERE intime IS NOT NULL"""
    )


def stay_by_time(kind: str) -> str:
    """SQL that brings the ICU stay of rows ``r`` by their time: the latest that had begun, from hours before it on, as
    far as no other stay of the patient was going on."""
    key = "subject_id" if kind == "patient" else "hadm_id"
    return f'ASOF LEFT JOIN stay_time AS s ON s.{key} = r."#{key}" AND r."#time" >= s.since'
