"""``paper.json``: four federations that repeat Wu 2024 (doi 10.12677/mos.2024.136583), and what the paper printed."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from server.results import Estimate, Evaluation, FeatureSummary
from shared_model.config import LossName
from shared_model.study import Profile

METRICS = {
    "accuracy": "Accuracy",
    "specificity": "Specificity",
    "f1": "F1",
    "sensitivity": "Recall",
    "auroc": "AUROC",
}
LOSSES: dict[LossName, str] = {"cross_entropy": "without focal loss", "focal": "with focal loss"}
PROFILES: tuple[Profile, ...] = get_args(Profile)
# The paper's Table 1, in the order of METRICS.
PUBLISHED: dict[LossName, tuple[float, ...]] = {
    "cross_entropy": (0.8736, 0.7912, 0.6428, 0.5917, 0.8029),
    "focal": (0.9306, 0.9374, 0.8688, 0.9103, 0.9724),
}
IMPOSSIBLE = (
    "The published row without focal loss cannot be right: an accuracy is a weighted mean of recall and specificity,"
    " and 0.8736 lies above both 0.5917 and 0.7912."
)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PaperRun(_Document):
    """One federation, on the held-out patients of its profile."""

    profile: Profile
    loss: LossName
    config: dict[str, str | int | float | bool]
    hospitals: int
    learning_rates: list[float] = Field(description="of each round")
    heldout: Evaluation
    features: list[FeatureSummary]

    @property
    def name(self) -> str:
        """How tables and legends call it."""
        return f"{self.profile}, {LOSSES[self.loss]}"


class Leak(_Document):
    """Both profiles with one loss on the same held-out patients; the difference is paired."""

    loss: LossName
    patients: int
    deaths: int
    early: Estimate
    paper: Estimate
    invented: Estimate = Field(description="AUROC of the profile paper less that of the profile early")


class Paper(_Document):
    """The whole document."""

    consilium_version: str
    status: Literal["partial", "complete"]
    source: str = ""
    cohort: str = ""
    runs: list[PaperRun] = Field(default_factory=list)
    leaks: list[Leak] = Field(default_factory=list)
