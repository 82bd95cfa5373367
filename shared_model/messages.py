"""The only reader and writer of Flower RecordDicts.

Why: what crosses the wire is declared in one place, as typed values that the rest of the code uses. Each reply class
knows its record form (``content``) and reads it back (``read``), refusing anything of another shape with a
ContractError.

=====================  =======================  ==========================================================
message type           server sends             site answers
=====================  =======================  ==========================================================
``query.describe``     nothing                  SiteCard
``query.statistics``   Trial                    Statistics
``train``              weights, RoundOrder      TrainReply (validation of the incoming model rides along)
``evaluate``           weights, RoundOrder      EvaluateReply
any                                             Refusal
=====================  =======================  ==========================================================

``mechanism`` of a reply is what made it private; it is for the site's ledger and is not sent.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from shared_model.distribution import Outcomes
from shared_model.errors import ContractError
from shared_model.mergeable import SCORE_BINS, Validation
from shared_model.noised import coarse
from shared_model.plan import PreprocessingPlan
from shared_model.privacy import Mechanism
from shared_model.records import (
    METRICS,
    config_of,
    count,
    counts,
    exact_groups,
    finite,
    integers,
    metrics_of,
    noised_groups,
    one_of,
    positive,
    typed,
)
from shared_model.study import EARLY, Study
from shared_model.trial import THE_RUN, Trial

DESCRIBE, STATISTICS, TRAIN, EVALUATE = "query.describe", "query.statistics", "train", "evaluate"
ARRAYS, CONTROL, CONFIG, CARD, SUMS = "arrays", "control", "config", "card", "sums"
EXAMPLES, PERSONAL, LOSS, SECONDS = "num-examples", "personal", "train-loss", "seconds"
NOISE = "validation-noise"

Weights = dict[str, Tensor]
Counts = Literal["exact", "noised"]
Content = RecordDict  # for readers outside that only pass one on


@dataclass(frozen=True, kw_only=True)
class SiteCard:
    """How a site introduces itself. ``patients`` and ``deaths`` are of the training patients, and None below its
    smallest cell; ``stays`` is the most stays that an update of it may claim. ``counts``: exact, or noised once."""

    site: str
    contract: str
    encoder: str
    device: str
    stays: int
    patients: int | None
    deaths: int | None
    counts: Counts = "exact"
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self) -> RecordDict:
        """A ConfigRecord; a suppressed count is left out."""
        held = {k: v for k, v in asdict(self).items() if v is not None and k != "mechanism"}
        return RecordDict({CARD: ConfigRecord(held)})

    @classmethod
    def read(cls, content: RecordDict) -> "SiteCard":
        """Raises ContractError when a field is absent or of another type."""
        card = dict(config_of(content, CARD))
        held: dict[str, Any] = {key: typed(card, key, str) for key in ("site", "contract", "encoder", "device")}
        held |= {key: typed(card, key, int) if key in card else None for key in ("patients", "deaths")}
        return cls(stays=count(card, "stays"), counts=one_of(card, "counts", get_args(Counts)), **held)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Distributions of a site's training patients, in the order of the study's features, and how many patients and
    deaths there are; ``deaths`` is None below the site's smallest cell.

    ``most`` holds the most values that one patient brings to each feature, static ones first. The release needs it to
    count patients behind a bin; it is not sent. Nor are ``parts``: the same of each block of patients, and of those who
    are told of for the first time in it (client/blocks.py). What leaves is added up from them.

    In a private run ``noise`` is the standard deviation of every count, and bins are all there is: coarse ones
    (shared_model/noised.py), which may be negative, of all patients or, where ``whole`` is empty, by outcome.
    """

    static: tuple[Outcomes, ...]
    series: tuple[Outcomes, ...]
    patients: int
    deaths: int | None
    noise: float | None = None
    most: tuple[int, ...] = field(default=(), compare=False)
    parts: "tuple[tuple[Statistics, Statistics], ...]" = field(default=(), compare=False)
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self) -> RecordDict:
        """Parallel lists; power sums as decimals, since the 4th powers of a large site pass 64 bits."""
        groups = [group for held in (*self.static, *self.series) for group in (held.whole, held.survived, held.died)]
        metrics: dict[str, Any] = {"patients": self.patients}
        if self.deaths is not None:
            metrics["deaths"] = self.deaths
        if self.noise is not None:
            metrics |= {"bins": [count for group in groups for count in coarse(group.bins)], "noise": self.noise}
            return RecordDict({METRICS: MetricRecord(metrics)})
        metrics["measured"] = [group.patients for group in groups]
        metrics["bins"] = [count for group in groups for count in group.bins]
        sums: dict[str, Any] = {"sums": [str(total) for group in groups for total in group.sums]}
        return RecordDict({METRICS: MetricRecord(metrics), SUMS: ConfigRecord(sums)})

    @classmethod
    def read(cls, content: RecordDict, study: Study = EARLY) -> "Statistics":
        """Raises ContractError when a list has another length or holds what no values can add up to."""
        metrics, static = metrics_of(content), len(study.static)
        many = 3 * (static + len(study.series))
        noise = positive(metrics, "noise") if "noise" in metrics else None
        groups = noised_groups(metrics, many) if noise else exact_groups(metrics, config_of(content, SUMS), many)
        outcomes = tuple(Outcomes(*groups[n : n + 3]) for n in range(0, many, 3))
        if noise is None and not all(held.possible for held in outcomes):
            raise ContractError("message: holds a distribution that no values can have")
        return cls(
            static=outcomes[:static],
            series=outcomes[static:],
            patients=count(metrics, "patients"),
            deaths=count(metrics, "deaths") if "deaths" in metrics else None,
            noise=noise,
        )


@dataclass(frozen=True, kw_only=True)
class RoundOrder:
    """What goes with the weights: the round, its learning rate, the plan that belongs to the model, and the trial."""

    round: int
    learning_rate: float
    plan: PreprocessingPlan
    trial: Trial = THE_RUN
    personal: bool = False  # fine-tune to the site, too

    def config(self) -> ConfigRecord:
        """The plan travels as JSON beside its digest."""
        return ConfigRecord(
            {
                "round": self.round,
                "learning-rate": self.learning_rate,
                "plan": self.plan.to_json(),
                "plan-digest": self.plan.digest,
                "trial": self.trial.to_json(),
                "personal": self.personal,
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> "RoundOrder":
        """Raises ContractError when the plan is not the one its digest names."""
        config = config_of(content, CONFIG)
        digest = typed(config, "plan-digest", str)
        return cls(
            round=typed(config, "round", int),
            learning_rate=typed(config, "learning-rate", float),
            plan=PreprocessingPlan.from_json(typed(config, "plan", str), digest=digest),
            trial=read_trial(content),
            personal=typed(config, "personal", bool),
        )


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """A site's update: its round, weights, the training stays behind them (under privacy: patients), mean training
    loss, seconds, and the validation result. ``control`` is the change of the site's control variate, under SCAFFOLD.
    Under privacy there are neither loss nor seconds, and the validation is empty: each would have to be paid for."""

    round: int
    weights: Weights
    examples: int
    train_loss: float | None
    seconds: float | None
    validation: Validation
    control: Weights | None = None
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self) -> RecordDict:
        """One ArrayRecord and one MetricRecord, as Flower's strategies expect, and SCAFFOLD's own."""
        metrics = {
            "round": self.round,
            EXAMPLES: self.examples,
            **{key: value for key, value in ((LOSS, self.train_loss), (SECONDS, self.seconds)) if value is not None},
            **_validation_lists(self.validation),
        }
        content = RecordDict({ARRAYS: ArrayRecord(self.weights), METRICS: MetricRecord(metrics)})
        if self.control is not None:
            content[CONTROL] = ArrayRecord(self.control)
        return content

    @classmethod
    def read(cls, content: RecordDict) -> "TrainReply":
        """Raises ContractError when a part is absent or of another shape."""
        metrics = metrics_of(content)
        return cls(
            round=count(metrics, "round"),
            weights=read_weights(content),
            examples=count(metrics, EXAMPLES),
            train_loss=finite(metrics, LOSS) if LOSS in metrics else None,
            seconds=finite(metrics, SECONDS) if SECONDS in metrics else None,
            validation=_read_validation(metrics),
            control=read_weights(content, CONTROL) if CONTROL in content.array_records else None,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateReply:
    """Validation of a model on a site's validation patients, and of what it is fine-tuned to there, if asked for.

    In a private run ``noise`` is the standard deviation of every count: bins are coarse (shared_model/noised.py), may
    be negative, and there is no loss."""

    validation: Validation
    personal: Validation | None = None
    noise: float | None = None
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self) -> RecordDict:
        """One MetricRecord."""
        metrics = {EXAMPLES: max(self.validation.count, 0), **_validation_lists(self.validation)}
        if self.personal is not None:
            metrics |= _validation_lists(self.personal, PERSONAL)
        if self.noise is not None:
            metrics[NOISE] = self.noise
        return RecordDict({METRICS: MetricRecord(metrics)})

    @classmethod
    def read(cls, content: RecordDict) -> "EvaluateReply":
        """Raises ContractError when a part is absent or of another shape."""
        metrics = metrics_of(content)
        personal = _read_validation(metrics, PERSONAL) if f"{PERSONAL}-loss-sum" in metrics else None
        noise = positive(metrics, NOISE) if NOISE in metrics else None
        return cls(validation=_read_validation(metrics, signed=noise is not None), personal=personal, noise=noise)


def trial_content(trial: Trial) -> RecordDict:
    """What the server sends for ``query.statistics``."""
    return RecordDict({CONFIG: ConfigRecord({"trial": trial.to_json()})})


def read_trial(content: RecordDict) -> Trial:
    """The trial that a message belongs to. Raises ContractError."""
    return Trial.from_json(typed(config_of(content, CONFIG), "trial", str))


def weights_content(weights: Weights, order: RoundOrder) -> RecordDict:
    """What the server sends for ``evaluate`` (a strategy makes the same for ``train``)."""
    return RecordDict({ARRAYS: ArrayRecord(weights), CONFIG: order.config()})


def read_weights(content: RecordDict, name: str = ARRAYS) -> Weights:
    """The weights of a message, or other arrays in their form. Raises ContractError when there are none."""
    if name not in content.array_records:
        raise ContractError(f"message: no ArrayRecord {name!r}; it holds {sorted(content)}")
    try:
        return dict(content.array_records[name].to_torch_state_dict())
    except (ValueError, TypeError, RuntimeError) as error:
        raise ContractError("message: its arrays are no arrays") from error


def examples_of(content: RecordDict) -> int:
    """The training stays behind an update."""
    return count(metrics_of(content), EXAMPLES)


def content_bytes(content: RecordDict) -> int:
    """Bytes of the arrays in a message; the rest is small."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def _validation_lists(validation: Validation, prefix: str = "validation") -> dict[str, Any]:
    return {
        f"{prefix}-negatives": list(validation.negatives),
        f"{prefix}-positives": list(validation.positives),
        f"{prefix}-loss-sum": validation.loss_sum,
    }


def _read_validation(metrics: Mapping[str, Any], prefix: str = "validation", *, signed: bool = False) -> Validation:
    read = integers if signed else counts
    negatives, positives = (read(metrics, f"{prefix}-{side}", SCORE_BINS) for side in ("negatives", "positives"))
    return Validation(negatives, positives, finite(metrics, f"{prefix}-loss-sum"))
