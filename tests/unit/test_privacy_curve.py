"""The curve of AUROC against epsilon: what its runs are told, and its page."""

import pytest

from server.results import Estimate
from shared_model.config import RunConfig
from shared_model.errors import ConfigError
from simulations.privacy_curve import configs_of
from simulations.privacy_curve_results import Point, PrivacyCurve, as_markdown


def test_private_runs_differ_from_the_plain_one_in_what_privacy_needs_and_what_is_set() -> None:
    found = configs_of(RunConfig(rounds=7), [1.0, 8.0, 1.0], {"learning-rate": 0.01})
    assert list(found) == [None, 8.0, 1.0]
    assert found[None] == RunConfig(rounds=7)
    for epsilon, config in found.items():
        if epsilon is not None:
            assert (config.privacy_unit, config.privacy_epsilon, config.learning_rate) == ("patient", epsilon, 0.01)


def test_an_epsilon_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"privacy.epsilon = 0"):
        configs_of(RunConfig(), [0.0], {})


def test_the_page_has_a_line_for_each_epsilon() -> None:
    def point(epsilon: float | None, auroc: float, lost: Estimate | None) -> Point:
        found = Estimate(value=auroc, low=auroc - 0.02, high=auroc + 0.02)
        return Point(epsilon=epsilon, auroc=found, auprc=found, lost=lost, hospitals=8, config={})

    curve = PrivacyCurve(
        consilium_version="0",
        status="complete",
        source="somewhere",
        patients=6000,
        deaths=900,
        seeds=[1],
        heldout_fraction=0.2,
        points=[point(None, 0.82, None), point(3.0, 0.75, Estimate(value=0.07, low=0.05, high=0.09))],
    )
    lines = as_markdown(curve).splitlines()
    assert lines[0] == "somewhere: 6,000 patients, 900 deaths; 1 seed, 20% held out."
    assert lines[-2].startswith("| none (no privacy) | 8 | 0.820 (0.800\u20130.840)")
    assert lines[-1].startswith("| 3 | 8 | 0.750 (0.730\u20130.770)") and "0.070 (0.050\u20130.090)" in lines[-1]
