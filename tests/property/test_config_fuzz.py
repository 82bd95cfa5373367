"""Whatever a site's YAML holds, loading it ends in a SiteConfig or in one line, and no secret is in that line."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mapped_site import DOCUMENT, SECRET, Document

from client.mapping.config import Strict
from client.mapping.targets import TARGETS
from client.site import SiteConfig, load_site
from shared_model.errors import ConfigError
from shared_model.schema import TABLES

MANY = settings(max_examples=150)
MODELS = (SiteConfig, *(model for model in Strict.__subclasses__() if model.__module__.startswith("client.")))
KEYS = sorted({field.alias or name for model in MODELS for name, field in model.model_fields.items()})
WORDS = [
    *KEYS,
    "extends",
    "site.yaml",
    *(t.name for t in TABLES),
    *TARGETS,
    "mg/dL",
    "%d.%m.%Y",
    "Europe/Berlin",
    "first",
    "",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=20),
    st.text(alphabet="()[]{}*+?\\|.^$%:/~\0\n\u2028abc019-", max_size=12),
)
keys = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
texts = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="ab :-\n[]{}&*!|>'\"%@`#,?~0.1\t<=", max_size=80),
    st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")),
)
secret_keys = st.sampled_from(["password", "db_password", "PWD", "token", "api-key", "client_secret", "url", "dsn"])
addresses = st.sampled_from([f"postgresql://reader:{SECRET}@db/icu", f"x://:{SECRET}@h", f"Server=a;Pwd={SECRET};"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every example is written."""
    return tmp_path_factory.mktemp("site") / "site.yaml"


def loads_or_tells(file: Path, content: str) -> str:
    """What is told, or nothing. Any error but ConfigError fails the test."""
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        site = load_site(file)
    except ConfigError as error:
        told = str(error)
        assert told.startswith(f"{file}: ") and told.isprintable() and len(told) < 1200
        assert SECRET not in told and "pydantic" not in told
        return told
    assert isinstance(site, SiteConfig)
    assert (site.mapping is None) == (not site.sources)
    return ""


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, value in inner for found in ((*path, key), *_places(value, (*path, key)))]


def _holder(document: Document, path: tuple[Any, ...]) -> Any:
    node: Any = document
    for part in path[:-1]:
        node = node[part]
    return node


@st.composite
def mutated(draw: st.DrawFn) -> Document:
    """A right document in which a few things are replaced, renamed, taken away, moved or added."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(document)))
        holder, last = _holder(document, path), path[-1]
        action = draw(st.sampled_from(["replace", "take", "move", "rename", "add"]))
        if action == "replace":
            holder[last] = draw(documents)
        elif action == "take":
            del holder[last]
        elif action == "move":
            other = draw(st.sampled_from(_places(document)))
            holder[last] = copy.deepcopy(_holder(document, other)[other[-1]])
        elif isinstance(holder, dict):
            holder[draw(keys)] = holder.pop(last) if action == "rename" else draw(documents)
    return document


@MANY
@given(texts)
def test_any_text_is_read_or_told(file: Path, text: str) -> None:
    loads_or_tells(file, text)


@MANY
@given(st.dictionaries(keys, documents, max_size=5))
def test_any_document_is_read_or_told(file: Path, document: Document) -> None:
    loads_or_tells(file, json.dumps(document))
    loads_or_tells(file, yaml.safe_dump(document, allow_unicode=True))


@MANY
@given(mutated())
def test_any_change_of_a_right_document_is_read_or_told(file: Path, document: Document) -> None:
    loads_or_tells(file, json.dumps(document))


@MANY
@given(mutated(), st.data())
def test_a_secret_is_never_told(file: Path, document: Document, data: st.DataObject) -> None:
    mappings = [path for path in _places(document) if isinstance(_holder(document, path), dict)]
    path = data.draw(st.sampled_from(mappings or [("site",)]))
    holder = _holder(document, path)
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(addresses)
        assert loads_or_tells(file, json.dumps(document))
    else:
        holder[data.draw(secret_keys)] = data.draw(st.sampled_from([SECRET, [SECRET], {"a": SECRET}]))
        loads_or_tells(file, json.dumps(document))


@MANY
@given(
    st.sampled_from([*"*&!%@`'\"{[|>-?:,#=~<", "", "!!", "!x!", "'a' ", "*a ", "- ", ": ", "? ", "!<"]),
    st.sampled_from(["", "'", '"', "}", "]", " x", ": x", "!", "\n  y", "\nb: *a", "\0"]),
    st.integers(0, 30),
)
def test_a_secret_that_breaks_the_yaml_is_never_told(file: Path, before: str, after: str, line: int) -> None:
    lines = yaml.safe_dump(DOCUMENT).splitlines()
    indent = len(lines[line]) - len(lines[line].lstrip(" -"))
    lines.insert(line, f"{' ' * indent}password: {before}{SECRET}{after}")
    loads_or_tells(file, "\n".join(lines))
