"""What a site keeps on its own disk between messages, beside its prepared store, and never sends: SCAFFOLD's control
variate and its personal model. A SuperNode's memory does not survive a restart; these do.

Of earlier runs the last few are kept.
"""

import shutil
from pathlib import Path

from shared_model.atomic import replacing_file
from shared_model.errors import StoreError
from shared_model.messages import Weights

KEPT_RUNS, STATE = 5, ".state"


def state_folder(store: Path, run_id: int) -> Path:
    """Where a run's state lies."""
    return store.with_name(store.name + STATE) / f"run-{run_id}"


def save_state(folder: Path, name: str, weights: Weights) -> None:
    """Keep ``weights`` under ``name``; the oldest runs beyond ``KEPT_RUNS`` are removed."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with replacing_file(folder / f"{name}.safetensors") as temporary:
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, temporary)
    of_store = next(parent for parent in folder.parents if parent.name.endswith(STATE))
    runs = sorted(of_store.glob("run-*"), key=lambda run: run.stat().st_mtime)
    for old in runs[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, name: str) -> Weights | None:
    """What ``save_state`` kept; None when there is none. Raises StoreError when it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"{name}.safetensors"
    try:
        return load_file(path) if path.exists() else None
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: cannot be read; remove it, and the next run begins without it") from error
