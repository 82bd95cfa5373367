"""The reference that is no neural network: LightGBM on the pooled patients' features.

Why: on tables of a few thousand patients, boosted trees are what a federated network has to be measured against. It
sees the same training patients as the pooled model, the same static features, and what trees can use of the series:
each channel's last value, how often it was measured, and its standard deviation. Its settings are ordinary ones and
were not tuned.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared_model.batch import PatientData, open_store
from shared_model.config import RunConfig
from shared_model.errors import ConfigError
from shared_model.inputs import carry_forward
from shared_model.metrics import Floats
from simulations.baselines import open_pooled

BOOSTED = "LightGBM, pooled"
TREES, PATIENCE = 400, 50
SETTINGS = {
    "objective": "binary",
    "metric": "auc",
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
    "num_threads": 2,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def require_lightgbm() -> None:
    """Raises ConfigError where it is not installed: better at the start than after the first federation."""
    try:
        import lightgbm  # noqa: F401
    except ImportError as error:
        raise ConfigError("lightgbm: not installed; `pip install 'consilium[benchmark]'`") from error


def train_boosted(stores: list[Path], heldout: Path, config: RunConfig) -> Floats:
    """Fit on the union of the stores' training patients, stop by their validation patients, and score the held-out
    stays [N]."""
    import lightgbm

    training, validation = open_pooled(stores, config)
    trained = lightgbm.train(
        SETTINGS | {"seed": config.seed},
        lightgbm.Dataset(table(training), training.label_N.numpy()),
        num_boost_round=TREES,
        valid_sets=[lightgbm.Dataset(table(validation), validation.label_N.numpy())],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return np.asarray(trained.predict(table(open_store(heldout))), np.float64)


def table(data: PatientData) -> NDArray[np.float32]:
    """Static features, then each channel's last value, count and standard deviation; NaN: not measured. [N, F + 3 C]"""
    filled_NTC, measured_NTC, _ = carry_forward(data.series_NTC)
    count_NC = measured_NTC.sum(dim=1)
    mean_N1C = data.series_NTC.nansum(dim=1, keepdim=True) / count_NC[:, None]
    squares_NC = ((data.series_NTC - mean_N1C) ** 2).nansum(dim=1)
    sd_NC = (squares_NC / (count_NC - 1)).sqrt().where(count_NC > 1, float("nan"))
    parts = (data.static_NF, filled_NTC[:, -1], count_NC, sd_NC)
    return np.concatenate([part.numpy() for part in parts], axis=1).astype(np.float32)
