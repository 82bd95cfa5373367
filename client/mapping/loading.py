"""A site's YAML file, with the files that it extends, as one document.

Three things go wrong in every hospital, so they are handled here: YAML reads `No: 0` and `12:30` as something else than
text, a key that is written twice silently wins, and passwords end up in files.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from client.mapping.mistakes import one_line, shown
from client.mapping.secrets import entries, find_secret, looks_like_address
from shared_model.errors import ConfigError

LARGEST, DEEPEST, MOST_NODES = 1 << 20, 40, 100_000
BLANK, _MOST_BLANKS = "FILL_IN", 12  # what `consilium-site init` writes where it knows nothing
Document = dict[str, Any]
_TEXT = "tag:yaml.org,2002:str"


class _Decimal(float):
    """A decimal number that knows how it is written: the local code 3.10 is not 3.1."""

    text: str

    def __new__(cls, text: str) -> "_Decimal":
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


class _RefusedError(yaml.YAMLError):
    """What YAML can say and a site config does not."""

    def __init__(self, rule: str, mark: Any) -> None:
        super().__init__(f"{rule} (line {mark.line + 1})")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core: only true, false, null and numbers are no text; a key stands once; there are no tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor not in self.anchors:
                raise _RefusedError(
                    "* begins an alias, and nothing is called that; put the text in quotes", event.start_mark
                )
        elif anchor is not None and anchor in self.anchors:
            raise _RefusedError("an anchor (&) is set twice", event.start_mark)
        if tag not in (None, "!", _TEXT):
            raise _RefusedError("! begins a tag, and tags are not read; put the text in quotes", event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^-?(?:0|[1-9][0-9]{0,17})$", "-0123456789"),  # 007 is text: it may be a code
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Document:
    held: Document = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise _RefusedError("a key is no text", key_node.start_mark)
        text = str(key_node.value)  # as it is written
        if text == "<<":
            raise _RefusedError("<< (a merge key) is not read; write the keys out", key_node.start_mark)
        if text in held:
            named = "a key" if looks_like_address(text) else shown(text)
            raise _RefusedError(f"{named} is written twice", key_node.start_mark)
        held[text] = loader.construct_object(value_node, deep=True)
    return held


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _Decimal(node.value))


def load_document(path: Path) -> Document:
    """The document of ``path``, over those that it extends, with absolute paths. Raises ConfigError."""
    document = _load(path, ())
    blank = [where for where, _, value in entries(document) if value == BLANK]
    if blank:
        more = f" and {len(blank) - _MOST_BLANKS} more" if len(blank) > _MOST_BLANKS else ""
        raise _error(path, f"still to fill in: {', '.join(blank[:_MOST_BLANKS])}{more}")
    return document


def _load(path: Path, below: tuple[Path, ...]) -> Document:
    document = _read(path)
    if (secret := find_secret(document)) is not None:
        raise _error(path, secret)
    document = _absolute(document, path)
    if "extends" not in document:
        return document
    parent = document.pop("extends")
    if not isinstance(parent, str) or not parent:
        raise _error(path, "extends: name one file")
    chain = (*below, path.resolve())
    base = chain[-1].parent / parent
    if not _is(Path.is_file, base):
        raise _error(path, f"extends: no file {shown(parent)} beside it")
    if base.resolve() in chain or len(chain) > DEEPEST:
        circle = " -> ".join(file.name for file in (*chain, base.resolve()))
        raise _error(path, f"extends: {circle} is a circle: a file cannot extend itself")
    return _merged(_load(base, chain), document)


def _error(path: Path, text: str) -> ConfigError:
    return ConfigError(one_line(f"{path}: {text}"))


def _read(path: Path) -> Document:
    text = _text_of(path)
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark is not None else ""
        # The one problem that quotes a longer piece of the file, which may be a password that begins with !.
        problem = "a tag is not defined" if "tag handle" in str(error.problem) else error.problem
        raise _error(path, f"not readable as YAML{line}: {problem}") from None
    except _RefusedError as error:
        raise _error(path, str(error)) from None
    except yaml.reader.ReaderError as error:
        line = f" (line {text.count(chr(10), 0, error.position) + 1})"
        raise _error(path, f"not readable as YAML{line}: a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _error(path, f"not readable as YAML ({type(error).__name__})") from None
    _check_nodes(document, path)
    if not isinstance(document, dict):
        raise _error(path, "the file: holds no `key: value` pairs")
    return document


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        text = raw[:LARGEST].decode("utf-8-sig")
    except FileNotFoundError:
        raise _error(path, "no such site config") from None
    except UnicodeDecodeError:
        raise _error(path, "not readable as YAML: its text is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise _error(path, f"not readable as YAML ({type(error).__name__})") from None
    if len(raw) > LARGEST:
        raise _error(path, "longer than a megabyte; a site config is not")
    return text


def _check_nodes(document: Any, path: Path) -> None:
    """Aliases can make a short file endless, and escapes can write what is no text."""
    nodes, pending = 0, [(document, 0)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > MOST_NODES or depth > DEEPEST:
            raise _error(path, "nested deeper or larger than a site config can be")
        texts = (node,) if isinstance(node, str) else node if isinstance(node, dict) else ()
        if any("\0" in text or re.search("[\ud800-\udfff]", text) for text in texts):
            raise _error(path, "holds a character that is no text")
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        pending.extend((child, depth + 1) for child in children)


def _merged(base: Document, over: Document, *, nulls_stay: bool = False) -> Document:
    """``over`` wins; mappings merge key by key, a null takes the key away. In a value map a null is a value."""
    merged = dict(base)
    for key, value in over.items():
        if value is None and not nulls_stay:
            merged.pop(key, None)
        elif isinstance(value, dict):
            held = merged.get(key)
            merged[key] = _merged(held if isinstance(held, dict) else {}, value, nulls_stay=key == "map")
        else:
            merged[key] = value
    return merged


def _absolute(document: Document, path: Path) -> Document:
    """Paths are relative to the file that they stand in."""
    base, absolute = path.resolve().parent, dict(document)
    encoder = absolute.get("encoder")
    if isinstance(encoder, str) and _is(Path.is_dir, base / encoder):
        absolute["encoder"] = str(base / encoder)
    absolute |= _with_path(absolute, "store", base, path, "store")
    if isinstance(source := absolute.get("source"), dict):
        absolute["source"] = source | _with_path(source, "path", base, path, "source.path")
    if isinstance(policy := absolute.get("release"), dict):
        absolute["release"] = policy | _with_path(policy, "trusted_entities", base, path, "release.trusted_entities")
    if isinstance(sources := absolute.get("sources"), dict):
        absolute["sources"] = {
            name: one | _with_path(one, "path", base, path, f"sources.{name}.path") if isinstance(one, dict) else one
            for name, one in sources.items()
        }
    return absolute


def _with_path(held: Document, key: str, base: Path, path: Path, where: str) -> Document:
    text = held.get(key)
    if not isinstance(text, str):
        return {}
    if not text.strip():
        raise _error(path, f"{where}: is empty")
    try:
        return {key: str(base / Path(text).expanduser())}
    except RuntimeError:  # nobody has that home folder
        return {key: str(base / text)}


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether there is such a thing; a name that no file can have is none."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False
