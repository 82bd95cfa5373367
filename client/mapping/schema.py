"""Every key of a site's YAML, told to people and to editors, from the declarations that also check it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from client.caps import Caps
from client.mapping.config import (
    CodeSpec,
    ColumnSpec,
    CsvFormat,
    EventMap,
    Extract,
    Mapping,
    Relation,
    TableMap,
)
from client.mapping.domains import support_states
from client.mapping.mistakes import alternatives
from client.mapping.names import REQUIRED
from client.mapping.steps import Join, KeepOne, Pivot, Previous, Split, Unpivot
from client.mapping.targets import TARGETS
from client.mapping.units import other_units
from client.policy import ReleasePolicy
from client.site import SiteConfig, Source
from shared_model.schema import TABLES
from shared_model.study import Study

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.console import Group
    from rich.table import Table

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NULL = {"type": "null"}
EXTENDS = "another site's file: mappings merge, lists and values replace, null takes a key away"
# Where each part stands in a file, and the model that declares its keys.
PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("source", Source),
    ("release", ReleasePolicy),
    ("privacy", Caps),
    ("sources.NAME", Extract),
    ("sources.NAME.csv and relations.NAME.csv", CsvFormat),
    ("relations.NAME", Relation),
    ("relations.NAME.unpivot", Unpivot),
    ("relations.NAME.pivot", Pivot),
    ("relations.NAME.split", Split),
    ("relations.NAME.join[]", Join),
    ("relations.NAME.previous", Previous),
    ("relations.NAME.keep_one", KeepOne),
    ("tables.NAME, one or a list", TableMap),
    ("tables.NAME.columns.COLUMN, and every other `column`: the name of a column, or", ColumnSpec),
    ("events[]", EventMap),
    ("events[].codes.CONCEPT: a code, a list of codes, or one or more of", CodeSpec),
)
_WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    ColumnSpec: "column",
    CodeSpec: "codes",
}
_SCALAR = {bool, int, float, str}

Row = tuple[str, str, str, str]


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a site's YAML, with the short forms that its declarations name."""
    schema = SiteConfig.model_json_schema()
    needed = schema.pop("required")
    schema["properties"]["extends"] = {"type": "string", "description": EXTENDS}
    schema["anyOf"] = [{"required": needed}, {"required": ["extends"]}]
    for part in (schema, *schema["$defs"].values()):
        _allow_nulls(part)
    return {"$schema": DIALECT, **schema}


def _allow_nulls(part: dict[str, Any]) -> None:
    """Null takes away what a file that is extended says; what a key of a value map stands for may be nothing."""
    properties = part.get("properties", {})
    for name, held in properties.items():
        held.pop("title", None)
        if held.get("default", 0) is None:
            del held["default"]
        if isinstance(held.get("additionalProperties"), dict):
            held["additionalProperties"] = _or_null(held["additionalProperties"])
        if name not in part.get("required", ()):
            told = {key: held.pop(key) for key in ("description", "default") if key in held}
            properties[name] = told | _or_null(held)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    alternatives = schema.get("anyOf", [schema])
    if _NULL in alternatives:
        return schema
    kept = {key: value for key, value in schema.items() if key != "anyOf"} if "anyOf" in schema else {}
    return kept | {"anyOf": [*alternatives, _NULL]}


def document() -> "Group":
    """All keys with their kinds, defaults and meanings, part by part."""
    from rich.console import Group

    mine = {name: field for name, field in SiteConfig.model_fields.items() if name not in _others()}
    parts = [
        _table("A site", [*_rows(mine), ("extends", "text", "", EXTENDS)]),
        _table("The study, the same at every site of a run", _rows(Study.model_fields)),
        _table("An extract that is no MIMIC-IV folder", _rows(Mapping.model_fields)),
        *(_table(where, _rows(model.model_fields)) for where, model in PARTS),
        _columns_table(),
    ]
    return Group(*parts)


def concept_table() -> "Table":
    """Every destination of a code."""
    from rich.table import Table

    table = Table("concept", "unit", "goes to", "LOINC codes; words of a `map`; other units, for example")
    table.title, table.title_justify = "What a code can be mapped to", "left"
    for target in TARGETS.values():
        unit = "a word" if target.word else target.unit or "-"
        words = support_states(target.name) or (("ART. for arterial blood",) if target.word else ())
        more = [", ".join(held) for held in (target.loinc, words, other_units(target.name)) if held]
        table.add_row(target.name, unit, target.table, "; ".join(more))
    return table


def _others() -> set[str]:
    return {*Study.model_fields, *Mapping.model_fields}


def _rows(fields: "dict[str, FieldInfo]") -> list[Row]:
    return [
        (
            field.alias or name,
            _kind(field.annotation),
            "needed" if field.is_required() else _default(field.default),
            field.description or "",
        )
        for name, field in fields.items()
    ]


def _kind(annotation: Any) -> str:
    """What may be written for a key, in a few words."""
    kinds = [part for part in alternatives(annotation) if part is not type(None)]
    if set(kinds) == _SCALAR:
        return "any value"
    return " or ".join(dict.fromkeys(map(_word, kinds)))


def _word(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, inner)) if "" in inner else " or ".join(map(str, inner))
    if get_origin(kind) is list:
        word = _kind(inner[0])
        return f"{word}, or a list" if word == "text" else word if inner[0] is CodeSpec else f"a list of: {word}"
    if get_origin(kind) is tuple:
        return f"a list of: {_kind(inner[0])}"
    if get_origin(kind) is dict and inner[1] is not Any:
        return f"NAME: {_kind(inner[1])}"
    return _WORDS.get(kind, "keys, see below")


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value in (None, "", [], {}) or isinstance(value, BaseModel) else str(value)


def _table(title: str, rows: Iterable[Row]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table("key", "kind", "default", "meaning", title=escape(title), title_justify="left", expand=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _columns_table() -> "Table":
    from rich.table import Table

    told = Table("table", "needs", "may have", title="Columns of tables.NAME", title_justify="left", expand=True)
    for table in TABLES:
        if table.name in REQUIRED:
            needed = [name.replace("|", " or ") for name in REQUIRED[table.name]]
            held = {one for name in REQUIRED[table.name] for one in name.split("|")}
            told.add_row(table.name, ", ".join(needed), ", ".join(name for name in table.columns if name not in held))
    return told
