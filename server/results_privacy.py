"""The part of ``results.json`` on differential privacy: what was released, by which mechanism, and what it spent."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Document(BaseModel):
    """Any part of the results: what it does not declare, it does not hold."""

    model_config = ConfigDict(extra="forbid")


class PrivacyRelease(Document):
    """One kind of answer: the mechanism that made it private, and what it would cost by itself."""

    what: str = Field(description="counts, statistics, training, validation; or update")
    mechanism: Literal["Gaussian", "Poisson-subsampled Gaussian"]
    noise_multiplier: float = Field(description="standard deviation of the noise over the sensitivity (L2)")
    sample_rate: float = Field(default=1.0, description="each unit's chance to be in a step")
    steps: int = 1
    epsilon: float | None = Field(description="of this alone, at the document's delta")


class PrivacyAccount(Document):
    """What was released about the units of one holder, and the epsilon of all of it together: by composition, which is
    less than the sum."""

    holder: str = Field(description="the site's name; 'each site' where sites are the unit")
    releases: list[PrivacyRelease]
    epsilon: float | None


class PrivacySummary(Document):
    """What differential privacy guarantees in this run, as the server reckons it from the run-config, the counts that
    it was told, and the rounds that ran. For unit 'patient' a site's own ledger is authoritative; 'site': the noise is
    the server's."""

    unit: Literal["patient", "site"]
    epsilon: float = Field(description="the most that the run may spend")
    delta: float
    accountant: Literal["rdp", "prv"]
    clip: float = Field(description="L2 norm to which a patient's gradient, or a site's update, is clipped")
    accounts: list[PrivacyAccount]
