"""Staged copies become the rows that mappings read: unpivot or pivot, split, join, previous, add, filter, keep one.

Each step is a view over the one before, named after its relation, so that a row can be followed; a step that leaves
rows out says how many. Names are checked against what the extract really has before anything is mapped.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import duckdb

from client.mapping.config import ColumnSpec, Mapping, Relation
from client.mapping.expressions import Expression, literal, parse, quote_name
from client.mapping.faults import told_apart
from client.mapping.files import FILE_NAME, LINE, ROW_NUMBER
from client.mapping.mistakes import check_columns, shown
from client.mapping.reshape import kept_one, key_of, pivoted, split_up, with_previous
from client.mapping.staging import Staged, staged_view
from client.mapping.steps import Join
from client.mapping.wanted import Wanted, brought_by, order_of
from shared_model.errors import ConfigError

SCHEMA = "raw"
_TOLD = {FILE_NAME, ROW_NUMBER, LINE}  # that no file holds


@dataclass
class Frame:
    """A relation's rows as a view.

    ``columns`` are all that its origin has, also those that nothing reads; ``everything`` is the view before ``filter``
    and ``keep_one``; ``ignored`` counts the rows that each step left out.
    """

    name: str
    view: str
    columns: list[str]
    decimal: str = "."
    thousands: str = ""
    everything: str = ""
    absent: bool = False
    read: int = 0
    unreadable: int = 0
    ignored: dict[str, int] = field(default_factory=dict)

    def check(self, wanted: Collection[str], where: str) -> None:
        """Raises MissingColumnError that lists the columns there are."""
        for name in wanted:
            if name.startswith("#"):  # so begin the mapping's own
                raise ConfigError(
                    f"{where}: column {name!r} begins with a #; give the columns other names: `csv.columns`"
                )
        check_columns(set(wanted), self.columns, where)

    def expression(self, text: str, where: str) -> Expression:
        """A checked expression over these columns."""
        found = parse(text, where)
        self.check(found.columns, where)
        return found

    def source(self, spec: ColumnSpec, where: str) -> str:
        """SQL for what a column says stands in the row, before it is read as anything."""
        if spec.expr is not None:
            return self.expression(spec.expr, f"{where}.expr").sql
        if spec.column is not None:
            self.check([spec.column], where)
            return quote_name(spec.column)
        return literal(spec.value)


def build_frames(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, wanted: Wanted, staged: dict[str, Staged]
) -> dict[str, Frame]:
    """A view in the schema ``raw`` for every wanted relation. Raises MissingColumnError or ConfigError."""
    connection.execute(f"CREATE SCHEMA {SCHEMA}")
    connection.execute(f"SET search_path = '{SCHEMA},main'")
    frames: dict[str, Frame] = {}
    for name in order_of(mapping):
        if name in wanted:
            with told_apart(f"relations.{name}"):
                frames[name] = _Builder(connection, mapping.relations[name], name, frames).build(staged.get(name))
    connection.execute("SET search_path = 'main'")
    return frames


class _Builder:
    """The views of one relation, one step after another."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, relation: Relation, name: str, frames: dict[str, Frame]
    ) -> None:
        self.connection, self.relation, self.frames = connection, relation, frames
        self.where, self.steps = f"relations.{name}", 0
        self.frame = Frame(name=name, view="", columns=[])

    def build(self, staged: Staged | None) -> Frame:
        self._origin(staged)
        if self.frame.absent:
            return self.frame
        self._unpivot()
        self._pivot()
        self._split()
        for number, join in enumerate(self.relation.join):
            self._join(join, f"{self.where}.join[{number}]")
        self._previous()
        for name, text in self.relation.add.items():
            where = f"{self.where}.add.{name}"
            self._refuse_taken([name], self.frame.columns, f"{self.where}.add")
            sql = self.frame.expression(text, where).sql
            with told_apart(where):
                self._step(f"SELECT *, {sql} AS {quote_name(name)} FROM {self.frame.view}")
            self.frame.columns.append(name)
        self.frame.everything = self.frame.view
        if self.relation.filter:
            condition = self.frame.expression(self.relation.filter, f"{self.where}.filter").sql
            with told_apart(f"{self.where}.filter"):
                self._leave_out("filter", f"SELECT * FROM {self.frame.view} WHERE {condition}")
        self._keep_one()
        return self.frame

    def _origin(self, staged: Staged | None) -> None:
        frame, relation = self.frame, self.relation
        if relation.relation is not None:
            parent = self.frames[relation.relation]
            frame.view, frame.columns, frame.absent = parent.view, list(parent.columns), parent.absent
            frame.decimal, frame.thousands = parent.decimal, parent.thousands
            frame.read = 0 if parent.absent else self._count(parent.view)
            return
        if staged is None:
            raise RuntimeError(f"{self.where}: not copied")
        frame.columns = [*staged.columns, *([FILE_NAME, ROW_NUMBER] if relation.file else [])]
        frame.decimal, frame.thousands = staged.decimal, staged.thousands
        frame.read, frame.unreadable = staged.rows + staged.unreadable, staged.unreadable
        frame.absent = staged.path is None
        if not frame.absent:
            frame.view = f"{SCHEMA}.{quote_name(frame.name + '#staged')}"
            staged_view(self.connection, frame.view, staged)

    def _step(self, query: str, *, table: bool = False) -> None:
        """The next view of the relation."""
        self.steps += 1
        view = f"{SCHEMA}.{quote_name(f'{self.frame.name}#{self.steps}')}"
        self.connection.execute(f"CREATE {'TABLE' if table else 'VIEW'} {view} AS {query}")
        self.frame.view = view

    def _unpivot(self) -> None:
        step = self.relation.unpivot
        if step is None:
            return
        made = [name for name in step.columns or [] if name in self.relation.add]
        if made:
            raise ConfigError(
                f"{self.where}.unpivot: {made[0]!r} is made by `add`, which comes after it; unpivot in another relation"
                " that reads this one (`from`)"
            )
        self.frame.check(step.columns or step.all_but or [], f"{self.where}.unpivot")
        columns = step.columns or self._all_but(step.all_but or [])
        kept = [c for c in self._columns_of(self.frame.view) if c.lower() not in {name.lower() for name in columns}]
        self._refuse_taken([step.name, step.value], kept, f"{self.where}.unpivot")
        cells = self._count(self.frame.view) * len(columns)
        chosen = ", ".join(map(quote_name, kept))
        typed = ", ".join(f"CAST({quote_name(c)} AS VARCHAR) AS {quote_name(c)}" for c in columns)
        inner = f"(SELECT {', '.join(part for part in (chosen, typed) if part)} FROM {self.frame.view})"
        names = ", ".join(map(quote_name, columns))
        self._step(f"SELECT * FROM {inner} UNPIVOT ({quote_name(step.value)} FOR {quote_name(step.name)} IN ({names}))")
        self.frame.columns = [*kept, step.name, step.value]
        self.frame.read += cells - (self.frame.read - self.frame.unreadable)
        self._ignored("empty cell", cells - self._count(self.frame.view))

    def _all_but(self, names: list[str]) -> list[str]:
        left_out = {name.lower() for name in names} | _TOLD
        return [c for c in self._columns_of(self.frame.view) if c.lower() not in left_out]

    def _pivot(self) -> None:
        step = self.relation.pivot
        if step is None:
            return
        self.frame.check(
            [*step.key, step.name, step.value, *([step.order] if step.order else [])], f"{self.where}.pivot"
        )
        before, order = self.frame.view, quote_name(step.order or self._line("pivot"))
        with told_apart(f"{self.where}.pivot"):
            self._step(pivoted(step, before, order), table=True)
        self.frame.columns = [*step.key, *step.columns]
        self._ignored("pivoted into one row a key", self._count(before) - self._count(self.frame.view))

    def _split(self) -> None:
        step = self.relation.split
        if step is None:
            return
        self.frame.check([step.column], f"{self.where}.split")
        query, counted = split_up(step, self.frame.view, self._columns_of(self.frame.view))
        cells, rows = self.connection.execute(counted).fetchone() or (0, 0)
        with told_apart(f"{self.where}.split"):
            self._step(query, table=True)
        self.frame.read += int(cells) - int(rows)
        self._ignored("empty cell", int(cells) - self._count(self.frame.view))

    def _previous(self) -> None:
        step = self.relation.previous
        if step is None:
            return
        where = f"{self.where}.previous"
        self.frame.check([*step.by, *step.columns.values()], where)
        self._refuse_taken(list(step.columns), self.frame.columns, where)
        order = self._order(step.order, "previous")
        with told_apart(where):
            self._step(with_previous(step, self.frame.view, self._columns_of(self.frame.view), order), table=True)
        self.frame.columns.extend(step.columns)

    def _join(self, join: Join, where: str) -> None:
        other, brought = self.frames[join.relation], brought_by(join)
        if other.absent:
            raise ConfigError(f"{where}: relation {join.relation!r} is absent from the extract; leave the join out")
        if join.columns is None:
            keys = {name.lower() for name in join.by.values()} | _TOLD
            brought = {c: c for c in self._columns_of(other.view) if c.lower() not in keys}
        self.frame.check(join.by, f"{where}.by")
        other.check([*join.by.values(), *brought.values()], where)
        self._refuse_taken(list(brought), self.frame.columns, where)
        self._refuse_repeated_keys(join, other, where)
        on = " AND ".join(f"{key_of(a, 'here.')} = {key_of(b, 'there.')}" for a, b in join.by.items())
        new = "".join(f", there.{quote_name(held)} AS {quote_name(name)}" for name, held in brought.items())
        kind = "JOIN" if join.required else "LEFT JOIN"
        query = f"SELECT here.*{new} FROM {self.frame.view} AS here {kind} {other.view} AS there ON {on}"
        self._leave_out(f"nothing in {join.relation}", query)
        self.frame.columns.extend(brought)

    def _keep_one(self) -> None:
        step = self.relation.keep_one
        if step is None:
            return
        self.frame.check(step.by, f"{self.where}.keep_one.by")
        order = self._order(step.order, "keep_one")
        query = kept_one(step, self.frame.view, self._columns_of(self.frame.view), order)
        with told_apart(f"{self.where}.keep_one"):
            self._leave_out("not the one that is kept", query, table=True)

    def _order(self, text: str, step: str) -> str:
        """SQL to order by: the step's expression, else the order of lines."""
        return self.frame.expression(text, f"{self.where}.{step}.order").sql if text else quote_name(self._line(step))

    def _line(self, step: str) -> str:
        if LINE not in self._columns_of(self.frame.view):
            raise ConfigError(f"{self.where}.{step}: give `order`; these rows are in no order of lines")
        return LINE

    def _leave_out(self, reason: str, query: str, *, table: bool = False) -> None:
        before = self.frame.view
        self._step(query, table=table)
        self._ignored(reason, self._count(before) - self._count(self.frame.view))

    def _ignored(self, reason: str, rows: int) -> None:
        if rows:
            self.frame.ignored[reason] = self.frame.ignored.get(reason, 0) + rows

    def _refuse_taken(self, new: list[str], held: list[str], where: str) -> None:
        taken = {name.lower() for name in held}
        for name in new:
            if name.startswith("#"):  # so begin the mapping's own
                raise ConfigError(f"{where}: a column's name does not begin with #: {shown(name)}")
            if name.lower() in taken:
                raise ConfigError(f"{where}: column {name!r} is there already; give it another name")

    def _refuse_repeated_keys(self, join: Join, other: Frame, where: str) -> None:
        keys = ", ".join(map(key_of, join.by.values()))
        known = " AND ".join(f"{key_of(k)} IS NOT NULL" for k in join.by.values())
        query = f"SELECT count(*) FROM (SELECT 1 FROM {other.view} WHERE {known} GROUP BY {keys} HAVING count(*) > 1)"
        [(repeated,)] = self.connection.execute(query).fetchall()
        if repeated:
            raise ConfigError(
                f"{where}: of the keys ({', '.join(join.by.values())}), {repeated:,} stand more than once in"
                f" {join.relation!r}, so rows would be multiplied; make them unique there with `keep_one`"
            )

    def _columns_of(self, view: str) -> list[str]:
        return [row[0] for row in self.connection.execute(f"DESCRIBE SELECT * FROM {view}").fetchall()]

    def _count(self, view: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {view}").fetchall()[0][0])
