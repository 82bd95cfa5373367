"""The only reader and writer of Flower RecordDicts.

Why: what crosses the wire is declared in one place, as typed values that the rest of the code uses. Each reply class
knows its record form (``content``) and reads it back (``read``), refusing anything of another shape with a
ContractError.

=====================  =======================  ==========================================================
message type           server sends             site answers
=====================  =======================  ==========================================================
``query.describe``     nothing                  SiteCard
``query.statistics``   nothing                  Statistics
``train``              weights, RoundOrder      TrainReply (validation of the incoming model rides along)
``evaluate``           weights, RoundOrder      EvaluateReply
any                                             Refusal
=====================  =======================  ==========================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from shared_model.errors import ContractError
from shared_model.features import SERIES, STATIC, PreprocessingPlan
from shared_model.mergeable import SCORE_BINS, Moments, Validation

DESCRIBE, STATISTICS, TRAIN, EVALUATE = "query.describe", "query.statistics", "train", "evaluate"
ARRAYS, CONFIG, METRICS, CARD, REFUSAL = "arrays", "config", "metrics", "card", "refusal"
EXAMPLES = "num-examples"

Weights = dict[str, Tensor]
Content = RecordDict  # for readers outside that only pass one on


@dataclass(frozen=True, kw_only=True)
class SiteCard:
    """How a site introduces itself. ``patients`` and ``deaths`` are None below its smallest cell."""

    site: str
    contract: str
    encoder: str
    device: str
    patients: int | None
    deaths: int | None

    def content(self) -> RecordDict:
        """A ConfigRecord; a suppressed count is left out."""
        held = {k: v for k, v in asdict(self).items() if v is not None}
        return RecordDict({CARD: ConfigRecord(held)})

    @classmethod
    def read(cls, content: RecordDict) -> "SiteCard":
        """Raises ContractError when a field is absent or of another type."""
        card = dict(_config(content, CARD))
        counts = {k: _typed(card, k, int) if k in card else None for k in ("patients", "deaths")}
        return cls(
            site=_typed(card, "site", str),
            contract=_typed(card, "contract", str),
            encoder=_typed(card, "encoder", str),
            device=_typed(card, "device", str),
            patients=counts["patients"],
            deaths=counts["deaths"],
        )


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Moments of a site's training patients, in the order of ``STATIC`` and ``SERIES``, and its counts."""

    static: tuple[Moments, ...]
    series: tuple[Moments, ...]
    patients: int
    deaths: int

    def content(self) -> RecordDict:
        """One MetricRecord of parallel lists."""
        moments = [*self.static, *self.series]
        return RecordDict(
            {
                METRICS: MetricRecord(
                    {
                        "count": [m.count for m in moments],
                        "mean": [m.mean for m in moments],
                        "m2": [m.m2 for m in moments],
                        "patients": self.patients,
                        "deaths": self.deaths,
                    }
                )
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> "Statistics":
        """Raises ContractError when a list has another length."""
        metrics = _metrics(content)
        columns = [_list(metrics, key, len(STATIC) + len(SERIES)) for key in ("count", "mean", "m2")]
        moments = tuple(Moments(int(c), float(m), float(s)) for c, m, s in zip(*columns, strict=True))
        counts = {key: _typed(metrics, key, int) for key in ("patients", "deaths")}
        return cls(static=moments[: len(STATIC)], series=moments[len(STATIC) :], **counts)


@dataclass(frozen=True, kw_only=True)
class RoundOrder:
    """What goes with the weights: the round, its learning rate, and the plan that belongs to the model."""

    round: int
    learning_rate: float
    plan: PreprocessingPlan

    def config(self) -> ConfigRecord:
        """The plan travels as JSON beside its digest."""
        return ConfigRecord(
            {
                "round": self.round,
                "learning-rate": self.learning_rate,
                "plan": self.plan.to_json(),
                "plan-digest": self.plan.digest,
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> "RoundOrder":
        """Raises ContractError when the plan is not the one its digest names."""
        config = _config(content, CONFIG)
        digest = _typed(config, "plan-digest", str)
        return cls(
            round=_typed(config, "round", int),
            learning_rate=_typed(config, "learning-rate", float),
            plan=PreprocessingPlan.from_json(_typed(config, "plan", str), digest=digest),
        )


@dataclass(frozen=True, kw_only=True)
class TrainReply:
    """A site's update: weights, the training stays behind them, mean training loss, seconds, and the validation
    result."""

    weights: Weights
    examples: int
    train_loss: float
    seconds: float
    validation: Validation

    def content(self) -> RecordDict:
        """One ArrayRecord and one MetricRecord, as Flower's strategies expect."""
        metrics = {
            EXAMPLES: self.examples,
            "train-loss": self.train_loss,
            "seconds": self.seconds,
            **_validation_lists(self.validation),
        }
        return RecordDict({ARRAYS: ArrayRecord(self.weights), METRICS: MetricRecord(metrics)})

    @classmethod
    def read(cls, content: RecordDict) -> "TrainReply":
        """Raises ContractError when a part is absent or of another shape."""
        metrics = _metrics(content)
        return cls(
            weights=read_weights(content),
            examples=_typed(metrics, EXAMPLES, int),
            train_loss=_typed(metrics, "train-loss", float),
            seconds=_typed(metrics, "seconds", float),
            validation=_read_validation(metrics),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateReply:
    """Validation of a model on a site's validation patients."""

    validation: Validation

    def content(self) -> RecordDict:
        """One MetricRecord."""
        metrics = {EXAMPLES: self.validation.count, **_validation_lists(self.validation)}
        return RecordDict({METRICS: MetricRecord(metrics)})

    @classmethod
    def read(cls, content: RecordDict) -> "EvaluateReply":
        """Raises ContractError when a part is absent or of another shape."""
        return cls(validation=_read_validation(_metrics(content)))


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A site answers that it will not, and why: an error's class and its message, which never holds patient values.

    ``site`` is empty when the node does not know which site it is, or did not answer at all.
    """

    site: str
    kind: str
    reason: str

    def content(self) -> RecordDict:
        """One ConfigRecord."""
        return RecordDict({REFUSAL: ConfigRecord(asdict(self))})

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


def misfit(error: ContractError) -> Refusal:
    """The server's own objection to a reply that does not fit the protocol or the model."""
    return Refusal(site="", kind=type(error).__name__, reason=str(error))


def weights_content(weights: Weights, order: RoundOrder) -> RecordDict:
    """What the server sends for ``evaluate`` (a strategy makes the same for ``train``)."""
    return RecordDict({ARRAYS: ArrayRecord(weights), CONFIG: order.config()})


def read_weights(content: RecordDict) -> Weights:
    """The weights of a message. Raises ContractError when there are none."""
    if ARRAYS not in content.array_records:
        raise ContractError(f"message: no ArrayRecord {ARRAYS!r}; it holds {sorted(content)}")
    return dict(content.array_records[ARRAYS].to_torch_state_dict())


def refusal_of(message: Message) -> Refusal | None:
    """Why a reply carries no result: a site's refusal or Flower's own error; None when it carries one."""
    if message.has_error():
        return Refusal(site="", kind="NoReply", reason=message.error.reason or "no reply within the time limit")
    if REFUSAL not in message.content.config_records:
        return None
    record = _config(message.content, REFUSAL)
    return Refusal(**{key: _typed(record, key, str) for key in ("site", "kind", "reason")})


def content_bytes(content: RecordDict) -> int:
    """Bytes of the arrays in a message; the rest is small."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def _validation_lists(validation: Validation) -> dict[str, Any]:
    return {
        "validation-negatives": list(validation.negatives),
        "validation-positives": list(validation.positives),
        "validation-loss-sum": validation.loss_sum,
    }


def _read_validation(metrics: Mapping[str, Any]) -> Validation:
    negatives, positives = (
        tuple(int(v) for v in _list(metrics, f"validation-{side}", SCORE_BINS)) for side in ("negatives", "positives")
    )
    return Validation(negatives, positives, _typed(metrics, "validation-loss-sum", float))


def _config(content: RecordDict, name: str) -> Mapping[str, Any]:
    if name not in content.config_records:
        raise ContractError(f"message: no ConfigRecord {name!r}; it holds {sorted(content)}")
    return content.config_records[name]


def _metrics(content: RecordDict) -> Mapping[str, Any]:
    if METRICS not in content.metric_records:
        raise ContractError(f"message: no MetricRecord {METRICS!r}; it holds {sorted(content)}")
    return content.metric_records[METRICS]


def _typed(record: Mapping[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    if type(value) is not kind:
        raise ContractError(f"message: {key!r} is {type(value).__name__}, the protocol says {kind.__name__}")
    return value


def _list(record: Mapping[str, Any], key: str, length: int) -> Sequence[float]:
    value = record.get(key)
    if not isinstance(value, list) or len(value) != length:
        raise ContractError(f"message: {key!r} is not a list of {length} numbers")
    return value
