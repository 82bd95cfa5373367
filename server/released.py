"""The model that a run releases, as a folder: weights, plan, and what is needed to use them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shared_model.atomic import replacing_file, write_text
from shared_model.errors import ContractError
from shared_model.messages import Weights
from shared_model.model import FusionModel, ModelConfig, load_model
from shared_model.plan import PreprocessingPlan

WEIGHTS, PLAN, CONFIG = "model.safetensors", "plan.json", "config.json"


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
    write_text(folder / PLAN, plan.to_json())
    config = {
        "model": asdict(sizes),
        "plan_digest": plan.digest,
        "contract": plan.contract,
        "threshold": threshold,
        "encoder": encoder,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1))


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released model: the plan of its inputs, the threshold above which it predicts death, and the digest of the
    encoder of its notes."""

    model: FusionModel
    plan: PreprocessingPlan
    threshold: float
    encoder: str


def load_released(folder: Path) -> Released:
    """Raises ContractError when a part is absent or does not belong to the others."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        plan = PreprocessingPlan.from_json((folder / PLAN).read_text(encoding="utf-8"), digest=config["plan_digest"])
        with safe_open(folder / WEIGHTS, framework="pt") as held:
            if (held.metadata() or {}).get("plan") != plan.digest:
                raise ValueError("weights of another plan")
            weights = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - not a dict
        sizes, threshold, encoder = ModelConfig(**config["model"]), float(config["threshold"]), str(config["encoder"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ContractError(f"{folder}: not a released model ({WEIGHTS}, {PLAN} and {CONFIG} of one run)") from error
    return Released(model=load_model(sizes, weights), plan=plan, threshold=threshold, encoder=encoder)


def _save(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary, metadata=metadata)
