"""Flower's flat run-config, read once at the border into one frozen, validated RunConfig.

Every key has its default in ``pyproject.toml`` under ``[tool.flwr.app.config]`` (Flower refuses overrides of keys that
are not there; a test keeps the two lists equal). Keys are kebab-case there and snake_case here.
"""

from collections.abc import Mapping
from math import cos, pi
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from shared_model.errors import ConfigError, ContractError
from shared_model.features import SeriesFill
from shared_model.model import ModelConfig
from shared_model.plan import Imputation, PlanSettings, PreprocessingPlan, Scaling
from shared_model.privacy import Accountant
from shared_model.study import Study, rule_of

Scalar = bool | int | float | str
# The strategies that read nothing of the updates but their mean.
MEANS = ("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
_UNACCOUNTED = {
    "grid": "the trials of a search are not accounted for",
    "leave-one-out": "its trials are not accounted for",
    "patience": "when to stop would tell of the validation patients",
    "personalisation": "what it releases is not accounted for",
    "compile": "gradients of single patients cannot be compiled",
    "precision bfloat16_only": "gradients of single patients are in single precision",
    "secure-aggregation": "the server cannot clip what it cannot see",
}
_ONLY_MEANS = f"only means of updates can be released: {', '.join(MEANS)}"
LAST_SHARE = 0.01  # of the learning rate, at the end of an exponential schedule
StrategyName = Literal[
    "fedavg",
    "fedprox",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "qfedavg",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
    "multikrum",
    "bulyan",
    "scaffold",
]
Personalisation = Literal["none", "finetune", "local_normalisation"]
Schedule = Literal["cosine", "linear", "exponential", "constant"]
LossName = Literal["focal", "cross_entropy"]
Precision = Literal["auto", "float32", "bfloat16", "bfloat16_only"]
Unit = Literal["none", "patient", "site"]
PRIVACY = "privacy_"  # fields of the table [privacy], which Flower flattens with a dot


def key_of(name: str) -> str:
    """The run-config key of a field."""
    table = "privacy." if name.startswith(PRIVACY) else ""
    return table + name.removeprefix(PRIVACY).replace("_", "-")


class RunConfig(Study):
    """Everything a run can be told: the study, and how to train. Frozen; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=key_of,
        populate_by_name=True,
    )

    seed: int = Field(default=1, ge=0)
    strategy: StrategyName = "fedavg"
    proximal_mu: float = Field(default=0.01, ge=0, description="weight of FedProx's proximal term")
    server_learning_rate: float = Field(
        default=0.0, ge=0, description="of the server's optimiser; 0: the strategy's own"
    )
    server_momentum: float = Field(
        default=0.9, ge=0, lt=1, description="FedAvgM's momentum; beta 1 of FedAdam, FedYogi"
    )
    fairness: float = Field(default=0.2, ge=0, description="q of QFedAvg")
    trimmed_fraction: float = Field(default=0.2, ge=0, lt=0.5, description="FedTrimmedAvg: left out at either end")
    byzantine_sites: int = Field(default=1, ge=0, description="Krum, MultiKrum, Bulyan: how many sites may be hostile")
    personalisation: Personalisation = Field(default="none", description="none, finetune, local_normalisation")
    finetune_epochs: int = Field(
        default=1, ge=1, description="local epochs after the last round, personalisation finetune"
    )

    rounds: int = Field(default=12, ge=1, le=10_000)
    patience: int = Field(
        default=0, ge=0, description="stop after so many rounds without a better validation; 0: never"
    )
    local_epochs: int = Field(default=1, ge=1)
    local_steps: int = Field(
        default=0, ge=0, description="optimiser steps of a round at a site; 0: local_epochs decide"
    )
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    schedule: Schedule = Field(default="cosine", description="of the learning rate over the rounds, towards 0")
    weight_decay: float = Field(default=1e-2, ge=0)
    loss: LossName = Field(default="focal", description="focal, or cross_entropy")
    focal_alpha: float = Field(default=0.5, ge=0, lt=1, description="weight of deaths; 0: the survivals' share")
    focal_gamma: float = Field(default=2.0, ge=0)
    precision: Precision = Field(
        default="auto",
        description="bfloat16 (auto: on CUDA), and float32 where the device has it not; bfloat16_only: refused there",
    )
    compile: bool = Field(
        default=False, description="torch.compile the model, for long runs on a GPU; refused if it fails"
    )
    deterministic: bool = Field(default=False, description="deterministic algorithms only, also on a GPU; slower there")
    validation_fraction: float = Field(default=0.15, ge=0, lt=1)

    series_fill: SeriesFill = Field(default="forward", description="windows without a measurement: forward, linear")
    missing_limit: float = Field(default=1.0, gt=0, le=1, description="drop what a larger share of patients lacks")
    outlier_iqr: float = Field(
        default=0.0, ge=0, description="bound values so many IQRs beyond the quartiles; 0: never"
    )
    imputation: Imputation = Field(default="normality", description="normality: mean, or median of what is skewed")
    scaling: Scaling = Field(default="zscore", description="zscore, or normality: min-max of what is skewed")
    select_features: int = Field(default=0, ge=0, description="keep so many static features by relevance; 0: all")
    static_hidden: int = Field(default=64, ge=1)
    series_hidden: int = Field(default=48, ge=1)
    text_hidden: int = Field(default=32, ge=1)
    text_dimension: int = Field(default=384, ge=1)
    fusion_width: int = Field(default=48, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)

    min_sites: int = Field(default=2, ge=1, description="fewest admitted sites, and fewest replies of a round")
    expected_sites: int = Field(default=0, ge=0, description="stop waiting when this many connect; 0: min_sites")
    required_sites: str = Field(default="", description="sites that must be admitted, comma-separated; empty: any")
    roster: str = Field(default="", description="who holds which key (sites.json of consilium-server), at the server")
    least_coverage: float = Field(
        default=0.2, ge=0, le=1, description="share of the plan's features that a site must have measured to train"
    )
    admission_timeout: float = Field(default=120, gt=0, description="seconds")
    round_timeout: float = Field(default=3600, gt=0, description="seconds")
    absence_timeout: float = Field(
        default=300, ge=0, description="seconds that a site may be away before the others go on without it"
    )
    resends: int = Field(default=3, ge=0, description="how often a message that a site lost is sent again")
    norm_limit: float = Field(
        default=10.0,
        ge=0,
        description="updates so many median absolute deviations above the median are left out; 0: none",
    )

    privacy_unit: Unit = Field(
        default="none", description="whom differential privacy protects: none, each patient, or each site as a whole"
    )
    privacy_epsilon: float = Field(default=3.0, gt=0, description="most that the whole run may tell of one unit")
    privacy_delta: float = Field(default=1e-5, gt=0, lt=1, description="at most 1/n, n a site's training patients")
    privacy_accountant: Accountant = Field(default="prv", description="how epsilons add up: prv (tight), rdp")
    privacy_clip: float = Field(
        default=0.0, ge=0, description="largest L2 norm of a patient's gradient (0: 0.05) or a site's update (0: 1)"
    )
    privacy_adaptive: bool = Field(default=False, description="unit site: the clip follows the median update's norm")
    privacy_project: str = Field(
        default="", pattern=r"^[A-Za-z0-9][\w.-]{0,63}$|^$", description="whose budget at the sites is spent"
    )
    secure_aggregation: bool = Field(default=False, description="the server learns sums over sites, never one site's")
    secure_threshold: float = Field(
        default=2 / 3, gt=0.5, le=1, description="share of the sites without which no sum is opened"
    )
    secure_range: float = Field(
        default=8.0, gt=0, description="largest change of one weight in a round that can be sent"
    )

    folds: int = Field(default=0, ge=0, description="folds of the search over settings; 0: no search")
    grid: str = Field(default="", description="what the search tries (shared_model/search.py), as YAML")
    trials: int = Field(default=0, ge=0, description="random draws from the grid; 0: all of it")
    leave_one_out: bool = Field(default=False, description="also train without each site, and validate there")

    heldout: str = Field(default="", description="prepared store of the server's held-out set; empty: none")
    name: str = Field(
        default="", pattern=r"^[A-Za-z0-9][\w.-]{0,63}$|^$", description="of the run; a resumed run keeps it"
    )
    output: str = Field(default="runs/flower", description="folder for results, report and model, at the server")
    resume: bool = Field(default=False, description="go on from the last good checkpoint in the output folder")
    bootstrap: int = Field(default=1000, ge=0, description="resamples for confidence intervals")

    @model_validator(mode="after")
    def _folds_and_grid_together(self) -> "RunConfig":
        if bool(self.grid) != bool(self.folds) or self.folds == 1:
            raise ValueError("folds (at least 2) and grid need each other")
        return self

    @model_validator(mode="after")
    def _private_runs_release_nothing_else(self) -> "RunConfig":
        """What would leave a site without noise, or make one patient's data change how another's are used."""
        if self.privacy_unit == "none":
            return self
        if self.strategy not in MEANS:
            raise ValueError(f"strategy {self.strategy} with privacy.unit {self.privacy_unit}: {_ONLY_MEANS}")
        patient = self.privacy_unit == "patient"
        unaccounted = {
            "grid": bool(self.grid),
            "leave-one-out": self.leave_one_out,
            "patience": self.patience > 0,
            "personalisation": patient and self.personalisation != "none",
            "compile": patient and self.compile,
            "precision bfloat16_only": patient and self.precision == "bfloat16_only",
            "secure-aggregation": not patient and self.secure_aggregation,
        }
        for key, used in unaccounted.items():
            if used:
                raise ValueError(f"{key} with privacy.unit {self.privacy_unit}: {_UNACCOUNTED[key]}")
        return self

    @model_validator(mode="after")
    def _sums_tell_nothing_of_a_site(self) -> "RunConfig":
        """What needs each site's own answer, or would take one from the difference of two sums."""
        if not self.secure_aggregation:
            return self
        if self.strategy not in MEANS:
            raise ValueError(f"strategy {self.strategy} with secure-aggregation: {_ONLY_MEANS}")
        single = (
            ("grid", bool(self.grid)),
            ("leave-one-out", self.leave_one_out),
            ("personalisation finetune", self.personalisation == "finetune"),
        )
        for key, used in single:
            if used:
                raise ValueError(f"{key} with secure-aggregation: its answers tell of single sites")
        return self

    @classmethod
    def from_flat(cls, flat: Mapping[str, Scalar]) -> "RunConfig":
        """Validate Flower's mapping; raises ConfigError naming key, value and rule."""
        try:
            return cls.model_validate(dict(flat))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            given = f"{key} = {first['input']!r}: " if key else ""  # a rule of several keys names them itself
            raise ConfigError(f"run-config: {given}{rule_of(first)}") from error

    def to_flat(self) -> dict[str, Scalar]:
        """Flower's mapping, kebab-case."""
        return self.model_dump(by_alias=True)

    @property
    def clip(self) -> float:
        """The L2 norm to which privacy bounds what one unit brings. A patient's gradient of the focal loss is short."""
        return self.privacy_clip or (0.05 if self.privacy_unit == "patient" else 1.0)

    @property
    def plan_settings(self) -> PlanSettings:
        """How the preprocessing plan is fitted."""
        return PlanSettings(**{name: getattr(self, name) for name in PlanSettings.__dataclass_fields__})

    def model_for(self, plan: PreprocessingPlan) -> ModelConfig:
        """The sizes of the model whose inputs are the plan's kept features."""
        inputs = {"static_features": len(plan.static), "series_channels": len(plan.series)}
        sizes = {name: getattr(self, name) for name in ModelConfig.__dataclass_fields__ if name not in inputs}
        return ModelConfig(**inputs, **sizes)

    def with_label_rate(self, prevalence: float) -> "RunConfig":
        """With ``focal_alpha`` 0 taken from the federation's share of deaths: each class then weighs as the other is
        common. Raises ContractError when no site told its deaths."""
        if self.loss != "focal" or self.focal_alpha:
            return self
        if not 0 < prevalence < 1:
            raise ContractError("focal-alpha = 0: the federation's share of deaths is not known; set focal-alpha")
        return self.model_copy(update={"focal_alpha": 1 - prevalence})

    def learning_rate_at(self, round_number: int) -> float:
        """From ``learning_rate`` in round 1 towards 0 after the last (the method's Figure 4): along a cosine, a
        straight line, or exponentially to 1 % of it."""
        passed = (round_number - 1) / self.rounds
        share: dict[str, float] = {
            "cosine": 0.5 * (1 + cos(pi * passed)),
            "linear": 1 - passed,
            "exponential": LAST_SHARE**passed,
            "constant": 1.0,
        }
        return self.learning_rate * share[self.schedule]
