"""``privacy.json``: what privacy costs, the same federation at several epsilons."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.report_words import count
from server.results import Estimate
from simulations.benchmark_summary import told


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Point(_Document):
    """One epsilon, over the seeds. Intervals are over seeds and held-out patients; ``lost`` is paired."""

    epsilon: float | None = Field(description="of each patient, for the whole run; null without privacy")
    auroc: Estimate
    auprc: Estimate
    lost: Estimate | None = Field(default=None, description="AUROC without privacy less this one")
    hospitals: float = Field(description="that took part, mean over the seeds")
    config: dict[str, str | int | float | bool]


class PrivacyCurve(_Document):
    """The whole document."""

    consilium_version: str
    status: Literal["partial", "complete"]
    source: str = ""
    patients: int = 0
    deaths: int = 0
    seeds: list[int] = Field(default_factory=list)
    heldout_fraction: float
    points: list[Point] = Field(default_factory=list)


def name_of(epsilon: float | None) -> str:
    """How tables call it."""
    return "no privacy" if epsilon is None else f"epsilon {epsilon:g}"


def as_markdown(curve: PrivacyCurve) -> str:
    """The curve as a table."""
    lines = [
        f"{curve.source}: {count(curve.patients)} patients, {count(curve.deaths)} deaths;"
        f" {len(curve.seeds)} seed{'s' if len(curve.seeds) > 1 else ''}, {curve.heldout_fraction:.0%} held out.",
        "",
        "| patient-level epsilon | hospitals | AUROC (95 % CI) | AUPRC (95 % CI) | AUROC lost |",
        "|---|---|---|---|---|",
    ]
    for point in curve.points:
        lost = "" if point.lost is None else told(point.lost)
        what = "none (no privacy)" if point.epsilon is None else f"{point.epsilon:g}"
        lines.append(f"| {what} | {point.hospitals:g} | {told(point.auroc)} | {told(point.auprc)} | {lost} |")
    return "\n".join(lines) + "\n"
