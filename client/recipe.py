"""What decides a prepared store, and what of an earlier store still holds, so that only what changed is made again."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from client.encoder import Encoder
from client.folders import WAITING, Inputs
from client.sepsis_rules import RULES_VERSION
from shared_model.contract import contract_digest
from shared_model.errors import StoreError
from shared_model.features import digest_of
from shared_model.manifest import TENSORS, file_digest, read_manifest
from shared_model.study import Cohort, Stays, Study

Manifest = dict[str, Any]
_NOTES = frozenset({"radiology", "discharge"})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a store's content. ``source`` is how reports name the extract; ``flag`` the TABLE.COLUMN
    of the cohort ``flag``, or empty."""

    source: str
    inputs: Inputs
    cohort: Cohort
    study: Study
    stays: Stays
    flag: str
    encoder: Encoder

    def facts(self) -> Manifest:
        """What the manifest tells of it."""
        return {
            "source": self.source,
            "cohort": self.cohort,
            "flag": self.flag,
            "stays_of_a_patient": self.stays,
            "rules_version": RULES_VERSION,
            "encoder": {"name": self.encoder.name, "digest": self.encoder.digest},
            "inputs": self.inputs,
            "selection": self.selection,
        }

    @cached_property  # it reads the whole package
    def selection(self) -> str:
        """Digest of what decides cohort and features: the settings, and this version's rules and queries."""
        settings = [self.cohort, self.stays, self.flag, RULES_VERSION, contract_digest(self.study), code_digest()]
        return digest_of(settings)

    def same_features(self, held: Manifest | None) -> bool:
        """Whether cohort and features of ``held`` still hold."""
        clinical = self.inputs.keys() - _NOTES
        same_tables = clinical <= unchanged_tables(held, self.inputs)
        return held is not None and held["selection"] == self.selection and same_tables

    def same(self, held: Manifest | None) -> bool:
        """Whether all of ``held`` still holds."""
        return held is not None and self.facts().items() <= held.items()


def unchanged_tables(held: Manifest | None, inputs: Inputs) -> frozenset[str]:
    """The tables that ``held`` was made from and that are still the same files."""
    before = (held or {}).get("inputs", {})
    return frozenset(name for name, entry in inputs.items() if before.get(name) == entry)


def held_store(store: Path) -> Manifest | None:
    """The manifest of an earlier store that can be taken over from: of this version, with every file as long as it was
    written, and unaltered tensors. None: make everything anew."""
    try:
        manifest = read_manifest(store)
        whole = manifest.get("files") == file_sizes(store)
        return manifest if whole and file_digest(store / TENSORS) == manifest["tensors_sha256"] else None
    except StoreError:
        return None


def file_sizes(store: Path) -> dict[str, int]:
    """Bytes of every data file of a store, by its path in the store."""
    held = (f for f in sorted(store.rglob("*")) if f.suffix in (".parquet", ".safetensors"))
    own = [file.relative_to(store) for file in held]
    return {str(file): (store / file).stat().st_size for file in own if file.parts[0] not in WAITING}


def code_digest() -> str:
    """Of the code that reads, selects and computes: a changed rule makes a new store, whatever the version says."""
    folder = Path(__file__).parent
    code = (f for f in sorted(folder.rglob("*")) if f.suffix in (".py", ".sql"))
    return digest_of({str(f.relative_to(folder)): file_digest(f) for f in code})
