"""Reading one field of a Flower record, refusing anything of another shape with a ContractError."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from flwr.app import RecordDict

from shared_model.distribution import BINS, POWERS, Distribution
from shared_model.errors import ContractError
from shared_model.noised import NOISED_BINS, placed

METRICS = "metrics"


def serialised(content: RecordDict) -> bytes:
    """Every byte that a message's content holds, the same at each call."""
    from flwr.common.serde import recorddict_to_proto

    return bytes(recorddict_to_proto(content).SerializeToString(deterministic=True))


def deserialised(raw: bytes) -> RecordDict:
    """The content that ``serialised`` made these bytes of."""
    from flwr.common.serde import recorddict_from_proto
    from flwr.proto.recorddict_pb2 import RecordDict as Proto

    return recorddict_from_proto(Proto.FromString(raw))


def config_of(content: RecordDict, name: str) -> Mapping[str, Any]:
    if name not in content.config_records:
        raise ContractError(f"message: no ConfigRecord {name!r}; it holds {sorted(content)}")
    return content.config_records[name]


def metrics_of(content: RecordDict) -> Mapping[str, Any]:
    if METRICS not in content.metric_records:
        raise ContractError(f"message: no MetricRecord {METRICS!r}; it holds {sorted(content)}")
    return content.metric_records[METRICS]


def typed(record: Mapping[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    if type(value) is not kind:
        raise ContractError(f"message: {key!r} is {type(value).__name__}, the protocol says {kind.__name__}")
    return value


def finite(record: Mapping[str, Any], key: str) -> float:
    value = float(typed(record, key, float))
    if not isfinite(value):
        raise ContractError(f"message: {key!r} is not finite")
    return value


def positive(record: Mapping[str, Any], key: str) -> float:
    value = finite(record, key)
    if value <= 0:
        raise ContractError(f"message: {key!r} is not above 0")
    return value


def one_of(record: Mapping[str, Any], key: str, words: tuple[Any, ...]) -> Any:
    value = typed(record, key, str)
    if value not in words:
        raise ContractError(f"message: {key!r} is none of {', '.join(words)}")
    return value


def count(record: Mapping[str, Any], key: str) -> int:
    value = int(typed(record, key, int))
    if value < 0:
        raise ContractError(f"message: {key!r} is a negative count")
    return value


def counts(record: Mapping[str, Any], key: str, length: int) -> tuple[int, ...]:
    values = _list(record, key, length)
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise ContractError(f"message: {key!r} holds something that is no count")
    return tuple(int(value) for value in values)


def integers(record: Mapping[str, Any], key: str, length: int) -> tuple[int, ...]:
    """Counts with noise, which may be negative."""
    values = _list(record, key, length)
    if not all(isinstance(value, int) for value in values):
        raise ContractError(f"message: {key!r} holds something that is no whole number")
    return tuple(int(value) for value in values)


def decimals(record: Mapping[str, Any], key: str, length: int) -> tuple[int, ...]:
    """Integers that need not fit 64 bits, as decimal numbers."""
    values = _list(record, key, length)
    if not all(isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 40 for value in values):
        raise ContractError(f"message: {key!r} holds something that is no sum")
    return tuple(int(value) for value in values)


def exact_groups(metrics: Mapping[str, Any], sums: Mapping[str, Any], many: int) -> list[Distribution]:
    """``many`` distributions from parallel lists."""
    measured, bins = counts(metrics, "measured", many), counts(metrics, "bins", many * BINS)
    powers = decimals(sums, "sums", many * POWERS)
    return [
        Distribution(seen, powers[n * POWERS : (n + 1) * POWERS], bins[n * BINS : (n + 1) * BINS])
        for n, seen in enumerate(measured)
    ]


def noised_groups(metrics: Mapping[str, Any], many: int) -> list[Distribution]:
    """``many`` distributions of which only coarse, noised bins are told."""
    bins = integers(metrics, "bins", many * NOISED_BINS)
    return [Distribution(bins=placed(bins[n * NOISED_BINS : (n + 1) * NOISED_BINS])) for n in range(many)]


def _list(record: Mapping[str, Any], key: str, length: int) -> Sequence[Any]:
    value = record.get(key)
    if not isinstance(value, list) or len(value) != length:
        raise ContractError(f"message: {key!r} is not a list of {length} numbers")
    return value
