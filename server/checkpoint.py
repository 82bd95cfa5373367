"""What a run leaves on disk at the server: a checkpoint after every round, and the released model.

A file is written under another name and renamed, so a reader finds a whole file or none.
"""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shared_model.errors import ContractError
from shared_model.features import PreprocessingPlan
from shared_model.messages import Weights
from shared_model.model import FusionModel, ModelConfig, load_model

WEIGHTS, PLAN, CONFIG = "model.safetensors", "plan.json", "config.json"


def save_checkpoint(folder: Path, round_number: int, weights: Weights) -> None:
    """Keep the weights after a round as ``checkpoint.safetensors``, the round in its metadata."""
    _save(folder / "checkpoint.safetensors", weights, {"round": str(round_number)})


def save_model(
    folder: Path,
    weights: Weights,
    plan: PreprocessingPlan,
    sizes: ModelConfig,
    *,
    threshold: float,
    encoder: str,
) -> None:
    """The released model: weights, the plan that belongs to them, and what is needed to load and use them."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / WEIGHTS, weights, {"plan": plan.digest})
    (folder / PLAN).write_text(plan.to_json(), encoding="utf-8")
    config = {
        "model": asdict(sizes),
        "plan_digest": plan.digest,
        "contract": plan.contract,
        "threshold": threshold,
        "encoder": encoder,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


def load_released(folder: Path) -> tuple[FusionModel, PreprocessingPlan, float]:
    """Model, plan and threshold of a released model. Raises ContractError when a part is absent or does not belong."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        plan = PreprocessingPlan.from_json((folder / PLAN).read_text(encoding="utf-8"), digest=config["plan_digest"])
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ContractError(f"{folder}: not a released model ({WEIGHTS}, {PLAN} and {CONFIG} of one run)") from error
    return load_model(ModelConfig(**config["model"]), weights), plan, float(config["threshold"])


def _save(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary, metadata=metadata)
    temporary.replace(path)
