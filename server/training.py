"""What the rounds leave: which model is kept and why, and the record of every round."""

from dataclasses import asdict, dataclass, field
from typing import Any

from server.noised import Noised
from server.results import RoundSummary
from shared_model.mergeable import Validation, merge_validations
from shared_model.messages import Weights
from shared_model.trial import THE_RUN, Trial


@dataclass(kw_only=True)
class Training:
    """What the rounds leave: the kept weights with their validation by site, and the record of every round. ``last`` is
    the validation of the last round's model, whether it was kept or not. ``trial`` is what every message spoke of.

    In a private run the last round's model is the kept one, since only it is validated; ``noised`` is that validation,
    merged over the sites, and ``sites`` stays empty: one site's alone would be little but noise."""

    weights: Weights
    trial: Trial = THE_RUN
    best_round: int = 0
    best: Validation = field(default_factory=Validation)
    improved_round: int = 0  # the last that was better than all before it
    sites: dict[str, Validation] = field(default_factory=dict)
    last: Validation = field(default_factory=Validation)
    noised: Noised | None = None
    rounds: list[RoundSummary] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    local_seconds: list[float] = field(default_factory=list)

    @property
    def validation(self) -> Validation:
        """Of the kept weights, merged over the sites."""
        return merge_validations(list(self.sites.values())) if self.noised is None else self.noised.validation

    def validated(
        self,
        round_number: int,
        weights: Weights,
        sites: dict[str, Validation],
        noised: Noised | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Note how the model of a round did, and keep it unless one before was better by more than a standard error;
        or in any case (``keep``), where a choice would tell of the patients that it was made on.

        Why not simply the best: on a few hundred validation patients the best of many rounds is best by luck, and the
        later of two is trained further (the one-standard-error rule: Breiman et al. 1984).
        """
        record = self.rounds[round_number - 1]
        self.last = merge_validations(list(sites.values())) if noised is None else noised.validation
        record.validation_loss, record.validation_auroc = self.last.loss, self.last.auroc
        if not self.best.at_least(self.last):
            self.best, self.improved_round = self.last, round_number
        if keep or self.last.nearly(self.best):
            self.weights, self.best_round, self.sites, self.noised = weights, round_number, sites, noised

    def stalled(self, patience: int) -> bool:
        """Whether so many validated rounds have passed without a better one."""
        return bool(patience) and len(self.rounds) - 1 - self.improved_round >= patience

    def to_json(self) -> dict[str, Any]:
        """Everything but the kept weights."""
        return {
            "trial": self.trial.to_json(),
            "best_round": self.best_round,
            "best": asdict(self.best),
            "improved_round": self.improved_round,
            "sites": {site: asdict(held) for site, held in self.sites.items()},
            "last": asdict(self.last),
            "noised": None if self.noised is None else asdict(self.noised),
            "rounds": [record.model_dump() for record in self.rounds],
            "seconds": self.seconds,
            "local_seconds": self.local_seconds,
        }

    @classmethod
    def from_json(cls, held: dict[str, Any], weights: Weights) -> "Training":
        """What ``to_json`` wrote, with the kept weights. Raises KeyError, TypeError or ValueError."""
        return cls(
            weights=weights,
            trial=Trial.from_json(held["trial"]),
            best_round=held["best_round"],
            best=_validation(held["best"]),
            improved_round=held["improved_round"],
            sites={site: _validation(one) for site, one in held["sites"].items()},
            last=_validation(held["last"]),
            noised=_noised(held["noised"]) if held.get("noised") else None,
            rounds=[RoundSummary(**record) for record in held["rounds"]],
            seconds=held["seconds"],
            local_seconds=held["local_seconds"],
        )


def _noised(held: dict[str, Any]) -> Noised:
    return Noised(_validation(held["validation"]), held["noise"])


def _validation(held: dict[str, Any]) -> Validation:
    return Validation(tuple(held["negatives"]), tuple(held["positives"]), held["loss_sum"])
