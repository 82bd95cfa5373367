"""A whole federation with differential privacy for patients, in the clear and under masks: what it ends with, what it
tells, and what the sites' ledgers hold afterwards."""

import json
from pathlib import Path

import pytest
from federation import small_config, small_federation

from client.audit_chain import LEDGER, verify
from client.ledger import spendings
from server.app import federate
from server.progress import Progress
from shared_model.budget import steps_a_round
from shared_model.privacy import epsilon_of

SIZES = (180, 240)


@pytest.mark.parametrize("secure", [False, True])
def test_a_private_federation_pays_for_what_it_tells_and_tells_nothing_else(tmp_path: Path, secure: bool) -> None:
    config = small_config(
        privacy_unit="patient", privacy_accountant="rdp", privacy_epsilon=8.0, batch_size=32, bootstrap=30,
        validation_fraction=0.3, output=str(tmp_path / "out"), name="private", secure_aggregation=secure,
        min_sites=2,
    )  # fmt: skip
    grid = small_federation(tmp_path, config, sizes=SIZES)
    found = federate(grid, config, Progress(tmp_path / "out"))
    assert found.status == "complete" and found.best_round == config.rounds
    assert found.validation is not None and found.validation.noise is not None and not found.validation.sites
    assert found.validation.patients > 60
    assert all(one.train_loss is None for one in found.rounds)
    assert found.privacy is not None and [a.holder for a in found.privacy.accounts] == ["Site 1", "Site 2"]
    for account, site in zip(found.privacy.accounts, found.sites, strict=True):
        assert [release.what for release in account.releases] == ["counts", "statistics", "training", "validation"]
        training = account.releases[2]
        assert site.patients is not None and training.sample_rate == pytest.approx(config.batch_size / site.patients)
        assert training.steps == config.rounds * steps_a_round(config, site.patients)
        assert 0.97 * 8 < (account.epsilon or 0) <= 8
    assert all(f.mutual_information is None for f in found.features)
    assert [message.metadata.message_type for message in grid.sent].count("evaluate") == len(SIZES)
    for number, account in enumerate(found.privacy.accounts, start=1):
        store = tmp_path / f"site{number}" / "store"
        ledger, head = (store.with_name(f"store.ledger.{suffix}") for suffix in ("jsonl", "head"))
        assert not verify(ledger, head, book=LEDGER).problem
        spent = spendings(ledger)["private"].spent
        assert epsilon_of(spent, config.privacy_delta, "rdp") == pytest.approx(account.epsilon)
        entries = [json.loads(line) for line in store.with_name("store.audit.jsonl").read_text().splitlines()]
        told = [entry["epsilon"] for entry in entries if not entry["kind"].startswith("secure_")]
        assert told == sorted(told) and told[-1] == pytest.approx(epsilon_of(spent, 1e-5))
