"""A checkpoint after every round: everything the next round needs, in one file that is whole or absent.

The last few are kept, each with the SHA-256 of what it holds, so that one which a full disk or a crash has damaged is
passed over for the one before.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from server.training import Training
from shared_model.atomic import replacing_file
from shared_model.config import RunConfig
from shared_model.errors import ConfigError, ConsiliumError, FederationError
from shared_model.messages import Weights
from shared_model.plan import PreprocessingPlan

FOLDER, KEPT = "checkpoints", 3
# What a resumed run may be told anew: it decides who is waited for and where things lie, not what is learned.
OPERATIONAL = {
    *("resume", "output", "heldout", "bootstrap", "roster", "expected-sites", "required-sites", "min-sites"),
    *("admission-timeout", "round-timeout", "absence-timeout", "resends"),
}
log = logging.getLogger("consilium.server")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """After ``round``: its weights, the record with the kept weights, what the strategy remembers
    (server/strategies/memory.py), the updates the guard has seen, the plan, the admitted sites, the run-config, and
    what privacy for sites has spent (server/site_privacy.py; empty without)."""

    weights: Weights
    training: Training
    strategy: Weights
    seen: tuple[str, ...]
    plan: PreprocessingPlan
    sites: tuple[str, ...]
    config: RunConfig
    privacy: dict[str, Any] = field(default_factory=dict)

    @property
    def round(self) -> int:
        """The last finished round."""
        return len(self.training.rounds)


def save_checkpoint(output: Path, held: Checkpoint) -> None:
    """Add a checkpoint and remove the oldest beyond ``KEPT``. Raises FederationError when the disk does not take it."""
    folder = output / FOLDER
    groups = {"now": held.weights, "best": held.training.weights, "strategy": held.strategy}
    tensors = {
        f"{group}/{name}": t.clone().contiguous() for group, held_ in groups.items() for name, t in held_.items()
    }
    state = json.dumps(
        {
            "order": list(tensors),  # strategies go by the order of a model's arrays; a file of tensors has its own
            "training": held.training.to_json(),
            "seen": held.seen,
            "plan": held.plan.to_json(),
            "plan_digest": held.plan.digest,
            "sites": held.sites,
            "config": held.config.to_flat(),
            "privacy": held.privacy,
        }
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_file(folder / f"round-{held.round:05}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"state": state, "digest": _digest(tensors, state)})
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise FederationError(
            f"round {held.round}: {folder} takes no checkpoint ({why}); make room, then resume"
        ) from error
    for old in _newest_first(output)[KEPT:]:
        old.unlink(missing_ok=True)


def load_checkpoint(output: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None when there is none. One that is not is named in the log."""
    for path in _newest_first(output):
        try:
            return _load(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConsiliumError) as error:
            log.warning("%s: damaged (%s); the one before it is used", path, type(error).__name__)
    return None


def check_same_settings(held: Checkpoint, config: RunConfig) -> None:
    """Raises ConfigError when the run that is resumed was told other settings."""
    before, now = held.config.to_flat(), config.to_flat()
    for key in sorted(now.keys() - OPERATIONAL):
        if before[key] != now[key]:
            raise ConfigError(
                f"resume: {key} was {before[key]!r} and is {now[key]!r} now; a resumed run keeps its settings"
            )


def _load(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if metadata["digest"] != _digest(tensors, metadata["state"]):
        raise ValueError("another digest")
    state: dict[str, Any] = json.loads(metadata["state"])
    tensors = {name: tensors[name] for name in state["order"]}
    return Checkpoint(
        weights=dict(_group(tensors, "now")),
        training=Training.from_json(state["training"], dict(_group(tensors, "best"))),
        strategy=dict(_group(tensors, "strategy")),
        seen=tuple(state["seen"]),
        plan=PreprocessingPlan.from_json(state["plan"], digest=state["plan_digest"]),
        sites=tuple(state["sites"]),
        config=RunConfig.from_flat(state["config"]),
        privacy=state["privacy"],
    )


def _group(tensors: Weights, group: str) -> Iterator[tuple[str, Any]]:
    return ((name.removeprefix(f"{group}/"), t) for name, t in tensors.items() if name.startswith(f"{group}/"))


def _digest(tensors: Weights, state: str) -> str:
    digest = sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _newest_first(output: Path) -> list[Path]:
    return sorted((output / FOLDER).glob("round-*.safetensors"), reverse=True)
