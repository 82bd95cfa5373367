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

from server.report import headline, key_figures, leaks, render_report, write_report
from server.report_rows import scale_for
from server.report_tuning import ranked
from server.report_words import interval, size
from server.results import (
    ComparisonRow,
    Curve,
    Estimate,
    Evaluation,
    FeatureSummary,
    FederatedValidation,
    LeftOutSite,
    RoundSummary,
    RunResults,
    SiteSummary,
    SiteValidation,
    Timing,
    Trial,
    Tuning,
    UnitEvaluation,
)
from server.results_privacy import PrivacySummary
from shared_model.privacy import Mechanism, epsilon_of

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
sample_results: Callable[..., RunResults] = SAMPLE["sample_results"]
sample_round: Callable[[int], RoundSummary] = SAMPLE["sample_round"]
sample_tuning: Callable[..., Tuning] = SAMPLE["sample_tuning"]
without_heldout: Callable[[], RunResults] = SAMPLE["without_heldout"]
private: Callable[[], RunResults] = SAMPLE["private"]
private_sites: Callable[[], RunResults] = SAMPLE["private_sites"]


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


def _nobody_validated() -> RunResults:
    nothing = Estimate(value=None)
    empty = Curve(x=[], y=[])
    site = SiteValidation(site="A", patients=0, deaths=0, auroc=nothing, personal_auroc=nothing)
    held = FederatedValidation(
        patients=0,
        deaths=0,
        threshold=0.5,
        metrics={"auroc": nothing},
        roc=empty,
        precision_recall=empty,
        calibration=[],
        sites=[site],
    )
    left_out = LeftOutSite(site="A", patients=0, deaths=0, auroc=nothing)
    return _bare(validation=held, leave_one_out=[left_out])


def _tuning(settings: list[str | int | float | bool], *, mean: float | None = 0.7) -> Tuning:
    trials = [Trial(settings={"x": value}, fold_auroc=[mean, None], mean=mean, status="odd") for value in settings]
    return Tuning(folds=2, parameters=["x"], trials=trials, best=0)


def _feature(**changes: object) -> FeatureSummary:
    plain = FeatureSummary(
        name="crp_max", kind="static", missing=0.5, imputation="median", scaling="minmax", normal=False
    )
    return plain.model_copy(update=changes)


def _no_accounts() -> PrivacySummary:
    return PrivacySummary(unit="patient", epsilon=3.0, delta=1e-5, accountant="prv", clip=1.0, accounts=[])


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
    "validation alone": without_heldout,
    "nobody validated": _nobody_validated,
    "all trials failed": lambda: _bare(tuning=_tuning([1, 2], mean=None)),
    "a word tuned": lambda: _bare(tuning=_tuning(["focal", "cross_entropy"])),
    "one trial": lambda: _bare(tuning=_tuning([1e-3])),
    "a zero and a NaN tuned": lambda: _bare(tuning=_tuning([0, 1000, math.nan])),
    "features without figures": lambda: _bare(features=[_feature()]),
    "a feature that tells nothing": lambda: _bare(features=[_feature(mutual_information=0.0, correlation=math.nan)]),
    "private": private,
    "private for sites": private_sites,
    "private without an account": lambda: _bare(privacy=_no_accounts()),
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
        if tag not in ("meta", "link", "br", "wbr"):
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
    nothing = Estimate(value=None)
    sample = without_heldout().validation
    assert sample
    validated = SiteValidation(site=HOSTILE, patients=3, deaths=1, auroc=nothing)
    trials = [Trial(settings={HOSTILE: HOSTILE}, fold_auroc=[0.5], mean=0.5)]
    page = render_report(
        sample_results(
            sites=sites,
            rounds=rounds,
            comparison=[row],
            warnings=[HOSTILE],
            config={HOSTILE: HOSTILE},
            validation=sample.model_copy(update={"sites": [validated]}),
            leave_one_out=[LeftOutSite(site=HOSTILE, patients=3, deaths=1, auroc=nothing)],
            tuning=Tuning(folds=2, parameters=[HOSTILE], trials=trials, best=0),
            features=[_feature(name=HOSTILE, kept=False, reason=HOSTILE, mutual_information=0.1)],
        )
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 13
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
    assert interval(Estimate(value=-0.2, low=-0.3, high=-0.1), 1) == "(\u22120.3 to \u22120.1)"
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


def _words(results: RunResults) -> str:
    """What a reader reads: the page without its markup."""
    page = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", render_report(results), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_without_a_held_out_set_the_validation_leads_and_says_so() -> None:
    run = without_heldout()
    text = _words(run)
    assert re.match(r"Nine hospitals, one model: validation AUROC 0\.8\d \(95\u00a0% CI", headline(run))
    assert "There is no held-out set" in text and "The same patients chose the round" in text
    assert {"Validation patients", "Validation AUROC"} <= {fact.name for fact in key_figures(run)}
    assert "held-out AUROC" not in text and "Held-out" not in text
    assert '<svg role="img" aria-label="ROC curve of the federated model; AUROC 0.8' in render_report(run)
    assert "There is no held-out set" not in _words(sample_results())


def test_a_validation_too_good_to_be_true_is_an_alarm_too() -> None:
    run = without_heldout()
    assert run.validation
    sites = [site.model_copy(update={"auroc": Estimate(value=0.97)}) for site in run.validation.sites[:1]]
    metrics = run.validation.metrics | {"auroc": Estimate(value=0.96)}
    loud = sample_results(
        heldout=None, comparison=[], validation=run.validation.model_copy(update={"metrics": metrics, "sites": sites})
    )
    assert list(leaks(loud)) == ["validation patients: 0.960 on 702 deaths", "site MICU: 0.970 on 225 deaths"]


def test_groups_and_sites_are_told_with_their_intervals() -> None:
    text = _words(sample_results())
    assert "Female 2,611 318 0.829 (0.801\u20130.857) 0.770" in text
    assert "Age 18\u201344 811 41 0.861" in text
    assert "Age unknown 4 1 fewer than 10 patients n/a n/a" in text
    assert "MICU 1,293 225 0.788 (0.751\u20130.825) 0.800 (0.764\u20130.836)" in text  # shared, personalised
    assert "MICU 1,293 225 0.768 (0.730\u20130.806) 0.788 (0.751\u20130.825)" in text  # left out, inside
    assert "Personalised" not in _words(without_heldout())


def test_trials_are_ranked_and_the_chosen_one_is_always_shown() -> None:
    trials = [Trial(settings={"x": n}, fold_auroc=[], mean=0.5 + n / 1000) for n in range(40)]
    trials[7] = Trial(settings={"x": 7}, fold_auroc=[], status="failed: out of memory")
    tuning = Tuning(folds=2, parameters=["x"], trials=trials, best=3)
    rows = ranked(tuning)
    assert [row.settings for row in rows[:2]] == [["39"], ["38"]]
    assert rows[-1].trial.status == "failed: out of memory"
    text = _words(_bare(tuning=tuning))
    assert "Trial x Mean AUROC SD Mean loss 1 39 0.539" in text
    assert "36* 3 0.503" in text and "31 9 0.509" not in text
    assert "The best 31 of 40 trials are shown" in text


def test_one_tuned_number_over_decades_stands_on_a_logarithmic_axis() -> None:
    page = render_report(without_heldout())
    [figure] = re.findall(r'<svg role="img" aria-label="AUROC of 6 settings.*?</svg>', page, flags=re.DOTALL)
    places = [float(x) for x in re.findall(r'text-anchor: middle; [^>]* x="([\d.]+)"[^>]*>0\.\d*1<', figure)]
    assert len(places) == 3 and places[2] - places[1] == pytest.approx(places[1] - places[0], rel=1e-3)
    assert "mathdefault" not in figure


def test_features_are_drawn_by_information_with_the_sign_of_their_correlation() -> None:
    page = render_report(sample_results())
    table = page[page.index('<figure class="features">') : page.index("What the features tell") + 20_000]
    names = [name.replace("<wbr>", "") for name in re.findall(r'scope="row">([a-z0-9_<>]+)</th>', table)]
    assert names[:3] == ["sapsii", "sofa_score", "lactate_max"] and "height_last" not in names
    rows = table.split("<tr")
    [gcs] = [row for row in rows if "gcs_<wbr>min" in row]
    assert 'class="less"' in gcs and "\u22120.25" in gcs
    [lactate] = [row for row in rows if "lactate_<wbr>max" in row]
    assert 'class="more"' in lactate and lactate.startswith(' class="quiet"')
    text = _words(sample_results())
    assert "27 of 30 features are kept" in text and "3 dropped features" in text
    assert "crp series 93.0 % 93.0 % of patients lack it, more than 20 %" in text


def test_a_run_without_the_new_parts_has_none_of_their_sections() -> None:
    text = _words(_bare())
    for title in ("By sex and age", "By site", "did not take part", "Tuning", "What the features tell"):
        assert title not in text


def test_what_was_spent_is_composed_from_every_mechanism_and_stays_below_the_limit() -> None:
    run = private()
    assert run.privacy is not None and len(run.privacy.accounts) == 4
    for account in run.privacy.accounts:
        mechanisms = [Mechanism(one.noise_multiplier, one.sample_rate, one.steps) for one in account.releases]
        assert account.epsilon == pytest.approx(epsilon_of(mechanisms, 1e-5, "rdp"))
        alone = [one.epsilon or 0.0 for one in account.releases]
        assert max(alone) < (account.epsilon or 0.0) < sum(alone)
        assert 0.97 * run.privacy.epsilon < (account.epsilon or 0.0) <= run.privacy.epsilon
        assert [one.what for one in account.releases] == ["counts", "statistics", "training", "validation"]
    words = _words(run)
    assert f"{run.privacy.accounts[0].epsilon:.2f}" in words and "authoritative" in words
    assert headline(run).startswith("Four hospitals, one model: noised validation AUROC")
    assert "noise of 15.2 patients" in words and "Counts carry noise" in words


def test_the_servers_own_noise_is_told_of_sites_and_no_ledger_is_named() -> None:
    words = _words(private_sites())
    assert "each site as a whole" in words and "Updates" in words and "ledger" not in words
    assert "Privacy" not in _words(sample_results())
