"""The SQL of the steps that reshape a relation's rows. Keys are compared as texts: 12, 12.0 and '12 ' are one."""

from client.mapping.expressions import literal, quote_name
from client.mapping.files import LINE
from client.mapping.steps import KeepOne, Pivot, Previous, Split
from client.mapping.texts import plain_code

_PARTS_OF_A_LINE = 1_000_000


def key_of(column: str, row: str = "") -> str:
    """A column as what is compared; NULL names nothing."""
    return f"as_key({row}{quote_name(column)})"


def pivoted(step: Pivot, view: str, order: str) -> str:
    """One row a key, with a column for each name."""
    name, value = f"whole(trim(CAST({quote_name(step.name)} AS VARCHAR)))", quote_name(step.value)
    take = "arg_min" if step.keep == "first" else "arg_max"
    keys = ", ".join(f"{key_of(c)} AS {quote_name(c)}" for c in step.key)
    wide = ", ".join(
        f"{take}({value}, {order}) FILTER (WHERE {name} = {literal(plain_code(c))} AND {value} IS NOT NULL)"
        f" AS {quote_name(c)}"
        for c in step.columns
    )
    return f"SELECT {keys}, {wide} FROM {view} GROUP BY {', '.join(key_of(c) for c in step.key)}"


def split_up(step: Split, view: str, columns: list[str]) -> tuple[str, str]:
    """A row a part, the parts in order; and a query of how many parts there are, empty ones too, of how many rows."""
    column = quote_name(step.column)
    parts = f"string_split(CAST({column} AS VARCHAR), {literal(step.by)})"
    counted = f"SELECT coalesce(sum(greatest(len({parts}), 1)), 0), count(*) FROM {view}"
    replaced = f"nullif(trim({column}[place]), '') AS {column}"
    if LINE in columns:
        replaced += f', CAST("{LINE}" AS HUGEINT) * {_PARTS_OF_A_LINE} + place AS "{LINE}"'
    inner = f"SELECT * REPLACE ({parts} AS {column}), unnest(range(1, len({parts}) + 1)) AS place FROM {view}"
    query = f"SELECT * EXCLUDE (place) REPLACE ({replaced}) FROM ({inner})"
    return f"SELECT * FROM ({query}) WHERE {column} IS NOT NULL", counted


def with_previous(step: Previous, view: str, columns: list[str], order: str) -> str:
    """Columns of the row before; a row of nobody has none."""
    window = f"(PARTITION BY {_keys(step.by)} ORDER BY {order}, {_all(columns)})"
    known = " AND ".join(f"{key_of(c)} IS NOT NULL" for c in step.by)
    new = (
        f"CASE WHEN {known} THEN lag({quote_name(c)}) OVER {window} END AS {quote_name(n)}"
        for n, c in step.columns.items()
    )
    return f"SELECT *, {', '.join(new)} FROM {view}"


def kept_one(step: KeepOne, view: str, columns: list[str], order: str) -> str:
    """The first or last row of each key; rows of nobody stay."""
    direction = "" if step.take == "first" else " DESC"
    rank = f"row_number() OVER (PARTITION BY {_keys(step.by)} ORDER BY {order}{direction} NULLS LAST, {_all(columns)})"
    nobody = " OR ".join(f"{key_of(c)} IS NULL" for c in step.by)
    return f"SELECT * FROM {view} QUALIFY {nobody} OR {rank} = 1"


def _keys(columns: list[str]) -> str:
    return ", ".join(key_of(column) for column in columns)


def _all(columns: list[str]) -> str:
    """Every column, so that rows of one place are always in one order."""
    return ", ".join(map(quote_name, columns))
