"""``results.json``: everything a run found, as one documented document.

Why one schema: the ServerApp writes it, the simulation adds the baselines to it, the report is drawn from it and from
nothing else, so a reader can re-draw every figure. ``RunResults.model_json_schema()`` is the machine-readable form;
``consilium-server schema`` prints it. Everything outside ``timing`` is identical for two runs with one seed.

All metrics are on the patients of the server's held-out set, one stay a patient, unless a field says ``validation``:
those are on the sites' validation patients, from score histograms, and so exact for scores rounded to the bins.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from server.results_privacy import Document, PrivacySummary
from shared_model.atomic import write_text

SCHEMA_VERSION = 3
SMALLEST_SUBGROUP = 10  # patients; the estimates of fewer say nothing


class Estimate(Document):
    """A metric with its 95 % bootstrap interval over patients; all three are null where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Curve(Document):
    """Points of a drawn curve; ``x`` and ``y`` have the same length."""

    x: list[float]
    y: list[float]


class CalibrationBin(Document):
    """Patients of one tenth of predicted risk: mean predicted and observed risk, and how many they are."""

    predicted: float
    observed: float
    count: int


class UnitEvaluation(Document):
    """One model on the held-out patients of one unit."""

    unit: str
    patients: int
    deaths: int
    auroc: Estimate


class SubgroupEvaluation(Document):
    """One model on the held-out patients of one sex or age band, at the threshold of the whole. The estimates of fewer
    than ``SMALLEST_SUBGROUP`` patients are null."""

    group: Literal["sex", "age"]
    name: str = Field(description="'female', '45-64'; 'unknown' where it was not recorded")
    patients: int
    deaths: int
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate


class Performance(Document):
    """One model on one set of patients.

    ``metrics`` has auroc, auprc, brier, log_loss, calibration_intercept and calibration_slope (0 and 1 when risks are
    right), and, at ``threshold``, accuracy, sensitivity, specificity and f1. ``threshold`` was chosen on the validation
    patients of the sites (best Youden index).
    """

    patients: int
    deaths: int
    threshold: float
    metrics: dict[str, Estimate]
    roc: Curve = Field(description="x: 1 - specificity, y: sensitivity")
    precision_recall: Curve = Field(description="x: recall, y: precision")
    calibration: list[CalibrationBin]


class Evaluation(Performance):
    """One model on the held-out set, which chose neither the model nor the threshold."""

    by_unit: list[UnitEvaluation]
    subgroups: list[SubgroupEvaluation] = Field(default_factory=list)


class SiteValidation(Document):
    """The federation's model on the validation patients of one site; no patients where the site withheld them all."""

    site: str
    patients: int
    deaths: int
    auroc: Estimate
    personal_auroc: Estimate | None = Field(default=None, description="of the model that the site personalised")


class FederatedValidation(Performance):
    """One model on the validation patients of all sites, from merged score histograms: every score is the middle of
    its bin. Round and threshold were chosen on the same patients, which flatters a little. With ``noise`` the
    histograms carried it for privacy: the bins are ten, no site is told by itself, and intervals span it, too."""

    noise: float | None = Field(
        default=None, description="standard deviation of the noise in each merged count, in patients; null without any"
    )
    sites: list[SiteValidation] = Field(default_factory=list)


class LeftOutSite(Document):
    """Whether the model carries over to a hospital it has never seen. ``patients`` and ``deaths`` are all of the
    site's, training and validation alike: the model without it has seen none of them."""

    site: str
    patients: int
    deaths: int
    auroc: Estimate = Field(description="of the model that the other sites trained, on all of the site's patients")
    inside_auroc: Estimate | None = Field(
        default=None, description="of the model that all sites trained, on the site's validation patients"
    )


class FeatureSummary(Document):
    """One feature before the model: what it tells of death, and how the plan treats it."""

    name: str
    kind: Literal["static", "series"]
    missing: float = Field(description="share of training patients without it")
    mutual_information: float | None = Field(default=None, description="with death, in nats")
    correlation: float | None = Field(default=None, description="point-biserial, with death")
    kept: bool = True
    reason: str = Field(default="", description="why it is dropped; empty when it is kept")
    imputation: Literal["mean", "median", "mode"]
    scaling: Literal["zscore", "minmax"]
    normal: bool = Field(description="near enough to a normal distribution")


class Trial(Document):
    """One setting of the tuned parameters, cross-validated."""

    settings: dict[str, str | int | float | bool]
    fold_auroc: list[float | None]
    mean: float | None = Field(default=None, description="AUROC, mean of the folds")
    sd: float | None = Field(default=None, description="AUROC, standard deviation of the folds")
    mean_loss: float | None = None
    status: str = "complete"


class Tuning(Document):
    """A search over settings, by cross-validation inside the training patients."""

    folds: int
    parameters: list[str]
    trials: list[Trial]
    best: int = Field(description="index into trials")


class SiteSummary(Document):
    """One site as the server saw it at admission."""

    site: str
    admitted: bool
    reason: str = Field(description="why it is not admitted; empty when it is")
    patients: int | None = Field(
        default=None, description="training patients; null when below the site's smallest cell"
    )
    deaths: int | None = Field(default=None, description="null when the site's smallest cell suppressed it")
    counts: Literal["exact", "noised"] = Field(default="exact", description="whether privacy noise is in both counts")
    device: str = ""


class RoundSummary(Document):
    """One round. The validation figures are those of the model that came out of it, on the sites' validation patients;
    they are null in a partial document's last round, since they ride in the next round's replies."""

    round: int
    learning_rate: float
    train_loss: float | None = Field(
        default=None, description="mean focal loss during the round, over all sites; null under privacy"
    )
    validation_loss: float | None = Field(default=None, description="mean focal loss after the round")
    validation_auroc: float | None = None
    replied: list[str]
    failed: dict[str, str] = Field(default_factory=dict, description="site -> why its reply is missing")
    bytes_down: int = Field(description="bytes of model and plan sent to one site")
    bytes_up: int = Field(description="bytes that all sites sent back")


class FlowStep(Document):
    """One step of the cohort's flow chart: what remained after it."""

    step: str
    patients: int
    stays: int


class CheckCount(Document):
    """Rows of one table that met a rule of the preparation: dropped, converted, or kept and told."""

    table: str
    rule: str
    action: str
    rows: int


class DataSummary(Document):
    """Where the patients came from. ``oracle_auroc`` is known for synthetic patients only: the AUROC of their true risk
    on the same held-out patients, which no model can be expected to beat."""

    source: str
    cohort: str
    profile: str = Field(default="early", description="'paper' reads what happened after the prediction time: it leaks")
    label: str = "in_hospital"
    prediction_hours: float
    rules_version: str
    flow: list[FlowStep] = Field(default_factory=list)
    checks: list[CheckCount] = Field(default_factory=list, description="bad input, by table and rule")
    oracle_auroc: float | None = None


class ComparisonRow(Document):
    """One line of the table federated / pooled / local-only, with the same model code and budget."""

    model: str = Field(description="'federated', 'pooled' or 'local-only: UNIT'")
    auroc: Estimate = Field(description="on the whole held-out set")
    auprc: Estimate
    own_unit_auroc: Estimate | None = Field(default=None, description="local-only: on its own unit's held-out patients")

    @classmethod
    def of(cls, model: str, found: Evaluation) -> "ComparisonRow":
        """A model's line."""
        return cls(model=model, auroc=found.metrics["auroc"], auprc=found.metrics["auprc"])


class Timing(Document):
    """Seconds. Differs between runs; nothing else in the document does."""

    total: float | None = None
    stages: dict[str, float] = Field(default_factory=dict)
    rounds: list[float] = Field(default_factory=list, description="wall seconds of each round")
    local_training: float = Field(default=0.0, description="sum of the seconds that sites spent in training")
    federation_overhead: float | None = Field(
        default=None, description="wall time of all rounds over the local training time spread on the workers"
    )


class RunResults(Document):
    """The whole document."""

    schema_version: int = SCHEMA_VERSION
    consilium_version: str
    status: str = Field(description="'complete', or 'partial' while a run goes on or after it was interrupted")
    config: dict[str, str | int | float | bool]
    contract_digest: str
    plan_digest: str = ""
    encoder: str = Field(default="", description="name and digest of the text encoder; empty when there are no notes")
    data: DataSummary | None = None
    sites: list[SiteSummary] = Field(default_factory=list)
    rounds: list[RoundSummary] = Field(default_factory=list)
    best_round: int | None = Field(default=None, description="the round whose model was kept, by validation AUROC")
    parameters: int = 0
    heldout: Evaluation | None = None
    validation: FederatedValidation | None = None
    leave_one_out: list[LeftOutSite] = Field(default_factory=list)
    features: list[FeatureSummary] = Field(default_factory=list)
    tuning: Tuning | None = None
    privacy: PrivacySummary | None = None
    comparison: list[ComparisonRow] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list, description="degradations and alarms, each one sentence")
    timing: Timing = Field(default_factory=Timing)

    @property
    def performance(self) -> Performance | None:
        """What the report leads with: the held-out set, or, where there is none, the sites' validation patients."""
        return self.heldout or self.validation

    def write(self, path: Path) -> None:
        """A reader sees the old document or the new one."""
        write_text(path, self.model_dump_json(indent=1))


def read_results(path: Path) -> RunResults:
    """Read a ``results.json``; raises pydantic's ValidationError where it does not fit the schema."""
    return RunResults.model_validate_json(path.read_text(encoding="utf-8"))
