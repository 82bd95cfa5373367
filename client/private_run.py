"""A run with differential privacy at a site, message by message: its account, and what each answer costs.

An answer is kept on the site's own disk before it is paid for, and leaves after. So the same question again, after a
crash or a lost reply, gets the same bytes and costs nothing: fresh noise would cost again, and two answers with noise
of their own tell more than one. Masks are put on afterwards (client/secure.py), so the question is what was sent
without the session's keys and shares: in another session the same answer leaves under other masks.
"""

import json
import math
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from client.account import Account
from client.ledger import Charge, Ledger, Receipt, Spending
from client.site_state import KEPT_ROUNDS, forget_old_runs, state_folder
from shared_model.atomic import write_private
from shared_model.errors import PrivacyError, ReleaseRefused
from shared_model.messages import Content
from shared_model.privacy import Mechanism, PrivacyPlan, count_mechanism
from shared_model.records import serialised
from shared_model.secure.messages import SECURE

if TYPE_CHECKING:
    from client.site import SiteConfig
    from client.task import Asked
    from shared_model.config import RunConfig

COUNTS_SENSITIVITY = math.sqrt(2)  # L2, of (patients, deaths): one patient adds at most 1 to each
SURE = 5.0  # standard deviations: the chance of a count so far off is 3e-7
_SETTINGS = ("rounds", "batch_size", "local_epochs", "local_steps", "validation_fraction", "seed")
_SYSTEM = SystemRandom()
Counts = tuple[int, int]  # training patients, and how many of them died


def open_account(
    site: "SiteConfig",
    config: "RunConfig",
    run: str,
    run_id: int,
    count: Callable[[], Counts],
    entropy: Random = _SYSTEM,
) -> Account:
    """The account of a run, opened where it has none: counts drawn, plan made, budget set aside. Raises BudgetExceeded,
    PrivacyError, LedgerError."""
    from shared_model.budget import plan_of

    true = count()  # before the ledger is held: it takes as long as the store is large
    with Ledger.of(site) as ledger:
        held = ledger.runs.get(run)
        if held is None or (held.plan is None and not held.closed and held.settings != _digest(config)):
            told = _told(site, config, run, run_id, true, entropy)
            ledger.check_hopeless(told, config.privacy_epsilon, config.privacy_delta)
            held = ledger.count(told)
        _check_same(held, config)
        if held.account is None:
            plan = plan_of(config, held.patients, public_counts=held.counted is None)
            _check_delta(plan, held.patients)
            held = ledger.authorize(run, plan)
        return _open(held)


def account_of(site: "SiteConfig", config: "RunConfig", run: str) -> Account:
    """The account that was opened when the run began. Raises PrivacyError where there is none, or it was closed."""
    with Ledger.of(site) as ledger:
        held = ledger.runs.get(run)
    if held is None:
        raise PrivacyError("run: not authorised at this site; it begins with query.describe")
    _check_same(held, config)
    return _open(held)


def settle(asked: "Asked", mechanism: Mechanism | None, answer: bytes) -> tuple[bytes, Receipt]:
    """Pay for an answer and return the one that may leave: this one, or the one that was paid for when the same
    question came before. Raises PrivacyError."""
    occasion = asked.occasion
    with Ledger.of(asked.site) as ledger:
        held = ledger.runs.get(asked.run)
        if held is None:
            raise PrivacyError("run: not authorised at this site")
        if occasion.kind == "describe":
            if mechanism != held.counted:
                raise ReleaseRefused("describe: not the counts that the site's privacy ledger holds")
            return answer, ledger.receipt(asked.run)
        if mechanism is None:
            raise ReleaseRefused(f"{occasion.kind}: without noise nothing leaves in a run with privacy.unit patient")
        question = _question(asked)
        before = held.charge_of(occasion.kind, question)
        paid = None if before is None else _paid(asked, before)
        if paid is None:
            _keep(_place(asked, question), answer)
            content, paid = sha256(answer).hexdigest(), answer
            ledger.charge(asked.run, mechanism, occasion.kind, occasion.round, question, content)
        return paid, ledger.receipt(asked.run)


def paid_answer(asked: "Asked") -> tuple[bytes, Receipt] | None:
    """What was paid for when the same question came before; None where nothing was, or it is no longer kept."""
    if asked.account is None or asked.occasion.kind == "describe":
        return None
    with Ledger.of(asked.site) as ledger:
        before = ledger.runs[asked.run].charge_of(asked.occasion.kind, _question(asked))
        paid = None if before is None else _paid(asked, before)
        return None if paid is None else (paid, ledger.receipt(asked.run))


def _question(asked: "Asked") -> str:
    """The digest of what was asked."""
    rest = {name: record for name, record in asked.content.items() if name != SECURE}
    return sha256(serialised(Content(rest))).hexdigest()


def _told(site: "SiteConfig", config: "RunConfig", run: str, run_id: int, true: Counts, entropy: Random) -> Spending:
    """The counts that the run is told for as long as it lasts."""
    (patients, deaths), mechanism = true, None
    if not site.privacy.public_counts:
        mechanism = count_mechanism(config.privacy_epsilon, config.privacy_delta, config.privacy_accountant)
        noise = mechanism.noise_multiplier * COUNTS_SENSITIVITY
        patients, deaths = (max(count + round(entropy.gauss(0.0, noise)), 0) for count in true)
    return Spending(
        run=run,
        run_id=str(run_id),
        project=config.privacy_project,
        settings=_digest(config),
        patients=patients,
        deaths=min(deaths, patients),
        counted=mechanism,
    )


def _check_delta(plan: PrivacyPlan, told: int) -> None:
    """delta <= 1/n, by the count that was told and its noise: a refusal by the true n would tell it, exactly, to
    whoever asks with one delta after another."""
    noise = 0.0 if plan.count is None else plan.count.noise_multiplier * COUNTS_SENSITIVITY
    if plan.delta * (told + SURE * noise) > 1:
        raise PrivacyError(f"privacy.delta = {plan.delta:g}: must be at most 1/n, n the site's training patients")


def _digest(config: "RunConfig") -> str:
    """Of the settings that decide how much a run spends, and on whom."""
    from shared_model.config import PRIVACY
    from shared_model.study import Study

    held, names = config.model_dump(mode="json"), {*_SETTINGS, *Study.model_fields}
    decide = {name: held[name] for name in held if name.startswith(PRIVACY) or name in names}
    return sha256(json.dumps(decide, sort_keys=True).encode()).hexdigest()


def _check_same(held: Spending, config: "RunConfig") -> None:
    if held.settings != _digest(config):
        raise PrivacyError(
            "run: authorised at this site with other settings of privacy, rounds, batches or seed; another run needs"
            " another name"
        )


def _open(held: Spending) -> Account:
    if held.closed:
        raise PrivacyError("run: was closed at this site")
    if held.account is None:
        raise PrivacyError("run: not authorised at this site")
    return held.account


def _paid(asked: "Asked", charge: Charge) -> bytes | None:
    """The bytes that were paid for; None where they are no longer kept."""
    path = _place(asked, charge.asked)
    kept = path.read_bytes() if path.exists() else b""
    return kept if sha256(kept).hexdigest() == charge.content else None


def _keep(path: Path, answer: bytes) -> None:
    """On the disk before it is paid for. Of the run and kind, the newest few stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, answer)
    forget_old_runs(path.parent)
    of_kind = path.parent.glob(f"{path.name.partition('-')[0]}-*")
    for old in sorted(of_kind, key=lambda kept: kept.stat().st_mtime)[:-KEPT_ROUNDS]:
        old.unlink(missing_ok=True)


def _place(asked: "Asked", question: str) -> Path:
    return state_folder(asked.site.store, asked.run) / "answers" / f"{asked.occasion.kind}-{question}"
