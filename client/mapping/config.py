"""The words of a site's YAML that say how its extract becomes MIMIC-IV-style tables.

Every key is declared once, here, with its meaning: the JSON Schema, `consilium-site schema` and the messages all come
from these declarations. A value of a row is text until a column of the schema says otherwise.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from client.mapping.steps import Join, KeepOne, Pivot, Previous, Split, Strict, Unpivot
from client.mapping.texts import Delimiter, Encoding, Scalar, Text, TextList, ValueMap
from shared_model.schema import TABLES

Offset = Literal["milliseconds", "seconds", "minutes", "hours", "days", "HH:MM"]
EVENT_TABLES = ("chartevents", "labevents", "inputevents", "outputevents")
FIRST_TABLES = ("patients", "admissions", "icustays")  # what every site has, and the others refer to
MAPPED_TABLES = tuple(t.name for t in TABLES if t.name not in EVENT_TABLES)


def _as_column(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _as_code(value: Any) -> Any:
    if isinstance(value, list) and not all(isinstance(part, dict) for part in value):
        return [
            {"code": [part for part in value if not isinstance(part, dict)]},
            *(p for p in value if isinstance(p, dict)),
        ]
    if isinstance(value, list):
        return value
    return [value if isinstance(value, dict) else {"code": value}]


class CsvFormat(Strict):
    """How delimited text files are written."""

    delimiter: Delimiter = Field(default=",", description="between fields; '\\t' for a tab")
    quote: str = Field(default='"', max_length=1, description="around fields that hold delimiters; '' for none")
    encoding: Encoding = Field(default="utf-8", description="utf-8, latin-1, cp1252, utf-16, ... (Python's names)")
    columns: TextList | None = Field(default=None, description="names of the columns of a file without a header line")
    skip: int = Field(default=0, ge=0, le=10_000, description="lines before the header line")
    missing: list[Text] = Field(default=[""], description="texts that mean: no value")
    decimal: Literal[".", ","] = Field(default=".", description="decimal sign of numbers")
    thousands: Literal["", ".", ",", " ", "'"] = Field(default="", description="sign between groups of three digits")


def _of_csv(value: Any) -> Any:
    CsvFormat.model_validate(value)
    return value


Differences = Annotated[dict[str, Any], BeforeValidator(_of_csv, json_schema_input_type=CsvFormat)]


class Extract(Strict):
    """Where a part of the extract lies: a folder of files, or a SQL database."""

    path: Path | None = Field(default=None, description="folder of CSV, TSV (also .gz) or Parquet files")
    csv: CsvFormat = Field(default=CsvFormat(), description="how its text files are written")
    url_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="name of the environment variable that holds the database's URL, with its password",
    )
    db_schema: str = Field(default="", alias="schema", description="schema of the database's tables")

    @model_validator(mode="after")
    def _one_place(self) -> "Extract":
        if (self.path is None) == (self.url_env is None):
            raise ValueError("give either `path` (a folder of files) or `url_env` (a database)")
        return self


class Relation(Strict):
    """Rows to map. The steps of a relation come in the order of its keys; for another order, chain two with `from`."""

    source: str = Field(default="", description="which of `sources`; may be left out when there is one")
    file: TextList | None = Field(
        default=None,
        description="file or pattern (labs_*.csv.gz) in the source's folder; its rows also have the columns `file_name`"
        " (without folder and ending) and `row_number` (in its file)",
    )
    table: str | None = Field(default=None, description="table of the database; SCHEMA.TABLE overrides the schema")
    relation: str | None = Field(default=None, alias="from", description="instead of a file or table: another relation")
    csv: Differences = Field(default={}, description="what differs from the source's `csv`, for these files")
    optional: bool = Field(default=False, description="whether the extract may lack it")
    unpivot: Unpivot | None = Field(default=None, description="wide to long")
    pivot: Pivot | None = Field(default=None, description="long to wide")
    split: Split | None = Field(default=None, description="a row for each value of a list in a cell")
    join: list[Join] = Field(default=[], description="columns of other relations")
    previous: Previous | None = Field(default=None, description="columns of the row before")
    add: dict[str, str] = Field(default={}, description="`new column: SQL expression`; each sees those before it")
    filter: str = Field(default="", description="SQL condition; other rows are ignored, and counted")
    keep_one: KeepOne | None = Field(default=None, description="one row of several")

    @property
    def reads(self) -> list[str]:
        """The relations that it reads."""
        return [*([self.relation] if self.relation is not None else []), *(join.relation for join in self.join)]

    @model_validator(mode="after")
    def _one_origin(self) -> "Relation":
        if sum(origin is not None for origin in (self.file, self.table, self.relation)) != 1:
            raise ValueError("give one of `file`, `table` or `from`")
        if self.unpivot and self.pivot:
            raise ValueError("give `unpivot` or `pivot`; chain two relations with `from` to do both")
        return self


class ColumnSpec(Strict):
    """Where a value comes from and how it is read. A bare text is the name of a column."""

    column: str | None = Field(default=None, description="a column of the relation")
    expr: str | None = Field(default=None, description="a DuckDB SQL expression over the relation's columns")
    value: Scalar | None = Field(default=None, description="a constant")
    map: ValueMap | None = Field(default=None, description="`text: value`; compared without outer blanks and case")
    default: Scalar | None = Field(default=None, description="where there is no value, or `map` has no entry for it")
    format: TextList | None = Field(default=None, description="of a time, tried in order, such as '%d.%m.%Y %H:%M'")
    zone: str | None = Field(default=None, description="time zone that the times are written in, if not the site's")
    offset: Offset | None = Field(default=None, description="the value is no time but a distance, in this unit")
    since: str | None = Field(
        default=None,
        description="what the distance counts from: intime (unless given), admittime, or an SQL expression for a time",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "ColumnSpec":
        if sum(origin is not None for origin in (self.column, self.expr, self.value)) != 1:
            raise ValueError("give one of `column`, `expr` or `value`")
        if self.since is not None and self.offset is None:
            raise ValueError("`since` needs `offset`: the unit of the distance")
        if self.offset is not None and (self.format is not None or self.zone is not None):
            raise ValueError("`offset` excludes `format` and `zone`: a distance is no time")
        return self


Column = Annotated[ColumnSpec, BeforeValidator(_as_column, json_schema_input_type=str | ColumnSpec)]


class _Owned(Strict):
    """Rows of a relation, and whose they are."""

    relation: str = Field(alias="from", description="relation to read")
    filter: str = Field(default="", description="SQL condition; other rows are ignored, and counted")
    stay: Column | None = Field(default=None, description="ICU stay's identifier, as in tables.icustays.stay_id")
    admission: Column | None = Field(
        default=None, description="or the admission's; the stay then follows from the time"
    )
    patient: Column | None = Field(default=None, description="or the patient's; the stay then follows from the time")


class TableMap(_Owned):
    """Rows of a relation become rows of a MIMIC-IV-style table.

    Where `stay`, `admission` or `patient` is given, the identifiers that it implies need no entry in `columns`.
    """

    columns: dict[str, Column] = Field(description="`column of the table: where it comes from`")


class CodeSpec(Strict):
    """Local codes of one concept, with the unit and the words that they are written in."""

    code: TextList | None = Field(default=None, description="local code or codes")
    pattern: str | None = Field(
        default=None, description="instead: a regular expression for the whole code, case-blind"
    )
    unit: str | None = Field(default=None, description="unit, where the row names none; the concept's unless given")
    map: ValueMap | None = Field(
        default=None, description="`text: number or word`; compared without outer blanks and case"
    )
    bedside: bool | None = Field(
        default=None, description="charted at the bedside or by the laboratory, for a concept that can be either"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "CodeSpec":
        if (self.code is None) == (self.pattern is None):
            raise ValueError("give either `code` or `pattern`")
        return self


Codes = Annotated[
    list[CodeSpec], BeforeValidator(_as_code, json_schema_input_type=Text | CodeSpec | list[Text | CodeSpec])
]
_UNIT = "unit of each row, such as mg/dL; where empty, that of the code"


class EventMap(_Owned):
    """Rows of a relation, one measured value each, become events of concepts."""

    time: Column = Field(description="when it was measured, or the infusion began")
    end: Column | None = Field(
        default=None,
        description="when the infusion ended (unless given, at the next of its drug) or the state of breathing"
        " support did",
    )
    stored: Column | None = Field(default=None, description="when it became known; unless given, when it was measured")
    code: Column = Field(description="what was measured: the local code")
    loinc: Column | None = Field(
        default=None, description="a LOINC code; concepts with such codes need no entry in `codes`"
    )
    label: Column | None = Field(default=None, description="a name of the code, for the report's suggestions")
    value: Column = Field(description="the measured value, or the rate")
    unit: Column | None = Field(default=None, description=_UNIT)
    weight: Column | None = Field(default=None, description="patient's weight in kg, for rates that are not per kg")
    specimen: Column | None = Field(default=None, description="what the values of one blood sample share")
    codes: dict[str, Codes] = Field(default={}, description="`concept: its local codes`; see `consilium-site concepts`")
    ignore: TextList = Field(default=[], description="codes that are known and not wanted; patterns as /.../")

    @model_validator(mode="after")
    def _someone(self) -> "EventMap":
        if self.stay is None and self.admission is None and self.patient is None:
            raise ValueError("give one of `stay`, `admission` or `patient`: whose value it is")
        return self


def _as_maps(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


TableMaps = Annotated[list[TableMap], BeforeValidator(_as_maps, json_schema_input_type=TableMap | list[TableMap])]


class Mapping(Strict):
    """How an extract that is no MIMIC-IV folder becomes MIMIC-IV-style tables."""

    timezone: str = Field(
        default="", description="the hospital's time zone, such as Europe/Berlin; for times that name one"
    )
    sources: dict[str, Extract] = Field(default={}, description="`name: where a part of the extract lies`")
    relations: dict[str, Relation] = Field(
        default={}, description="`name: rows to map`; a relation's steps come in the order of its keys here"
    )
    tables: dict[str, TableMaps] = Field(
        default={}, description=f"`table: mapping or mappings`; {', '.join(MAPPED_TABLES)}"
    )
    events: list[EventMap] = Field(default=[], description="measured values, rates and volumes")
    units: dict[str, dict[str, float]] = Field(
        default={}, description="`concept: {unit: factor}` to the concept's unit, for units that are not known"
    )
