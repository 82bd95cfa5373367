"""The manifest of a prepared store, and digests of files. Light: a process that only looks at a store starts fast."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared_model.contract import STORE_VERSION
from shared_model.errors import ContractError, StoreError
from shared_model.study import Study

TENSORS = "features.safetensors"
MANIFEST = "manifest.json"
_KEYS = {"store_version", "contract", "study", "encoder", "units", "tensors_sha256"}


def read_manifest(store: Path) -> dict[str, Any]:
    """The manifest of a prepared store. Raises StoreError where there is none, or another layout."""
    path = store / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{store}: no prepared store (no {MANIFEST}); run `consilium-site prepare`") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable as JSON; run `consilium-site prepare` again") from error
    if not isinstance(manifest, dict) or "store_version" not in manifest:
        raise StoreError(f"{path}: not the manifest of a prepared store; run `consilium-site prepare` again")
    if manifest["store_version"] != STORE_VERSION:
        found = manifest["store_version"]
        raise StoreError(f"{path}: store_version {found!r}, this version reads {STORE_VERSION}; prepare it again")
    if not manifest.keys() >= _KEYS:
        raise StoreError(f"{path}: not the manifest of a prepared store; run `consilium-site prepare` again")
    return manifest


def check_contract(store: Path, contract: str) -> None:
    """Raises ContractError where a store holds the features of another study or version than ``contract``'s."""
    held = read_manifest(store)["contract"]
    if held != contract:
        what = f"its contract is {held[:12]}, {contract[:12]} is needed"
        raise ContractError(f"prepared store: made for another study or version ({what}); prepare it again")


def study_of(manifest: dict[str, Any]) -> Study:
    """What a store was prepared for. Raises StoreError when it is no study of this version."""
    try:
        return Study.model_validate(manifest["study"])
    except ValidationError as error:
        raise StoreError("manifest: its study is not one of this version; prepare the store again") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits. Raises StoreError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); prepare the store again") from error
