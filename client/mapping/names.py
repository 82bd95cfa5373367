"""Whether what a mapping names exists: tables, columns, relations, sources, concepts, units, time zones.

Checked when the YAML is read, before a file is opened: a name that is wrong is told with the nearest right one.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from client.mapping.targets import TARGETS
from shared_model.schema import TABLES

if TYPE_CHECKING:
    from client.mapping.config import CodeSpec, ColumnSpec, EventMap, Extract, Mapping, Relation, TableMap

_COLUMNS = {table.name: tuple(table.columns) for table in TABLES}
_EVENTS = ("chartevents", "labevents", "inputevents", "outputevents")
_FIRST = ("patients", "admissions", "icustays")
# What a mapping of each table must fill; `stay`, `admission` or `patient` implies identifiers.
REQUIRED: dict[str, tuple[str, ...]] = {
    "patients": ("subject_id", "anchor_age", "anchor_year"),
    "admissions": ("subject_id", "hadm_id", "admittime", "hospital_expire_flag"),
    "icustays": ("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
    "diagnoses_icd": ("hadm_id", "icd_code", "icd_version"),
    "services": ("hadm_id", "transfertime", "curr_service"),
    "microbiologyevents": ("subject_id", "micro_specimen_id", "charttime"),
    "prescriptions": ("subject_id", "starttime", "drug", "route"),
    "radiology": ("subject_id", "note_id", "charttime", "text"),
    "discharge": ("subject_id", "hadm_id", "note_id", "charttime", "text"),
}
_IMPLIED = {"stay": {"subject_id", "hadm_id", "stay_id"}, "admission": {"subject_id", "hadm_id"}, "patient": {"subject_id"}}


def check_names(mapping: "Mapping", flag: str = "") -> None:
    """Raises ValueError, with the key in front. ``flag``: TABLE.COLUMN that the site adds to a table."""
    if not mapping.sources:
        if mapping.relations or mapping.tables or mapping.events:
            raise ValueError("sources: say where the extract lies")
        return
    if mapping.timezone:
        _check_zone(mapping.timezone, "timezone")
    for name, relation in mapping.relations.items():
        _check_relation(mapping, name, relation)
    for name in _FIRST:
        if name not in mapping.tables:
            raise ValueError(f"tables: {name} has no mapping; every site has {', '.join(_FIRST)}")
    for name, maps in mapping.tables.items():
        for number, use in enumerate(maps):
            _check_table(mapping, name, use, f"tables.{name}[{number}]", flag)
    for number, event in enumerate(mapping.events):
        _check_events(mapping, event, f"events[{number}]")
    for concept in mapping.units:
        _check_known(concept, TARGETS, f"units.{concept}", "concept")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message: the nearest known name, or all of them where they are few."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; is it {close[0]!r}?"
    return f"; there are {', '.join(names)}" if len(names) <= 25 else ""


def _check_known(name: str, known: Iterable[str], where: str, what: str) -> None:
    names = list(known)
    if name not in names:
        raise ValueError(f"{where}: no {what} {name!r}{nearest(name, names) or '; see `consilium-site concepts`'}")


def _check_relation(mapping: "Mapping", name: str, relation: "Relation") -> None:
    where = f"relations.{name}"
    if not re.fullmatch(r"[A-Za-z_][\w-]{0,60}", name):
        raise ValueError(f"{where}: a relation's name is letters, digits, - and _")
    for number, join in enumerate(relation.join):
        _check_known(join.relation, mapping.relations, f"{where}.join[{number}].relation", "relation")
    if relation.relation is not None:
        _check_known(relation.relation, mapping.relations, f"{where}.from", "relation")
        _check_circle(mapping, name)
        return
    source = _source(mapping, relation, where)
    if relation.file is not None and source.path is None:
        raise ValueError(f"{where}.file: its source is a database; name a `table`")
    if relation.table is not None and source.url_env is None:
        raise ValueError(f"{where}.table: its source is a folder; name a `file`")


def _source(mapping: "Mapping", relation: "Relation", where: str) -> "Extract":
    if relation.source:
        _check_known(relation.source, mapping.sources, f"{where}.source", "source")
        return mapping.sources[relation.source]
    if len(mapping.sources) > 1:
        raise ValueError(f"{where}.source: name one of {', '.join(mapping.sources)}")
    return next(iter(mapping.sources.values()))


def _check_circle(mapping: "Mapping", name: str) -> None:
    seen: list[str] = []
    here: str | None = name
    while here is not None and here in mapping.relations:
        if here in seen:
            raise ValueError(f"relations.{name}.from: {' -> '.join([*seen, here])} is a circle")
        seen.append(here)
        here = mapping.relations[here].relation


def _check_table(mapping: "Mapping", name: str, use: "TableMap", where: str, flag: str) -> None:
    if name in _EVENTS:
        raise ValueError(f"tables.{name}: measured values are mapped under `events`, by concept")
    _check_known(name, REQUIRED, f"tables.{name}", "table")
    _check_known(use.relation, mapping.relations, f"{where}.from", "relation")
    flagged = {flag.partition(".")[2]} if flag.partition(".")[0] == name else set()
    held = [*_COLUMNS[name], *flagged]
    for column, spec in use.columns.items():
        _check_known(column, held, f"{where}.columns", "column")
        _check_column(spec, f"{where}.columns.{column}")
    implied = set().union(*(columns for owner, columns in _IMPLIED.items() if getattr(use, owner) is not None))
    missing = [column for column in REQUIRED[name] if column not in use.columns and column not in implied]
    if missing:
        raise ValueError(f"{where}.columns: {name} needs {', '.join(missing)}")


def _check_column(spec: "ColumnSpec", where: str) -> None:
    if spec.zone is not None:
        _check_zone(spec.zone, f"{where}.zone")
    for form in spec.format or []:
        if "%" not in form:
            raise ValueError(f"{where}.format: {form!r} names no part of a time; write such as '%d.%m.%Y %H:%M'")


def _check_zone(name: str, where: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{where}: no time zone {name!r}; write such as Europe/Berlin or Etc/GMT-1") from None


def _check_events(mapping: "Mapping", use: "EventMap", where: str) -> None:
    _check_known(use.relation, mapping.relations, f"{where}.from", "relation")
    for name in ("time", "end", "stored", "value", "code"):
        spec = getattr(use, name)
        if spec is not None:
            _check_column(spec, f"{where}.{name}")
    if not use.codes and use.loinc is None:
        raise ValueError(f"{where}.codes: map at least one code, or give `loinc`")
    for concept in use.codes:
        _check_known(concept, TARGETS, f"{where}.codes", "concept")
    _check_codes_once(use, where)
    for concept, spec in _specs(use):
        _check_code(mapping, use, concept, spec, f"{where}.codes.{concept}")


def _specs(use: "EventMap") -> Iterator[tuple[str, "CodeSpec"]]:
    for concept, specs in use.codes.items():
        yield from ((concept, spec) for spec in specs)


def _check_codes_once(use: "EventMap", where: str) -> None:
    seen: dict[str, str] = {}
    for concept, spec in _specs(use):
        for code in spec.code or []:
            if code.strip() in seen:
                raise ValueError(f"{where}.codes: code {code!r} is mapped twice: {seen[code.strip()]} and {concept}")
            seen[code.strip()] = concept
    for code in use.ignore:
        if code.strip() in seen:
            raise ValueError(f"{where}.ignore: code {code!r} is mapped to {seen[code.strip()]}")


def _check_code(mapping: "Mapping", use: "EventMap", concept: str, spec: "CodeSpec", where: str) -> None:
    if spec.pattern is not None:
        try:
            re.compile(spec.pattern)
        except re.error as error:
            raise ValueError(f"{where}.pattern: {spec.pattern!r} is no regular expression ({error})") from None
    if spec.unit is not None and not _converts(mapping, use, concept, spec.unit):
        raise ValueError(
            f"{where}.unit: {spec.unit!r} has no conversion to {TARGETS[concept].unit!r}; add it under units.{concept}"
        )


def _converts(mapping: "Mapping", use: "EventMap", concept: str, unit: str) -> bool:
    from client.mapping.units import conversion, per_weight

    if conversion(concept, unit, mapping.units) is not None:
        return True
    return use.weight is not None and per_weight(concept, unit, mapping.units) is not None
