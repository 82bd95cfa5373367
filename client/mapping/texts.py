"""How the YAML may write what stands in the data as text: a code 12, a list of one, a value map with numbers as keys.

What a file may write, where that is more than the type says, stands beside each short form's validator: the JSON Schema
takes it from there.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

Scalar = bool | int | float | str
_WHOLE = re.compile(r"^(-?[0-9]+)\.0+$")


def plain_code(text: str) -> str:
    """A local code as it is compared: without outer blanks, 12.0 as 12."""
    return _WHOLE.sub(r"\1", text.strip())


def is_pattern(code: str) -> bool:
    """Whether an entry of `ignore` is a regular expression, written between slashes."""
    return len(code) > 2 and code.startswith("/") and code.endswith("/")


def map_key(text: str) -> str:
    """A text of a value map as it is compared: without case as well."""
    return plain_code(text).lower()


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> Any:
    return {str(_as_text(key)): held for key, held in value.items()} if isinstance(value, dict) else value


def _once(value: dict[str, Any]) -> dict[str, Any]:
    keys = [map_key(key) for key in value]
    if len(keys) > len(set(keys)):
        raise ValueError("has a text twice; case and outer blanks do not count")
    return value


def _as_delimiter(value: Any) -> Any:
    return "\t" if value == "\\t" else value


def _known_encoding(name: str) -> str:
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise ValueError("no text encoding that Python knows; write such as utf-8, latin-1 or cp1252") from None
    return name


Text = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int | float)]
TextList = Annotated[list[Text], BeforeValidator(_as_list, json_schema_input_type=Text | list[Text])]
ValueMap = Annotated[dict[str, Scalar | None], BeforeValidator(_texts), AfterValidator(_once)]
Delimiter = Annotated[str, Field(min_length=1, max_length=1), BeforeValidator(_as_delimiter)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
