"""``attack.json``: what attacks on the trained models found, and what an audit of the privacy found."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.results import Estimate
from simulations.attack_builds import RIGHT

Verdict = Literal["holds", "VIOLATED", "caught", "missed", "too few canaries to tell"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InferenceRow(_Document):
    """One attack on one model. ``epsilon``: of the model's training; null: without privacy."""

    epsilon: float | None
    attack: str
    auroc: Estimate = Field(description="of members against the others; 0.5: no better than a coin")
    tpr: Estimate = Field(description="share of the members found where 1 % of the others are taken for members")
    most_tpr: float = Field(description="what the epsilon allows every attack")
    model_auroc: float | None = Field(description="of the attacked model itself, on the patients it has not seen")


class AuditRow(_Document):
    """One build of the training, audited. ``right`` is this version's; the others were broken on purpose."""

    build: str
    title: str
    claimed: float = Field(description="epsilon that the ledger tells of this run")
    found: float = Field(description="epsilon is at least this, at 95 % confidence")
    most: float = Field(description="the largest epsilon that so many canaries can show")
    delta: float
    rounds: int
    noise_multiplier: float
    sample_rate: float
    canaries: int
    guesses: int
    correct: int
    share: float = Field(description="smallest share of a canary's gradient that falls on weights of its own")

    @property
    def verdict(self) -> Verdict:
        """Whether the claim stands, and whether a broken build was seen to be one."""
        refuted = self.found > self.claimed
        if self.build == RIGHT:
            return "VIOLATED" if refuted else "holds"
        if refuted:
            return "caught"
        return "missed" if self.most > self.claimed else "too few canaries to tell"


class CuriousRow(_Document):
    """What a curious server's runs told of groups smaller than a cell, at one build of a site."""

    build: str
    title: str
    patients: int
    cell: int
    runs: int
    answers: int
    refused: int
    values: int = Field(description="sums of a feature over so few, by subtracting two statistics; right to the bit")
    scores: int = Field(description="counts of so few deaths or survivals, by subtracting two validations")
    inputs: int = Field(description="updates of one step that give away a single patient's inputs")
    singles: int = Field(description="patients whose values follow from all statistics together, by linear algebra")

    @property
    def verdict(self) -> Verdict:
        """Whether anything was found, and whether there was anything to find."""
        found = self.values or self.scores or self.inputs or self.singles
        if self.build == RIGHT:
            return "VIOLATED" if found else "holds"
        return "caught" if found else "missed"


class Attack(_Document):
    """The whole document."""

    consilium_version: str
    status: Literal["partial", "complete"]
    source: str = ""
    cohort: str = ""
    config: dict[str, str | int | float | bool] = Field(default_factory=dict)
    patients: int = 0
    members: int = Field(default=0, description="patients that trained the attacked models; the others did not")
    shadows: int = 0
    inference: list[InferenceRow] = Field(default_factory=list)
    audits: list[AuditRow] = Field(default_factory=list)
    curious: list[CuriousRow] = Field(default_factory=list)

    @property
    def verdicts(self) -> list[Verdict]:
        """On every build, of training and of a site."""
        return [row.verdict for row in self.audits] + [row.verdict for row in self.curious]

    @property
    def violated(self) -> bool:
        """Whether this version's training told more than its ledger says, or its sites of fewer patients than a
        cell."""
        return "VIOLATED" in self.verdicts
