"""Whether what a mapping names exists: tables, columns, relations, sources, concepts, units, time zones.

Checked when the YAML is read, before a file is opened: a name that is wrong is told with the nearest right one.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from client.mapping.config import (
    EVENT_TABLES,
    FIRST_TABLES,
    CodeSpec,
    ColumnSpec,
    EventMap,
    Extract,
    Mapping,
    Relation,
    TableMap,
)
from client.mapping.domains import DOMAINS, support_states
from client.mapping.mistakes import nearest, shown
from client.mapping.targets import TARGETS
from client.mapping.texts import is_pattern, plain_code
from client.mapping.vocabulary import NAMES
from shared_model.schema import TABLES

_COLUMNS = {table.name: tuple(table.columns) for table in TABLES}
# What a mapping of each table must fill, because what reads the table can do nothing without it; `|`: either.
REQUIRED: dict[str, tuple[str, ...]] = {
    "patients": ("subject_id", "anchor_age"),
    "admissions": ("subject_id", "hadm_id", "admittime", "hospital_expire_flag"),
    "icustays": ("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
    "diagnoses_icd": ("hadm_id", "icd_code", "icd_version"),
    "services": ("hadm_id", "transfertime", "curr_service"),
    "microbiologyevents": ("subject_id", "micro_specimen_id", "charttime|chartdate"),
    "prescriptions": ("subject_id", "starttime", "drug", "route"),
    "radiology": ("subject_id", "note_id", "charttime", "text"),
    "discharge": ("subject_id", "hadm_id", "note_id", "charttime", "text"),
}
# `stay`, `admission` or `patient` tells these; a patient's row with a time also tells the admission.
_IMPLIED = {
    "stay": {"subject_id", "hadm_id", "stay_id"},
    "admission": {"subject_id", "hadm_id"},
    "patient": {"subject_id"},
}
_TIMES = {"starttime", "transfertime", "charttime"}
# What DuckDB's strptime knows, and what of it names a day.
_DIRECTIVE = re.compile(r"%(-?[a-zA-Z%]?)")
_DIRECTIVES = {*"aAbBcdfgGhHIjmMnpSTuUVwWxXyYzZ%", *(f"-{letter}" for letter in "dHIjmMSy")}
_DAY = ({"c", "x"}, {"d", "-d", "j", "-j", "u", "w", "a", "A"}, {"Y", "y", "-y", "G"})


def check_names(mapping: Mapping, flag: str = "", *, units: bool = True) -> None:
    """Raises ValueError, with the key in front. ``flag``: TABLE.COLUMN that the site adds to a table. Without ``units``
    no conversion is looked up: the library of units takes a third of a second to load."""
    if not mapping.sources:
        if mapping.relations or mapping.tables or mapping.events:
            raise ValueError("sources: say where the extract lies")
        return
    if mapping.timezone:
        _check_zone(mapping.timezone, "timezone")
    for name, relation in mapping.relations.items():
        _check_relation(mapping, name, relation)
    _check_circles(mapping)
    _check_tables(mapping, flag)
    for number, event in enumerate(mapping.events):
        _check_events(mapping, event, f"events[{number}]", units=units)
    for concept, factors in mapping.units.items():
        _check_concept(concept, f"units.{concept}")
        for unit, factor in factors.items():
            if factor <= 0:
                raise ValueError(f"units.{concept}.{unit}: a factor is greater than 0, not {factor}")


def _check_known(name: str, known: Iterable[str], where: str, what: str) -> None:
    names = list(known)
    if name not in names:
        raise ValueError(f"{where}: no {what} {shown(name)}{nearest(name, names)}")


def _check_concept(name: str, where: str) -> None:
    """A concept may be written by a name that people call it, which is told."""
    if name in TARGETS:
        return
    called = [concept for concept, names in NAMES.items() if name.lower().replace("_", " ") in names]
    hint = f"; is it {called[0]!r}?" if called else nearest(name, TARGETS)
    raise ValueError(f"{where}: no concept {shown(name)}{hint} (`consilium-site concepts` lists them)")


def _check_relation(mapping: Mapping, name: str, relation: Relation) -> None:
    where = f"relations.{name}"
    if not re.fullmatch(r"[A-Za-z_][\w-]{0,60}", name):
        raise ValueError(f"{where}: a relation's name is letters, digits, - and _")
    for number, join in enumerate(relation.join):
        _check_known(join.relation, mapping.relations, f"{where}.join[{number}].relation", "relation")
    if relation.relation is not None:
        _check_known(relation.relation, mapping.relations, f"{where}.from", "relation")
        if relation.source:
            raise ValueError(f"{where}.source: `from` reads another relation, which has the source")
        return
    source = _source(mapping, relation, where)
    _check_signs(source.csv.model_dump() | relation.csv, f"{where}.csv")
    if relation.file is not None and source.path is None:
        raise ValueError(f"{where}.file: its source is a database; name a `table`")
    if relation.table is not None and source.url_env is None:
        raise ValueError(f"{where}.table: its source is a folder (`path`); name a `file`, or the database by `url_env`")


def _check_signs(form: dict[str, object], where: str) -> None:
    for one, other in (("decimal", "thousands"), ("delimiter", "quote")):
        if form[one] == form[other]:
            raise ValueError(f"{where}: {one} and {other} are the same sign, here or in the source's `csv`")


def _source(mapping: Mapping, relation: Relation, where: str) -> Extract:
    if relation.source:
        _check_known(relation.source, mapping.sources, f"{where}.source", "source")
        return mapping.sources[relation.source]
    if len(mapping.sources) > 1:
        raise ValueError(f"{where}.source: there are several; name one of {', '.join(mapping.sources)}")
    return next(iter(mapping.sources.values()))


def _check_circles(mapping: Mapping) -> None:
    """A relation that reads itself, through `from` or a join, has no first row."""
    done: set[str] = set()
    for start in mapping.relations:
        path = [start]
        pending = [iter(mapping.relations[start].reads)]
        while pending:
            name = next(pending[-1], None)
            if name is None:
                done.add(path.pop())
                pending.pop()
            elif name in path:
                raise ValueError(f"relations.{name}: {' -> '.join([*path[path.index(name) :], name])} is a circle")
            elif name not in done:
                path.append(name)
                pending.append(iter(mapping.relations[name].reads))


def _check_tables(mapping: Mapping, flag: str) -> None:
    for name in mapping.tables:
        if name in EVENT_TABLES:
            raise ValueError(f"tables.{name}: measured values are mapped under `events`, by concept")
        _check_known(name, REQUIRED, f"tables.{name}", "table")
    for name in FIRST_TABLES:
        if not mapping.tables.get(name):
            raise ValueError(f"tables: {name} has no mapping; every site has {', '.join(FIRST_TABLES)}")
    for name, maps in mapping.tables.items():
        for number, use in enumerate(maps):
            _check_table(mapping, name, use, f"tables.{name}[{number}]", flag)
    table, _, column = flag.partition(".")
    if flag and not any(column in use.columns for use in mapping.tables.get(table, [])):
        raise ValueError(f"flag: no mapping of tables.{table} has a column {shown(column)}")


def _check_table(mapping: Mapping, name: str, use: TableMap, where: str, flag: str) -> None:
    _check_known(use.relation, mapping.relations, f"{where}.from", "relation")
    table, _, marked = flag.partition(".")
    held = [*_COLUMNS[name], *([marked] if table == name else [])]
    for column, spec in use.columns.items():
        _check_known(column, held, f"{where}.columns.{column}", "column")
        _check_column(spec, f"{where}.columns.{column}")
        _check_domain(column, spec, f"{where}.columns.{column}")
    given = use.columns.keys() | _implied(name, use, where)
    missing = [one for one in REQUIRED[name] if not given & {*one.split("|")}]
    if missing:
        raise ValueError(f"{where}.columns: {name} needs {', '.join(one.replace('|', ' or ') for one in missing)}")


def _check_domain(column: str, spec: ColumnSpec, where: str) -> None:
    """What a map, a default or a constant gives must be among the few values that the column knows."""
    known = DOMAINS.get(column, ())
    given = [*(spec.map or {}).values(), spec.default, spec.value]
    wrong = [value for value in given if value is not None and value not in known] if known else []
    if wrong:
        raise ValueError(f"{where}: {shown(str(wrong[0]))} is none of {', '.join(map(str, known))}")


def _implied(name: str, use: TableMap, where: str) -> set[str]:
    """Identifiers that the owner of the rows tells."""
    implied: set[str] = set()
    for owner, columns in _IMPLIED.items():
        spec = getattr(use, owner)
        if spec is not None:
            if name in FIRST_TABLES:
                raise ValueError(f"{where}.{owner}: not in {name}, where identifiers stand under `columns`")
            _check_column(spec, f"{where}.{owner}")
            implied |= columns | ({"hadm_id"} if _TIMES & use.columns.keys() else set())
    return implied


def _check_column(spec: ColumnSpec, where: str) -> None:
    if spec.zone is not None:
        _check_zone(spec.zone, f"{where}.zone")
    for form in spec.format or []:
        found = {*_DIRECTIVE.findall(form)}
        if found - _DIRECTIVES:
            raise ValueError(
                f"{where}.format: {shown(form)} has %{min(found - _DIRECTIVES)}, which is no part of a time"
            )
        if not found & _DAY[0] and not (found & _DAY[1] and found & _DAY[2]):
            raise ValueError(f"{where}.format: {shown(form)} names no day and year; write such as '%d.%m.%Y %H:%M'")


def _check_zone(name: str, where: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        told = f" {shown(name)}" if re.fullmatch(r"[\w+/. -]*", name) else ""
        raise ValueError(f"{where}: no time zone{told}; write such as Europe/Berlin or Etc/GMT-1") from None


def _check_events(mapping: Mapping, use: EventMap, where: str, *, units: bool) -> None:
    _check_known(use.relation, mapping.relations, f"{where}.from", "relation")
    for name in (*_IMPLIED, "time", "end", "stored"):
        spec = getattr(use, name)
        if spec is not None:
            _check_column(spec, f"{where}.{name}")
    if use.value.map is not None or use.value.default is not None:
        raise ValueError(f"{where}.value: words are mapped for each code: `map` beside the `code`")
    moments = [n for n in use.codes if n in TARGETS and TARGETS[n].table != "inputevents" and not support_states(n)]
    if use.end is not None and moments:
        raise ValueError(
            f"{where}.end: a rate of a drug or a state of breathing support has an end; {moments[0]} is none"
        )
    if not use.codes and use.loinc is None:
        raise ValueError(f"{where}.codes: map at least one code, or give `loinc`")
    for concept in use.codes:
        _check_concept(concept, f"{where}.codes.{concept}")
    _check_codes_once(use, where)
    for concept, code in _specs(use):
        _check_code(mapping, use, concept, code, f"{where}.codes.{concept}", units=units)


def _specs(use: EventMap) -> Iterator[tuple[str, CodeSpec]]:
    for concept, specs in use.codes.items():
        yield from ((concept, spec) for spec in specs)


def _check_codes_once(use: EventMap, where: str) -> None:
    seen: dict[str, str] = {}
    for concept, spec in _specs(use):
        for code in map(plain_code, spec.code or []):
            if code in seen:
                both = f"{seen[code]} and {concept}" if seen[code] != concept else f"both under {concept}"
                raise ValueError(f"{where}.codes: code {shown(code)} is mapped twice: {both}")
            seen[code] = concept
    for code in map(plain_code, use.ignore):
        if code in seen:
            raise ValueError(f"{where}.ignore: code {shown(code)} is mapped to {seen[code]}")
        if is_pattern(code):
            _check_pattern(code[1:-1], f"{where}.ignore")


def _check_pattern(pattern: str, where: str) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # of what the pattern may mean in a later Python
            re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{where}: {shown(pattern)} is no regular expression ({error})") from None


def _check_code(mapping: Mapping, use: EventMap, concept: str, spec: CodeSpec, where: str, *, units: bool) -> None:
    if spec.pattern is not None:
        _check_pattern(spec.pattern, f"{where}.pattern")
    if spec.unit is None:
        return
    if TARGETS[concept].word:
        raise ValueError(f"{where}.unit: {concept} is a word and has no unit")
    if units:
        _check_unit(mapping, use, concept, spec.unit, f"{where}.unit")


def _check_unit(mapping: Mapping, use: EventMap, concept: str, unit: str, where: str) -> None:
    from client.mapping.units import conversion, per_weight

    if conversion(concept, unit, mapping.units) is not None:
        return
    missing = f"{shown(unit)} has no conversion to {TARGETS[concept].unit or 'a plain number'}"
    if per_weight(concept, unit, mapping.units) is None:
        raise ValueError(f"{where}: {missing}; add it under units.{concept}")
    if use.weight is None:
        raise ValueError(f"{where}: {missing} without the patient's `weight`, which this entry of events does not give")
