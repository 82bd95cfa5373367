"""What of a reply leaves under a policy, without a log: for tests of what is in it."""

import torch
from builders import of_one_block
from flwr.app import ArrayRecord, RecordDict

from client.policy import Kind, ReleasePolicy
from client.release import passable
from client.small_cells import Reply
from shared_model.messages import ARRAYS, CONTROL, EvaluateReply, SiteCard, Statistics, TrainReply, trial_content
from shared_model.trial import THE_RUN

KIND_OF: dict[type, Kind] = {
    SiteCard: "describe", Statistics: "statistics", TrainReply: "train", EvaluateReply: "evaluate",
}  # fmt: skip


def sent_for(reply: Reply) -> RecordDict:
    """What the server sent for such a reply: for an update, a model of the same arrays, all zero."""
    if not isinstance(reply, TrainReply):
        return RecordDict()
    parts = {ARRAYS: reply.weights} | ({CONTROL: reply.control} if reply.control else {})
    arrays = {name: ArrayRecord({n: torch.zeros_like(t) for n, t in a.items()}) for name, a in parts.items()}
    return RecordDict(arrays | dict(trial_content(THE_RUN)))


def leaving(reply: Reply, policy: ReleasePolicy) -> RecordDict:
    if isinstance(reply, Statistics):
        reply = of_one_block(reply)
    return passable(reply, KIND_OF.get(type(reply), "describe"), policy, sent_for(reply)).content
