"""A realistic finished run for the report's tests; made up, and never part of the product."""

import math
from functools import cache

import numpy as np

from server.results import (
    CalibrationBin,
    CheckCount,
    ComparisonRow,
    Curve,
    DataSummary,
    Estimate,
    Evaluation,
    FeatureSummary,
    FederatedValidation,
    FlowStep,
    LeftOutSite,
    RoundSummary,
    RunResults,
    SiteSummary,
    SiteValidation,
    SubgroupEvaluation,
    Timing,
    Trial,
    Tuning,
    UnitEvaluation,
)
from server.results_privacy import PrivacySummary
from server.spending import account_of, privacy_summary
from shared_model.config import RunConfig
from shared_model.privacy import Mechanism

UNITS = {  # name: stays and in-hospital mortality of MIMIC-IV 3.1
    "MICU": (20703, 0.166),
    "MICU/SICU": (15449, 0.155),
    "CVICU": (14771, 0.044),
    "SICU": (13009, 0.119),
    "CCU": (10775, 0.137),
    "TSICU": (10474, 0.110),
    "Neuro Intermediate": (5776, 0.020),
    "Neuro SICU": (1751, 0.271),
    "Neuro Stepdown": (1421, 0.0),
}


def _estimate(value: float, deaths: int, survivors: int) -> Estimate:
    """An interval by Hanley and McNeil (1982); close enough to a bootstrap for a drawing."""
    if not deaths or not survivors:
        return Estimate(value=None)
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    spread = (deaths - 1) * (q1 - value**2) + (survivors - 1) * (q2 - value**2) + value * (1 - value)
    half = 1.96 * math.sqrt(spread / (deaths * survivors))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def _auroc(score: np.ndarray, died: np.ndarray) -> Estimate:
    deaths, survivors = int(died.sum()), int((~died).sum())
    ranks = score.argsort().argsort() + 1
    area = (ranks[died].sum() - deaths * (deaths + 1) / 2) / max(deaths * survivors, 1)
    return _estimate(float(area), deaths, survivors)


def _simulated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit, death and predicted risk of about 6,000 held-out patients."""
    random = np.random.default_rng(7)
    names, deaths, risks = [], [], []
    for unit, (stays, mortality) in UNITS.items():
        died = random.random(stays // 16) < mortality
        offset = math.log(max(mortality, 0.004) / (1 - max(mortality, 0.004)))
        logit = offset - 0.65 + 1.25 * died + random.normal(0, 1.0, died.size)
        names += [unit] * died.size
        deaths.append(died)
        risks.append(1 / (1 + np.exp(-logit)))
    return np.array(names), np.concatenate(deaths), np.concatenate(risks)


def _evaluation() -> Evaluation:
    unit, died, risk = _simulated()
    order = np.argsort(-risk)
    hits, alarms = np.cumsum(died[order]), np.cumsum(~died[order])
    sensitivity, false_alarms = hits / hits[-1], alarms / alarms[-1]
    precision = hits / (hits + alarms)
    chosen = int(np.argmax(sensitivity - false_alarms))
    thin = np.unique(np.linspace(0, died.size - 1, 240).astype(int))
    groups = [np.where((risk >= low / 10) & (risk < (low + 1) / 10))[0] for low in range(10)]
    auprc = float((precision * np.diff(sensitivity, prepend=0)).sum())
    metrics = {
        "auroc": _auroc(risk, died),
        "auprc": Estimate(value=auprc, low=auprc - 0.033, high=auprc + 0.031),
        "brier": Estimate(value=float(((risk - died) ** 2).mean()), low=0.081, high=0.091),
        "log_loss": Estimate(value=0.289, low=0.276, high=0.302),
        "accuracy": Estimate(value=0.758, low=0.747, high=0.768),
        "sensitivity": Estimate(value=float(sensitivity[chosen]), low=0.741, high=0.799),
        "specificity": Estimate(value=float(1 - false_alarms[chosen]), low=0.738, high=0.762),
        "f1": Estimate(value=0.428, low=0.403, high=0.451),
        "calibration_intercept": Estimate(value=-0.212, low=-0.361, high=-0.058),
        "calibration_slope": Estimate(value=0.917, low=0.842, high=0.996),
    }
    by_unit = [
        UnitEvaluation(
            unit=name,
            patients=int((unit == name).sum()),
            deaths=int(died[unit == name].sum()),
            auroc=_auroc(risk[unit == name], died[unit == name]),
        )
        for name in UNITS
    ]
    return Evaluation(
        patients=died.size,
        deaths=int(died.sum()),
        threshold=float(risk[order][chosen]),
        metrics=metrics,
        roc=Curve(x=[0.0, *false_alarms[thin].tolist(), 1.0], y=[0.0, *sensitivity[thin].tolist(), 1.0]),
        precision_recall=Curve(x=sensitivity[thin][3:].tolist(), y=precision[thin][3:].tolist()),
        calibration=[
            CalibrationBin(predicted=float(risk[g].mean()), observed=float(died[g].mean()), count=g.size)
            for g in groups
            if g.size
        ],
        by_unit=by_unit,
        subgroups=_subgroups(),
    )


def _subgroups() -> list[SubgroupEvaluation]:
    nothing = Estimate(value=None)
    rows = [
        ("sex", "female", 2611, 318, 0.829),
        ("sex", "male", 3229, 384, 0.812),
        ("age", "18-44", 811, 41, 0.861),
        ("age", "45-64", 1870, 190, 0.838),
        ("age", "65-79", 2006, 262, 0.807),
        ("age", "80+", 1149, 208, 0.772),
        ("age", "unknown", 4, 1, 0.5),
    ]
    return [
        SubgroupEvaluation(
            group=group,
            name=name,
            patients=patients,
            deaths=deaths,
            auroc=_estimate(auroc, deaths, patients - deaths) if patients >= 10 else nothing,
            sensitivity=_share(0.77, deaths) if patients >= 10 else nothing,
            specificity=_share(0.75, patients - deaths) if patients >= 10 else nothing,
        )
        for group, name, patients, deaths, auroc in rows
    ]


def _share(value: float, count: int) -> Estimate:
    half = 1.96 * math.sqrt(value * (1 - value) / count)
    return Estimate(value=value, low=value - half, high=value + half)


def sample_validation(*, personal: bool = True) -> FederatedValidation:
    """The sites' own validation patients; half of the sites personalised their model."""
    held, sites = _evaluation(), []
    for number, unit in enumerate(held.by_unit):
        better = 0.012 - 0.004 * number
        own = _estimate((unit.auroc.value or 0) + better, unit.deaths, unit.patients - unit.deaths)
        sites.append(
            SiteValidation(
                site=unit.unit,
                patients=unit.patients,
                deaths=unit.deaths,
                auroc=unit.auroc,
                personal_auroc=own if personal and number % 2 == 0 else None,
            )
        )
    shared = {name: getattr(held, name) for name in FederatedValidation.model_fields if name not in ("sites", "noise")}
    return FederatedValidation(**shared, sites=sites)


def _leave_one_out() -> list[LeftOutSite]:
    return [
        LeftOutSite(
            site=site.site,
            patients=site.patients,
            deaths=site.deaths,
            auroc=_estimate((site.auroc.value or 0) - 0.02, site.deaths, site.patients - site.deaths),
            inside_auroc=site.auroc,
        )
        for site in sample_validation().sites
    ]


FEATURES = {  # mutual information and correlation, made up
    "sapsii": (0.061, 0.31),
    "sofa_score": (0.052, 0.28),
    "lactate_max": (0.047, 0.27),
    "gcs_min": (0.041, -0.25),
    "bun_max": (0.036, 0.21),
    "urine_sum": (0.034, -0.19),
    "age": (0.029, 0.16),
    "bicarbonate_min": (0.026, -0.18),
    "aniongap_max": (0.025, 0.19),
    "vent_status": (0.024, 0.17),
    "metastatic_solid_tumor": (0.022, 0.12),
    "sbp_min": (0.021, -0.15),
    "spo2_min": (0.019, -0.13),
    "resp_rate_max": (0.017, 0.12),
    "heart_rate_max": (0.015, 0.11),
    "inr_max": (0.014, 0.12),
    "creatinine_max": (0.013, 0.11),
    "charlson_score": (0.012, 0.10),
    "temperature_max": (0.008, -0.06),
    "wbc_max": (0.007, 0.05),
    "hemoglobin_min": (0.006, -0.05),
    "sodium_max": (0.005, 0.04),
    "platelets_min": (0.004, -0.06),
    "chloride_min": (0.003, -0.02),
    "male": (0.001, 0.01),
    "height_last": (0.0, 0.0),
}


def _features() -> list[FeatureSummary]:
    normal = ("age", "temperature_max", "sbp_min", "hemoglobin_min", "heart_rate_max")
    found = [
        FeatureSummary(
            name=name,
            kind="static",
            missing=0.31 if name == "lactate_max" else 0.02,
            mutual_information=information,
            correlation=correlation,
            kept=name != "lactate_max",
            reason="31.0 % of patients lack it, more than 20 %" if name == "lactate_max" else "",
            imputation="mean" if name in normal else "median",
            scaling="zscore" if name in normal else "minmax",
            normal=name in normal,
        )
        for name, (information, correlation) in FEATURES.items()
    ]
    series = {"heart_rate": 0.001, "sbp": 0.004, "crp": 0.93, "pct": 0.97}
    return found + [
        FeatureSummary(
            name=name,
            kind="series",
            missing=missing,
            kept=missing < 0.2,
            reason="" if missing < 0.2 else f"{100 * missing:.1f} % of patients lack it, more than 20 %",
            imputation="mean",
            scaling="zscore",
            normal=True,
        )
        for name, missing in series.items()
    ]


def _trial(settings: dict[str, str | int | float | bool], mean: float, number: int) -> Trial:
    folds = [mean + 0.011 * math.sin(7.0 * number + fold) for fold in range(5)]
    average = sum(folds) / 5
    sd = math.sqrt(sum((fold - average) ** 2 for fold in folds) / 4)
    return Trial(settings=settings, fold_auroc=list(folds), mean=average, sd=sd, mean_loss=0.1 - 0.08 * average)


def sample_tuning(*, several: bool = True) -> Tuning:
    """A grid over two parameters with one failed trial; or one learning rate over three decades."""
    if not several:
        means = {1e-4: 0.781, 3e-4: 0.806, 1e-3: 0.824, 3e-3: 0.827, 1e-2: 0.809, 3e-2: 0.744}
        trials = [_trial({"learning-rate": rate}, mean, n) for n, (rate, mean) in enumerate(means.items())]
        return Tuning(folds=5, parameters=["learning-rate"], trials=trials, best=3)
    trials = [
        _trial({"learning-rate": rate, "dropout": dropout}, 0.825 - 20 * abs(rate - 0.001) - 0.05 * dropout, n)
        for n, (rate, dropout) in enumerate((r, d) for r in (0.0003, 0.001, 0.003) for d in (0.0, 0.2, 0.4))
    ]
    trials[8] = Trial(settings=trials[8].settings, fold_auroc=[0.71, None], status="failed: the loss is not finite")
    best = max(range(8), key=lambda n: trials[n].mean or 0)
    return Tuning(folds=5, parameters=["learning-rate", "dropout"], trials=trials, best=best)


def _comparison(held: Evaluation) -> list[ComparisonRow]:
    whole = (held.deaths, held.patients - held.deaths)
    best, auprc = held.metrics["auroc"], held.metrics["auprc"]
    pooled = _estimate((best.value or 0) + 0.007, *whole)
    rows = [
        ComparisonRow(model="federated", auroc=best, auprc=auprc),
        ComparisonRow(model="pooled", auroc=pooled, auprc=Estimate(value=0.467, low=0.435, high=0.499)),
    ]
    loss = [0.021, 0.026, 0.055, 0.034, 0.041, 0.038, 0.098, 0.131, 0.19]
    for unit, less in zip(held.by_unit, loss, strict=True):
        alone = (unit.auroc.value or 0) - less / 2
        survivors = unit.patients - unit.deaths
        rows.append(
            ComparisonRow(
                model=f"local-only: {unit.unit}",
                auroc=_estimate((best.value or 0) - less, *whole),
                auprc=Estimate(value=0.44 - less, low=0.41 - less, high=0.47 - less),
                own_unit_auroc=_estimate(alone, unit.deaths, survivors),
            )
        )
    return rows


def sample_round(number: int) -> RoundSummary:
    failed = {"CCU": "no reply within 600 s"} if number in (4, 9) else {}
    return RoundSummary(
        round=number,
        learning_rate=0.0005 * (1 + math.cos(math.pi * (number - 1) / 12)),
        train_loss=0.027 + 0.024 * math.exp(-number / 3) - 0.0003 * number,
        validation_loss=0.031 + 0.021 * math.exp(-number / 2.5) + (0.0002 * max(0, number - 9)),
        validation_auroc=0.835 - 0.31 * math.exp(-number / 2.2) - 0.0015 * max(0, number - 10),
        replied=[name for name in UNITS if name not in failed],
        failed=failed,
        bytes_down=1_684_212,
        bytes_up=1_684_096 * (9 - len(failed)),
    )


def _sites() -> list[SiteSummary]:
    sites = [
        SiteSummary(
            site=name,
            admitted=True,
            reason="",
            patients=int(stays * 0.26),
            deaths=int(stays * 0.26 * mortality) or None,
            device="cuda" if stays > 15000 else "cpu",
        )
        for name, (stays, mortality) in UNITS.items()
    ]
    reason = "fewer training patients than its smallest cell of 20"
    return [*sites, SiteSummary(site="PACU", admitted=False, reason=reason)]


def _checks() -> list[CheckCount]:
    return [
        CheckCount(table="chartevents", rule="heart_rate: outside plausible range", action="dropped", rows=1_204),
        CheckCount(table="chartevents", rule="temperature: Fahrenheit in a Celsius item", action="converted", rows=31),
        CheckCount(table="icustays", rule="outside its admission", action="dropped", rows=2),
    ]


def _flow() -> list[FlowStep]:
    steps = [
        ("all ICU stays", 65366, 94458),
        ("adults with a first stay", 65366, 65366),
        ("in the unit for 24 h or more", 51204, 51204),
        ("suspected infection", 38771, 38771),
        ("SOFA of 2 or more in the window (Sepsis-3)", 30249, 30249),
    ]
    return [FlowStep(step=step, patients=patients, stays=stays) for step, patients, stays in steps]


@cache
def _full() -> str:
    held = _evaluation()
    run = RunResults(
        consilium_version="0.1.0",
        status="complete",
        config={
            "strategy": "fedprox",
            "num-server-rounds": 12,
            "local-epochs": 1,
            "learning-rate": 0.001,
            "proximal-mu": 0.01,
            "focal-gamma": 2.0,
            "focal-alpha": 0.75,
            "label": "in_hospital",
            "profile": "early",
            "seed": 20260801,
            "private": False,
            "batch-size": 128,
        },
        contract_digest="sha256:9f2c4f0e6a1bd3c87e55b8a1c0d97f4421a6c2e05b7c3388d1fe90ab64c75d12",
        plan_digest="sha256:1b77d02c9e48aa6f3c05e9d2417fbb80c6e2a9d35f04718cba92d6e3380f4c56",
        encoder="all-MiniLM-L6-v2 sha256:53aa51172d142c89",
        data=DataSummary(
            source="synthetic patients in MIMIC-IV 3.1 layout",
            cohort="adults with Sepsis-3, first stay, in-hospital death",
            prediction_hours=24,
            rules_version="sepsis3-2026.08",
            flow=_flow(),
            checks=_checks(),
            oracle_auroc=0.871,
        ),
        sites=_sites(),
        rounds=[sample_round(number) for number in range(1, 13)],
        best_round=10,
        parameters=420_865,
        heldout=held,
        validation=sample_validation(),
        leave_one_out=_leave_one_out(),
        features=_features(),
        tuning=sample_tuning(),
        comparison=_comparison(held),
        warnings=[
            "CCU missed 2 of 12 rounds.",
            "PACU was not admitted, so its patients were not trained on.",
        ],
        timing=Timing(
            total=412.7,
            rounds=[19.0 + n % 3 for n in range(12)],
            local_training=388,
            federation_overhead=1.08,
        ),
    )
    return run.model_dump_json()


def sample_results(**changes: object) -> RunResults:
    """A realistic complete run over nine care units; ``changes`` replace fields."""
    return RunResults.model_validate_json(_full()).model_copy(update=changes)


def without_heldout() -> RunResults:
    """The same run at a server that holds no patients, with one learning rate tuned."""
    validation, tuning = sample_validation(personal=False), sample_tuning(several=False)
    return sample_results(heldout=None, comparison=[], validation=validation, tuning=tuning)


def _noised_sites() -> list[SiteSummary]:
    counts = {"MICU": 2410, "SICU": 890, "CVICU": 412, "TSICU": 118}
    return [
        SiteSummary(site=site, admitted=True, reason="", patients=n, deaths=n // 5, counts="noised", device="cpu")
        for site, n in counts.items()
    ]


@cache
def _spent() -> PrivacySummary | None:
    config = RunConfig(privacy_unit="patient", privacy_accountant="rdp")
    return privacy_summary(config, _noised_sites(), config.rounds)


def private() -> RunResults:
    """A private run without a held-out set: one noised validation at the end, and what each site spent."""
    validation = sample_validation(personal=False).model_copy(update={"sites": [], "noise": 15.2})
    silent = {"train_loss": None, "validation_loss": None, "validation_auroc": None}
    rounds = [sample_round(number).model_copy(update=silent | {"failed": {}}) for number in range(1, 12)]
    changes = {
        "validation": validation,
        "privacy": _spent(),
        "sites": _noised_sites(),
        "rounds": [*rounds, sample_round(12).model_copy(update={"train_loss": None})],
        "best_round": 12,
        "leave_one_out": [],
        "tuning": None,
        "warnings": [],
    }
    return without_heldout().model_copy(update=changes)


def private_sites() -> RunResults:
    """Each site as a whole is protected: the server's noise on the clipped updates is all there is."""
    config = RunConfig(privacy_unit="site", privacy_accountant="rdp", privacy_delta=1e-3)
    account = account_of("each site", {"update": Mechanism(4.0, 1.0, 12)}, config)
    privacy = PrivacySummary(unit="site", epsilon=8.0, delta=1e-3, accountant="rdp", clip=0.5, accounts=[account])
    return sample_results(privacy=privacy)
