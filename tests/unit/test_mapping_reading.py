"""What files and databases of real hospitals do to a reader: each is read as it is meant, or refused in words."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mapped_extract import STAYS, Document, map_files, rejected

from shared_model.errors import ConfigError, ConsiliumError, MissingTableError, UnreadableTableError

HEAD = "stay;at;code;value;unit\n"
GOOD = "100;2150-03-10 01:00:00;HF;88;\n"


def _file(name: str) -> Callable[[Document], None]:
    return lambda document: document["relations"]["labs"].update(file=name)


def _chart(folder: Path, labs: str | bytes, change: Callable[[Document], None] = lambda document: None) -> list[float]:
    return map_files(folder, files={"labs.csv": labs}, change=change).values("chartevents")


def test_a_name_with_brackets_is_that_file(tmp_path: Path) -> None:
    other = HEAD + "100;2150-03-10 01:00:00;HF;99;\n"
    files = {"labs[1].csv": HEAD + GOOD, "labs1.csv": other}
    assert map_files(tmp_path / "a[b]", files=files, change=_file("labs[1].csv")).values("chartevents") == [88.0]


def test_folders_mean_nothing_to_their_rows(tmp_path: Path) -> None:
    """DuckDB would take the folder stay=999 for the column `stay`."""
    (tmp_path / "code=KREA" / "extract" / "stay=999").mkdir(parents=True)
    files = {"stay=999/labs.csv": HEAD + GOOD}
    assert map_files(tmp_path / "code=KREA", files=files, change=_file("*/labs.csv")).values("chartevents") == [88.0]


@pytest.mark.parametrize(
    "labs",
    [
        HEAD.replace("\n", "\r\n") + GOOD,
        HEAD + GOOD.replace("\n", "\r"),
        ("\ufeff" + HEAD + GOOD).encode(),
        HEAD.replace("\n", ";\n") + GOOD.replace("\n", ";\n"),
    ],
    ids=["mixed line ends", "a lone CR", "byte order mark", "a delimiter too many"],
)
def test_a_text_file_is_read_however_it_ends_its_lines(labs: str | bytes, tmp_path: Path) -> None:
    assert _chart(tmp_path, labs) == [88.0]


def test_a_quote_that_is_never_closed_is_an_error_and_not_one_bad_row(tmp_path: Path) -> None:
    broken = HEAD + GOOD * 3 + '100;2150-03-10 02:00:00;HF;"90;\n' + GOOD * 3
    with pytest.raises(UnreadableTableError, match=r"labs\.csv: a quote that is opened in line 5 is never closed"):
        _chart(tmp_path, broken)


def test_a_pipe_or_a_strange_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "extract").mkdir()
    os.mkfifo(tmp_path / "extract" / "pipe.csv")
    for name in ("pipe*.csv", "labs**.csv", "x" * 300 + ".csv"):
        with pytest.raises(MissingTableError, match=r"relations\.labs\.file"):
            map_files(tmp_path, change=_file(name))


def test_what_an_earlier_try_had_read_does_not_stay(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"more.csv": "at;stay;code;value;unit\n2150-03-10 02:00:00;100;HF;89;\n"}
    for name, values in ((["labs.csv", "more.csv"], [88.0, 89.0]), (["labs.csv"], [88.0])):
        mapped = map_files(tmp_path, files=files | {"labs.csv": HEAD + GOOD}, change=_file(name))  # type: ignore[arg-type]
        assert mapped.values("chartevents") == values


def test_a_line_that_cannot_be_read_is_kept_with_its_file(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"labs_1.csv": HEAD + GOOD * 3, "labs_2.csv": HEAD + GOOD * 3 + "100;too;few\n"}
    mapped = map_files(tmp_path, files=files, change=_file("labs_*.csv"))
    assert mapped.line("relations.labs").rejected == {"line cannot be read": 1}
    import duckdb

    kept = duckdb.execute(f"SELECT file_name, line FROM '{tmp_path}/building/rejects/unreadable-labs.parquet'")
    assert kept.fetchall() == [("labs_2.csv", 5)]


def test_a_whole_number_is_one_key_however_it_is_written(tmp_path: Path) -> None:
    stays = STAYS.replace(";100;", ";100.0;").replace("P0;F0", "7.0;8.0")
    labs = HEAD + "100;2150-03-10 01:00:00;211.0;88;\n"

    def change(document: Document) -> None:
        document["events"][0]["codes"] = {"heart_rate": 211}

    mapped = map_files(tmp_path, files={"stays.csv": stays, "labs.csv": labs}, change=change)
    assert mapped.values("chartevents") == [88.0]
    assert {100, 101} <= set(mapped.table("icustays")["stay_id"]) and 7 in set(mapped.table("patients")["subject_id"])


def test_a_list_in_a_cell_becomes_rows_and_the_row_before_is_known(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["relations"] |= {
            "list": {"file": "list.csv", "split": {"column": "value", "by": "|"}},
            "bags": {
                "file": "bags.csv",
                "previous": {"by": "stay", "order": '"at"', "columns": {"before": "total"}},
                "add": {"volume": "CAST(total AS DOUBLE) - coalesce(CAST(before AS DOUBLE), 0)"},
            },
        }
        entry = {"stay": "stay", "time": "at", "code": {"value": "x"}}
        document["events"] = [
            entry | {"from": "list", "value": "value", "codes": {"heart_rate": "x"}},
            entry | {"from": "bags", "value": "volume", "codes": {"urine": "x"}},
        ]

    at = "100;2150-03-10 0{}:00:00;{}\n"
    files: dict[str, str | bytes] = {
        "list.csv": "stay;at;value\n" + at.format(1, "80| 90||100") + at.format(2, ""),
        "bags.csv": "stay;at;total\n" + at.format(3, 70) + at.format(1, 30) + at.format(2, 50),
    }
    mapped = map_files(tmp_path, files=files, change=change)
    assert sorted(mapped.values("chartevents")) == [80.0, 90.0, 100.0]
    line = mapped.line("relations.list")
    assert (line.rows, line.mapped, line.ignored) == (5, 3, {"empty cell": 2})
    assert sorted(mapped.table("outputevents")["value"]) == [20.0, 20.0, 30.0]


def test_a_key_that_stands_twice_is_refused_however_it_is_written(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["relations"]["catalogue"] = {"file": "catalogue.csv"}
        join = {"relation": "catalogue", "by": {"code": "id"}, "columns": {"name": "text"}}
        document["relations"]["labs"]["join"] = [join]

    files: dict[str, str | bytes] = {"catalogue.csv": "id;text\n12;NA\n12.0;K\n"}
    with pytest.raises(ConfigError, match=r"of the keys \(id\), 1 stand more than once in 'catalogue'"):
        map_files(tmp_path, files=files, change=change)


def test_rows_of_nobody_have_no_row_before_and_are_not_thrown_away(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["relations"] |= {
            "before": {
                "file": "rows.csv",
                "previous": {"by": "who", "columns": {"last": "value"}},
                "filter": "last IS NOT NULL",
            },
            "one": {"file": "rows.csv", "keep_one": {"by": "who"}},
        }
        entry = {"stay": "stay", "time": "at", "code": {"value": "x"}}
        document["events"] = [
            entry | {"from": "before", "value": "last", "codes": {"heart_rate": "x"}},
            entry | {"from": "one", "value": "value", "codes": {"sbp": "x"}},
        ]

    rows = "who;stay;at;value\n" + "".join(
        f"{who};100;2150-03-10 0{n}:00:00;{value}\n"
        for n, (who, value) in enumerate([("7", 60), ("7.0", 61), ("", 70), ("", 71), ("7 ", 62)])
    )
    mapped = map_files(tmp_path, files={"rows.csv": rows}, change=change)
    chart = mapped.table("chartevents")
    assert sorted(chart[chart["itemid"] == 220045]["valuenum"]) == [60.0, 61.0]
    assert sorted(chart[chart["itemid"] != 220045]["valuenum"]) == [60.0, 70.0, 71.0]


def test_a_file_is_called_as_it_is_called_but_for_its_ending(tmp_path: Path) -> None:
    stays = STAYS.replace(";100;", ";A.1;").replace(";101;", ";A.2;")

    def change(document: Document) -> None:
        document["relations"]["labs"]["file"] = ["A.*"]
        document["events"][0]["stay"] = "file_name"

    files: dict[str, str | bytes] = {"stays.csv": stays, "A.1.CSV": HEAD + GOOD, "A.2.csv": HEAD + GOOD}
    mapped = map_files(tmp_path, files=files, change=change)
    assert mapped.line("events[0]").rejected == {} and mapped.table("chartevents")["stay_id"].nunique() == 2


@pytest.mark.parametrize(
    "first",
    ["MuellerHans;1950;x;0.9;mg", "Mueller Hans 19500102,x", "MuellerHans;MuellerHans;1;2;3", "1;2150-01-01;HF;88;x"],
)
def test_a_file_without_a_header_does_not_tell_its_first_row(first: str, tmp_path: Path) -> None:
    with pytest.raises(ConsiliumError) as refused:
        map_files(tmp_path, files={"labs.csv": first + "\n" + GOOD})
    assert "Mueller" not in str(refused.value) and "2150" not in str(refused.value)
    assert "csv." in str(refused.value)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"add": {"sum": "value + 1"}}, r"relations\.labs\.add\.sum: the expression does not fit its columns"),
        ({"filter": "value"}, r"relations\.labs\.filter: "),
        ({"add": {"#code": "'HF'"}}, "does not begin with #"),
        ({"add": {"a": "value"}, "unpivot": {"columns": ["a"]}}, "'a' is made by `add`, which comes after"),
        ({"add": {"Offset": "Offset"}}, r"relations\.labs\.add\.Offset: no SQL expression.*needs quotes"),
    ],
)
def test_a_step_that_does_not_fit_is_told_by_its_key(step: Document, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        map_files(tmp_path, change=lambda document: document["relations"]["labs"].update(step))


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{folder}/none.db",
        "postgresql://u:hun@ter2@127.0.0.1:9/db",
        "postgresql://u:hunter2@h{{}}unter2/db",
    ],
)
def test_a_database_is_neither_made_nor_is_its_url_told(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(document: Document) -> None:
        document["sources"]["base"] = {"url_env": "SITE_URL"}
        document["relations"]["stays"]["source"] = "files"
        document["relations"]["labs"] = {"source": "base", "table": "labs"}

    monkeypatch.setenv("SITE_URL", url.format(folder=tmp_path))
    with pytest.raises(ConsiliumError) as refused:
        map_files(tmp_path, change=change)
    assert "unter2" not in str(refused.value) and "ter2" not in str(refused.value)
    assert not (tmp_path / "none.db").exists()


def test_a_row_that_is_rejected_is_kept_as_it_stands(tmp_path: Path) -> None:
    """Also where every column is read, and with them the mapping's own."""

    def change(document: Document) -> None:
        document["relations"]["labs"]["unpivot"] = {"all_but": ["stay", "at"]}
        document["events"][0] |= {"code": "name", "value": "value", "codes": {"heart_rate": "code"}}
        del document["events"][0]["unit"]

    mapped = map_files(tmp_path, labs=GOOD, change=change)
    [(rule, row)] = rejected(mapped, "mapping-events-0")
    assert rule == "value: not a number" and "#" not in row
