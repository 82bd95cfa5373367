"""Reading one field of a Flower record, refusing anything of another shape with a ContractError."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from flwr.app import RecordDict

from shared_model.errors import ContractError

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


def decimals(record: Mapping[str, Any], key: str, length: int) -> tuple[int, ...]:
    """Integers that need not fit 64 bits, as decimal numbers."""
    values = _list(record, key, length)
    if not all(isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 40 for value in values):
        raise ContractError(f"message: {key!r} holds something that is no sum")
    return tuple(int(value) for value in values)


def _list(record: Mapping[str, Any], key: str, length: int) -> Sequence[Any]:
    value = record.get(key)
    if not isinstance(value, list) or len(value) != length:
        raise ContractError(f"message: {key!r} is not a list of {length} numbers")
    return value
