"""How a mistake in a site's YAML is told: one line, the key, the rule, and the nearest word that would be right.

Why with care: the line is read by whoever runs the command and may end in a log, so a value is shown only where it is a
name that the file can have wrong (a column, a relation, a code), shortened, and never as it would break the line.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from shared_model.errors import MissingColumnError, printable
from shared_model.study import rule_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

LONGEST_VALUE, LONGEST_LINE = 80, 1000
FEW, SOME = 12, 30
_KINDS = {
    "NoneType": "nothing",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "`key: value` pairs",
}
_WANTED = "input should be "
_ALTERNATIVES = ("list[str]", "dict[str,str]")  # how pydantic names them, where a file has no word for them


def one_line(text: str) -> str:
    """The text as one line that every terminal can print."""
    line = printable(text)
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def shortened(value: str) -> str:
    """No longer than a name that anybody reads."""
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 3]}..."


def shown(value: str) -> str:
    """A name in quotes, shortened."""
    return repr(shortened(value))


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message: the nearest known name, and all of them where they are few."""
    names = list(known)
    lower = {held.lower(): held for held in reversed(names)}
    close = get_close_matches(name[:LONGEST_VALUE].lower(), lower, n=1)
    if not close:
        return f"; there are {', '.join(names)}" if 0 < len(names) <= SOME else ""
    others = f" There are {', '.join(names)}" if len(names) <= FEW else ""
    return f"; is it {lower[close[0]]!r}?{others}"


def check_columns(wanted: set[str], held: list[str], where: str) -> None:
    """Raises MissingColumnError that lists the columns there are."""
    lower = {name.lower(): name for name in held}
    for name in sorted(wanted):
        if name.lower() not in lower:
            close = get_close_matches(name.lower(), lower, n=1, cutoff=0.75)
            hint = f"; is it {lower[close[0]]!r}?" if close else "."
            if any(map(_looks_like_value, held)):  # a file without a header line would tell its first row
                told = "Its header holds numbers: is it a header? If there is none, name the columns: `csv.columns`"
                raise MissingColumnError(f"{where}: no column {name!r}. {told}")
            raise MissingColumnError(f"{where}: no column {name!r}{hint} It has: {', '.join(held)}")


def _looks_like_value(name: str) -> bool:
    """Whether a column's name is a number, a date or an identifier with many digits, as in a row."""
    return bool(re.fullmatch(r"[-+]?[0-9]+([.,:/-][0-9]+)*|.*[0-9]{5,}.*", name.strip()))


def told(errors: "list[ErrorDetails]", model: type[BaseModel], more: Iterable[str] = ()) -> str:
    """The first mistake that validation found, as `key: rule`. ``more``: keys that a file may have beside the model's.

    A key that is unknown comes first: it often is why another is absent.
    """
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    location = _in_file(first, model)
    if first["type"] == "extra_forbidden":
        known = [*_keys(_place(location[:-1], model)), *(more if len(location) == 1 else ())]
        rule = f"unknown key{nearest(str(location[-1]), known)}"
        if first["input"] is None and len(location) > 1:
            rule = "unknown key without a value; between { } a text that holds a comma needs quotes"
    else:
        rule = _rules([error for error in errors if _in_file(error, model) == location])
    return f"{_path(location)}: {rule}" if location else rule


def _rules(errors: "list[ErrorDetails]") -> str:
    """The rule; the alternatives of a value that may be of several kinds are one rule. A number is shown, a text is
    not: it may be anything."""
    rules = list(dict.fromkeys(_rule(error) for error in errors))
    both = all(rule.startswith(_WANTED) for rule in rules)
    rule = _WANTED + " or ".join(rule.removeprefix(_WANTED) for rule in rules) if both else rules[0]
    value, kind = errors[0]["input"], errors[0]["type"]
    if kind.endswith("_type"):
        return f"{rule}, not {_KINDS.get(type(value).__name__, 'a number')}"
    return f"{rule}, not {str(value)[:LONGEST_VALUE]}" if isinstance(value, int | float) and both else rule


def _rule(error: "ErrorDetails") -> str:
    if error["type"] in ("model_type", "dict_type"):
        return f"{_WANTED}a valid dictionary, `key: value` pairs"
    if error["type"] == "path_type":
        return f"{_WANTED}a path"
    if error["type"] == "string_pattern_mismatch":
        return f"{_WANTED}a name of letters, digits and _"
    return rule_of(error)


def _in_file(error: "ErrorDetails", model: type[BaseModel]) -> tuple[int | str, ...]:
    """Where a mistake stands, without the words that only validation knows (which alternative of several it tried)."""
    kept: list[int | str] = []
    place: Any = model
    for number, part in enumerate(error["loc"], start=1):
        inner = _inside(place, part)
        named = inner is not None or (number == len(error["loc"]) and error["type"] == "extra_forbidden")
        if named and part not in _ALTERNATIVES:
            kept.append(part)
            place = inner
    return tuple(kept)


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _place(location: tuple[int | str, ...], model: type[BaseModel]) -> Any:
    place: Any = model
    for part in location:
        place = _inside(place, part)
    return place


def _inside(annotation: Any, part: int | str) -> Any:
    """The annotation of what stands under a key or a number; None where there is none."""
    for kind in alternatives(annotation):
        if isinstance(part, int) and get_origin(kind) in (list, tuple):
            return get_args(kind)[0]
        if isinstance(part, str) and get_origin(kind) is dict:
            return get_args(kind)[1]
        if isinstance(part, str) and part in (keys := _keys(kind)):
            return keys[part]
    return None


def _keys(annotation: Any) -> dict[str, Any]:
    """The keys of a model, or of the model among alternatives, each with its own annotation."""
    for kind in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return {field.alias or name: _written(field) for name, field in kind.model_fields.items()}
    return {}


def _written(field: "FieldInfo") -> Any:
    """What a file may write for a field: a short form's validator says more than the field's type."""
    forms = [kind for part in field.metadata if isinstance(kind := getattr(part, "json_schema_input_type", None), type)]
    return forms[0] if forms and issubclass(forms[0], BaseModel) else field.annotation


def alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, without what is said beside them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from alternatives(part)
    else:
        yield annotation
