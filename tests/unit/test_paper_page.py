"""The page of the seed's paper: one file, every row and figure, and no more certainty than there is."""

import re

import numpy as np
import pytest
from builders import patients

from server.evaluation import evaluate_predictions
from server.results import Estimate, FeatureSummary
from simulations.paper_page import headline, render_paper, sentence
from simulations.paper_results import LOSSES, METRICS, PROFILES, PUBLISHED, Leak, Paper, PaperRun


def leak(low: float | None, high: float | None, value: float | None = 0.1) -> Leak:
    invented = Estimate(value=value, low=low, high=high)
    known = Estimate(value=0.8, low=0.7, high=0.9)
    return Leak(loss="focal", patients=1500, deaths=300, early=known, paper=Estimate(value=0.9), invented=invented)


@pytest.fixture(scope="module")
def paper() -> Paper:
    data = patients(80)
    rng = np.random.default_rng(0)
    feature = FeatureSummary(
        name="los_icu", kind="static", missing=0.0, mutual_information=0.2, correlation=-0.3,
        imputation="median", scaling="minmax", normal=False,
    )  # fmt: skip
    runs = [
        PaperRun(
            profile=profile,
            loss=loss,
            config={},
            hospitals=3,
            learning_rates=[1e-3, 5e-4],
            heldout=evaluate_predictions(rng.random(80), data, threshold=0.5, resamples=20, seed=0),
            features=[feature],
        )
        for profile in PROFILES
        for loss in LOSSES
    ]
    return Paper(consilium_version="1", status="complete", source="<b>a</b>", runs=runs, leaks=[leak(0.05, 0.15)])


def test_the_published_row_without_focal_loss_is_impossible() -> None:
    for loss, impossible in (("cross_entropy", True), ("focal", False)):
        row = dict(zip(METRICS, PUBLISHED[loss], strict=True))
        low, high = sorted((row["sensitivity"], row["specificity"]))
        assert (not low <= row["accuracy"] <= high) == impossible


def test_the_page_holds_every_row_and_figure_and_runs_nothing(paper: Paper) -> None:
    page = render_paper(paper)
    assert page == render_paper(paper)
    assert all(f">{run.name}</th>" in page for run in paper.runs) and "0.8736" in page and "cannot be right" in page
    assert len(re.findall(r'<svg role="img"', page)) == 3
    assert all(f"Figure {number}" in page for number in (2, 4, 5, 6)) and ">los_<wbr>icu</th>" in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page and "<b>a" not in page
    assert "<script" not in page and not re.search(r'(src|href)="(?!#|data:)', page)


def test_figure_2_is_left_out_where_nothing_was_told_of_features(paper: Paper) -> None:
    runs = [run.model_copy(update={"features": []}) for run in paper.runs]
    assert "Figure 2" not in render_paper(paper.model_copy(update={"runs": runs}))


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        (leak(0.05, 0.15), "invents 0.100 (0.050\u20130.150).", "so few"),
        (leak(-0.05, 0.15), "so few patients do not tell from nothing", "(0.050"),
        (leak(None, None), "invents 0.100.", "so few"),
        (leak(None, None, None), "not defined", "invents"),
    ],
)
def test_the_sentence_is_as_sure_as_its_interval(found: Leak, said: str, unsaid: str) -> None:
    told = sentence(found)
    assert said in told and unsaid not in told
    assert "()" not in headline(found) and "CI )" not in headline(found)
