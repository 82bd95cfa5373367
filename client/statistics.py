"""Local mergeables for the preprocessing plan."""

from torch import Tensor

from shared_model.batch import PatientData
from shared_model.mergeable import Moments
from shared_model.messages import Statistics


def local_statistics(data: PatientData) -> Statistics:
    """Moments of every static feature and series channel over a site's training stays."""
    return Statistics(
        static=_columns(data.static_NF),
        series=_columns(data.series_NTC.flatten(0, 1)),
        patients=data.patients,
        deaths=data.deaths,
    )


def _columns(values_RF: Tensor) -> tuple[Moments, ...]:
    return tuple(Moments.of(column.double().numpy()) for column in values_RF.T)
