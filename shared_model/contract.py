"""What two sides must agree on before a run starts, as one digest."""

from shared_model.features import digest_of, features_digest

STORE_VERSION = 1  # layout of a prepared store
PROTOCOL_VERSION = 1  # message kinds, keys and meanings


def contract_digest() -> str:
    """SHA-256 of the feature declarations, the store layout and the message protocol.

    A site whose digest differs would train on other inputs or speak another protocol, so it is not admitted.
    """
    return digest_of({"features": features_digest(), "store": STORE_VERSION, "protocol": PROTOCOL_VERSION})
