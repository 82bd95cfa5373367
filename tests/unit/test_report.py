"""The report says what the results say, and a site's name cannot change the page."""

import math
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from server.report import headline, interval, key_figures, leaks, render_report, scale_for, size, write_report
from server.results import (
    ComparisonRow,
    Curve,
    Estimate,
    Evaluation,
    RoundSummary,
    RunResults,
    SiteSummary,
    Timing,
    UnitEvaluation,
)

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
sample_results: Callable[..., RunResults] = SAMPLE["sample_results"]
sample_round: Callable[[int], RoundSummary] = SAMPLE["sample_round"]


def _no_deaths() -> RunResults:
    nothing = Estimate(value=None)
    held = Evaluation(
        patients=40,
        deaths=0,
        threshold=0.2,
        metrics={"auroc": nothing, "auprc": nothing, "accuracy": Estimate(value=1.0, low=1.0, high=1.0)},
        roc=Curve(x=[], y=[]),
        precision_recall=Curve(x=[], y=[]),
        calibration=[],
        by_unit=[UnitEvaluation(unit="MICU", patients=40, deaths=0, auroc=nothing)],
    )
    return sample_results(heldout=held, comparison=[])


def _bare(**changes: object) -> RunResults:
    return RunResults(consilium_version="0.1.0", status="partial", config={}, contract_digest="").model_copy(
        update=changes
    )


def _silent_round() -> RoundSummary:
    changes: dict[str, object] = {
        "train_loss": math.nan,
        "validation_loss": None,
        "validation_auroc": None,
        "replied": [],
    }
    return sample_round(1).model_copy(update=changes)


def _diverged() -> ComparisonRow:
    nan = Estimate(value=math.nan, low=math.nan, high=math.nan)
    return ComparisonRow(model="pooled", auroc=nan, auprc=nan, own_unit_auroc=nan)


VARIANTS: dict[str, Callable[[], RunResults]] = {
    "full": sample_results,
    "bare": _bare,
    "no held-out": lambda: sample_results(heldout=None, status="partial"),
    "no comparison": lambda: sample_results(comparison=[]),
    "no rounds": lambda: sample_results(rounds=[], best_round=None),
    "one round": lambda: sample_results(rounds=[sample_round(1)], best_round=1),
    "silent round": lambda: sample_results(rounds=[_silent_round()], best_round=None),
    "no deaths": _no_deaths,
    "no data": lambda: sample_results(data=None),
    "no sites": lambda: sample_results(sites=[]),
    "nobody admitted": lambda: _bare(sites=[SiteSummary(site="A", admitted=False, reason="")]),
    "diverged": lambda: sample_results(comparison=[_diverged()]),
    "no timing": lambda: sample_results(timing=Timing()),
}


class _Outline(HTMLParser):
    """Tags left open, ids, and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.figures: list[set[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [found[name] or "" for name in ("src", "href", "xlink:href") if name in found]
        if tag == "figure":
            self.figures.append(set())
        elif self.figures:
            self.figures[-1].add(tag)
        if tag == "svg":
            assert found.get("aria-hidden") or (found.get("role") == "img" and found.get("aria-label"))
        if tag not in ("meta", "link", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.stack:
            assert self.stack.pop() == tag


def _outline(page: str) -> _Outline:
    outline = _Outline()
    outline.feed(page)
    outline.close()
    return outline


@pytest.mark.parametrize("name", VARIANTS)
def test_every_state_of_a_run_gives_a_whole_page(name: str) -> None:
    page = render_report(VARIANTS[name]())
    outline = _outline(page)
    assert page.startswith("<!DOCTYPE html>")
    assert not outline.stack
    assert len(set(outline.ids)) == len(outline.ids)
    assert all("figcaption" in tags for tags in outline.figures)
    visible = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", visible)
    assert "nan%" not in page


@pytest.mark.parametrize("name", ["full", "bare"])
def test_nothing_points_outside(name: str) -> None:
    page = render_report(VARIANTS[name]())
    assert all(address.startswith(("data:", "#")) for address in _outline(page).addresses)
    assert not re.search(r"https?://", page.replace("xmlns='http://www.w3.org/2000/svg'", ""))
    assert "<script" not in page
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_references_inside_a_figure_stay_in_it() -> None:
    page = render_report(sample_results())
    ids = set(_outline(page).ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= ids


def test_importing_the_report_is_light() -> None:
    code = "import sys, server.report; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=60)


def test_same_results_same_bytes() -> None:
    assert render_report(sample_results()) == render_report(sample_results())


HOSTILE = '<script>alert("1")</script> $\\frac{$ id="x \u6e2c\u8a66'


def test_a_site_cannot_write_markup() -> None:
    sites = [
        SiteSummary(site=HOSTILE, admitted=False, reason=HOSTILE),
        SiteSummary(site="B", admitted=True, reason=""),
    ]
    rounds = [sample_round(1).model_copy(update={"failed": {HOSTILE: HOSTILE}})]
    row = ComparisonRow(model=f"local-only: {HOSTILE}", auroc=Estimate(value=0.7), auprc=Estimate(value=0.2))
    page = render_report(
        sample_results(sites=sites, rounds=rounds, comparison=[row], warnings=[HOSTILE], config={HOSTILE: HOSTILE})
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert not _outline(page).stack


def test_headline() -> None:
    assert re.fullmatch(
        r"Nine hospitals, one model: held-out AUROC 0\.8\d \(95\u00a0% CI 0\.\d\d\u20130\.\d\d\)",
        headline(sample_results()),
    )
    assert headline(_no_deaths()).endswith("held-out AUROC not defined: no deaths")
    assert headline(_bare()) == "One model: no held-out result yet"
    one = [SiteSummary(site="A", admitted=True, reason="")]
    assert headline(_bare(sites=one)).startswith("One hospital, one model")


def test_partial_run_is_marked() -> None:
    assert 'class="ribbon"' in render_report(sample_results(status="partial"))
    assert 'class="ribbon"' not in render_report(sample_results())


def test_warnings_box_only_with_warnings() -> None:
    assert "2 warnings" in render_report(sample_results())
    assert 'class="box' not in render_report(sample_results(warnings=[]))


def test_too_good_an_auroc_is_an_alarm() -> None:
    calm = sample_results()
    assert list(leaks(calm)) == []
    assert "treat as a leak" not in render_report(calm)
    held = calm.heldout
    assert held
    metrics = held.metrics | {"auroc": Estimate(value=0.95, low=0.94, high=0.96)}
    loud = sample_results(heldout=held.model_copy(update={"metrics": metrics}))
    assert list(leaks(loud)) == ["held-out set: 0.950 on 702 deaths"]
    assert "treat as a leak until proven otherwise" in render_report(loud)


def test_a_unit_without_deaths_says_so() -> None:
    page = render_report(sample_results())
    assert "not defined: no deaths" in page
    assert "not admitted: fewer training patients than its smallest cell of 20" in page


def test_suppressed_counts_make_the_total_a_lower_bound() -> None:
    sites = [
        SiteSummary(site="A", admitted=True, reason="", patients=1500, deaths=None),
        SiteSummary(site="B", admitted=True, reason="", patients=None, deaths=None),
    ]
    fact = key_figures(_bare(sites=sites))[0]
    assert (fact.value, fact.note) == ("\u2265\u00a01,500", "deaths suppressed")


def test_numbers() -> None:
    assert interval(Estimate(value=0.5, low=0.41, high=0.6)) == "(0.410\u20130.600)"
    assert interval(Estimate(value=None, low=0.4, high=0.6)) == interval(None) == ""
    assert [size(n) for n in (0, 999, 1500, 999_950, 2_300_000_000_000)] == [
        "0\u00a0B",
        "999\u00a0B",
        "1.5\u00a0kB",
        "1.0\u00a0MB",
        "2300\u00a0GB",
    ]


def test_scale_covers_every_interval() -> None:
    scale = scale_for([Estimate(value=0.7, low=0.61, high=0.83), None, Estimate(value=None)])
    assert (scale.low, scale.high) == (0.6, 0.9)
    assert scale_for([]).low < scale_for([]).high
    assert (scale_for([Estimate(value=1.0)]).low, scale_for([Estimate(value=1.0)]).high) != (1.0, 1.0)


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(sample_results(), path)
    before = path.read_text(encoding="utf-8")
    assert before == render_report(sample_results())

    def fail(*_: object) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(_bare(), path)
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_what_was_wrong_with_the_extract_is_told_by_table_and_rule() -> None:
    page = " ".join(render_report(sample_results()).split())
    assert "hours after admission to intensive care. Source: synthetic" in page
    assert "1,206 rows were dropped and 31 converted" in page
    assert "Fahrenheit in a Celsius item" in page


def test_the_leaking_profile_is_told_before_any_figure() -> None:
    sample = sample_results()
    assert sample.data is not None
    assert "has seen the future" not in render_report(sample)
    page = render_report(sample_results(data=sample.data.model_copy(update={"profile": "paper"})))
    assert page.index("has seen the future") < page.index("Held-out patients")
