"""Small builders that tests share: patients, a plan, weights, a prepared store, and a Grid that lives in memory."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from safetensors.torch import save_file

from client.block_memory import begin_simulated
from client.policy import KINDS
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.contract import STORE_VERSION, contract_digest
from shared_model.distribution import LEVELS, Distribution, Outcomes, ValueGrid
from shared_model.inputs import Scaler
from shared_model.manifest import MANIFEST, TENSORS, file_digest
from shared_model.mergeable import Validation
from shared_model.messages import Statistics
from shared_model.model import ModelConfig
from shared_model.plan import FeaturePlan, PreprocessingPlan
from shared_model.study import EARLY, Study

EMBEDDING = 6
KEY = bytes(range(32))
Answer = Callable[[Message], RecordDict | Message | None]


def tiny_config(**changes: object) -> RunConfig:
    """A run small enough for a unit test."""
    sizes = dict.fromkeys(("static_hidden", "series_hidden", "text_hidden", "fusion_width"), 5)
    defaults = {"text_dimension": EMBEDDING, "batch_size": 16, "rounds": 2, "admission_timeout": 0.2, "dropout": 0.0}
    return RunConfig(**(sizes | defaults | changes))


def tiny_plan(*, bound: float = 5.0) -> PreprocessingPlan:
    """Every feature has mean 0 and standard deviation 1."""
    return PreprocessingPlan(
        static_features=tuple(feature_plan(name) for name in EARLY.static),
        series_features=tuple(feature_plan(name) for name in EARLY.series),
        bound=bound,
        series_fill="forward",
        patients=100,
        prevalence=0.2,
        contract=contract_digest(EARLY),
    )


def model_sizes(config: RunConfig) -> ModelConfig:
    """Of the model that sees every feature of the default study."""
    return config.model_for(tiny_plan())


def feature_plan(name: str, **changes: object) -> FeaturePlan:
    """Mean 0 and standard deviation 1, in no range."""
    held: dict[str, object] = {"mean": 0.0, "sd": 1.0, "skewness": 0.0, "kurtosis": 0.0, "quartiles": (-0.7, 0.0, 0.7)}
    held |= {"missing": 0.1, "normal": True, "mutual_information": 0.01, "correlation": 0.1, "imputation": "mean"}
    held |= {"scaling": "zscore", "fill": 0.0, "lower": -1e9, "upper": 1e9, "centre": 0.0, "scale": 1.0}
    return FeaturePlan(name=name, **(held | changes))


def tiny_scaler() -> Scaler:
    """Passes values through, bounded."""
    return Scaler(tiny_plan())


def patients(
    count: int = 40,
    *,
    windows: int = 24,
    seed: int = 0,
    missing: float = 0.4,
    notes: int = 3,
    turned: bool = False,
) -> PatientData:
    """Random stays, one a patient; a death shifts every feature, so that the labels can be learned.

    Each stay has 0 to ``notes`` note chunks. ``turned``: every label is written down wrong.
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(count) % 3 == 0)
    static = rng.normal(size=(count, len(EARLY.static))) + 1.5 * label[:, None]
    series = rng.normal(size=(count, windows, len(EARLY.series))) + 1.5 * label[:, None, None]
    static[rng.random(static.shape) < missing] = np.nan
    series[rng.random(series.shape) < missing] = np.nan
    chunks = rng.integers(0, notes + 1, count)
    return PatientData(
        static_NF=torch.tensor(static, dtype=torch.float32),
        series_NTC=torch.tensor(series, dtype=torch.float32),
        label_N=torch.tensor(label != turned),
        patient_N=torch.arange(count) + 1000,
        unit_N=torch.tensor(rng.integers(0, 2, count)),
        embedding_ME=torch.tensor(rng.normal(size=(int(chunks.sum()), EMBEDDING)), dtype=torch.float16),
        chunk_start_N=torch.tensor(np.cumsum(chunks) - chunks),
        chunk_count_N=torch.tensor(chunks),
        units=("MICU", "SICU"),
    )


def write_store(folder: Path, data: PatientData, *, study: Study = EARLY, **extra: torch.Tensor) -> Path:
    """A prepared store as ``open_store`` reads it, of a site whose key is always the same; ``extra`` tensors do not
    belong in one."""
    folder.mkdir(parents=True, exist_ok=True)
    begin_simulated(folder, KEY)
    names = [name for name in data.__dataclass_fields__ if name != "units"]
    tensors = {name: getattr(data, name).contiguous() for name in names} | extra
    save_file(tensors | {"label_N": data.label_N.to(torch.uint8)}, folder / TENSORS)
    manifest = {
        "store_version": STORE_VERSION,
        "contract": contract_digest(study),
        "study": study.model_dump(),
        "units": list(data.units),
        "encoder": {"name": "none", "digest": "e" * 64},
        "tensors_sha256": file_digest(folder / TENSORS),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def write_site(folder: Path, store: str = "store", **keys: object) -> Path:
    """A site's YAML (JSON is YAML) in ``folder``; it answers every kind of message unless ``keys`` say otherwise."""
    path, release = folder / "site.yaml", keys.pop("release", {})
    told = {"allow": KINDS, **release} if isinstance(release, dict) else release
    path.write_text(json.dumps({"site": "Mercy", "store": store, **keys, "release": told}), encoding="utf-8")
    return path


def validation(positives: Mapping[int, int], negatives: Mapping[int, int], *, loss_sum: float = 1.0) -> Validation:
    """A score histogram from bin -> count."""
    empty = Validation()
    sides = [
        tuple(counts.get(bin_, held) for bin_, held in enumerate(side))
        for side, counts in ((empty.negatives, negatives), (empty.positives, positives))
    ]
    return Validation(*sides, loss_sum)


def statistics(*, count: int = 50, patients: int = 50, deaths: int = 15) -> Statistics:
    """The same values of every feature: one a patient, on the grid's levels 2000 to 2400 in turn."""
    held = outcomes(survived=max(count - deaths, 0), died=min(deaths, count))
    return of_one_block(
        Statistics(
            static=(held,) * len(EARLY.static),
            series=(held,) * len(EARLY.series),
            patients=patients,
            deaths=deaths,
        )
    )


def of_one_block(whole: Statistics) -> Statistics:
    """Made of one block of patients, all of them new in it; with one value a patient unless ``whole`` knows better."""
    most = whole.most or (1,) * len((*whole.static, *whole.series))
    part = replace(whole, most=most)
    return replace(part, parts=((part, part),))


def distribution(patients: int, *, first: float = 2000.0, last: float = 2400.0) -> Distribution:
    """One value a patient, between two levels of a grid whose unit is a level."""
    return Distribution.of(np.linspace(first, last, patients), np.arange(patients), ValueGrid(0.0, float(LEVELS)))


def outcomes(*, survived: int, died: int) -> Outcomes:
    """So many patients that survived and died, with a value each."""
    held = distribution(survived), distribution(died, first=2200.0)
    return Outcomes(held[0].merge(held[1]), *held)


def over_the_wire(content: RecordDict) -> RecordDict:
    """What the other side holds after protobuf bytes."""
    data = recorddict_to_proto(content).SerializeToString()
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


class MemoryGrid(Grid):
    """A Grid whose nodes are plain functions: message in; content, whole reply or None (silence) out.

    ``order`` is the order in which replies arrive; every message and time limit is kept.
    """

    def __init__(self, nodes: Mapping[int, Answer], order: Iterable[int] | None = None) -> None:
        self.nodes, self.order = dict(nodes), list(order or nodes)
        self.sent: list[Message] = []
        self.timeouts: list[float | None] = []
        self.answered: list[Message] = []
        self.lock = threading.Lock()

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """The nodes answer here and now, one after the other: they share this process's random numbers."""
        names, asked = [], {}
        for message in messages:
            names.append(f"message-{len(self.sent)}")
            message.metadata.__dict__["_message_id"] = names[-1]  # as Flower's own grids do
            self.sent.append(message)
            asked[message.metadata.dst_node_id] = message
        self.answered += self.answers(asked)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        with self.lock:
            names = set(message_ids)
            found = [reply for reply in self.answered if reply.metadata.reply_to_message_id in names]
            self.answered = [reply for reply in self.answered if not any(reply is one for one in found)]
        return found

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.timeouts.append(timeout)
        return self.pull_messages(list(self.push_messages(messages)))

    def answers(self, asked: Mapping[int, Message]) -> list[Message]:
        """What the nodes say to a message each, in the order in which it arrives."""
        replies = []
        for node in self.order:
            if node in asked and (answer := self.nodes[node](asked[node])) is not None:
                whole = isinstance(answer, Message)
                replies.append(answer if whole else Message(over_the_wire(answer), reply_to=asked[node]))
        return replies
