"""What two sides must agree on before a run starts, as one digest."""

from dataclasses import asdict

from shared_model.concepts import BY_NAME
from shared_model.distribution import BINS, LEVELS
from shared_model.features import AGGREGATES, DERIVED, LOOKBACK_HOURS, digest_of
from shared_model.study import Study

STORE_VERSION = 2  # layout of a prepared store
PROTOCOL_VERSION = 5  # message kinds, keys and meanings


def contract_digest(study: Study) -> str:
    """SHA-256 of the study, of every declaration that decides what a feature means (names, item ids, units, ranges,
    windows), of the store layout and of the message protocol.

    A site whose digest differs would train on other inputs or speak another protocol, so it is not admitted.
    """
    return digest_of(
        {
            "study": study.study.model_dump(),
            "distributions": [LEVELS, BINS],
            "lookback_hours": LOOKBACK_HOURS,
            "aggregates": [a.name for a in AGGREGATES],
            "derived": [asdict(d) for d in DERIVED],
            "concepts": {name: asdict(c) for name, c in sorted(BY_NAME.items())},
            "store": STORE_VERSION,
            "protocol": PROTOCOL_VERSION,
        }
    )
