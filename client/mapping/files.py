"""The files of a relation, and their rows as they stand there: text from CSV, typed values from Parquet.

Why text: a type is a claim about a foreign file, and the mapping makes it column by column, where it can say which rule
a row breaks. Only the columns that something reads are copied.
"""

import codecs
import csv
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.extract import LONGEST_LINE
from client.mapping.config import CsvFormat
from client.mapping.expressions import literal, quote_name
from client.mapping.mistakes import shown
from client.source import as_glob, is_gzip, is_parquet, open_text, parquet_columns, quoted
from client.unreadable import UNREADABLE_ROWS
from shared_model.errors import MissingTableError, UnreadableTableError

FILE_NAME, ROW_NUMBER = "file_name", "row_number"
LINE = "#line"  # a place in the order of all files' rows, for steps that take the first or last
_MOST_ROWS = 1 << 40
_TEXT_SUFFIXES = (".csv", ".tsv", ".psv", ".txt", ".csv.gz", ".tsv.gz", ".psv.gz", ".txt.gz")
_SUFFIXES = (*_TEXT_SUFFIXES, ".parquet")
_ENDING = "(?i)([.](csv|tsv|psv|txt|parquet))?([.]gz)?$"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Group:
    """Files with the same columns, and how they are written (None: Parquet)."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    format: CsvFormat | None


def find_files(folder: Path, patterns: list[str], where: str) -> list[Path]:
    """The files that the patterns name, sorted; a pattern that names a folder means every table file in it.

    Raises MissingTableError, which says what lies there, when there is none.
    """
    found: set[Path] = set()
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise MissingTableError(f"{where}.file: {pattern!r} leaves the source's folder; name a file below it")
        for path in _matching(folder, pattern, where):
            found.update(f for f in path.rglob("*") if is_table(f)) if path.is_dir() else found.add(path)
    if not found:
        held = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if is_table(f))
        there = f"it has {', '.join(held[:20])}" if held else "it has no table files"
        raise MissingTableError(f"{where}.file: no {' or '.join(patterns)} in {folder}; {there}")
    return sorted(found)


def _matching(folder: Path, pattern: str, where: str) -> list[Path]:
    """What the pattern names, or the one file of that very name."""
    try:
        if pattern and (folder / pattern).exists():
            return [folder / pattern]
        return [path for path in sorted(folder.glob(pattern)) if path.is_file() or path.is_dir()] if pattern else []
    except (ValueError, OSError, NotImplementedError) as error:
        raise MissingTableError(f"{where}.file: {shown(pattern)} is no pattern of file names ({error})") from None


def is_table(path: Path) -> bool:
    """Whether a file looks like a table by its ending."""
    return path.is_file() and path.name.lower().endswith(_SUFFIXES)


def group_files(files: list[Path], form: CsvFormat, stage: Path) -> list[Group]:
    """Files by columns, so that a thousand files with one header are read at once; other encodings become UTF-8 copies
    in ``stage``. Raises UnreadableTableError."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for number, file in enumerate(files):
        if is_parquet(file):
            groups.setdefault(("parquet", *parquet_columns(file)), []).append(file)
        else:
            held = as_utf8(file, form.encoding, stage / str(number) / unzipped(file))
            groups.setdefault(("csv", *header(held, form)), []).append(held)
    return [
        Group(tuple(paths), tuple(columns), form if kind == "csv" else None)
        for (kind, *columns), paths in groups.items()
    ]


def header(file: Path, form: CsvFormat) -> tuple[str, ...]:
    """The names of a text file's columns. Raises UnreadableTableError, also for a name that stands there twice."""
    return tuple(form.columns) if form.columns is not None else _checked_names(file, header_fields(file, form), form)


def header_fields(file: Path, form: CsvFormat) -> list[str]:
    """What stands in the header line, whatever it is. Raises UnreadableTableError."""
    try:
        with open_text(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            for _ in range(form.skip):
                if not next(text, ""):
                    break
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE
            rows = csv.reader(text, delimiter=form.delimiter, quotechar=form.quote or None, quoting=quoting)
            names = [name.strip() for name in next(rows, [])]
            names = [name or f"column_{place}" for place, name in enumerate(names, start=1)]
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UnreadableTableError(f"{file}: its header cannot be read ({type(error).__name__})") from error
    if not all(name.isascii() or name.encode("utf-8", "replace").decode() == name for name in names):
        raise UnreadableTableError(f"{file}: its header is not UTF-8; name its encoding under csv.encoding")
    return names


def _checked_names(file: Path, names: list[str], form: CsvFormat) -> tuple[str, ...]:
    if not names:
        raise UnreadableTableError(f"{file}: is empty; it has no header line")
    lower = [name.lower() for name in names]
    twice = sorted({name for name in names if lower.count(name.lower()) > 1})
    if twice:
        place = lower.index(twice[0].lower()) + 1
        raise UnreadableTableError(
            f"{file}: column {place} stands twice in its header (case does not count); if it has none: `csv.columns`"
        )
    if len(names) == 1 and any(sign in names[0] for sign in ",;\t|" if sign != form.delimiter):
        raise UnreadableTableError(f"{file}: one column in its header: is csv.delimiter {form.delimiter!r} right?")
    return tuple(names)


def rows_of(group: Group, columns: tuple[str, ...], number: int = 0) -> str:
    """A query of ``columns`` of the group's files. ``file_name``, ``row_number`` and ``#line`` may be among them;
    ``number`` puts the lines of groups in order."""
    chosen = ", ".join(_chosen(name, group, number) for name in columns)
    counted = f', row_number() OVER () AS "{LINE}"' if {ROW_NUMBER, LINE} & set(columns) else ""
    return f"SELECT {chosen} FROM (SELECT *{counted} FROM {_reader(group)})"


def _reader(group: Group) -> str:
    paths = "[" + ", ".join(quoted(as_glob(file)) for file in group.files) + "]"
    if group.format is None:
        return f"read_parquet({paths}, filename = '#path', hive_partitioning = false)"
    form = group.format
    kinds = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in group.columns)
    nulls = ", ".join(literal(text) for text in form.missing) or "''"
    return (
        f"read_csv({paths}, auto_detect = false, header = {form.columns is None},"
        f" skip = {form.skip}, delim = {quoted(form.delimiter)}, quote = {quoted(form.quote)},"
        f" escape = {quoted(form.quote)}, nullstr = [{nulls}], max_line_size = {LONGEST_LINE},"
        f" buffer_size = {LONGEST_LINE}, columns = {{{kinds}}}, filename = '#path', hive_partitioning = false,"
        f" compression = '{'gzip' if all(map(is_gzip, group.files)) else 'auto'}',"
        " store_rejects = true, rejects_table = 'csv_error', rejects_scan = 'csv_scan', rejects_limit = 0)"
    )


def _chosen(name: str, group: Group, number: int) -> str:
    held = {column.lower(): column for column in group.columns}
    if name.lower() in held:
        return f"{quote_name(held[name.lower()])} AS {quote_name(name)}"
    if name == FILE_NAME:
        return f"""regexp_replace(parse_filename("#path"), '{_ENDING}', '') AS file_name"""
    if name == ROW_NUMBER:
        of_file = f' - min("{LINE}") OVER (PARTITION BY "#path") + 1' if len(group.files) > 1 else ""
        return f'"{LINE}"{of_file} AS row_number'
    if name == LINE:
        return f'"{LINE}" + {number * _MOST_ROWS} AS "{LINE}"'
    return f"CAST(NULL AS VARCHAR) AS {quote_name(name)}"


def unreadable_rows(group: Group) -> str:
    """A query of the lines that the last read of the group could not read (file_name, line, row_text, rule)."""
    none = "SELECT '' AS file_name, 0 AS line, '' AS row_text, '' AS rule WHERE false"
    return UNREADABLE_ROWS if group.format is not None else none


def unzipped(file: Path) -> str:
    """The name of a copy that is not compressed."""
    return file.name[: -len(".gz")] if is_gzip(file) else file.name


def with_one_line_end(file: Path, target: Path) -> Path:
    """A copy in which every line ends the same way: DuckDB reads no file that mixes them."""
    return _rewritten(file, target, encoding="utf-8", errors="surrogateescape", newline=None)


def as_utf8(file: Path, encoding: str, target: Path) -> Path:
    """The file itself, or a copy in UTF-8. Raises UnreadableTableError where a byte is not of ``encoding``."""
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii"):
        return file
    return _rewritten(file, target, encoding=encoding, errors="strict", newline="")


def _rewritten(file: Path, target: Path, *, encoding: str, errors: str, newline: str | None) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            open_text(file, encoding=encoding, errors=errors, newline=newline) as text,
            target.open("w", encoding="utf-8", errors=errors, newline="") as out,
        ):
            while part := text.read(_CHUNK):
                out.write(part)
    except (UnicodeError, OSError, EOFError, zlib.error) as error:
        raise UnreadableTableError(f"{file}: cannot be read as {encoding} ({type(error).__name__})") from error
    return target
