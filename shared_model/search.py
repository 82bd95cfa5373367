"""What a search over settings tries: a grid or random draws, over the run-config keys that may be tuned.

A grid is YAML or JSON: key -> list of values. For random draws, key -> {low, high, log} gives a range, too::

    learning-rate: [0.0005, 0.001, 0.003]
    dropout: {low: 0.1, high: 0.5}
    weight-decay: {low: 0.0001, high: 0.1, log: true}
"""

import random
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import product
from math import exp, log
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from shared_model.config import PRIVACY, RunConfig, Scalar, key_of
from shared_model.errors import ConfigError
from shared_model.study import Study, rule_of

Settings = dict[str, Scalar]
_GRID = "grid"
# Everything that says how to train; not what is predicted, for whom, who takes part, and where results go.
_NOT_TUNED = {
    *Study.model_fields,
    *("seed", "personalisation", "finetune_epochs", "precision", "compile", "deterministic", "text_dimension"),
    *("validation_fraction", "min_sites", "expected_sites", "admission_timeout", "round_timeout"),
    *("grid", "trials", "folds", "leave_one_out", "heldout", "output", "bootstrap"),
    *("required_sites", "roster", "absence_timeout", "resends", "name", "resume"),
    *("secure_aggregation", "secure_threshold", "secure_range"),
    *(name for name in RunConfig.model_fields if name.startswith(PRIVACY)),
}
TUNABLE = tuple(sorted(key_of(name) for name in RunConfig.model_fields if name not in _NOT_TUNED))


class Range(BaseModel):
    """Numbers between two ends, drawn evenly or evenly in their logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ends_in_order(self) -> "Range":
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 where log is true")
        return self

    def draw(self, rng: random.Random) -> float:
        """One number, to four significant digits."""
        ends = (log(self.low), log(self.high)) if self.log else (self.low, self.high)
        drawn = rng.uniform(*ends)
        return float(f"{exp(drawn) if self.log else drawn:.4g}")


def read_grid(text: str) -> dict[str, list[Scalar] | Range]:
    """Raises ConfigError naming key, value and rule."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("grid: is no YAML") from error
    if not isinstance(document, dict) or not document:
        raise ConfigError("grid: write key: [value, value], one line for each setting to try")
    return {str(key): _values(str(key), values) for key, values in document.items()}


def search_settings(grid: Mapping[str, list[Scalar] | Range], config: RunConfig) -> list[Settings]:
    """Every combination of the grid, or ``config.trials`` random ones; each is valid with ``config``. The same seed
    draws the same. Raises ConfigError for a value that breaks its key's rule."""
    chosen = _draw(grid, config) if config.trials else _combine(grid)
    for settings in chosen:
        with_settings(config, settings)
    return chosen


def with_settings(config: RunConfig, settings: Settings) -> RunConfig:
    """The run of one trial. Raises ConfigError for a key that is not tuned, or a value that breaks its rule."""
    for key in settings:
        _check_key(key)
    return RunConfig.from_flat(config.to_flat() | settings)


def _values(key: str, values: Any) -> list[Scalar] | Range:
    _check_key(key)
    if isinstance(values, dict):
        try:
            return Range.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([key, *map(str, first["loc"])])
            raise ConfigError(f"{_GRID}: {where}: {rule_of(first)}") from error
    if not isinstance(values, list) or not values or not all(isinstance(v, bool | int | float | str) for v in values):
        raise ConfigError(f"{_GRID}: {key}: write a list of values, or low and high")
    return values


def _check_key(key: str) -> None:
    if key in TUNABLE:
        return
    near = get_close_matches(key, TUNABLE, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it can be one of {', '.join(TUNABLE)}"
    raise ConfigError(f"{_GRID}: {key!r} is no setting that can be tuned{hint}")


def _combine(grid: Mapping[str, list[Scalar] | Range]) -> list[Settings]:
    ranges = [key for key, values in grid.items() if isinstance(values, Range)]
    if ranges:
        raise ConfigError(f"{_GRID}: {ranges[0]}: a range needs trials, the number of random draws")
    lists = [values for values in grid.values() if isinstance(values, list)]
    return [dict(zip(grid, combination, strict=True)) for combination in product(*lists)]


def _draw(grid: Mapping[str, list[Scalar] | Range], config: RunConfig) -> list[Settings]:
    """Different settings where there are so many; a grid smaller than the draws is taken whole."""
    rng, chosen = random.Random(config.seed), dict[str, Settings]()  # noqa: S311 - a search, no secret
    if not any(isinstance(values, Range) for values in grid.values()):
        whole = _combine(grid)
        return rng.sample(whole, min(config.trials, len(whole)))
    while len(chosen) < config.trials:
        drawn = {key: v.draw(rng) if isinstance(v, Range) else rng.choice(v) for key, v in grid.items()}
        chosen[str(drawn)] = drawn
    return list(chosen.values())
