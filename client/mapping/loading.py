"""A site's YAML file, with the files that it extends, as one document.

Three things go wrong in every hospital, so they are handled here: YAML reads `No: 0` and `12:30` as something else than
text, a key that is written twice silently wins, and passwords end up in files.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from shared_model.errors import ConfigError

LARGEST, DEEPEST, MOST_NODES = 1 << 20, 40, 100_000
Document = dict[str, Any]
_SECRET_KEY = re.compile(r"pass(word|wd|phrase)?|pwd|secret|token|api_?key|credentials?", re.IGNORECASE)
_URL_WITH_PASSWORD = re.compile(r"[A-Za-z][\w+.-]*://[^/\s:@]*:[^/\s@]+@")
# Below these, keys are the site's own words: columns, codes, texts.
_FREE_KEYS = {"columns", "map", "codes", "add", "by", "units"}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core: only true, false, null and numbers are no text; a key stands once."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Document:
    held: Document = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, "a key is no text", key_node.start_mark)
        text = key if isinstance(key, str) else key_node.value  # as it is written
        if text in held:
            raise yaml.constructor.ConstructorError(None, None, f"{text!r} is written twice", key_node.start_mark)
        held[text] = loader.construct_object(value_node, deep=True)
    return held


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_document(path: Path) -> Document:
    """The document of ``path``, over those that it extends, with absolute paths. Raises ConfigError."""
    return _load(path, ())


def _load(path: Path, below: tuple[Path, ...]) -> Document:
    if path.resolve() in below:
        raise ConfigError(f"{below[0]}: extends: {path.name} extends itself, in a circle")
    document = _absolute(_read(path), path.resolve().parent)
    _refuse_secrets(document, path)
    parent = document.pop("extends", None)
    if parent is None:
        return document
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: name one file")
    base = path.resolve().parent / parent
    if not base.is_file():
        raise ConfigError(f"{path}: extends: no file {parent!r} beside it")
    return _merged(_load(base, (*below, path.resolve())), document)


def _read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such site config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({type(error).__name__})") from error
    if len(text) > LARGEST:
        raise ConfigError(f"{path}: longer than a megabyte; a site config is not")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        _check_size(document, path)
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(f"{path}: {error.problem}{_place(error.problem_mark)}") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML{_place(error.problem_mark)}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: the file: holds no `key: value` pairs")
    return document


def _place(mark: yaml.Mark | None) -> str:
    return f" (line {mark.line + 1})" if mark is not None else ""


def _check_size(document: Any, path: Path) -> None:
    """Aliases can make a short file endless."""
    nodes, pending = 0, [(document, 0)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > MOST_NODES or depth > DEEPEST:
            raise ConfigError(f"{path}: nested deeper or larger than a site config can be")
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        pending.extend((child, depth + 1) for child in children)


def _merged(base: Document, over: Document) -> Document:
    """``over`` wins; mappings merge key by key, a null takes the key away."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged


def _absolute(document: Document, base: Path) -> Document:
    """Paths are relative to the file that they stand in."""
    absolute = dict(document)
    if isinstance(absolute.get("store"), str):
        absolute["store"] = str(base / absolute["store"])
    encoder = absolute.get("encoder")
    if isinstance(encoder, str) and "\0" not in encoder and len(encoder) < 200 and (base / encoder).is_dir():
        absolute["encoder"] = str(base / encoder)
    if isinstance(absolute.get("source"), dict):
        absolute["source"] = _with_path(absolute["source"], base)
    if isinstance(absolute.get("sources"), dict):
        absolute["sources"] = {
            name: _with_path(source, base) if isinstance(source, dict) else source
            for name, source in absolute["sources"].items()
        }
    return absolute


def _with_path(source: Document, base: Path) -> Document:
    path = source.get("path")
    return source | {"path": str(base / Path(path).expanduser())} if isinstance(path, str) and "\0" not in path else source


def _refuse_secrets(document: Document, path: Path) -> None:
    """Raises ConfigError that names the key and never the value."""
    for key, value, free in _entries(document, "", free=False):
        name = key.rpartition(".")[2]
        if not free and _SECRET_KEY.fullmatch(name):
            raise ConfigError(f"{path}: {key}: no secrets in this file; put the database's URL, with its password, into"
                              " an environment variable and its name under `url_env`")  # fmt: skip
        if isinstance(value, str) and _URL_WITH_PASSWORD.search(value):
            raise ConfigError(f"{path}: {key}: holds a URL with a password; put it into an environment variable and the"
                              " variable's name under `url_env`")  # fmt: skip


def _entries(node: Any, key: str, *, free: bool) -> Iterator[tuple[str, Any, bool]]:
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, value, free
            yield from _entries(value, inner, free=free or name in _FREE_KEYS)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield f"{key}[{number}]", value, True
            yield from _entries(value, f"{key}[{number}]", free=free)
