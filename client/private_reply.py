"""Whether an answer of a private run holds only what was paid for. What is not noised does not leave, and fails closed:
a part that no mechanism covers is refused, not left out."""

from typing import assert_never

from client.account import Account
from client.small_cells import Reply
from client.task import Asked
from shared_model.errors import ReleaseRefused
from shared_model.mergeable import Validation
from shared_model.messages import EvaluateReply, SiteCard, Statistics, TrainReply
from shared_model.secure.messages import Keys, Sealed, Told


def check_private(reply: Reply, asked: Asked) -> None:
    """Raises ReleaseRefused. Counts of patients are those of the account; keys and shares of secure aggregation tell
    nothing of patients."""
    if isinstance(reply, Keys | Sealed | Told):
        return
    if asked.account is None:
        if asked.config.privacy_unit == "patient":
            raise ReleaseRefused("private run: this site has not authorised it")
        return
    if reply.mechanism is None and not (isinstance(reply, SiteCard) and asked.account.plan.count is None):
        raise ReleaseRefused(f"{asked.occasion.kind}: without a mechanism nothing leaves in a private run")
    if unpaid := _unpaid(reply, asked.account):
        raise ReleaseRefused(f"{asked.occasion.kind}: {unpaid[0]} is not paid for in a private run")


def _unpaid(reply: SiteCard | Statistics | TrainReply | EvaluateReply, account: Account) -> list[str]:
    told = (account.patients, account.deaths)
    match reply:
        case SiteCard():
            parts = {"stays": reply.stays != told[0], "patients": (reply.patients, reply.deaths) != told}
        case Statistics():
            parts = {"exact": reply.noise is None, "patients": (reply.patients, reply.deaths) != told}
        case TrainReply():
            parts = {
                "num-examples": reply.examples != told[0],
                "train-loss": reply.train_loss is not None,
                "seconds": reply.seconds is not None,
                "validation": reply.validation != Validation(),
                "control": reply.control is not None,
            }
        case EvaluateReply():
            parts = {"exact": reply.noise is None, "personal": reply.personal is not None}
        case _:
            assert_never(reply)
    return [name for name, found in parts.items() if found]
