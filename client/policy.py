"""What a site lets out, as its YAML says it under ``release``. What is not listed there stays.

``REPLIES`` is the protocol's own list: what a reply of each kind may hold at most, record by record. A site's `keys`
can only make it shorter.
"""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator

from client.mapping.mistakes import nearest
from client.mapping.steps import Strict

Kind = Literal["describe", "statistics", "train", "evaluate", "secure_keys", "secure_shares", "secure_unmask"]
Word = Literal["describe", "statistics", "train", "evaluate", "secure"]  # of `allow`
KINDS: tuple[Word, ...] = get_args(Word)

_VALIDATION = ("negatives", "positives", "loss-sum")
_VALIDATED = ("num-examples", *(f"validation-{part}" for part in _VALIDATION))
# Kind -> record -> its keys; None: a record of arrays, which are those of the model that came in.
REPLIES: dict[Kind, dict[str, frozenset[str] | None]] = {
    "describe": {"card": frozenset(("site", "contract", "encoder", "device", "stays", "patients", "deaths", "counts"))},
    "statistics": {
        "metrics": frozenset(("measured", "bins", "patients", "deaths", "noise")),
        "sums": frozenset(("sums",)),
    },
    "train": {
        "arrays": None,
        "metrics": frozenset(("round", "train-loss", "seconds", *_VALIDATED)),
        "control": None,
    },
    "evaluate": {"metrics": frozenset((*_VALIDATED, "validation-noise", *(f"personal-{p}" for p in _VALIDATION)))},
    "secure_keys": {"secure": frozenset(("encryption", "masking", "commitment"))},
    "secure_shares": {"secure": frozenset(("names", "shares"))},
    "secure_unmask": {"secure": frozenset(("names", "shares"))},
}
KEYS = sorted({key for held in REPLIES.values() for record, keys in held.items() for key in keys or (record,)})


def word_of(kind: Kind) -> Word:
    """What `allow` calls a kind of message."""
    match kind:
        case "secure_keys" | "secure_shares" | "secure_unmask":
            return "secure"
    return kind


class ReleasePolicy(Strict):
    """What may leave the site. Nothing does unless `allow` lists it."""

    allow: tuple[Word, ...] = Field(
        default=(),
        description="messages that may be answered: describe, statistics, train, evaluate, and secure, which are the"
        " keys and shares of secure aggregation; none by default",
    )
    only_masked: bool = Field(
        default=False, description="statistics, updates and validations leave in runs with secure aggregation only"
    )
    keys: tuple[str, ...] | None = Field(
        default=None, description="parts of an answer that may leave; unless given, those that the protocol declares"
    )
    smallest_cell: int = Field(default=10, ge=1, description="counts of patients below this do not leave")
    largest_megabytes: float = Field(default=64.0, gt=0, description="largest answer")
    clip_norm: float | None = Field(
        default=None, gt=0, description="an update's L2 norm is scaled down to this before it leaves"
    )
    most_rounds: int | None = Field(default=None, ge=1, description="updates that may leave in one run")
    runs: tuple[str, ...] = Field(
        default=(), description="names or Flower ids of the runs that may get anything; any run unless given"
    )
    apps: tuple[str, ...] = Field(
        default=("installed",), description="code that may run: 'installed' (this very version), or a bundle's SHA-256"
    )
    trusted_entities: Path | None = Field(
        default=None, description="file of Flower's --trusted-entities: who may sign code that runs"
    )

    @field_validator("keys")
    @classmethod
    def _declared(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for number, key in enumerate(keys or (), start=1):
            if key not in KEYS:
                raise ValueError(f"name {number} is no part of an answer{nearest(key, KEYS)}")
        return keys
