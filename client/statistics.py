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
        static_patients=_patients(data, ~data.static_NF.isnan()),
        series_patients=_patients(data, ~data.series_NTC.isnan().all(dim=1)),
        patients=data.patients,
        deaths=data.deaths,
    )


def _patients(data: PatientData, measured_NF: Tensor) -> tuple[int, ...]:
    """How many patients each feature was measured in, at least once."""
    return tuple(data.subset(column_N.nonzero().squeeze(1)).patients for column_N in measured_NF.T)


def _columns(values_RF: Tensor) -> tuple[Moments, ...]:
    return tuple(Moments.of(column.double().numpy()) for column in values_RF.T)
