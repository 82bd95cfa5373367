"""Why an answer carries no result: a site's refusal, Flower's own error, or the server's objection."""

from dataclasses import asdict, dataclass

from flwr.app import ConfigRecord, Message, RecordDict

from shared_model.errors import ContractError
from shared_model.records import config_of, typed

REFUSAL = "refusal"


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


def refusal_of(message: Message) -> Refusal | None:
    """Why a reply carries no result: a site's refusal or Flower's own error; None when it carries one."""
    if message.has_error():
        return Refusal(site="", kind="NoReply", reason=message.error.reason or "no reply within the time limit")
    if REFUSAL not in message.content.config_records:
        return None
    record = config_of(message.content, REFUSAL)
    return Refusal(**{key: typed(record, key, str) for key in ("site", "kind", "reason")})
