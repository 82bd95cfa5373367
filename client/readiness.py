"""What must be right before the daemon starts: the membership's files and the prepared store."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from client.membership import Membership, Place, read_key, read_membership
from shared_model.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from client.site import SiteConfig


@dataclass(frozen=True, kw_only=True)
class Store:
    """What is told of a prepared store."""

    path: Path
    stays: int
    contract: str


def check_membership(place: Place, site: "SiteConfig") -> Membership:
    """The membership. Raises ConfigError when the site has not joined, or something of it is not usable."""
    membership = read_membership(place)
    if membership.site != site.site:
        raise ConfigError(
            f"{place.config}: site {site.site!r} joined as {membership.site!r}; give it that name, or join anew"
        )
    if '"' in str(place.config) or "\\" in str(place.config):
        raise ConfigError(f"{place.config}: a path with a quotation mark or a backslash cannot be handed to Flower")
    read_key(place)
    _check_ca(place.ca)
    entities = site.release.trusted_entities
    if entities is not None and not entities.is_file():
        raise ConfigError(f"{place.config}: release.trusted_entities: no file {entities}")
    return membership


def _check_ca(ca: Path) -> None:
    from cryptography.x509 import load_pem_x509_certificate

    try:
        ends = load_pem_x509_certificate(ca.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        raise ConfigError(f"{ca}: no certificate that can be read; join again with the invitation") from None
    if ends < datetime.now(UTC):
        raise ConfigError(f"{ca}: the federation's CA expired on {ends:%Y-%m-%d}; ask the centre for a new invitation")


def check_store(store: Path) -> Store:
    """Raises StoreError when it is absent or partial, ContractError when it is of another version."""
    from safetensors import SafetensorError, safe_open

    from shared_model.contract import contract_digest
    from shared_model.manifest import TENSORS, check_contract, read_manifest, study_of

    manifest = read_manifest(store)
    check_contract(store, contract_digest(study_of(manifest)))
    try:
        with safe_open(store / TENSORS, framework="numpy") as arrays:
            stays = arrays.get_slice("label_N").get_shape()[0]
    except (OSError, SafetensorError):
        raise StoreError(f"{store / TENSORS}: is missing or not whole; run `consilium-site prepare` again") from None
    return Store(path=store, stays=int(stays), contract=manifest["contract"])
