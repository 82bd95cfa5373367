"""`consilium-site check`, `init`, `schema` and `concepts` as a hospital's data engineer meets them."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from mapped_extract import DOCUMENT, STAYS
from rich.console import Console

from client.check import check_site
from client.mapping.loading import load_document
from client.mapping.report import MappingReport
from client.mapping.report_html import render_html
from client.mapping.report_screen import render
from client.mapping.schema import json_schema
from client.site import load_site

SITE = Path(sys.executable).with_name("consilium-site")
SHIPPED = sorted((Path(__file__).resolve().parents[2] / "site_configs").glob("*.yaml"))
HEAD = "stay;at;code;value;unit;name\n"


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SITE, *words], capture_output=True, text=True)


def _site(folder: Path, rows: str, **changed: Any) -> Path:
    """A site with twenty stays on files."""
    (folder / "extract").mkdir(parents=True)
    stays = [f"P{n};F{n};{n};MICU;m;1950;2150-03-10 00:00:00;2150-03-13 00:00:00;{n % 4 == 0}" for n in range(20)]
    (folder / "extract" / "stays.csv").write_text(
        STAYS.splitlines()[0] + "\n" + "\n".join(stays) + "\n", encoding="utf-8"
    )
    (folder / "extract" / "labs.csv").write_text(HEAD + rows, encoding="utf-8")
    document = {"site": "Mercy", "store": "store", "cohort": "all_icu", **DOCUMENT, **changed}
    document["events"] = [
        {**DOCUMENT["events"][0], "label": "name", "codes": {"creatinine": "KREA", "heart_rate": "HF"}}
    ]
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _rows(code: str, values: list[float], *, hour: str = "01:10", unit: str = "", name: str = "") -> str:
    return "".join(
        f"{n % 20};2150-03-10 {hour}:00;{code};{str(value).replace('.', ',')};{unit};{name}\n"
        for n, value in enumerate(values)
    )


CREATININE = [0.5, 0.6, 0.7, 0.9, 1.0, 1.0, 1.2, 1.5, 2.0, 4.0] * 4


def _report(path: Path) -> MappingReport:
    return check_site(load_site(path))


def test_a_sound_extract_is_ready_with_the_gaps_named(tmp_path: Path) -> None:
    report = _report(_site(tmp_path, _rows("KREA", CREATININE) + _rows("HF", [80.0] * 20)))
    assert report.verdict == "ready with gaps"
    assert any(reason.startswith("not measured: ") and "lactate" in reason for reason in report.reasons)
    creatinine = next(c for c in report.concepts if c.concept == "creatinine")
    assert (creatinine.events, creatinine.patients, creatinine.in_range) == (40, 20, 1.0)
    assert report.flow[-1]["stays"] == 20 and report.deaths == 5


def test_values_in_another_unit_make_a_site_not_ready(tmp_path: Path) -> None:
    report = _report(_site(tmp_path, _rows("KREA", [round(88.4 * value, 1) for value in CREATININE])))
    assert report.verdict == "not ready"
    assert any("creatinine" in reason and "umol/L" in reason for reason in report.reasons)


def test_clocks_and_missing_times_of_day_are_told(tmp_path: Path) -> None:
    late = _report(_site(tmp_path / "late", _rows("HF", [80.0] * 40, hour="07:00")))
    assert any("7.0 h after ICU admission" in reason for reason in late.reasons)
    midnight = _report(_site(tmp_path / "midnight", _rows("HF", [80.0] * 40, hour="00:00")))
    assert any("100% of the times are midnight" in reason for reason in midnight.reasons)


def test_unmapped_codes_come_by_frequency_with_a_suggestion(tmp_path: Path) -> None:
    rows = _rows("X1", [1.0] * 3, name="Natrium") + _rows("X2", [1.0] * 5, name="Wetter") + _rows("2823-3", [4.0] * 4)
    report = _report(_site(tmp_path, rows + _rows("HF", [80.0])))
    told = [(code.code, code.rows, code.suggestion, code.why) for code in report.unmapped]
    assert told == [("X2", 5, "", ""), ("2823-3", 4, "potassium", "LOINC"), ("X1", 3, "sodium", "called 'natrium'")]


def test_rows_that_are_mostly_rejected_make_a_site_not_ready(tmp_path: Path) -> None:
    path = _site(tmp_path, "".join(f"{n};never;HF;80;;\n" for n in range(20)))
    report = _report(path)
    assert report.verdict == "not ready"
    assert report.reasons[0] == "events[0]: 20 of 20 rows are rejected, most often: time: not a time"
    assert _run("check", path).returncode == 1


def test_check_writes_only_the_reports_that_it_is_asked_for(tmp_path: Path) -> None:
    path = _site(tmp_path, _rows("KREA", CREATININE) + _rows("HF", [80.0] * 20))
    held = sorted(tmp_path.rglob("*"))
    done = _run("check", path)
    assert (done.returncode, sorted(tmp_path.rglob("*"))) == (0, held), done.stderr
    done = _run("check", path, "--json", tmp_path / "report.json", "--html", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["verdict"] == "ready with gaps"
    assert "Ready with gaps" in (tmp_path / "report.html").read_text(encoding="utf-8")
    again = _run("check", path, "--json", tmp_path / "report.json")
    assert again.returncode == 2 and "exists" in again.stderr


def test_a_report_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    site = _site(tmp_path, _rows("HF", [80.0] * 20))
    for words, said in (
        (("--json", tmp_path / "x", "--html", tmp_path / "x"), "exists; name a new file"),
        (("--json", tmp_path / "none" / "x"), "its folder does not exist"),
    ):
        done = _run("check", site, *words)
        assert done.returncode == 2 and said in done.stderr and "reading" not in done.stderr


def test_what_a_killed_check_left_is_removed_by_the_next(tmp_path: Path) -> None:
    site = _site(tmp_path, _rows("HF", [80.0] * 20))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, running = tmp_path / f".check.{gone.pid}.abc", tmp_path / ".check.1.abc"
    for folder in (left, running):
        folder.mkdir()
    _report(site)
    assert not left.exists() and running.exists()


def test_a_place_that_takes_no_store_is_told_in_one_line(tmp_path: Path) -> None:
    site = _site(tmp_path, _rows("HF", [80.0] * 20), store="site.yaml/store")
    done = _run("prepare", site)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_prepare_keeps_the_rejects_and_does_nothing_twice(tmp_path: Path) -> None:
    path = _site(tmp_path, _rows("KREA", CREATININE) + "0;never;HF;SECRET;;\n", encoder="none")
    first = _run("prepare", path)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "store" / "rejects" / "mapping-events-0.parquet").is_file()
    assert "1 rows dropped" in first.stdout and "SECRET" not in first.stdout + first.stderr
    again = _run("prepare", path)
    assert "nothing has changed" in again.stderr and again.stdout == first.stdout
    with (tmp_path / "extract" / "labs.csv").open("a", encoding="utf-8") as file:
        file.write("1;2150-03-10 02:00:00;HF;80;;\n")
    assert "mapping to MIMIC-IV-style tables" in _run("prepare", path).stderr
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text(encoding="utf-8"))
    lines = {line["step"]: line for line in manifest["mapping"]["lines"]}
    assert lines["events[0]"]["mapped"] == 41 and lines["events[0]"]["rejected"] == {"time: not a time": 1}


def test_a_mistake_in_the_yaml_is_one_line_with_the_files_name(tmp_path: Path) -> None:
    path = _site(tmp_path, _rows("HF", [80.0]))
    path.write_text(path.read_text(encoding="utf-8").replace("value: value", "value: valeu"), encoding="utf-8")
    done = _run("check", path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {path}: events[0].value: no column 'valeu'; is it 'value'?")


def test_the_report_is_readable_in_80_columns_and_inert_as_a_page(tmp_path: Path) -> None:
    rows = _rows("[/red]<script>alert(1)</script>", [1.0] * 3, name="<b>x</b>") + _rows("HF", [80.0] * 20)
    report = _report(_site(tmp_path, rows))
    screen = Console(width=80, file=StringIO(), record=True)
    screen.print(render(report))
    text = screen.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "Mercy: ready with gaps" in text and "[/red]" in text
    page = render_html(report)
    assert "<script" not in page and "http" not in page and "&lt;script&gt;" in page
    assert page.count("<table>") == page.count("<caption>") > 3


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_a_shipped_config_is_valid_for_us_and_for_editors(file: Path) -> None:
    assert load_site(file).site
    validator = Draft202012Validator(json_schema())
    assert [error.message for error in validator.iter_errors(load_document(file))] == []


def test_the_schema_refuses_what_we_refuse() -> None:
    Draft202012Validator.check_schema(json_schema())
    validator = Draft202012Validator(json_schema())
    assert list(validator.iter_errors({"site": "x", "store": "y", "relation": {}})) != []
    assert list(validator.iter_errors({"site": "x", "store": "y", "cohort": "sepsis9"})) != []


def test_schema_and_concepts_tell_every_key_and_concept() -> None:
    keys, concepts = _run("schema"), _run("concepts")
    assert keys.returncode == concepts.returncode == 0
    assert all(word in keys.stdout for word in ("unpivot", "keep_one", "url_env", "offset", "specimen", "extends"))
    assert all(word in concepts.stdout for word in ("creatinine", "norepinephrine", "2160-0"))
    assert json.loads(_run("schema", "--json").stdout)["properties"]["relations"]


def test_init_starts_a_site_from_its_files(tmp_path: Path) -> None:
    site = _site(tmp_path, _rows("HF", [80.0] * 5) + _rows("KREA", [1.0] * 5))
    (tmp_path / "extract" / "alt.csv").write_bytes("Größe;Fallnr\n1,8;F1\n".encode("cp1252"))
    done = _run("init", tmp_path / "extract", "--out", tmp_path / "new.yaml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "new.yaml").read_text(encoding="utf-8")
    assert "encoding: cp1252" in text and "creatinine: [KREA]" in text and "heart_rate: [HF]" in text
    checked = _run("check", tmp_path / "new.yaml")
    assert checked.returncode == 2 and "still to fill in: tables.patients.columns.anchor_age" in checked.stderr
    (tmp_path / "new.yaml").write_text(text.replace("FILL_IN", "pat"), encoding="utf-8")
    started = load_site(tmp_path / "new.yaml")
    assert started.tables["icustays"][0].columns["stay_id"].column == "stay"
    assert _run("init", tmp_path / "extract", "--out", site).returncode == 2


@pytest.mark.parametrize(
    "like", [file.stem for file in SHIPPED if "\nextends:" not in file.read_text(encoding="utf-8")]
)
def test_init_like_a_known_format_loads(like: str, tmp_path: Path) -> None:
    (tmp_path / "extract").mkdir()
    done = _run("init", tmp_path / "extract", "--like", like, "--out", tmp_path / "new.yaml")
    assert done.returncode == 0, done.stderr
    assert load_site(tmp_path / "new.yaml").site
    unknown = _run("init", tmp_path / "extract", "--like", "eicu", "--out", tmp_path / "other.yaml")
    assert unknown.returncode == 2 and "eicu-" in unknown.stderr
