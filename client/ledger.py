"""The record of what runs with differential privacy spent at a site: on the disk before anything leaves.

Chained and locked like the audit log (client/chained_log.py); an entry's ``entry`` says which it is:

``counted``     the counts of patients that a run is told: noised once for the run, or exact where they are public
``authorized``  the plan that the run may spend, counts and all
``charged``     one answer: its message, its mechanism, and the SHA-256 of its bytes
``closed``      the run gets nothing more, and what it has not spent is free again

Why counts come first: the plan depends on them, and whether there is one is told by a refusal. A run that was counted
and not authorised has spent its counts; the same run asked again is told the same ones.

A ledger that came back from a backup would forget what was spent since. So every private answer in the audit log names
the ledger's line behind it, and a ledger without the newest of these lines is not used.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.account import Account
from client.audit_chain import LEDGER, Entry, entries, read_entry, verify
from client.caps import Caps
from client.chained_log import ChainedLog
from client.policy import Kind
from shared_model.errors import BudgetExceeded, LedgerError, PrivacyError
from shared_model.privacy import Mechanism, PrivacyPlan, epsilon_of

if TYPE_CHECKING:
    from client.site import SiteConfig

UNCAPPED = Caps()
_LEAST_PART = 0.95  # of the epsilon that is asked for, which a calibrated plan spends at least


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One answer that was paid for. ``asked`` and ``content`` are digests, of the question and of the answer."""

    kind: Kind
    round: int | None
    asked: str
    content: str
    mechanism: Mechanism


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What the ledger holds of one run. ``counted`` is what its counts cost, None where they are public; ``plan`` is
    None where none was authorised."""

    run: str
    run_id: str
    project: str
    settings: str
    patients: int
    deaths: int
    counted: Mechanism | None
    earlier: tuple[Mechanism, ...] = ()  # counts that it was told before, with settings that were not authorised
    plan: PrivacyPlan | None = None
    charges: tuple[Charge, ...] = ()
    closed: bool = False

    @property
    def account(self) -> Account | None:
        """What the work on a message of the run needs to know."""
        return None if self.plan is None else Account(plan=self.plan, patients=self.patients, deaths=self.deaths)

    @property
    def spent(self) -> tuple[Mechanism, ...]:
        """Of everything that has left, or was about to."""
        return (*self.earlier, *filter(None, (self.counted,)), *(charge.mechanism for charge in self.charges))

    @property
    def committed(self) -> tuple[Mechanism, ...]:
        """The spent, and while the run is open also the rest of its plan."""
        return self.spent if self.plan is None or self.closed else (*self.earlier, *self.plan.mechanisms)

    def charge_of(self, kind: Kind, asked: str) -> Charge | None:
        """What was paid for the same question."""
        return next((charge for charge in self.charges if (charge.kind, charge.asked) == (kind, asked)), None)

    def check(self, kind: Kind, mechanism: Mechanism) -> None:
        """Raises BudgetExceeded where the plan does not hold such an answer, or no more of them."""
        allowed = {} if self.plan is None or self.closed else _allowed(self.plan)
        most = allowed.get(kind, Mechanism(0.0, 0.0, 0))
        before = sum(charge.mechanism.steps for charge in self.charges if charge.kind == kind)
        same = (mechanism.noise_multiplier, mechanism.sample_rate) == (most.noise_multiplier, most.sample_rate)
        if not same or mechanism.steps < 1 or before + mechanism.steps > most.steps:
            raise BudgetExceeded(
                f"run {self.run!r}: {kind} with noise {mechanism.noise_multiplier:.4g} at rate"
                f" {mechanism.sample_rate:.4g}, {mechanism.steps} steps after {before}: authorised are {most.steps}"
                f" with noise {most.noise_multiplier:.4g} at rate {most.sample_rate:.4g}"
            )


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The ledger's last line, ``n`` and ``digest``, and the epsilon that the run has spent, at the site's delta."""

    n: int
    digest: str
    epsilon: float


class Ledger(ChainedLog):
    """The ledger of one site, held by one process at a time: ``with Ledger.of(site) as ledger``."""

    book = LEDGER
    refusal = LedgerError

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.runs: dict[str, Spending] = {}
        self.last: tuple[int, str] = (0, "")
        self.caps = UNCAPPED

    @classmethod
    @contextmanager
    def of(cls, site: "SiteConfig") -> Iterator["Ledger"]:
        """Held, and found to be what was written and no older than the audit log. Raises LedgerError."""
        with cls.held(site.ledger_file) as ledger:
            ledger.caps = site.privacy
            ledger._healed()
            ledger._read(site.audit_file)
            yield ledger

    def count(self, told: Spending) -> Spending:
        """Note the counts that a run is told, before they tell anything. Raises BudgetExceeded."""
        told = replace(told, earlier=_counts_before(self.runs, told.run))
        check_caps(self.caps, self.runs, told.run, told.project, told.spent)
        keys = ("run", "run_id", "project", "settings", "patients", "deaths")
        counted = None if told.counted is None else asdict(told.counted)
        return self._noted({"entry": "counted", **{key: getattr(told, key) for key in keys}, "counted": counted})

    def check_hopeless(self, told: Spending, epsilon: float, delta: float) -> None:
        """Raises BudgetExceeded where no number of patients would make a run fit. Counts are paid for before the answer
        is known: else a server could use up the budget by asking for what it cannot get."""
        caps = [cap for cap in (self.caps.total, self.caps.limit(told.project)) if cap is not None]
        if caps and delta >= self.caps.delta and _LEAST_PART * epsilon > min(caps):
            raise BudgetExceeded(f"run {told.run!r}: epsilon {epsilon:g} is above the site's cap, {min(caps):g}")

    def authorize(self, run: str, plan: PrivacyPlan) -> Spending:
        """Set a plan's budget aside for a run that was counted. Raises BudgetExceeded."""
        told, delta = self.runs[run], self.caps.delta
        check_caps(self.caps, self.runs, run, told.project, replace(told, plan=plan).committed)
        keys = ("run_id", "project", "settings", "patients", "deaths")
        return self._noted(
            {
                "entry": "authorized",
                "run": run,
                **{key: getattr(told, key) for key in keys},
                "plan": asdict(plan),
                "epsilon": epsilon_of(plan.mechanisms, delta),
                "delta": delta,
            }
        )

    def charge(
        self, run: str, mechanism: Mechanism, kind: Kind, round_number: int | None, asked: str, content: str
    ) -> Spending:
        """Pay for one answer. Raises BudgetExceeded, and PrivacyError where the run has no account."""
        if run not in self.runs:
            raise PrivacyError(f"run {run!r}: not authorised at this site")
        held = self.runs[run]
        held.check(kind, mechanism)
        spent = {name: replace(other, plan=None) for name, other in self.runs.items()}  # a cap may be lower by now
        check_caps(self.caps, spent, run, held.project, (*held.spent, mechanism))
        words = {"entry": "charged", "run": run, "kind": kind, "round": round_number}
        return self._noted({**words, "asked": asked, "content": content, **asdict(mechanism)})

    def close(self, run: str) -> Spending:
        """Free what a run has not spent."""
        return self._noted({"entry": "closed", "run": run})

    def receipt(self, run: str) -> Receipt:
        """For the audit log."""
        n, digest = self.last
        return Receipt(n=n, digest=digest, epsilon=epsilon_of(self.runs[run].spent, self.caps.delta))

    def _noted(self, fields: dict[str, Any]) -> Spending:
        entry = self.append(fields)
        self.last = (entry["n"], entry["digest"])
        return _take(self.runs, entry)

    def _read(self, audit: Path) -> None:
        found = verify(self.path, self.head_file, book=self.book)
        if found.problem:
            raise LedgerError(f"{self.path}: {found.problem}; {self.book.hint}")
        if older := behind(self.path, audit):
            raise LedgerError(f"{self.path}: the ledger is {older}")
        self.last, self.runs = (found.count, found.digest), spendings(self.path)


def check_caps(caps: Caps, runs: Mapping[str, Spending], run: str, project: str, wanted: tuple[Mechanism, ...]) -> None:
    """Whether what ``run`` wants in all fits beside the other runs. Raises BudgetExceeded."""
    others = [held for held in runs.values() if held.run != run]
    rules = [
        (f"project {project!r}", caps.limit(project), [held for held in others if held.project == project]),
        ("all runs together", caps.total, others),
    ]
    for what, limit, beside in rules:
        if limit is None:
            continue
        taken = committed(beside)
        would = epsilon_of((*taken, *wanted), caps.delta)
        if would > limit:
            raise BudgetExceeded(
                f"run {run!r}: with it {what} would come to epsilon {would:.4g} at delta {caps.delta:g}"
                f" (others: {epsilon_of(taken, caps.delta):.4g}); the site's cap is {limit:g}"
            )


def committed(runs: Iterable[Spending]) -> list[Mechanism]:
    """Of some runs together."""
    return [mechanism for held in runs for mechanism in held.committed]


def spendings(path: Path) -> dict[str, Spending]:
    """What a ledger holds of each run, oldest first. Raises LedgerError at a line that is none."""
    runs: dict[str, Spending] = {}
    try:
        for entry in entries(path, LEDGER):
            _take(runs, entry)
    except (KeyError, TypeError) as error:
        raise LedgerError(f"{path}: holds an entry of another version") from error
    return runs


def behind(ledger: Path, audit: Path) -> str:
    """Why a ledger that is whole is not the one that the audit log speaks of; empty where it is."""
    known = newest_known(audit)
    if known is None or any((e["n"], e["digest"]) == known for e in entries(ledger, LEDGER)):
        return ""
    return f"older than the audit log, which names its line {known[0]}"


def newest_known(audit: Path) -> tuple[int, str] | None:
    """The newest line of the ledger that a private answer in the audit log names."""
    known: tuple[int, str] | None = None
    if audit.exists():
        with audit.open("rb") as file:
            for line in file:
                if b'"ledger":[' not in line or not line.endswith(b"\n"):
                    continue
                entry = read_entry(line)
                if entry is None:
                    raise LedgerError(
                        f"{audit}: a line that names the ledger was altered; `consilium-site audit verify`"
                    )
                if known is None or entry["ledger"][0] > known[0]:
                    known = (entry["ledger"][0], entry["ledger"][1])
    return known


def _take(runs: dict[str, Spending], entry: Entry) -> Spending:
    """The run with one entry more."""
    run = entry["run"]
    match entry["entry"]:
        case "counted":
            keys = ("run", "run_id", "project", "settings", "patients", "deaths")
            counted = None if entry["counted"] is None else Mechanism(**entry["counted"])
            told = {key: entry[key] for key in keys}
            runs[run] = Spending(**told, counted=counted, earlier=_counts_before(runs, run))
        case "authorized":
            runs[run] = replace(runs[run], plan=_plan(entry["plan"]))
        case "charged":
            mechanism = Mechanism(entry["noise_multiplier"], entry["sample_rate"], entry["steps"])
            held = {key: entry[key] for key in ("kind", "round", "asked", "content")}
            runs[run] = replace(runs[run], charges=(*runs[run].charges, Charge(**held, mechanism=mechanism)))
        case "closed":
            runs[run] = replace(runs[run], closed=True)
        case other:
            raise LedgerError(f"privacy ledger: an entry {other!r}, which this version does not know")
    return runs[run]


def _counts_before(runs: Mapping[str, Spending], run: str) -> tuple[Mechanism, ...]:
    return runs[run].spent if run in runs else ()


def _plan(held: Mapping[str, Any]) -> PrivacyPlan:
    parts = ("count", "statistics", "validation", "training")
    return PrivacyPlan(**{**held, **{part: held[part] and Mechanism(**held[part]) for part in parts}})


def _allowed(plan: PrivacyPlan) -> dict[Kind, Mechanism]:
    """What is charged answer by answer; the counts were charged before the plan was made."""
    return {"statistics": plan.statistics, "train": plan.training, "evaluate": plan.validation}
