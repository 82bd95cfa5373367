"""A site: one YAML file, and the only place that resolves a Flower Context to it.

In a deployment the SuperNode is started with ``--node-config 'site-config="/path/site.yaml"'``. In a simulation the
environment variable ``CONSILIUM_SIMULATED_SITES`` names a folder of such files and the node's partition number picks
one; the folder comes from the environment and never from the server, so no server can point a site at other data.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from client.caps import Caps
from client.folders import beside
from client.mapping.config import Mapping
from client.mapping.loading import load_document
from client.mapping.mistakes import one_line, told
from client.mapping.names import check_names
from client.mapping.steps import Strict
from client.policy import ReleasePolicy
from shared_model.errors import ConfigError
from shared_model.study import Cohort, Stays, Study

if TYPE_CHECKING:
    from flwr.app import Context

SIMULATED_SITES = "CONSILIUM_SIMULATED_SITES"
_FOR_TRAINING = "for_training"


class Source(Strict):
    """An extract that has MIMIC-IV's tables already."""

    format: Literal["mimic-iv"] = Field(default="mimic-iv", description="mimic-iv; for any other, see `sources`")
    path: Path = Field(description="folder with hosp/, icu/ and, if there are notes, note/")


Named = Annotated[str, AfterValidator(str.strip), Field(min_length=1, max_length=80)]


class SiteConfig(Study, Mapping):
    """One hospital: what it prepares (the study), where its extract lies, and how it is mapped.

    Relative paths are relative to the YAML file. `extends: OTHER.yaml` takes what this file does not say from another:
    mappings merge, lists and values replace, null takes a key away.
    """

    site: Named = Field(description="the hospital's name in the federation")
    store: Path = Field(description="prepared store, written by `consilium-site prepare`")
    source: Source | None = Field(default=None, description="a MIMIC-IV folder; needed by `check` and `prepare` only")
    cohort: Cohort = Field(default="sepsis3", description="sepsis3, icd (codes), flag (a column), or all_icu")
    flag: str = Field(default="", description="TABLE.COLUMN that marks the cohort 'flag'")
    stays: Stays = Field(default="first", description="the first ICU stay of each patient, or all")
    encoder: str = Field(default="minilm", description="'minilm', 'none', a folder, or a Hugging Face id")
    release: ReleasePolicy = Field(default=ReleasePolicy(), description="what may leave the site")
    privacy: Caps = Field(default=Caps(), description="what runs with differential privacy may spend here")

    @model_validator(mode="after")
    def _flag_belongs_to_its_cohort(self) -> "SiteConfig":
        if (self.cohort == "flag") != bool(self.flag):
            raise ValueError("cohort 'flag' and `flag: TABLE.COLUMN` need each other")
        return self

    @model_validator(mode="after")
    def _mapped_or_mimic(self, info: ValidationInfo) -> "SiteConfig":
        if self.source is not None and self.sources:
            raise ValueError("give `source` (a MIMIC-IV folder) or `sources` (any other extract), not both")
        inside = [name for name, one in self.sources.items() if one.path and _inside(self.store, one.path)]
        if inside:
            raise ValueError(f"store: lies in the extract's own folder, sources.{inside[0]}.path; name another place")
        check_names(self, self.flag, units=not (info.context or {}).get(_FOR_TRAINING, False))
        return self

    @property
    def mapping(self) -> Mapping | None:
        """How the extract is mapped; None for a MIMIC-IV folder, or where only the store is needed."""
        return Mapping(**{name: getattr(self, name) for name in Mapping.model_fields}) if self.sources else None

    @property
    def pause_file(self) -> Path:
        """While this file exists, nothing leaves: whoever may write beside the store can stop everything at once."""
        return beside(self.store, "paused")

    @property
    def audit_file(self) -> Path:
        """The record of everything that left (client/audit.py)."""
        return beside(self.store, "audit.jsonl")

    @property
    def ledger_file(self) -> Path:
        """The record of what runs with differential privacy spent (client/ledger.py)."""
        return beside(self.store, "ledger.jsonl")


def _inside(store: Path, folder: Path) -> bool:
    return store.resolve().is_relative_to(folder.resolve())


def load_site(path: Path, *, for_training: bool = False) -> SiteConfig:
    """Read and validate a site's YAML. Raises ConfigError naming file, key, value and rule. ``for_training``: the store
    is prepared already, so units are not looked up again."""
    document = load_document(path)
    try:
        return SiteConfig.model_validate(document, context={_FOR_TRAINING: for_training})
    except ValidationError as error:
        raise ConfigError(one_line(f"{path}: {told(error.errors(), SiteConfig, ('extends',))}")) from None


def resolve_site(context: "Context") -> SiteConfig:
    """The site this node plays. Raises ConfigError when the node was not told."""
    if "site-config" in context.node_config:
        return load_site(Path(str(context.node_config["site-config"])), for_training=True)
    folder = os.environ.get(SIMULATED_SITES)
    if folder is None or "partition-id" not in context.node_config:
        raise ConfigError("SuperNode: start it with --node-config 'site-config=\"/path/to/site.yaml\"'")
    return load_site(simulated_sites(Path(folder))[int(context.node_config["partition-id"])], for_training=True)


def is_simulated(context: "Context") -> bool:
    """Whether this node plays a hospital on one machine. Only there may a leaking profile be trained on."""
    return "site-config" not in context.node_config


def simulated_sites(folder: Path) -> list[Path]:
    """The site files of a simulation, in partition order."""
    return sorted(folder.glob("*.yaml"))
