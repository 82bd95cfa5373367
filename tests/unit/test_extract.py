"""What a data engineer does wrong with an extract, and that the error names it without naming a patient's value."""

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from site_builders import TINY, as_parquet, table_file, tiny_folder, write_csv

from client.extract import extract_tables, working_database
from client.folders import replacing_folder
from client.source import find_tables, verify_checksum
from shared_model.errors import (
    DataError,
    MissingColumnError,
    MissingTableError,
    NotAMimicFolderError,
    UnreadableTableError,
)
from shared_model.schema import TABLES

REQUIRED = [table.name for table in TABLES if table.required]
OPTIONAL = [table.name for table in TABLES if not table.required]
BAD_VALUE = "12.3SECRET"
Rows = dict[str, list[tuple[Any, ...]]]


def read(folder: Path, workspace: Path) -> Rows:
    """Every table of the extract as the pipeline sees it, in a fixed order."""
    with replacing_folder(workspace) as store, working_database(store, memory_limit="500MB") as connection:
        extract_tables(connection, find_tables(folder), store, held=store)
        return {t.name: connection.execute(f"SELECT * FROM {t.name} ORDER BY ALL").fetchall() for t in TABLES}


def unreadable(workspace: Path, name: str) -> pd.DataFrame:
    """The rows of a table that were kept apart on reading."""
    file = workspace / "rejects" / f"unreadable-{name}.parquet"
    return pd.read_parquet(file) if file.exists() else pd.DataFrame({"line": [], "rule": [], "row_text": []})


def refusal(kind: type[DataError], folder: Path, workspace: Path) -> str:
    """The message of the refusal, which is one line, quotes no value and leaves no file behind."""
    with pytest.raises(kind) as caught:
        read(folder, workspace)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    assert "SECRET" not in message
    assert not workspace.exists()
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "extract")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def test_the_tiny_extract_is_read_with_the_types_of_the_schema(folder: Path, workspace: Path) -> None:
    rows = read(folder, workspace)
    assert rows["patients"] == [(1, "F", 60.0, 2150), (2, "M", 71.0, 2150)]
    assert rows["labevents"][0][:4] == (1, None, 7, 50912)
    assert rows["labevents"][0][4] == pd.Timestamp("2150-03-10 03:00:00")
    assert rows["chartevents"][1][3] is None
    assert {file.name for file in workspace.iterdir()} == {"tables", "rejects"}


def test_rows_of_items_that_nothing_reads_are_left_behind(folder: Path, workspace: Path) -> None:
    assert {row[4] for row in read(folder, workspace)["chartevents"]} == {220045}


def test_quoted_commas_quotes_and_line_ends_stay_within_their_field(folder: Path, workspace: Path) -> None:
    rows = read(folder, workspace)
    assert {row[5] for row in rows["prescriptions"]} == {'Sulfa, "DS"\nforte', "Vancomycin"}
    assert rows["radiology"][0][5] == 'CHEST, portable\n\n"clear"'


def test_an_absent_path_and_an_empty_folder_are_no_mimic_folder(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "half" / "hosp").mkdir(parents=True)
    for name in ("absent", "empty", "file", "half"):
        message = refusal(NotAMimicFolderError, tmp_path / name, workspace)
        assert str(tmp_path / name) in message
        assert "hosp/" in message
        assert "icu/" in message


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_required_table_is_named_with_its_place(name: str, folder: Path, workspace: Path) -> None:
    table_file(folder, name).unlink()
    message = refusal(MissingTableError, folder, workspace)
    assert str(table_file(Path(), name)) in message
    assert str(folder) in message


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_absent_optional_table_is_empty_and_the_others_are_read(name: str, folder: Path, workspace: Path) -> None:
    whole = read(folder, workspace)
    table_file(folder, name).unlink()
    assert name not in find_tables(folder)
    assert read(folder, workspace) == whole | {name: []}


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.9999])
def test_a_truncated_gzip_is_refused_by_name(keep: float, folder: Path, workspace: Path) -> None:
    header, row = TINY["chartevents"].split("\n")[:2]
    many = "".join(f"\n{row.replace('88', str(40 + n % 150))}" for n in range(20000))
    file = write_csv(folder, "chartevents", header + many + "\n")
    raw = file.read_bytes()
    file.write_bytes(raw[: max(5, int(len(raw) * keep))])
    assert str(file) in refusal(UnreadableTableError, folder, workspace)


def test_a_gzip_damaged_at_its_begin_is_refused_by_name(folder: Path, workspace: Path) -> None:
    file = table_file(folder, "labevents")
    raw = bytearray(file.read_bytes())
    raw[10:40] = b"\xff" * 30
    file.write_bytes(raw)
    assert str(file) in refusal(UnreadableTableError, folder, workspace)


def test_a_gzip_whose_content_contradicts_its_checksum_is_refused(folder: Path, workspace: Path) -> None:
    file = table_file(folder, "labevents")
    stored = bytearray(gzip.compress(TINY["labevents"].encode(), 0))
    stored[stored.index(b"1.4,1.4") + 4] = ord("9")  # a creatinine of 1.4 becomes 9.4 in a bad copy
    file.write_bytes(stored)
    with pytest.raises(UnreadableTableError, match="truncated or damaged"):
        verify_checksum(file)
    verify_checksum(table_file(folder, "patients"))


def test_a_csv_gz_that_is_no_gzip_is_refused_by_name(folder: Path, workspace: Path) -> None:
    file = table_file(folder, "labevents")
    file.write_text(TINY["labevents"])
    assert str(file) in refusal(UnreadableTableError, folder, workspace)


@pytest.mark.parametrize(
    ("name", "column", "renamed"),
    [
        ("labevents", "charttime", "chart_time"),
        ("icustays", "first_careunit", "careunit"),
        ("discharge", "text", "txt"),
    ],
)
def test_a_renamed_column_is_named_with_the_close_one(
    name: str, column: str, renamed: str, folder: Path, workspace: Path
) -> None:
    file = write_csv(folder, name, TINY[name].replace(column, renamed, 1))
    message = refusal(MissingColumnError, folder, workspace)
    assert str(file) in message
    assert f"'{column}'" in message
    assert f"is it '{renamed}'" in message


@pytest.mark.parametrize(
    ("name", "good", "rule", "line"),
    [
        ("labevents", "1.4,mg/dL", "valuenum: not DOUBLE", 2),
        ("chartevents", "90.5,bpm", "valuenum: not DOUBLE", 3),
        ("admissions", "2150-03-20 12:00:00", "dischtime: not TIMESTAMP", 2),
        ("patients", "2,M", "subject_id: not BIGINT", 3),
    ],
)
def test_a_row_with_a_value_not_of_its_type_is_kept_apart_and_the_others_are_read(
    name: str, good: str, rule: str, line: int, folder: Path, workspace: Path
) -> None:
    header, *rows = TINY[name].rstrip("\n").split("\n")
    whole = read(tiny_folder(folder, **{name: "\n".join([header, *rows, *rows[:1] * 3]) + "\n"}), workspace)
    rest = "," + good.split(",")[1] if "," in good else ""
    spoiled = [row.replace(good, BAD_VALUE + rest) for row in rows]
    write_csv(folder, name, "\n".join([header, *spoiled, *rows[:1] * 3]) + "\n")
    found = read(folder, workspace)
    kept = unreadable(workspace, name)
    assert kept[["line", "rule"]].values.tolist() == [[line, rule]]
    assert kept["row_text"].tolist() == [spoiled[line - 2]]
    assert len(found[name]) == len(whole[name]) - 1
    assert found | {name: []} == whole | {name: []}


@pytest.mark.parametrize("row", ["3,SECRET", "3,F,SECRET,2150,,,,"])
def test_a_row_with_too_few_or_too_many_fields_is_kept_apart(row: str, folder: Path, workspace: Path) -> None:
    write_csv(folder, "patients", f"{TINY['patients']}{row}\n")
    assert len(read(folder, workspace)["patients"]) == 2
    kept = unreadable(workspace, "patients")
    assert kept["line"].tolist() == [4]
    assert kept["rule"].isin(["missing columns", "too many columns", "anchor_age: not DOUBLE"]).all()


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet"])
def test_a_file_whose_rows_mostly_do_not_fit_is_refused_by_file_and_column(
    suffix: str, folder: Path, tmp_path: Path, workspace: Path
) -> None:
    write_csv(folder, "labevents", TINY["labevents"].replace("1.4,mg/dL", f"{BAD_VALUE},mg/dL"))
    if suffix == ".parquet":
        folder = as_parquet(folder, tmp_path / "parquet", typed=False)
    message = refusal(UnreadableTableError, folder, workspace)
    assert str(table_file(folder, "labevents", suffix)) in message
    assert "valuenum: not DOUBLE" in message


def test_a_bad_value_in_parquet_is_kept_apart_with_its_line(folder: Path, tmp_path: Path, workspace: Path) -> None:
    header, row, *_ = TINY["labevents"].split("\n")
    bad = row.replace("1.4,mg/dL", f"{BAD_VALUE},mg/dL")
    write_csv(folder, "labevents", "\n".join([header, row, bad, row, row]) + "\n")
    found = read(as_parquet(folder, tmp_path / "parquet", typed=False), workspace)
    kept = unreadable(workspace, "labevents")
    assert len(found["labevents"]) == 3
    assert kept[["line", "rule"]].values.tolist() == [[2, "valuenum: not DOUBLE"]]
    assert BAD_VALUE in kept["row_text"][0]


def test_a_row_that_is_not_utf8_is_kept_apart(folder: Path, workspace: Path) -> None:
    many = TINY["prescriptions"] + "1,1000,,,MAIN,x,IV\n" * 5000 + "1,1000,,,MAIN,SECRET\u00e9,IV\n"
    write_csv(folder, "prescriptions", many.encode("latin-1"))
    assert len(read(folder, workspace)["prescriptions"]) == 5002
    assert unreadable(workspace, "prescriptions")["rule"].tolist() == ["invalid encoding"]


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused_by_name(
    keep: float, folder: Path, tmp_path: Path, workspace: Path
) -> None:
    parquet = as_parquet(folder, tmp_path / "parquet", typed=False)
    file = table_file(parquet, "labevents", ".parquet")
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * keep)])
    assert str(file) in refusal(UnreadableTableError, parquet, workspace)


def _bom_and_quoted(text: str) -> str:
    header, rest = text.split("\n", 1)
    return "\ufeff" + ",".join(f'"{name}"' for name in header.split(",")) + "\n" + rest


def _more_columns_in_another_order(text: str) -> str:
    rows = [line.split(",") for line in text.rstrip("\n").split("\n")]
    return "".join(",".join(["extra" if n == 0 else "x,"[:1], *reversed(row)]) + "\n" for n, row in enumerate(rows))


@pytest.mark.parametrize(
    "written_as",
    [_bom_and_quoted, _more_columns_in_another_order, lambda text: text.replace("\n", "\r\n"), str.rstrip],
    ids=["BOM and quoted header", "extra column, other order", "CRLF", "no last line end"],
)
@pytest.mark.parametrize("name", ["patients", "chartevents", "labevents"])
def test_what_other_programs_do_to_csv_changes_nothing(
    name: str, written_as: Any, folder: Path, workspace: Path
) -> None:
    expected = read(folder, workspace)
    write_csv(folder, name, written_as(TINY[name]))
    assert read(folder, workspace) == expected


@pytest.mark.parametrize("extra", ['"ward, bed"', "patient's"])
def test_a_column_that_nothing_reads_may_have_any_name(extra: str, folder: Path, workspace: Path) -> None:
    expected = read(folder, workspace)
    header, *rows = TINY["patients"].rstrip("\n").split("\n")
    write_csv(folder, "patients", "".join(f"{line}\n" for line in (f"{header},{extra}", *(f"{r},x" for r in rows))))
    assert read(folder, workspace) == expected


def test_plain_csv_and_parquet_give_the_tables_of_csv_gz(folder: Path, tmp_path: Path, workspace: Path) -> None:
    expected = read(folder, workspace)
    for name, text in TINY.items():
        write_csv(tmp_path / "csv", name, text, suffix=".csv")
    assert read(tmp_path / "csv", workspace) == expected
    assert read(as_parquet(folder, tmp_path / "text", typed=False), workspace) == expected
    assert read(as_parquet(folder, tmp_path / "typed", typed=True), workspace) == expected


@pytest.mark.parametrize("name", ["St Mary's", "mimic[3.1]", "a b*c", "Zürich"])
def test_a_folder_may_have_any_name(name: str, folder: Path, tmp_path: Path, workspace: Path) -> None:
    expected = read(folder, workspace)
    folder.rename(tmp_path / name)
    assert read(tmp_path / name, tmp_path / f"{name} workspace") == expected
