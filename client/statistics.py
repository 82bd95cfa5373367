"""Local mergeables for the preprocessing plan."""

import numpy as np

from shared_model.batch import PatientData
from shared_model.distribution import Outcomes, static_grids
from shared_model.messages import Statistics
from shared_model.study import Study


def local_statistics(data: PatientData, study: Study) -> Statistics:
    """Distributions of every static feature and series channel over a site's training stays."""
    windows = data.series_NTC.shape[1]
    died_N, patient_N = data.label_N.numpy(), data.patient_N.numpy()
    static_NF = data.static_NF.double().numpy()
    series_RC = data.series_NTC.flatten(0, 1).double().numpy()
    grids, died_R, patient_R = static_grids(), died_N.repeat(windows), patient_N.repeat(windows)
    stays = int(np.unique(patient_N, return_counts=True)[1].max(initial=1))
    return Statistics(
        static=tuple(Outcomes.of(static_NF[:, n], died_N, patient_N, grids[f]) for n, f in enumerate(study.static)),
        series=tuple(Outcomes.of(series_RC[:, n], died_R, patient_R, g) for n, g in enumerate(study.series_grids)),
        patients=data.patients,
        deaths=data.deaths,
        static_rows=stays,
        series_rows=stays * windows,
    )
