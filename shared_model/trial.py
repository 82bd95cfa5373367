"""Which settings and which patients a message speaks of: one federation runs many trials, of a search over settings or
with one site left out, and every message says to which it belongs."""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from shared_model.errors import ConfigError, ContractError

if TYPE_CHECKING:
    from shared_model.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Trial:
    """``settings`` override the run-config. With ``folds``, a site trains outside ``fold`` and validates inside it;
    without, it splits off its validation patients. Who is where, the site decides (client/blocks.py). ``name`` tells
    trials of one run apart that share both."""

    settings: dict[str, bool | int | float | str] = field(default_factory=dict)
    fold: int = 0
    folds: int = 0
    name: str = ""

    def config(self, run: "RunConfig") -> "RunConfig":
        """The run-config of this trial. Raises ContractError for settings that no server may send."""
        from shared_model.search import with_settings

        try:
            return with_settings(run, self.settings)
        except ConfigError as error:
            raise ContractError(f"trial: {error}") from error

    def to_json(self) -> str:
        """Canonical JSON; ``from_json`` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """Raises ContractError."""
        try:
            trial = cls(**json.loads(text))
            whole = type(trial.fold) is int and type(trial.folds) is int and isinstance(trial.settings, dict)
        except (ValueError, TypeError) as error:
            raise ContractError("trial: not one of this version; update this side") from error
        if not whole or not 0 <= trial.fold < max(trial.folds, 1):
            raise ContractError("trial: its fold is none of its folds")
        return trial


THE_RUN = Trial()  # no trial: the run itself
