"""What a site keeps on its own disk between messages, beside its prepared store, and never sends: SCAFFOLD's control
variate and its personal model. A SuperNode's memory does not survive a restart; these do.

A message may come twice (a killed process, a resumed run), so what a round leaves is kept under the round's number and
a round reads what the rounds before it left: the same work gives the same result. Of earlier runs the last few are
kept.
"""

import shutil
from pathlib import Path

from shared_model.atomic import replacing_file
from shared_model.errors import StoreError
from shared_model.messages import Weights

KEPT_RUNS, KEPT_ROUNDS, STATE, RUN = 5, 5, ".state", "run-"


def state_folder(store: Path, run: str) -> Path:
    """Where a run's state lies; ``run`` is its name, or Flower's number of it."""
    return store.with_name(store.name + STATE) / f"{RUN}{run}"


def save_state(folder: Path, name: str, weights: Weights) -> None:
    """Keep ``weights`` under ``name``; the oldest runs beyond ``KEPT_RUNS`` are removed."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with replacing_file(folder / f"{name}.safetensors") as temporary:
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, temporary)
    forget_old_runs(folder)


def forget_old_runs(folder: Path) -> None:
    """Remove what the oldest runs beyond ``KEPT_RUNS`` left; ``folder`` is one of a run's, now the youngest."""
    next(place for place in (folder, *folder.parents) if place.name.startswith(RUN)).touch()
    of_store = next(parent for parent in folder.parents if parent.name.endswith(STATE))
    runs = sorted(of_store.glob(f"{RUN}*"), key=lambda run: run.stat().st_mtime)
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


def save_round(folder: Path, name: str, round_number: int, weights: Weights) -> None:
    """Keep what a round leaves; what later rounds of an abandoned attempt left, and what is long past, is removed."""
    save_state(folder, _of_round(name, round_number), weights)
    for held, path in _rounds(folder, name):
        if held > round_number or held <= round_number - KEPT_ROUNDS:
            path.unlink(missing_ok=True)


def load_before(folder: Path, name: str, round_number: int) -> Weights | None:
    """What the last round before this one left; None when there is none."""
    before = [held for held, _ in _rounds(folder, name) if held < round_number]
    return load_state(folder, _of_round(name, max(before))) if before else None


def _of_round(name: str, round_number: int) -> str:
    return f"{name}-{round_number:05}"


def _rounds(folder: Path, name: str) -> list[tuple[int, Path]]:
    return [(int(path.stem.rpartition("-")[2]), path) for path in folder.glob(f"{name}-*.safetensors")]
