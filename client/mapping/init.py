"""A commented starting YAML from the files of an extract: what is there, what it looks like, what is left to fill in.

Guesses come from the names of files and columns and, for long tables, from the codes of the first rows. Each is a
proposal for a person: what nothing suggests is written as ``FILL_IN``, and `consilium-site check` names it with the
columns that there are.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from tempfile import TemporaryDirectory

from client.mapping.config import FIRST_TABLES, CsvFormat
from client.mapping.files import FILE_NAME, as_utf8, header, header_fields, is_table
from client.mapping.guesses import FIELDS, ROLES, TABLES_CALLED
from client.mapping.loading import BLANK
from client.mapping.mistakes import nearest
from client.mapping.names import REQUIRED
from client.mapping.suggest import suggest
from client.source import as_glob, is_gzip, is_parquet, parquet_columns, quoted, read_parquet
from shared_model.errors import ConfigError, DataError

_ROWS_LOOKED_AT, _MOST_CODES = 20_000, 60
_ALIKE = 3  # so many files whose names differ in numbers are one table in parts
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Found:
    """A table file, or several with one header, with the delimiter that it suggests (None: Parquet)."""

    file: str
    columns: tuple[str, ...]
    delimiter: str | None
    encoding: str = "utf-8"
    pattern: str = ""

    @property
    def name(self) -> str:
        """A relation's name for it."""
        text = self.pattern.replace("*", "") or self.file
        base = re.sub(r"[^0-9A-Za-z]+", "_", text.rpartition("/")[2].split(".")[0]).strip("_").lower()
        return base if re.match(r"[a-z_]", base) else f"table_{base}"


def write_start(folder: Path, like: str, out: Path) -> None:
    """Write a starting YAML to the new file ``out``. Raises ConfigError or DataError."""
    if out.exists():
        raise ConfigError(f"--out {out}: exists; name a new file")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    shipped = _shipped()
    if like != "csv" and like not in shipped:
        raise ConfigError(f"--like {like}: unknown{nearest(like, ['csv', *sorted(shipped)])}")
    text = _from_files(folder) if like == "csv" else _from_shipped(shipped[like], folder, like)
    out.write_text(text, encoding="utf-8")


def shipped_configs() -> Path:
    """The folder of the shipped configs: beside the sources, or inside the installed package."""
    beside = Path(__file__).resolve().parents[2] / "site_configs"
    return beside if beside.is_dir() else Path(str(resources("client").joinpath("site_configs")))


def _shipped() -> dict[str, str]:
    """The shipped configs that extend no other, by name."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(shipped_configs().glob("*.yaml"))}
    return {name: text for name, text in texts.items() if not re.search(r"(?m)^extends:", text)}


def _from_shipped(text: str, folder: Path, like: str) -> str:
    """A shipped config with this folder as its extract, and what of its files is not there."""
    placed = re.sub(r"(?m)^(\s+path:).*$", lambda found: f"{found[1]} {folder.resolve()}", text)
    placed = re.sub(r"(?m)^store:.*$", "store: store # patient data: keep it where the extract may be", placed)
    wanted = sorted(set(re.findall(r"[\w*-]+\.(?:csv|tsv|psv|parquet)(?:\.gz)?", text)))
    absent = [name for name in wanted if not list(folder.rglob(name))]
    told = "".join(f"# absent here: {name} (mark its relation `optional: true`, or take it out)\n" for name in absent)
    return f"# Started by `consilium-site init --like {like}`.\n{told}{placed}"


def _from_files(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if is_table(file))
    if not files:
        raise DataError(f"{folder}: no CSV, TSV or Parquet file in it; a database is named by sources.NAME.url_env")
    found = [_look_at(folder, held) for held in _alike(folder, files)]
    delimiter = next((f.delimiter for f in found if f.delimiter), ",")
    named = _named(found)
    return "\n".join(
        (*_head(folder, delimiter), *_relations(named, delimiter), *_tables(named), *_events(folder, named), "")
    )


def _named(found: Iterable[Found]) -> dict[str, Found]:
    named: dict[str, Found] = {}
    for one in found:
        name, number = one.name, 2
        while name in named:
            name, number = f"{one.name}_{number}", number + 1
        named[name] = one
    return named


def _alike(folder: Path, files: list[Path]) -> list[tuple[Path, str]]:
    """The first of the files whose names differ in numbers only, with the pattern that names them all."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.sub(r"[0-9]+", "*", file.relative_to(folder).as_posix()), []).append(file)
    alone = [(file, "") for held in groups.values() if len(held) < _ALIKE for file in held]
    return [*alone, *((held[0], name) for name, held in groups.items() if len(held) >= _ALIKE)]


def _look_at(folder: Path, held: tuple[Path, str]) -> Found:
    file, pattern = held
    relative = file.relative_to(folder).as_posix()
    if is_parquet(file):
        return Found(relative, tuple(parquet_columns(file)), None, pattern=pattern)
    encoding = _encoding(file)
    with TemporaryDirectory() as place:
        copy = as_utf8(file, encoding, Path(place) / "copy")
        line = "".join(header_fields(copy, CsvFormat(delimiter="\x1f", quote="")))
        delimiter = max(_DELIMITERS, key=line.count) if any(sign in line for sign in _DELIMITERS) else ","
        return Found(relative, header(copy, CsvFormat(delimiter=delimiter)), delimiter, encoding, pattern)


def _encoding(file: Path) -> str:
    """UTF-8 where the first lines are, else what Windows writes in the west."""
    opener = gzip.open if is_gzip(file) else open  # bytes: what they are is the question
    try:
        with opener(file, "rb") as content:
            content.read(1 << 16).decode("utf-8")
    except UnicodeDecodeError as error:
        return "utf-8" if error.reason == "unexpected end of data" else "cp1252"
    except (OSError, EOFError, zlib.error):
        return "utf-8"  # a damaged file is told when its header is read
    return "utf-8"


def _head(folder: Path, delimiter: str) -> Iterator[str]:
    yield from (
        "# Started by `consilium-site init`: every guess is yours to check, every FILL_IN yours to fill.",
        "# All keys: `consilium-site schema`. What codes can be mapped to: `consilium-site concepts`.",
        f"site: {folder.resolve().name}",
        "store: store                 # patient data: keep it where the extract may be",
        "cohort: all_icu              # sepsis3 needs prescriptions and cultures",
        "encoder: none                # minilm, a folder, or a Hugging Face id to read notes",
        "release:                     # nothing leaves the site that is not listed here",
        "  allow: [describe, statistics, train, evaluate, secure]",
        "# timezone: Europe/Berlin    # needed where times name a zone",
        "sources:",
        "  extract:",
        f"    path: {folder.resolve()}",
        f"    csv: {{delimiter: {_sign(delimiter)}}}   # also: decimal, thousands, encoding, missing",
    )


def _relations(named: dict[str, Found], delimiter: str) -> Iterator[str]:
    yield "relations:"
    for name, found in named.items():
        yield f"  # {', '.join(found.columns)}"
        form = {} if found.delimiter in (None, delimiter) else {"delimiter": _sign(found.delimiter or ",")}
        form |= {} if found.encoding == "utf-8" else {"encoding": found.encoding}
        other = f", csv: {{{', '.join(f'{k}: {v}' for k, v in form.items())}}}" if form else ""
        yield f"  {name}: {{file: {_scalar(found.pattern or found.file)}{other}}}"


def _sign(delimiter: str) -> str:
    return '"\\t"' if delimiter == "\t" else f'"{delimiter}"'


def _tables(named: dict[str, Found]) -> Iterator[str]:
    yield "tables:"
    for table in FIRST_TABLES:
        name = max(named, key=lambda one: _score(table, named[one]))
        yield f"  {table}:"
        yield f"    from: {name}"
        yield "    columns:"
        for column in (*REQUIRED[table], *(("gender",) if table == "patients" else ())):
            yield f"      {column}: {_guess(column, named[name])}"
    yield "  # also: prescriptions, microbiologyevents, diagnoses_icd, services, radiology, discharge"


def _score(table: str, found: Found) -> tuple[int, int]:
    """How many of a table's columns a file has, and whether it is called so; fewer columns in all win a tie."""
    called = re.search(TABLES_CALLED[table], found.file.rpartition("/")[2], re.IGNORECASE) is not None
    known = sum(_guess(column, found) != BLANK for column in REQUIRED[table])
    return known + 2 * called if known else 0, -len(found.columns)


def _guess(column: str, found: Found) -> str:
    roles = {"subject_id": "patient", "hadm_id": "admission", "stay_id": "stay"}
    role = _roles(found).get(roles[column]) if column in roles else None
    if role is None and column in FIELDS:
        role = next((c for c in found.columns if re.fullmatch(FIELDS[column], c, re.IGNORECASE)), None)
    return BLANK if role is None else _scalar(role)


def _roles(found: Found) -> dict[str, str]:
    """Role to column; a column has one role."""
    roles: dict[str, str] = {}
    for role, pattern in ROLES:
        if role in roles:
            continue
        free = [c for c in found.columns if c not in roles.values() and re.fullmatch(pattern, c, re.IGNORECASE)]
        if free:
            roles[role] = free[0]
    return roles


def _events(folder: Path, named: dict[str, Found]) -> Iterator[str]:
    yield "events:"
    entries = [entry for name, found in named.items() if (entry := _entry(folder, name, found))]
    yield from (line for entry in entries for line in entry)
    if not entries:
        yield f"  - from: {next(iter(named))}"
        yield from (f"    {key}: {BLANK}" for key in ("stay", "time", "code", "value"))
        yield f"    codes: {{heart_rate: {BLANK}}}"


def _entry(folder: Path, name: str, found: Found) -> list[str]:
    """The lines of a file of measured values: one value a row, or one column a concept."""
    roles = _roles(found)
    owner = next((kind for kind in ("stay", "admission", "patient") if kind in roles), None)
    wide = {column: hit.concept for column in found.columns if (hit := suggest(column)) is not None}
    if owner is None and found.pattern:  # a file for each patient
        owner, roles["stay"] = "stay", FILE_NAME
    if owner is None or not ({"code", "value"} <= roles.keys() or len(wide) > 1):
        return []
    lines = [f"  - from: {name}", f"    {owner}: {_scalar(roles[owner])}", *_time(roles)]
    return [*lines, *(_wide(name, wide) if len(wide) > 1 else _long(folder, found, roles))]


def _time(roles: dict[str, str]) -> list[str]:
    time = _scalar(roles["time"]) if "time" in roles else BLANK
    return [f"    time: {time} # a distance: {{column: ..., offset: minutes}}"]


def _wide(name: str, wide: dict[str, str]) -> list[str]:
    step = f"    # a wide table: give relations.{name} the step unpivot: {{columns: [{', '.join(wide)}]}}"
    return [step, "    code: name", "    value: value", "    codes:", *_grouped(wide)]


def _long(folder: Path, found: Found, roles: dict[str, str]) -> list[str]:
    lines = [f"    {role}: {_scalar(roles[role])}" for role in ("code", "value", "unit") if role in roles]
    hits = {code: hit.concept for code in _codes(folder, found, roles["code"]) if (hit := suggest(code)) is not None}
    return [*lines, "    codes:", *(_grouped(hits) or [f"      heart_rate: {BLANK}"])]


def _grouped(hits: dict[str, str]) -> list[str]:
    by_concept: dict[str, list[str]] = {}
    for code, concept in hits.items():
        by_concept.setdefault(concept, []).append(_scalar(code))
    return [f"      {concept}: [{', '.join(codes)}]" for concept, codes in by_concept.items()]


def _codes(folder: Path, found: Found, column: str) -> list[str]:
    """The most frequent codes of the first rows."""
    import duckdb

    file = quoted(as_glob(folder / found.file))
    rows = read_parquet(folder / found.file) if found.delimiter is None else (
        f"read_csv({file}, delim = {quoted(found.delimiter)}, header = true, all_varchar = true, ignore_errors = true)"
    )  # fmt: skip
    name = '"' + column.replace('"', '""') + '"'
    query = f"""SELECT CAST({name} AS VARCHAR) FROM (SELECT {name} FROM {rows} LIMIT {_ROWS_LOOKED_AT})
        WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {_MOST_CODES}"""
    try:
        with duckdb.connect() as connection:
            return [row[0] for row in connection.execute(query).fetchall()]
    except duckdb.Error:
        return []  # a file that cannot be read is `check`'s to tell


def _scalar(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) and text.lower() not in _WORDS else f'"{text}"'


_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}
