"""Every key of a site's YAML, told to people and to editors, from the declarations that also check it."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from client.mapping.config import (
    CodeSpec,
    ColumnSpec,
    CsvFormat,
    EventMap,
    Extract,
    Join,
    KeepOne,
    Mapping,
    Pivot,
    Relation,
    TableMap,
    Unpivot,
)
from client.mapping.names import REQUIRED
from client.mapping.targets import TARGETS
from client.site import ReleasePolicy, SiteConfig, Source
from shared_model.schema import TABLES
from shared_model.study import Study

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Where each part stands in a file, and the model that declares its keys.
PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("source", Source),
    ("release", ReleasePolicy),
    ("sources.NAME", Extract),
    ("sources.NAME.csv", CsvFormat),
    ("relations.NAME", Relation),
    ("relations.NAME.unpivot", Unpivot),
    ("relations.NAME.pivot", Pivot),
    ("relations.NAME.join[]", Join),
    ("relations.NAME.keep_one", KeepOne),
    ("tables.NAME[]", TableMap),
    ("tables.NAME[].columns.NAME, and every other column: COLUMN or", ColumnSpec),
    ("events[]", EventMap),
    ("events[].codes.CONCEPT: CODE, a list of codes, or one or more of", CodeSpec),
)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a site's YAML, with the short forms: a text for a column, a code or a list of codes
    for a concept, one mapping for a list of one."""
    schema = SiteConfig.model_json_schema()
    definitions = schema["$defs"]
    for name, definition in definitions.items():
        _relax(definition, definitions, name)
    _relax(schema, definitions, "")
    schema["properties"]["extends"] = {"type": "string", "description": "another site's file, which this one changes"}
    schema["required"] = []  # what this file does not say may come from the one that it extends
    return {"$schema": DIALECT, **schema}


def _relax(node: Any, definitions: dict[str, Any], name: str) -> None:
    """Add the short forms that the checks accept."""
    if isinstance(node, list):
        for part in node:
            _relax(part, definitions, name)
    if not isinstance(node, dict):
        return
    for part in list(node.values()):
        _relax(part, definitions, name)
    if node.get("$ref") == "#/$defs/ColumnSpec":
        node.pop("$ref")
        node["anyOf"] = [{"type": "string"}, {"$ref": "#/$defs/ColumnSpec"}]
    if node.get("type") == "array" and node.get("items", {}).get("$ref") == "#/$defs/CodeSpec":
        _alternatives(node, [{"$ref": "#/$defs/CodeSpec"}, _LITERAL, {"type": "array", "items": _code_or_spec()}])
    elif node.get("type") == "array" and node.get("items", {}).get("$ref") == "#/$defs/TableMap":
        _alternatives(node, [{"$ref": "#/$defs/TableMap"}, {"type": "array", "items": {"$ref": "#/$defs/TableMap"}}])
    elif node.get("type") == "array" and node.get("items") == {"type": "string"}:
        _alternatives(node, [_LITERAL, {"type": "array", "items": _LITERAL}])


_LITERAL: dict[str, Any] = {"type": ["string", "number"]}


def _code_or_spec() -> dict[str, Any]:
    return {"anyOf": [_LITERAL, {"$ref": "#/$defs/CodeSpec"}]}


def _alternatives(node: dict[str, Any], forms: list[dict[str, Any]]) -> None:
    kept = {key: node[key] for key in ("description", "title", "default") if key in node}
    node.clear()
    node.update(kept | {"anyOf": forms})


def document() -> "Group":
    """All keys with their defaults and meanings, part by part."""
    from rich.console import Group

    extends = ("extends", "", "another site's file: mappings merge, lists and values replace, null takes a key away")
    own = [_row(name, field) for name, field in SiteConfig.model_fields.items() if name not in Study.model_fields]
    own = [row for row in own if row[0] not in Mapping.model_fields]
    parts = [
        _table("A site", [*own, extends]),
        _table("The study, the same at every site of a run", [_row(n, f) for n, f in Study.model_fields.items()]),
        _table("An extract that is no MIMIC-IV folder", [_row(n, f) for n, f in Mapping.model_fields.items()]),
        *(_table(where, [_row(n, f) for n, f in model.model_fields.items()]) for where, model in PARTS),
        _columns_table(),
    ]
    return Group(*parts)


def concept_table() -> "Table":
    """Every destination of a code."""
    from rich.table import Table

    table = Table("concept", "unit", "goes to", "LOINC", title="What a code can be mapped to", title_justify="left")
    for target in TARGETS.values():
        unit = "a word" if target.word else target.unit or "-"
        table.add_row(target.name, unit, target.table, ", ".join(target.loinc))
    return table


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    default = "needed" if field.is_required() else _default(field.default)
    return field.alias or name, default, field.description or ""


def _default(value: Any) -> str:
    if value is None or isinstance(value, BaseModel):
        return ""
    return str(value) if value not in ("", [], {}) else ""


def _table(title: str, rows: list[tuple[str, str, str]]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table("key", "default", "meaning", title=escape(title), title_justify="left", expand=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _columns_table() -> "Table":
    rows = []
    for table in TABLES:
        if table.name in REQUIRED:
            needed = REQUIRED[table.name]
            others = [name for name in table.columns if name not in needed]
            rows.append((table.name, ", ".join(needed), ", ".join(others)))
    from rich.table import Table

    told = Table("table", "needs", "may have", title="Columns of tables.NAME", title_justify="left", expand=True)
    for row in rows:
        told.add_row(*row)
    return told
