"""Local mergeables for the preprocessing plan."""

import numpy as np
import torch
from numpy.typing import NDArray

from client.blocks import Bools, Patients
from shared_model.batch import PatientData
from shared_model.distribution import Floats, Outcomes, static_grids
from shared_model.messages import Statistics
from shared_model.study import Study


def local_statistics(data: PatientData, study: Study) -> Statistics:
    """Distributions of every static feature and series channel over a site's training stays."""
    windows = data.series_NTC.shape[1]
    died_N, patient_N = data.label_N.numpy(), data.patient_N.numpy()
    static_NF, series_NTC = data.static_NF.double().numpy(), data.series_NTC.double().numpy()
    series_RC = series_NTC.reshape(-1, series_NTC.shape[2])
    grids, died_R, patient_R = static_grids(), died_N.repeat(windows), patient_N.repeat(windows)
    return Statistics(
        static=tuple(Outcomes.of(static_NF[:, n], died_N, patient_N, grids[f]) for n, f in enumerate(study.static)),
        series=tuple(Outcomes.of(series_RC[:, n], died_R, patient_R, g) for n, g in enumerate(study.series_grids)),
        patients=data.patients,
        deaths=data.deaths,
        most=_most(static_NF[:, None], patient_N) + _most(series_NTC, patient_N),
    )


def _most(value_NTF: Floats, patient_N: NDArray[np.int64]) -> tuple[int, ...]:
    """The most values that one patient has of each feature; 1 where nobody has any."""
    patients, place_N = np.unique(patient_N, return_inverse=True)
    count_PF = np.zeros((len(patients), value_NTF.shape[2]), dtype=np.int64)
    np.add.at(count_PF, place_N, np.isfinite(value_NTF).sum(axis=1))
    return tuple(count_PF.max(axis=0, initial=1).tolist())


def block_statistics(patients: Patients, study: Study) -> Statistics:
    """The same block by block (``Statistics.parts``); what may leave is added up from them at the exit."""
    parts = []
    for number in patients.blocks[0]:
        inside_N = patients.block_N == number
        whole = local_statistics(_those(patients.training, inside_N), study)
        new_N = inside_N & patients.new_N
        new = whole if (new_N == inside_N).all() else local_statistics(_those(patients.training, new_N), study)
        parts.append((whole, new))
    return Statistics(
        static=(), series=(), patients=patients.training.patients, deaths=patients.deaths, parts=tuple(parts)
    )


def _those(data: PatientData, chosen_N: Bools) -> PatientData:
    return data.subset(torch.from_numpy(np.flatnonzero(chosen_N)))
