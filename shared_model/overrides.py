"""Run-config settings as text: ``KEY=VALUE`` of a command line, and the TOML that Flower reads."""

import json
import tomllib
from collections.abc import Iterable, Mapping

from shared_model.errors import ConfigError

Scalar = bool | int | float | str


def setting_pairs(pairs: Iterable[str]) -> dict[str, Scalar]:
    """``KEY=VALUE`` pairs with YAML scalars. Raises ConfigError for a pair that is none."""
    import yaml

    found: dict[str, Scalar] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: write KEY=VALUE")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {pair}: its value is no YAML; quote it") from None
    return found


def toml_text(settings: Mapping[str, Scalar]) -> str:
    """JSON's scalars are TOML's."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items())


def flat_toml(text: str) -> dict[str, Scalar]:
    """What ``toml_text`` wrote, or a TOML with tables, whose keys get the table's name and a dot as Flower's do. Raises
    ValueError for what is no TOML."""
    found: dict[str, Scalar] = {}
    for key, value in tomllib.loads(text).items():
        found |= {f"{key}.{name}": held for name, held in value.items()} if isinstance(value, dict) else {key: value}
    return found
