"""Secrets end up in files that are copied, so a site's YAML may hold none: what looks like one is told by its place."""

import re
from collections.abc import Iterator
from typing import Any

_SECRET_KEY = re.compile(
    r"(?:.*[\W_])?(?:pass(?:wd|phrase|code)?|pw|pwd|auth|credentials?)|.*(?:password|passwd|passwort|kennwort|secret|token)s?"
    r"|.*(?:api|access|private|secret)[_-]?key(?:[_-]?id)?|(?:user|db|my|pg|sql|admin)(?:pwd|pass)",
    re.IGNORECASE,
)
_URL_KEY = re.compile(
    r"(?:.*[_-])?(?:url|uri|dsn|jdbc)|(?:db[_-]?)?conn(?:ection)?(?:[_-]?str(?:ing)?)?", re.IGNORECASE
)
_URL_WITH_PASSWORD = re.compile(r"://[^\s/:@]{0,256}:[^\n@]{1,256}@")
_CONNECTION_WITH_PASSWORD = re.compile(r"\b(?:password|passwd|pwd)\s{0,9}=\s{0,9}[^\s;]", re.IGNORECASE)
_QUERY_WITH_SECRET = re.compile(
    r"[?&;](?:password|passwd|passphrase|pwd|pw|pass|token|secret|sig|key)\s{0,9}=\s{0,9}[^\s&;]", re.IGNORECASE
)
_CONNECTION = re.compile(r"\b(?:host|server|driver|dsn|user|uid|user id|database|dbname)\s{0,9}=", re.IGNORECASE)
# Directly below these, keys are words of the extract: columns and texts. (Below tables, `columns` are the schema's.)
_FREE_KEYS = {"columns", "map", "add", "by"}
_PLACES = {"path", "file", "table", "store", "extends", "source", "timezone", "zone", "site", "encoder", "schema"}
_ADVICE = "put it into an environment variable, and the variable's name under `url_env`"


def find_secret(document: Any) -> str | None:
    """What is wrong with the first secret or address of a database, with its key and never its value; None without."""
    for where, key, value in entries(document):
        if looks_like_address(key):
            parent = where.removesuffix(key).rstrip(".") or "the file"
            return f"{parent}: a key holds an address; {_ADVICE}"
        if _SECRET_KEY.fullmatch(key):
            return f"{where}: this file holds no secrets; {_ADVICE}"
        if _URL_KEY.fullmatch(key):
            return f"{where}: this file holds no URL of a database; {_ADVICE}"
        if isinstance(value, str) and _holds_password(value):
            return f"{where}: holds a database's address with a password; {_ADVICE}"
        if isinstance(value, str) and key in _PLACES and ("://" in value or value.lower().startswith("jdbc:")):
            return f"{where}: holds an address; {_ADVICE}"
    return None


def looks_like_address(key: str) -> bool:
    """Whether a name of ours is no name."""
    return "://" in key or "@" in key or _holds_password(key)


def _holds_password(text: str) -> bool:
    if _URL_WITH_PASSWORD.search(text) or _QUERY_WITH_SECRET.search(text):
        return True
    return bool(_CONNECTION_WITH_PASSWORD.search(text) and _CONNECTION.search(text))


def entries(node: Any, where: str = "", *, free: bool = False) -> Iterator[tuple[str, str, Any]]:
    """Every value with its place, and its key where that is one of ours and not a name of the site's."""
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{where}.{name}" if where else str(name)
            yield inner, "" if free else name, value
            ours = free or name not in _FREE_KEYS or (name == "columns" and where.startswith("tables."))
            yield from entries(value, inner, free=not ours)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield f"{where}[{number}]", "", value
            yield from entries(value, f"{where}[{number}]", free=free)
