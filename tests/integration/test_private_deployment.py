"""A private run under masks between real processes: what it tells, and what the hospitals' commands say afterwards."""

from pathlib import Path
from uuid import uuid4

import pytest
from consortium import Consortium

from server.results import read_results
from simulations.runner import ended_afterwards, marked

PRIVATE = {"privacy.unit": "patient", "privacy.accountant": "rdp", "privacy.epsilon": 8.0, "privacy.project": "sepsis"}


@pytest.mark.slow(minutes=2)  # tests/unit/test_private_federation.py has the same ClientApp in one process
def test_hospitals_train_privately_under_masks_and_read_what_it_cost(tmp_path: Path) -> None:
    mark = uuid4().hex
    with ended_afterwards(mark):
        consortium = Consortium(tmp_path / "private", mark)
        consortium.open(Mercy=200, Avon=220)
        settings = PRIVATE | {"secure-aggregation": True, "batch-size": 64, "rounds": 2}
        said = consortium.train("masked", **settings)
        assert "2 sites: Avon, Mercy" in said
        results = read_results(consortium.centre / "runs" / "masked" / "results.json")
        assert results.status == "complete" and results.privacy is not None
        assert [account.holder for account in results.privacy.accounts] == ["Avon", "Mercy"]
        assert all(0.97 * 8 < (account.epsilon or 0) <= 8 for account in results.privacy.accounts)
        assert [one.replied for one in results.rounds] == [["Avon", "Mercy"]] * 2
        for site in consortium.sites.values():
            assert "masked" in consortium.command("consilium-site", "ledger", "show", site)
            consortium.command("consilium-site", "ledger", "verify", site)
            consortium.command("consilium-site", "audit", "verify", site)
        consortium.close()
    assert not marked(mark), "processes outlived the federation"
