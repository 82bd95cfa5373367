"""A site: one YAML file, and the only place that resolves a Flower Context to it.

In a deployment the SuperNode is started with ``--node-config 'site-config="/path/site.yaml"'``. In a simulation the
environment variable ``CONSILIUM_SIMULATED_SITES`` names a folder of such files and the node's partition number picks
one; the folder comes from the environment and never from the server, so no server can point a site at other data.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared_model.errors import ConfigError
from shared_model.study import Cohort, Stays, Study, rule_of

if TYPE_CHECKING:
    from flwr.app import Context

SIMULATED_SITES = "CONSILIUM_SIMULATED_SITES"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReleasePolicy(_Strict):
    """What may leave the site."""

    smallest_cell: int = Field(default=10, ge=1, description="counts of patients below this do not leave")
    largest_megabytes: float = Field(default=64.0, gt=0, description="largest update")


class Source(_Strict):
    """Where the local extract is."""

    format: Literal["mimic-iv"] = "mimic-iv"
    path: Path


Named = Annotated[str, AfterValidator(str.strip), Field(min_length=1, max_length=80)]


class SiteConfig(Study):
    """One hospital: what it prepares (the study), and where. Relative paths are relative to the YAML file."""

    site: Named
    store: Path = Field(description="prepared store, written by `consilium-site prepare`")
    source: Source | None = Field(default=None, description="local extract; needed by `prepare` only")
    cohort: Cohort = Field(default="sepsis3", description="sepsis3, icd (codes), flag (a column), or all_icu")
    flag: str = Field(default="", description="TABLE.COLUMN that marks the cohort 'flag'")
    stays: Stays = Field(default="first", description="the first ICU stay of each patient, or all")
    encoder: str = Field(default="minilm", description="'minilm', 'none', a folder, or a Hugging Face id")
    release: ReleasePolicy = ReleasePolicy()

    @model_validator(mode="after")
    def _flag_belongs_to_its_cohort(self) -> "SiteConfig":
        if (self.cohort == "flag") != bool(self.flag):
            raise ValueError("cohort 'flag' and `flag: TABLE.COLUMN` need each other")
        return self


def load_site(path: Path) -> SiteConfig:
    """Read and validate a site's YAML. Raises ConfigError naming file, key, value and rule."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such site config") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({type(error).__name__})") from error
    try:
        config = SiteConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {key}: {rule_of(first)}") from error
    return _absolute(config, path.resolve().parent)


def resolve_site(context: "Context") -> SiteConfig:
    """The site this node plays. Raises ConfigError when the node was not told."""
    if "site-config" in context.node_config:
        return load_site(Path(str(context.node_config["site-config"])))
    folder = os.environ.get(SIMULATED_SITES)
    if folder is None or "partition-id" not in context.node_config:
        raise ConfigError("SuperNode: start it with --node-config 'site-config=\"/path/to/site.yaml\"'")
    return load_site(simulated_sites(Path(folder))[int(context.node_config["partition-id"])])


def is_simulated(context: "Context") -> bool:
    """Whether this node plays a hospital on one machine. Only there may a leaking profile be trained on."""
    return "site-config" not in context.node_config


def simulated_sites(folder: Path) -> list[Path]:
    """The site files of a simulation, in partition order."""
    return sorted(folder.glob("*.yaml"))


def _absolute(config: SiteConfig, base: Path) -> SiteConfig:
    source = config.source and config.source.model_copy(update={"path": base / config.source.path})
    encoder = str(base / config.encoder) if (base / config.encoder).is_dir() else config.encoder
    return config.model_copy(update={"store": base / config.store, "source": source, "encoder": encoder})
