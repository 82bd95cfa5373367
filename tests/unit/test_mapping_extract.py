"""Files and databases become rows: what is read, what is refused, and how relations are made of them."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mapped_extract import LABS, Document, map_files, rejected

from client.extract import working_database
from client.mapping import database, staging
from client.mapping.expressions import parse
from client.mapping.run import _lock
from shared_model.errors import (
    ConfigError,
    ConsiliumError,
    DataError,
    MissingColumnError,
    MissingTableError,
    UnreadableTableError,
)

HEAD = LABS.splitlines()[0] + "\n"
GOOD = "100;2150-03-10 01:00:00;HF;80;\n"


def _relation(name: str, **keys: object) -> Callable[[Document], None]:
    return lambda document: document["relations"].setdefault(name, {}).update(keys)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("read_text('/etc/passwd')", r"read_text\(\) is not allowed"),
        ("getenv('HOME')", r"getenv\(\) is not allowed"),
        ("(SELECT 1)", "a subquery is not allowed"),
        ("pat IN (SELECT content FROM read_text('x'))", "a subquery is not allowed"),
        ("1) FROM read_csv('x') WHERE (true", "no SQL expression"),
        ("1), (2", "no SQL expression"),
        ("true) USING SAMPLE reservoir(50", "no SQL expression"),
        ("1 AS one", "no SQL expression"),
        ("age(TIMESTAMP '2020-01-01')", "counts to the day of the run"),
        ("CAST(sex AS INET)", "no type INET"),
        ("lpad(pat, 100000000, 'x')", "1,000 at most"),
        ("printf('%900000000d', 1)", r"printf\(\) is not allowed"),
        ("CASE WHEN true THEN " * 900 + "1" + " END" * 900, "nested too deeply|longer than"),
        ("pat; DROP TABLE x", "no SQL expression"),
        ("now()", r"now\(\) is not allowed"),
        ("random()", r"random\(\) is not allowed"),
        ("current_setting('home_directory')", r"current_setting\(\) is not allowed"),
        ("count(*)", "is not allowed"),
        ("row_number() OVER ()", "a window function is not allowed"),
        ("stays.pat", "without its relation"),
        ("getvariable('x')", "is not allowed"),
        ("json_serialize_plan('SELECT * FROM read_text(''x'')')", "is not allowed"),
        ("*", "is not allowed"),
    ],
)
def test_an_expression_reads_nothing_but_its_row(text: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rule):
        parse(text, "relations.labs.filter")
    with pytest.raises(ConfigError, match=rule):
        map_files(tmp_path, change=_relation("labs", add={"new": text}))


def test_the_database_of_a_mapping_reads_and_writes_its_own_folder_only(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n", encoding="utf-8")
    with working_database(tmp_path / "inside", memory_limit="500MB") as connection:
        _lock(connection, tmp_path / "inside")
        for query in (
            f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
            f"SELECT * FROM read_text('{tmp_path}/inside/../secret.csv')",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/other.duckdb'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(query)
        connection.execute(f"COPY (SELECT 1) TO '{tmp_path}/inside/out.parquet' (FORMAT parquet)")


def test_an_ordinary_expression_is_allowed() -> None:
    found = parse("CASE WHEN a ILIKE 'x%' THEN coalesce(b, split_part(a, '|', 2)) ELSE CAST(d AS DATE) - 1 END", "x")
    assert found.columns == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (_relation("labs", file="lab.csv"), MissingTableError, ["relations.labs.file", "lab.csv", "it has labs.csv"]),
        (_relation("labs", file="../x.csv"), MissingTableError, ["relations.labs.file", "leaves the source's folder"]),
        (_relation("labs", csv={"delimiter": ","}), UnreadableTableError, ["labs.csv", "csv.delimiter ',' right?"]),
        (
            _relation("labs", filter="vlue > 1"),
            MissingColumnError,
            ["labs.filter", "'vlue'; is it 'value'?", "It has: stay"],
        ),
        (_relation("labs", add={"code": "1"}), ConfigError, ["relations.labs"]),
        (
            _relation("labs", join=[{"relation": "labs2", "by": {"stay": "stay"}, "columns": {"again": "code"}}]),
            ConfigError,
            ["relations.labs.join[0]", "2", "more than once in 'labs2'", "keep_one"],
        ),
    ],
    ids=["no such file", "outside", "delimiter", "column", "taken name", "join multiplies"],
)
def test_what_the_yaml_says_wrong_about_the_files_is_told(
    change: Callable[[Document], None], error: type[ConsiliumError], words: list[str], tmp_path: Path
) -> None:
    def both(document: Document) -> None:
        document["relations"]["labs2"] = {"file": "labs2.csv"}
        change(document)

    twice = HEAD + GOOD * 2 + GOOD.replace("100;", "101;") * 2
    with pytest.raises(error) as refused:
        map_files(tmp_path, files={"labs2.csv": twice}, change=both)
    assert all(word in str(refused.value) for word in words), refused.value


def test_ragged_rows_of_a_wide_file_are_rejected_counted_and_kept(tmp_path: Path) -> None:
    columns = ["stay", "at", *(f"c{n}" for n in range(98))]
    row = ["100", "2150-03-10 01:00:00", *("80" for _ in range(98))]
    lines = [columns, row, row[:-1], row, [*row, "SECRET"], row, row, ['"unclosed', *row[1:]]]
    wide = "\n".join(";".join(line) for line in lines) + "\n"

    def change(document: Document) -> None:
        document["relations"]["labs"] = {"file": "wide.csv", "unpivot": {"all_but": ["stay", "at"]}}
        entry = {"from": "labs", "stay": "stay", "time": "at", "code": "name", "value": "value"}
        document["events"] = [entry | {"codes": {"heart_rate": "c5"}}]

    mapped = map_files(tmp_path, files={"wide.csv": wide}, change=change)
    assert mapped.values("chartevents") == [80.0] * 4
    line = mapped.line("relations.labs")
    assert (line.rows, line.mapped, line.rejected) == (4 * 98 + 3, 4 * 98, {"line cannot be read": 3})
    rules = {rule for rule, _ in rejected(mapped, "unreadable-labs")}
    assert {"missing columns", "too many columns"} <= rules


def test_lines_that_are_not_utf_8_are_rejected_until_the_encoding_is_named(tmp_path: Path) -> None:
    labs = (HEAD + GOOD * 3 + "100;2150-03-10 02:00:00;HF;80;Schläge/min\n").encode("cp1252")
    mapped = map_files(tmp_path / "a", files={"labs.csv": labs})
    assert mapped.line("relations.labs").rejected == {"line cannot be read": 1}
    assert [rule for rule, _ in rejected(mapped, "unreadable-labs")] == ["invalid encoding"]
    named = map_files(tmp_path / "b", files={"labs.csv": labs}, change=_relation("labs", csv={"encoding": "cp1252"}))
    assert named.line("events[0]").mapped == 4
    with pytest.raises(UnreadableTableError, match=r"labs.csv: cannot be read as utf-16"):
        map_files(tmp_path / "c", files={"labs.csv": labs}, change=_relation("labs", csv={"encoding": "utf-16"}))


def test_a_file_that_mostly_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTableError, match=r"2 lines cannot be read and 1 can; most often: missing columns"):
        map_files(tmp_path, files={"labs.csv": HEAD + GOOD + "1;2\n3;4\n"})


def test_many_files_are_one_relation_and_tell_their_names(tmp_path: Path) -> None:
    part = "at;HF\n2150-03-10 01:00:00;80\n"
    other = "HF;at\n81;2150-03-10 02:00:00\n"  # another order of the columns

    def change(document: Document) -> None:
        document["relations"]["labs"] = {"file": "parts/*.psv", "add": {"code": "'HF'"}}
        entry = {"from": "labs", "stay": "file_name", "time": "at", "code": "code", "value": "HF"}
        document["events"] = [entry | {"codes": {"heart_rate": "HF"}}]

    (tmp_path / "extract" / "parts").mkdir(parents=True)
    mapped = map_files(tmp_path, files={"parts/100.psv": part, "parts/101.psv": other}, change=change)
    assert sorted(
        zip(mapped.table("chartevents")["stay_id"], mapped.table("chartevents")["valuenum"], strict=True)
    ) == [
        (100, 80.0),
        (101, 81.0),
    ]


def test_every_file_counts_its_own_rows_and_all_files_have_one_order(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["relations"]["labs"] = {"file": "parts/*.csv", "unpivot": {"all_but": ["bed"]}}
        document["relations"]["last"] = {"from": "labs", "keep_one": {"by": "name", "take": "last"}}
        entry = {"stay": "file_name", "code": "name", "value": "value", "codes": {"heart_rate": "HF", "sbp": "RR"}}
        hours = {"expr": "row_number", "offset": "hours"}
        document["events"] = [entry | {"from": "labs", "time": hours}]
        document["events"] += [entry | {"from": "last", "time": {"value": 20, "offset": "hours"}}]

    parts = {"100": "bed;HF\n1;80\n1;81\n", "101": "bed;HF\n2;90\n2;91\n", "102": "bed;RR\n3;120\n"}
    (tmp_path / "extract" / "parts").mkdir(parents=True)
    mapped = map_files(tmp_path, files={f"parts/{name}.csv": text for name, text in parts.items()}, change=change)
    found = mapped.table("chartevents").sort_values(["charttime", "valuenum"])
    got = [(t.day, t.hour, v) for t, v in zip(found["charttime"], found["valuenum"], strict=True)]
    assert got == [(10, 1, 80), (10, 2, 81), (11, 1, 90), (11, 2, 91), (11, 20, 91), (12, 1, 120), (12, 20, 120)]


def test_rows_without_an_order_of_lines_need_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(document: Document) -> None:
        _from_database(document)
        document["relations"]["labs"]["keep_one"] = {"by": "stay"}

    monkeypatch.setenv("SITE_URL", _sqlite(tmp_path))
    with pytest.raises(ConfigError, match=r"relations\.labs\.keep_one: give `order`; these rows are in no order"):
        map_files(tmp_path, change=change)


def test_long_to_wide_joined_and_one_row_of_several(tmp_path: Path) -> None:
    facts = "stay;name;value\n100;size;1,8\n100;size;1,9\n100;kg;80\n101;kg;70\n101;noise;1\n"

    def change(document: Document) -> None:
        document["relations"] |= {
            "facts": {
                "file": "facts.csv",
                "pivot": {"key": "stay", "name": "name", "value": "value", "columns": ["size", "kg"]},
            },
            "first": {"from": "stays", "keep_one": {"by": "unit", "order": '"in"', "take": "last"}},
            "sized": {"from": "facts", "join": [{"relation": "first", "by": {"stay": "stay"}, "required": True}]},
            "both": {
                "from": "facts",
                "join": [{"relation": "stays", "by": {"stay": "stay"}, "columns": {"came": "in"}}],
            },
        }
        entry = {"from": "both", "stay": "stay", "time": "came", "code": {"value": "kg"}, "value": "kg"}
        document["events"] = [
            entry | {"codes": {"weight": "kg"}},
            {**entry, "from": "sized", "time": "in", "codes": {"weight": "kg"}},
        ]

    mapped = map_files(tmp_path, files={"facts.csv": facts}, change=change)
    assert sorted(mapped.table("chartevents")["valuenum"]) == [70.0, 80.0]
    assert mapped.line("relations.facts").ignored == {"pivoted into one row a key": 3}
    assert mapped.line("relations.first").ignored == {"not the one that is kept": 3}
    assert mapped.line("relations.sized").ignored == {"nothing in first": 2}


def test_an_optional_file_may_be_absent(tmp_path: Path) -> None:
    mapped = map_files(tmp_path, change=_relation("labs", file="none.csv", optional=True))
    assert mapped.account.absent == ["labs"]
    assert len(mapped.table("chartevents")) == 0 and len(mapped.table("icustays")) == 4


def test_an_interrupted_preparation_reads_again_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    run = staging._Stage.run

    def watched(
        stage: staging._Stage, finished: dict[str, staging.Staged], connection: duckdb.DuckDBPyConnection
    ) -> None:
        read.append(stage.name)
        run(stage, finished, connection)

    monkeypatch.setattr(staging._Stage, "run", watched)
    map_files(tmp_path)
    assert sorted(read) == ["labs", "stays"]
    (tmp_path / "extract" / "labs.csv").write_text(HEAD + GOOD * 3, encoding="utf-8")
    marker = tmp_path / "building" / "staged" / "stays.json"
    held = json.loads(marker.read_text(encoding="utf-8"))
    read.clear()
    mapped = map_files(tmp_path, labs=GOOD * 2, files={})
    assert "labs" in read
    assert json.loads(marker.read_text(encoding="utf-8"))["rows"] == held["rows"]
    assert mapped.line("events[0]").rows == 2


# Databases: SQLite runs in this process; PostgreSQL is in tests/integration/test_equivalence.py.


def _sqlite(folder: Path) -> str:
    with sqlite3.connect(folder / "site.db") as connection:
        connection.execute("CREATE TABLE labs (stay INTEGER, at DATETIME, code TEXT, value REAL, unit TEXT)")
        rows = [(100, f"2150-03-10 0{n}:00:00.000000", "HF", 80.0 + n, None) for n in range(5)]
        connection.executemany("INSERT INTO labs VALUES (?, ?, ?, ?, ?)", rows)
    return f"sqlite:///{folder / 'site.db'}"


def _from_database(document: Document, table: str = "labs") -> None:
    document["sources"]["base"] = {"url_env": "SITE_URL"}
    document["relations"]["stays"]["source"] = "files"
    document["relations"]["labs"] = {"source": "base", "table": table}


def test_a_table_of_a_database_is_copied_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_URL", _sqlite(tmp_path))
    monkeypatch.setattr(database, "BATCH_ROWS", 2)
    mapped = map_files(tmp_path, change=_from_database)
    assert mapped.values("chartevents") == [80.0, 81.0, 82.0, 83.0, 84.0]
    [(groups,)] = duckdb.execute(
        f"SELECT count(DISTINCT row_group_id) FROM parquet_metadata('{tmp_path}/building/staged/labs.parquet')"
    ).fetchall()
    assert groups == 3


@pytest.mark.parametrize(
    ("url", "table", "words"),
    [
        (None, "labs", ["sources.base.url_env", "SITE_URL is not set"]),
        ("nonsense", "labs", ["$SITE_URL is no database URL"]),
        ("postgresql://user:SECRET@127.0.0.1:9/none", "labs", ["relations.labs", "$SITE_URL"]),
        ("oracle://user:SECRET@127.0.0.1/none", "labs", ["$SITE_URL"]),
        ("sqlite", "lab", ["no table 'lab'", "is it 'labs'?"]),
    ],
    ids=["unset", "no url", "unreachable", "no driver", "no table"],
)
def test_a_database_that_does_not_answer_is_told_without_its_password(
    url: str | None, table: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SITE_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("SITE_URL", _sqlite(tmp_path) if url == "sqlite" else url)
    with pytest.raises((ConfigError, DataError)) as refused:
        map_files(tmp_path, change=lambda document: _from_database(document, table))
    assert all(word in str(refused.value) for word in words), refused.value
    assert "SECRET" not in str(refused.value) and "\n" not in str(refused.value)


_CELL = st.one_of(
    st.sampled_from(["100", "HF", "80", "2150-03-10 01:00:00", "", '"', ";", "KREA", "mg/dl"]), st.text(max_size=8)
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(_CELL, max_size=7), max_size=12), tail=st.binary(max_size=20))
def test_any_file_is_mapped_with_a_balanced_account_or_refused_in_words(
    rows: list[list[str]], tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    text = "".join(";".join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    try:
        mapped = map_files(folder, files={"labs.csv": (HEAD + GOOD * 2).encode() + text + tail + b";PLANTED\n"})
    except ConsiliumError as error:
        assert "PLANTED" not in str(error)
        return
    assert all(line.rows >= line.mapped for line in mapped.account.lines)  # a line that does not balance raises
    assert mapped.line("relations.labs").mapped == mapped.line("events[0]").rows
