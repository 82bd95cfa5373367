"""Local codes become concepts: by code, by pattern, or by LOINC where the extract has it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb

from client import sepsis_rules
from client.mapping.account import CodeFound
from client.mapping.config import CodeSpec, EventMap
from client.mapping.domains import support_states, words_of
from client.mapping.mistakes import shown
from client.mapping.targets import TARGETS, Target
from client.mapping.texts import is_pattern, map_key, plain_code
from shared_model import concepts
from shared_model.errors import ConfigError

# The words by which the pipeline knows a state of breathing support, for sites that know the state and no device.
SUPPORT_WORDS = {(concept, status): words[0] for status, concept, words in reversed(sepsis_rules.VENTILATION_WORDS)}
_BEFORE_LOINC = re.compile(r"^.*[:|/]")  # LOINC:2160-0, http://loinc.org|2160-0
FEWEST_TO_TELL = 10  # rows, for a code or a unit to be named: it stands in many rows, a slip in few
INTUBATED = "intubated"
INTUBATED_WORD, INTUBATED_SCORE = "No Response-ETT", 1.0


@dataclass(frozen=True)
class Coded:
    """Where the values of a code go; ``number`` tells the destinations of an events entry apart. ``code``: the local
    code, where it is named and not found by a pattern or by LOINC."""

    number: int
    target: Target
    itemid: int
    spec: CodeSpec
    code: str | None = None

    @property
    def table(self) -> str:
        """The MIMIC-IV-style table."""
        return "chartevents" if self.itemid in self.target.bedside_items else self.target.table


class CodeBook:
    """The codes of one events entry, which stands at ``where``."""

    def __init__(self, use: EventMap, where: str) -> None:
        self.where = where
        self.coded = list(_coded(use))
        self.literal = {plain_code(coded.code): coded for coded in self.coded if coded.code is not None}
        self.patterns = [(str(coded.spec.pattern), coded) for coded in self.coded if coded.spec.pattern]
        self.by_loinc = self._by_loinc(use) if use.loinc else {}
        self.ignored = {plain_code(code) for code in use.ignore if not is_pattern(code)}
        self.ignored_patterns = [code[1:-1] for code in use.ignore if is_pattern(code)]
        self.matches: dict[str, frozenset[str]] = {}

    @property
    def numbered(self) -> dict[int, Coded]:
        """Every destination by its number."""
        return {coded.number: coded for coded in (*self.coded, *self.by_loinc.values())}

    def match(self, connection: duckdb.DuckDBPyConnection, codes: Iterable[str | None]) -> None:
        """Hold every pattern against the codes that there are, by DuckDB's regular expressions: they take linear time.

        Raises ConfigError for a pattern that they do not know.
        """
        texts = sorted({code for code in codes if code})
        for pattern in {*self.ignored_patterns, *(pattern for pattern, _ in self.patterns)}:
            query = "SELECT code FROM (SELECT unnest(?) AS code) WHERE regexp_full_match(code, ?, 'is')"
            try:
                found = connection.execute(query, [texts, pattern]).fetchall() if texts else []
            except duckdb.Error:
                raise ConfigError(
                    f"{self.where}: {shown(pattern)} is no regular expression of DuckDB (no look-around, no references)"
                ) from None
            self.matches[pattern] = frozenset(code for (code,) in found)

    def look_up(self, code: str | None, loinc: str | None, rows: int = 0) -> Coded | None:
        """The destination of a code that stands in ``rows`` rows. A code that is named wins over patterns, a pattern of
        what is mapped over one of what is not. Raises ConfigError when patterns make it two concepts."""
        text = code or ""
        if text in self.literal or text in self.ignored:
            return self.literal.get(text)
        found = [coded for pattern, coded in self.patterns if text in self.matches[pattern]]
        if len({coded.target.name for coded in found}) > 1:
            names = " and ".join(sorted({coded.target.name for coded in found}))
            named = f"code {shown(text)}" if rows >= FEWEST_TO_TELL else "a code"
            raise ConfigError(f"{self.where}.codes: {named} is mapped twice, by patterns of {names}")
        return found[0] if found else self.by_loinc.get(_BEFORE_LOINC.sub("", loinc or "").strip())

    def is_ignored(self, code: str | None) -> bool:
        """Whether the config knows the code and does not want it."""
        text = code or ""
        return text in self.ignored or any(text in self.matches[pattern] for pattern in self.ignored_patterns)

    def found(self, code: str | None, loinc: str | None, label: str | None, rows: int) -> CodeFound:
        """For the report."""
        coded = self.look_up(code, loinc, rows)
        return CodeFound(
            step=self.where,
            code=code or loinc or "",
            label=label or "",
            rows=rows,
            concept=coded.target.name if coded else None,
            ignored=coded is None and self.is_ignored(code),
        )

    def _by_loinc(self, use: EventMap) -> dict[str, Coded]:
        first = len(self.coded)
        targets = [t for t in TARGETS.values() if t.loinc and not t.word]
        return {
            code: Coded(first + number, target, target.items[0], CodeSpec(code=[]))
            for number, target in enumerate(targets)
            for code in target.loinc
        }


def _coded(use: EventMap) -> Iterator[Coded]:
    """Destinations of codes and of patterns. The codes of a concept are dealt over its items, so that two devices that
    show the same value at the same time stay two rows."""
    number = 0
    for concept, specs in use.codes.items():
        target, dealt = TARGETS[concept], 0
        for spec in specs:
            items = target.bedside_items if spec.bedside and target.bedside_items else target.items
            for code in [None] if spec.code is None else spec.code:
                yield Coded(number, target, items[min(dealt, len(items) - 1)], spec, code)
                number, dealt = number + 1, dealt + 1


def word_rows(coded: Coded, where: str) -> Iterator[tuple[int, str, float | None, str | None]]:
    """The value map of a destination: its number, the text in lower case, the number or the word that it stands for."""
    for text, value in (coded.spec.map or {}).items():
        key = map_key(text)
        if coded.target.word:
            yield coded.number, key, None, None if value is None else _word(coded.target.name, str(value), where)
        elif value == INTUBATED and coded.target.name == "gcs_verbal":
            yield coded.number, key, INTUBATED_SCORE, INTUBATED_WORD
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield coded.number, key, None if value is None else float(value), None
        else:
            name = coded.target.name
            raise ConfigError(f"{where}.codes.{name}.map: {value!r} is no number, and {name} is measured in numbers")


def _word(concept: str, value: str, where: str) -> str:
    """The word itself, or the one that stands for a state of breathing support."""
    states, words = support_states(concept), words_of(concept)
    if states and value not in states and value not in words:
        other = "; map it to oxygen_device" if value in concepts.VENTILATION_LEVELS else ""
        raise ConfigError(
            f"{where}.codes.{concept}.map: {concept} does not tell {shown(value)}{other}; it tells {', '.join(states)}"
            f" or a word of MIMIC-IV such as {words[0]}"
        )
    return SUPPORT_WORDS.get((concept, value), value)
