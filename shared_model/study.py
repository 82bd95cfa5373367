"""What is predicted, for whom the inputs stop, and which features there are: what all sites of a run must share.

A run-config is a study plus how to train; a site config is a study plus where its data lie. Equal studies give equal
contracts (shared_model/contract.py), so a site that prepared another study is not admitted.

Profiles: ``early`` reads nothing that was charted or stored after the prediction time, and diagnosis codes of earlier
admissions only. ``paper`` repeats the retrospective features of Wu 2024 (doi 10.12677/mos.2024.136583): the whole stay,
this admission's codes, lengths of stay. It leaks the outcome, exists for comparison, and no deployed site serves it.
"""

from math import ceil
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared_model.distribution import ValueGrid, grid_of
from shared_model.features import AGGREGATES, DERIVED, SERIES_CONCEPTS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Cohort = Literal["sepsis3", "icd", "flag", "all_icu"]
Profile = Literal["early", "paper"]
Label = Literal["in_hospital", "in_icu"]
Stays = Literal["first", "all"]
WindowStatistic = Literal["mean", "min", "max", "sd"]
PAPER_HOURS = 168.0  # a stay's first week is the series of the paper profile


def rule_of(error: "ErrorDetails") -> str:
    """What a validation error says, in the words of the rule."""
    rule = str(error["msg"]).removeprefix("Value error, ")
    return rule[:1].lower() + rule[1:]


class Study(BaseModel):
    """The settings that decide what a feature, a window and a label mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    profile: Profile = Field(default="early", description="early, or paper (retrospective: leaks, never deployed)")
    label: Label = Field(default="in_hospital", description="death in hospital, or in the ICU stay")
    prediction_hours: float = Field(default=24.0, gt=0, le=24 * 14, description="prediction time after ICU admission")
    window_hours: float = Field(default=1.0, gt=0, le=24 * 14, description="length of a window of the series")
    window_step_hours: float = Field(default=1.0, gt=0, le=24 * 14, description="from one window's end to the next's")
    window_statistics: str = Field(default="mean", description="of each window: mean, min, max, sd; comma-separated")

    @field_validator("window_statistics")
    @classmethod
    def _known_statistics(cls, text: str) -> str:
        names = text.split(",")
        if not set(names) <= set(get_args(WindowStatistic)) or len(set(names)) < len(names):
            raise ValueError(f"write some of {', '.join(get_args(WindowStatistic))}, separated by commas, each once")
        return text

    @model_validator(mode="after")
    def _windows_cover_the_time(self) -> "Study":
        if self.window_step_hours > self.window_hours:
            raise ValueError("window_step_hours is longer than window_hours: events between windows would be lost")
        return self

    @property
    def study(self) -> "Study":
        """Only the study's own settings."""
        return Study(**{name: getattr(self, name) for name in Study.model_fields})

    @property
    def retrospective(self) -> bool:
        """Whether the inputs reach past the prediction time: such a study is never deployed."""
        return self.profile == "paper"

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the static features, in tensor order."""
        derived = (d.name for d in DERIVED if self.retrospective or not d.retrospective)
        return (*derived, *(a.name for a in AGGREGATES))

    @property
    def statistics(self) -> tuple[str, ...]:
        """Of each window and concept, in channel order."""
        return tuple(self.window_statistics.split(","))

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the channels, in tensor order: the concept, with the statistic where it is not the mean alone."""
        if self.statistics == ("mean",):
            return SERIES_CONCEPTS
        return tuple(f"{concept}_{statistic}" for concept in SERIES_CONCEPTS for statistic in self.statistics)

    @property
    def series_grids(self) -> tuple[ValueGrid, ...]:
        """The grid of each channel's distribution."""
        return tuple(grid_of(concept, statistic) for concept in SERIES_CONCEPTS for statistic in self.statistics)

    @property
    def series_hours(self) -> float:
        """Hours after ICU admission that the series covers."""
        return max(self.prediction_hours, PAPER_HOURS) if self.retrospective else self.prediction_hours

    @property
    def windows(self) -> int:
        """Windows of the series; the last one holds the end of ``series_hours``, and nothing after it."""
        return ceil(round(self.series_hours / self.window_step_hours, 9))


EARLY = Study()
