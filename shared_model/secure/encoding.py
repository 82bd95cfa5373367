"""What a site would send in the clear, as numbers that can be added, and back.

Weights: the change of each, times the examples behind it, in fixed point. The scale follows from what everybody knows
(the stays of all sites in the session, the largest change that may be sent), so that the sum cannot wrap; a site whose
part is larger than that refuses. Rounding moves a mean weight by at most ``error_of``.

Everything else: exact integers, in the order of the content's own keys. The layout, which tells names and lengths and
nothing of a patient, goes beside them in the clear, and must be the same for all sites. What a site may leave out
(``_OPTIONAL``) always has a place, beside the weight of the sites that tell it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared_model.errors import ContractError, ReleaseRefused
from shared_model.messages import Weights
from shared_model.secure.ring import INTEGER_LIMIT, WORD_LIMIT

FIXED = 2**32  # units in one, of numbers that are no integers
MOST_SITES = 2**16  # so many integers within ``_LARGEST`` add up without wrapping
LEAST_PRECISION = 1e-6  # of a mean weight; float32 has 1.2e-7 at 1
_LARGEST = INTEGER_LIMIT // MOST_SITES
_EXAMPLES = "num-examples"
# What a site may leave out, by the count that it weighs with; what is a mean is multiplied by that.
_OPTIONAL = {"deaths": "patients", "train-loss": _EXAMPLES, "seconds": _EXAMPLES}
_MEANS = ("train-loss",)
_SAME = ("round",)  # equal at all sites, so it is not added
WHOLE, DECIMAL, REAL = "whole", "decimal", "real"

Record = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One entry of a record: its place, what its numbers are, and how many; -1: one, not in a list."""

    record: str
    key: str
    kind: str
    length: int

    @property
    def count(self) -> int:
        """Integers that stand for it."""
        return 2 if self.key in _OPTIONAL else abs(self.length)


@dataclass(frozen=True)
class Sums:
    """What integers of one layout add up to: records as their content has them, and ``weights``: of what is optional,
    the count behind the sites that tell it."""

    records: dict[str, Record]
    weights: dict[str, int]


def to_integers(records: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[int]]:
    """The layout of a content without its arrays, as JSON, and its integers. Raises ReleaseRefused for what cannot be
    added up."""
    fields = list(_fields(records))
    numbers: list[int] = []
    for field in fields:
        held = records[field.record]
        numbers += _optional(held, field) if field.key in _OPTIONAL else _numbers(held[field.key], field)
    if not all(abs(number) <= _LARGEST for number in numbers):
        raise ReleaseRefused("secure aggregation: a number too large to be added up")
    return json.dumps([[f.record, f.key, f.kind, f.length] for f in fields]), numbers


def from_integers(layout: str, numbers: Sequence[int]) -> Sums:
    """Raises ContractError when the layout is none, or of another number of integers."""
    fields = read_layout(layout)
    if sum(field.count for field in fields) != len(numbers):
        raise ContractError("secure aggregation: another number of integers than its layout says")
    records, weights, place = dict[str, Record](), dict[str, int](), 0
    for field in fields:
        part, place = list(numbers[place : place + field.count]), place + field.count
        held = records.setdefault(field.record, {})
        if field.key in _OPTIONAL:
            value, weights[field.key] = part
            if weights[field.key]:
                mean = value / FIXED / weights[field.key] if field.key in _MEANS else None
                held[field.key] = _value([value], field) if mean is None else mean
        else:
            held[field.key] = _value(part, field)
    return Sums(records, weights)


def read_layout(layout: str) -> list[Field]:
    """Raises ContractError."""
    try:
        fields = [Field(*entry) for entry in json.loads(layout)]
        whole = all(
            isinstance(f.record, str)
            and isinstance(f.key, str)
            and f.kind in (WHOLE, DECIMAL, REAL)
            and type(f.length) is int
            and f.length >= -1
            for f in fields
        )
    except (ValueError, TypeError) as error:
        raise ContractError("secure aggregation: an answer without a layout") from error
    if not whole:
        raise ContractError("secure aggregation: a layout that is none")
    return fields


def moved(after: Weights, before: Weights) -> NDArray[np.float64]:
    """[P] How far every weight is from where it was, arrays in the order of their names."""
    parts = [(after[name].double() - before[name].double()).flatten().numpy() for name in sorted(before)]
    return np.concatenate(parts) if parts else np.zeros(0)


def moved_back(before: Weights, delta_P: NDArray[np.float64]) -> Weights:
    """The weights that are so far from where they were. Raises ContractError for another number of them."""
    if sum(tensor.numel() for tensor in before.values()) != len(delta_P):
        raise ContractError("secure aggregation: another number of weights than the model has")
    found, place = dict[str, Any](), 0
    for name in sorted(before):
        start = before[name]
        delta = delta_P[place : place + start.numel()].reshape(tuple(start.shape))
        found[name], place = (
            (start.double() + start.new_tensor(delta, dtype=start.double().dtype)).to(start.dtype),
            place + start.numel(),
        )
    return {name: found[name] for name in before}


def scale_for(stays: int, largest: float, sites: int) -> float:
    """Units in a change of 1, so that changes within ``largest``, each times its site's part of ``stays`` and rounded,
    add up within 32 bits."""
    return (WORD_LIMIT - 1 - sites) / (stays * largest)


def error_of(scale: float, examples: int, sites: int) -> float:
    """The most that rounding moves a mean weight of so many sites with so many examples together."""
    return sites / (2 * scale * examples)


def to_words(delta_P: NDArray[np.float64], examples: int, scale: float, largest: float) -> NDArray[np.int64]:
    """The change of each weight times ``examples``, in units. Raises ReleaseRefused beyond ``largest``, which the sum
    has room for."""
    if not np.isfinite(delta_P).all() or (delta_P.size and float(np.abs(delta_P).max()) > largest):
        raise ReleaseRefused(
            f"update: a weight changed by more than secure-range = {largest:g} in the round; raise it in the run-config"
        )
    return np.rint(delta_P * (examples * scale)).astype(np.int64)


def to_mean(words_P: NDArray[np.int32], examples: int, scale: float) -> NDArray[np.float64]:
    """The mean change of each weight."""
    return words_P.astype(np.float64) / (scale * examples)


def _fields(records: Mapping[str, Mapping[str, Any]]) -> Iterator[Field]:
    """In alphabetic order; an optional key has a place wherever the count that it weighs with is."""
    for record, held in sorted(records.items()):
        optional = {key for key, weight in _OPTIONAL.items() if weight in held and _belongs(key, held)}
        for key in sorted(held.keys() | optional):
            if key in _OPTIONAL:
                yield Field(record, key, WHOLE if key == "deaths" else REAL, -1)
            elif key not in _SAME:
                yield _field(record, key, held[key])


def _belongs(key: str, held: Mapping[str, Any]) -> bool:
    """Loss and seconds are of training, which alone has a round."""
    return key == "deaths" or "round" in held


def _field(record: str, key: str, value: Any) -> Field:
    many = isinstance(value, list)
    kinds = {type(one) for one in (value if many else [value])}
    for kind, of in ((WHOLE, int), (DECIMAL, str), (REAL, float)):
        if kinds <= {of}:
            return Field(record, key, kind, len(value) if many else -1)
    raise ReleaseRefused(f"secure aggregation: {key!r} cannot be added up")


def _numbers(value: Any, field: Field) -> list[int]:
    values = value if field.length >= 0 else [value]
    try:
        return [round(one * FIXED) if field.kind == REAL else int(one) for one in values]
    except ValueError as error:
        raise ReleaseRefused(f"secure aggregation: {field.key!r} cannot be added up") from error


def _optional(held: Mapping[str, Any], field: Field) -> list[int]:
    if field.key not in held:
        return [0, 0]
    weight, value = int(held[_OPTIONAL[field.key]]), held[field.key]
    return [*_numbers(value * weight if field.key in _MEANS else value, field), weight]


def _value(part: list[int], field: Field) -> Any:
    if field.kind == REAL:
        values: list[Any] = [number / FIXED for number in part]
    else:
        values = [str(number) for number in part] if field.kind == DECIMAL else part
    return values if field.length >= 0 else values[0]
