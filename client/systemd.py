"""The unit with which systemd runs a site's daemon; client/consilium-site.service is its template."""

import getpass
from pathlib import Path

from client.membership import Place
from shared_model.errors import ConfigError
from shared_model.flower import script

TEMPLATE = Path(__file__).with_name("consilium-site.service")


def unit(place: Place, site: str, store: Path, user: str) -> str:
    """The unit's text. Raises ConfigError where a path or a name cannot stand in it."""
    writes = sorted({place.config.parent, store.resolve().parent})
    held = {
        "SITE": _escaped(site),
        "USER": user or getpass.getuser(),
        "COMMAND": _quoted(Path(script("consilium-site"))),
        "CONFIG": _quoted(place.config).replace("$", "$$"),
        "WRITES": " ".join(_quoted(path) for path in writes),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in held.items():
        text = text.replace(f"@{name}@", value)
    return text


def _quoted(path: Path) -> str:
    """As one word of a unit file."""
    text = _escaped(str(path)).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _escaped(text: str) -> str:
    if not text.isprintable():
        raise ConfigError(f"{text!r}: cannot stand in a systemd unit")
    return text.replace("%", "%%")
