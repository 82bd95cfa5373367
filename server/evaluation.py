"""Held-out evaluation: one model's predictions against one prepared store."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from server.results import CalibrationBin, Curve, Estimate, Evaluation, UnitEvaluation
from shared_model.batch import PatientData
from shared_model.metrics import Interval, evaluate_scores, precision_recall_curve, roc_curve

CURVE_POINTS = 300


def evaluate_predictions(
    scores_N: NDArray[np.float64], data: PatientData, *, threshold: float, resamples: int, seed: int
) -> Evaluation:
    """Metrics with patient-clustered 95 % intervals, curves, calibration, and AUROC by unit.

    ``threshold`` must come from validation patients; it is reported as given.
    """
    label_N, patient_N, unit_N = data.label_N.numpy(), data.patient_N.numpy(), data.unit_N.numpy()

    def estimates(chosen_N: NDArray[np.bool_]) -> dict[str, Estimate]:
        found = evaluate_scores(
            scores_N[chosen_N],
            label_N[chosen_N],
            patient_N[chosen_N],
            threshold=threshold,
            resamples=resamples,
            seed=seed,
        )
        return {name: as_estimate(interval) for name, interval in found.items()}

    return Evaluation(
        patients=data.patients,
        deaths=data.deaths,
        threshold=threshold,
        metrics=estimates(np.ones(len(data), dtype=bool)),
        roc=_curve(roc_curve, scores_N, label_N),
        precision_recall=_curve(precision_recall_curve, scores_N, label_N),
        calibration=_calibration(scores_N, label_N),
        by_unit=[
            UnitEvaluation(
                unit=unit,
                patients=len(np.unique(patient_N[unit_N == number])),
                deaths=len(np.unique(patient_N[(unit_N == number) & label_N])),
                auroc=estimates(unit_N == number)["auroc"],
            )
            for number, unit in enumerate(data.units)
            if (unit_N == number).any()
        ],
    )


def as_estimate(interval: Interval) -> Estimate:
    """The document form of an interval."""
    return Estimate(**asdict(interval))


def _curve(
    curve: Callable[[NDArray[np.float64], NDArray[np.bool_]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    scores_N: NDArray[np.float64],
    label_N: NDArray[np.bool_],
) -> Curve:
    """At most ``CURVE_POINTS`` points: a drawing needs no more, and one point a patient would publish the ranks.
    Empty without both classes."""
    if label_N.all() or not label_N.any():
        return Curve(x=[], y=[])
    x, y = curve(scores_N, label_N)
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return Curve(x=x[kept].round(5).tolist(), y=y[kept].round(5).tolist())


def _calibration(scores_N: NDArray[np.float64], label_N: NDArray[np.bool_], bins: int = 10) -> list[CalibrationBin]:
    """Tenths of predicted risk; fewer where there are not ten patients."""
    order = np.argsort(scores_N, kind="stable")
    return [
        CalibrationBin(predicted=float(scores_N[part].mean()), observed=float(label_N[part].mean()), count=len(part))
        for part in np.array_split(order, bins)
        if len(part)
    ]
