"""Which columns of each relation anything reads: nothing else is copied from the extract."""

from collections.abc import Iterable, Iterator

from client.mapping.config import ColumnSpec, EventMap, Mapping, Relation, TableMap
from client.mapping.expressions import parse
from client.mapping.files import LINE
from client.mapping.steps import Join

Wanted = dict[str, set[str] | None]


def wanted_columns(mapping: Mapping) -> Wanted:
    """The columns that something reads of each relation, lower-case; None: all of them."""
    wanted: Wanted = {}
    uses: list[tuple[str, TableMap | EventMap]] = [(f"events[{n}]", use) for n, use in enumerate(mapping.events)]
    uses += [(f"tables.{name}[{n}]", use) for name, maps in mapping.tables.items() for n, use in enumerate(maps)]
    for where, use in uses:
        _want(wanted, use.relation, _used(use, where))
    for name in reversed(order_of(mapping)):
        if name in wanted:
            _want_origins(wanted, mapping.relations[name], name)
    return wanted


def order_of(mapping: Mapping) -> list[str]:
    """Relations, each after those that it reads; that none reads itself was checked with their names."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for other in mapping.relations[name].reads:
                visit(other)
            order.append(name)

    for name in mapping.relations:
        visit(name)
    return order


def _want(wanted: Wanted, name: str, columns: Iterable[str] | None) -> None:
    held = wanted.setdefault(name, set())
    wanted[name] = None if held is None or columns is None else held | {c.lower() for c in columns}


def _used(use: TableMap | EventMap, where: str) -> set[str]:
    names = set(parse(use.filter, f"{where}.filter").columns) if use.filter else set()
    for name, spec in column_specs(use):
        names |= _names(spec, f"{where}.{name}")
    return names


def column_specs(use: TableMap | EventMap) -> Iterator[tuple[str, ColumnSpec]]:
    """Every column that a mapping names, with its key."""
    fields = ((name, getattr(use, name)) for name in type(use).model_fields)
    yield from ((name, value) for name, value in fields if isinstance(value, ColumnSpec))
    if isinstance(use, TableMap):
        yield from ((f"columns.{name}", spec) for name, spec in use.columns.items())


def _names(spec: ColumnSpec, where: str) -> set[str]:
    names = {spec.column} if spec.column else set()
    since = spec.since if spec.since not in ("intime", "admittime") else None
    for key, text in (("expr", spec.expr), ("since", since)):
        names |= set(parse(text, f"{where}.{key}").columns) if text else set()
    return {name for name in names if name}


def _want_origins(wanted: Wanted, relation: Relation, name: str) -> None:
    """What the relation's own steps read, of itself and of the relations that it looks into."""
    _want(wanted, name, _read_by_steps(relation, f"relations.{name}"))
    for join in relation.join:
        brought = None if join.columns is None else list(brought_by(join).values())
        _want(wanted, join.relation, None if brought is None else [*join.by.values(), *brought])
    if relation.relation is not None:
        _want(wanted, relation.relation, wanted[name])


def _read_by_steps(relation: Relation, where: str) -> set[str] | None:
    names: set[str] = set()
    texts = {f"add.{name}": text for name, text in relation.add.items()} | {"filter": relation.filter}
    texts |= {"keep_one.order": relation.keep_one.order} if relation.keep_one else {}
    texts |= {"previous.order": relation.previous.order} if relation.previous else {}
    for key, text in texts.items():
        names |= set(parse(text, f"{where}.{key}").columns) if text else set()
    names |= {left for join in relation.join for left in join.by}
    if relation.unpivot:
        if relation.unpivot.columns is None:
            return None
        names |= set(relation.unpivot.columns)
    if relation.pivot:
        names |= {*relation.pivot.key, relation.pivot.name, relation.pivot.value, relation.pivot.order or LINE}
    if relation.split:
        names.add(relation.split.column)
    if relation.previous:
        step = relation.previous
        names |= {*step.by, *step.columns.values(), *([] if step.order else [LINE])}
    if relation.keep_one:
        names |= {*relation.keep_one.by, *([] if relation.keep_one.order else [LINE])}
    return names


def brought_by(join: Join) -> dict[str, str]:
    return join.columns if isinstance(join.columns, dict) else {c: c for c in join.columns or []}
