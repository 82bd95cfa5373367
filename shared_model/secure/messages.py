"""The records of secure aggregation, beside those of shared_model/messages.py.

========================  ==================================  =======================================
message type              server sends                        site answers
========================  ==================================  =======================================
``query.secure_keys``     Purpose                             Keys
``query.secure_shares``   Purpose, Roster                     Sealed
``query.statistics``,     what it always does, and Delivery   MaskedReply
``train``, ``evaluate``
``query.secure_unmask``   Purpose, survivors                  Told
========================  ==================================  =======================================

Why the purpose goes with each: a site's log says for which round it was, and a session is good for one only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shared_model.errors import ContractError
from shared_model.messages import CONFIG
from shared_model.privacy import Mechanism
from shared_model.records import METRICS, config_of, count, typed
from shared_model.secure.encoding import Sums
from shared_model.secure.protocol import Member, Roster
from shared_model.secure.ring import Vector
from shared_model.trial import Trial

SECURE_KEYS, SECURE_SHARES, SECURE_UNMASK = "query.secure_keys", "query.secure_shares", "query.secure_unmask"
SECURE, MASKED = "secure", "masked"
_WORDS, _INTEGERS = "words", "integers"
_KEYS = ("encryption", "masking", "commitment")


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What one sum is for: ``kind`` of the answers, the round (none for statistics) and the trial; ``sites`` are how
    many were asked for keys."""

    session: str
    kind: str
    round: int | None
    trial: Trial
    sites: int

    def content(self, **more: Any) -> RecordDict:
        """One ConfigRecord, with what else a step needs."""
        held = {"session": self.session, "kind": self.kind, "trial": self.trial.to_json(), "sites": self.sites, **more}
        return RecordDict({CONFIG: ConfigRecord(held if self.round is None else {**held, "round": self.round})})


def session_of(content: RecordDict, record: str = CONFIG) -> str:
    """The session that a message speaks of. Raises ContractError unless it is 32 hexadecimal digits."""
    name = typed(config_of(content, record), "session", str)
    if len(name) != 32 or not set(name) <= set("0123456789abcdef"):
        raise ContractError("message: 'session' is not one")
    return str(name)


def kind_and_sites(content: RecordDict) -> tuple[str, int]:
    """Of what a session adds answers up, and over how many sites at most."""
    config = config_of(content, CONFIG)
    return str(typed(config, "kind", str)), count(config, "sites")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Step 1: a site's public keys and the commitment to its seed."""

    encryption: bytes
    masking: bytes
    commitment: bytes
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self) -> RecordDict:
        """One ConfigRecord."""
        return RecordDict({SECURE: ConfigRecord({key: getattr(self, key) for key in _KEYS})})

    @classmethod
    def read(cls, content: RecordDict) -> "Keys":
        """Raises ContractError."""
        config = config_of(content, SECURE)
        return cls(**{key: typed(config, key, bytes) for key in _KEYS})


def roster_lists(roster: Roster) -> dict[str, Any]:
    """Parallel lists, for step 2."""
    members = roster.members
    return {
        "names": roster.names,
        "encryption": [member.encryption for member in members],
        "masking": [member.masking for member in members],
        "commitments": [member.commitment for member in members],
        "stays": [member.stays for member in members],
    }


def read_roster(content: RecordDict) -> Roster:
    """Raises ContractError."""
    config = config_of(content, CONFIG)
    kinds = {"names": str, "encryption": bytes, "masking": bytes, "commitments": bytes, "stays": int}
    lists = [_list(config, key, kind) for key, kind in kinds.items()]
    if len({len(held) for held in lists}) != 1:
        raise ContractError("message: a roster whose lists differ in length")
    names = ("name", "encryption", "masking", "commitment", "stays")
    return Roster(tuple(Member(**dict(zip(names, values, strict=True))) for values in zip(*lists, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Step 2: a site's shares for each other site, by its name; only that one can read them. Also the delivery of what
    the others sealed to a site, by sender, in step 3."""

    shares: Mapping[str, bytes]
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self, **more: Any) -> RecordDict:
        """One ConfigRecord."""
        held = {"names": list(self.shares), "shares": list(self.shares.values()), **more}
        return RecordDict({SECURE: ConfigRecord(held)})

    @classmethod
    def read(cls, content: RecordDict) -> "Sealed":
        """Raises ContractError."""
        return cls(shares=_by_name(content))


@dataclass(frozen=True, kw_only=True)
class Told:
    """Step 4: one share of each site that shared its secrets, by its name."""

    shares: Mapping[str, bytes]
    mechanism: Mechanism | None = field(default=None, compare=False)

    def content(self) -> RecordDict:
        """One ConfigRecord."""
        return RecordDict({SECURE: ConfigRecord({"names": list(self.shares), "shares": list(self.shares.values())})})

    @classmethod
    def read(cls, content: RecordDict) -> "Told":
        """Raises ContractError."""
        return cls(shares=_by_name(content))


@dataclass(frozen=True, kw_only=True)
class MaskedReply:
    """Step 3: statistics, an update or a validation under masks; ``layout`` says what the integers are."""

    session: str
    layout: str
    vector: Vector

    def content(self) -> RecordDict:
        """The numbers as signed ones, which every framework can hold."""
        parts = {_WORDS: self.vector.words_P.view(np.int32), _INTEGERS: self.vector.limbs_K2.view(np.int64)}
        arrays = ArrayRecord({name: Array(np.ascontiguousarray(part)) for name, part in parts.items()})
        return RecordDict({MASKED: arrays, SECURE: ConfigRecord({"session": self.session, "layout": self.layout})})

    @classmethod
    def read(cls, content: RecordDict) -> "MaskedReply":
        """Raises ContractError, also for an answer that is not masked."""
        session, layout = session_of(content, SECURE), typed(config_of(content, SECURE), "layout", str)
        try:
            arrays = content.array_records[MASKED]
            words, limbs = arrays[_WORDS].numpy(), arrays[_INTEGERS].numpy()
            whole = words.dtype == np.int32 and words.ndim == 1
            whole = whole and limbs.dtype == np.int64 and limbs.ndim == 2 and limbs.shape[1] == 2
        except (KeyError, ValueError, TypeError) as error:
            raise ContractError("message: its masked numbers cannot be read") from error
        if not whole:
            raise ContractError("message: its masked numbers have another form")
        vector = Vector(words.view(np.uint32), np.ascontiguousarray(limbs).view(np.uint64))
        return cls(session=session, layout=layout, vector=vector)


def summed_content(sums: Sums, round_number: int | None = None) -> RecordDict:
    """Sums in the form of one site's answer without its arrays."""
    content = RecordDict()
    for name, held in sums.records.items():
        if name == METRICS:
            content[name] = MetricRecord(held if round_number is None else {**held, "round": round_number})
        else:
            content[name] = ConfigRecord(held)
    return content


def survivors_of(content: RecordDict) -> list[str]:
    """Whose answers are in the sum. Raises ContractError."""
    return [str(name) for name in _list(config_of(content, CONFIG), "survivors", str)]


def _by_name(content: RecordDict) -> dict[str, bytes]:
    config = config_of(content, SECURE)
    names, shares = _list(config, "names", str), _list(config, "shares", bytes)
    if len(set(names)) != len(names) or len(names) != len(shares):
        raise ContractError("message: shares without a name each")
    return dict(zip(names, shares, strict=True))


def _list(config: Mapping[str, Any], key: str, kind: type) -> Sequence[Any]:
    value = config.get(key)
    if not isinstance(value, list) or not all(type(one) is kind for one in value):
        raise ContractError(f"message: {key!r} is no list of {kind.__name__}")
    return value
