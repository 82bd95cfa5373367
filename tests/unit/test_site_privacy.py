"""Differential privacy for whole sites: calibration, one site's influence, the noise, and what a checkpoint keeps."""

import math
from pathlib import Path

import pytest
import torch
from federation import small_config, small_federation

from server.app import federate
from server.checkpoint import load_checkpoint
from server.progress import Progress
from server.site_privacy import QUANTILE_NOISE, SitePrivacy
from shared_model.config import RunConfig
from shared_model.errors import ConfigError, PrivacyError
from shared_model.norm import norm
from shared_model.privacy import Mechanism, epsilon_of

BEFORE = {"a": torch.zeros(40, 50), "b": torch.ones(300)}


def _config(**changes: object) -> RunConfig:
    return RunConfig(**({"privacy_unit": "site", "privacy_epsilon": 8.0, "rounds": 10} | changes))


def _private(**changes: object) -> SitePrivacy:
    held = SitePrivacy.of(_config(**changes), sites=9)
    assert held is not None
    return held


def _updates(sites: int, length: float) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    found = {}
    for site in range(sites):
        step = {name: torch.randn(start.shape, generator=generator) for name, start in BEFORE.items()}
        factor = length / norm(step)
        found[f"site {site}"] = {name: BEFORE[name] + factor * held for name, held in step.items()}
    return found


def test_all_rounds_together_spend_what_was_asked_for_and_no_more() -> None:
    held = _private()
    whole = epsilon_of([Mechanism(held.noise, steps=10)], held.delta, held.accountant)
    assert 0.98 * 8 <= whole <= 8
    assert held.so_far == 0
    for _ in range(10):
        held.mean(BEFORE, _updates(9, 1.0))
    assert held.so_far == whole


def test_a_run_that_protects_no_sites_has_none_and_bad_settings_are_named() -> None:
    assert SitePrivacy.of(RunConfig(), sites=9) is None
    with pytest.raises(PrivacyError, match=r"privacy.delta = 0.2: must be at most 1/9"):
        SitePrivacy.of(_config(privacy_delta=0.2), sites=9)


def test_one_site_moves_the_mean_by_the_clip_over_the_sites_at_most() -> None:
    updates = _updates(9, 1000.0)
    with_all = _private(privacy_clip=0.5).mean(BEFORE, updates, entropy=3)
    updates.pop("site 4")
    without = _private(privacy_clip=0.5).mean(BEFORE, updates, entropy=3)
    assert norm(with_all, without) == pytest.approx(0.5 / 9, rel=1e-4)


def test_short_updates_are_averaged_as_they_are_but_for_the_noise() -> None:
    held = _private(privacy_clip=10.0)
    held.noise = 1e-12
    updates = _updates(9, 1.0)
    plain = {name: sum(update[name] for update in updates.values()) / 9 for name in BEFORE}
    assert norm(held.mean(BEFORE, updates), plain) < 1e-5


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_noise_is_as_wide_as_calibrated(adaptive: bool) -> None:
    held = _private(privacy_clip=2.0, privacy_adaptive=adaptive)
    nothing = {f"site {n}": BEFORE for n in range(9)}
    after = held.mean(BEFORE, nothing, entropy=5)
    noise = torch.cat([(after[name] - BEFORE[name]).flatten() for name in BEFORE])
    wide = held.noise / math.sqrt(1 - 1 / (2 * QUANTILE_NOISE) ** 2) if adaptive else held.noise
    expected = 2.0 * wide / 9
    assert float(noise.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * len(noise)))
    assert abs(float(noise.mean())) < 5 * expected / math.sqrt(len(noise))


def test_nobody_can_foresee_the_noise() -> None:
    one, other = (_private().mean(BEFORE, _updates(9, 1.0)) for _ in range(2))
    assert norm(one, other) > 0


def test_the_adaptive_clip_goes_towards_the_median_length() -> None:
    held = _private(privacy_clip=100.0, privacy_adaptive=True)
    held.noise = 1e-9
    for _ in range(100):
        held.mean(BEFORE, _updates(9, 3.0))
    assert held.clip == pytest.approx(3.0, rel=0.15)


def test_the_accountant_stands_where_the_checkpoint_was_taken() -> None:
    held, again = _private(privacy_adaptive=True), _private(privacy_adaptive=True)
    for _ in range(3):
        held.mean(BEFORE, _updates(9, 1.0))
    again.remind(held.remembered())
    assert again == held and again.spent == 3 and again.so_far > 0


def test_a_federation_that_protects_its_sites_keeps_the_last_model_and_tells_what_it_spent(tmp_path: Path) -> None:
    config = small_config(privacy_unit="site", privacy_epsilon=8.0, rounds=3, output=str(tmp_path / "run"), bootstrap=0)
    results = federate(small_federation(tmp_path, config, sizes=(60, 60, 60)), config, Progress(tmp_path / "run"))
    assert results.best_round == 3 and results.privacy is not None
    [account] = results.privacy.accounts
    assert account.epsilon is not None and 0.98 * 8 <= account.epsilon <= 8
    assert [(one.what, one.steps) for one in account.releases] == [("update", 3)]
    held = load_checkpoint(tmp_path / "run")
    assert held is not None and held.privacy == {"spent": 3, "clip": 1.0}


@pytest.mark.parametrize("key", ["patience", "leave_one_out", "secure_aggregation"])
def test_what_cannot_be_accounted_for_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key.replace('_', '-')} with privacy.unit site"):
        RunConfig.from_flat(RunConfig().to_flat() | {"privacy.unit": "site", key.replace("_", "-"): 1})
