"""``benchmark.json``: every run of a benchmark, the averages over its seeds, and what they say."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.results import Estimate, UnitEvaluation
from shared_model.atomic import write_text


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelRun(_Document):
    """One model under one seed, on that seed's held-out patients; intervals over patients."""

    seed: int
    model: str
    config: dict[str, str | int | float | bool]
    auroc: Estimate
    auprc: Estimate
    by_unit: list[UnitEvaluation]
    seconds: float = Field(description="wall time of what trained it; the baselines of a seed are trained together")


class ModelSummary(_Document):
    """A model's mean over the seeds; intervals over seeds and patients (simulations/crossed.py)."""

    model: str
    auroc: Estimate
    auprc: Estimate
    seeds: list[float | None] = Field(description="AUROC under each seed")


class UnitSummary(_Document):
    """AUROC on the held-out patients of one unit, mean over the seeds."""

    unit: str
    patients: float = Field(description="held out, mean over the seeds")
    deaths: float
    federated: Estimate = Field(description="of the best federated model")
    own_local: Estimate = Field(description="of the model that the unit trained alone")
    gain: Estimate = Field(description="federated less own local")
    mean_local: Estimate = Field(description="mean of all local-only models, each applied to this unit")


class Criterion(_Document):
    """What the benchmark has to show, whether it does, and the figures."""

    criterion: str
    met: bool
    found: str


class Benchmark(_Document):
    """The whole document."""

    consilium_version: str
    status: Literal["partial", "complete"]
    source: str
    patients: int = 0
    deaths: int = 0
    heldout_fraction: float
    seeds: list[int]
    models: list[ModelSummary] = Field(default_factory=list)
    units: list[UnitSummary] = Field(default_factory=list)
    criteria: list[Criterion] = Field(default_factory=list)
    runs: list[ModelRun] = Field(default_factory=list)


class Finished(_Document):
    """What one step of one seed left: its runs, and each model's scores of the held-out stays, as these are stored.
    ``recipe`` is a digest of what decides it; another recipe is run anew."""

    recipe: str
    runs: list[ModelRun]
    scores: dict[str, list[float]]


def write_document(path: Path, document: BaseModel) -> None:
    """A reader sees the old document or the new one."""
    write_text(path, document.model_dump_json(indent=1))
