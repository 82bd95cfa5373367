"""Which concept an unmapped code may be: by LOINC, or by a name that is nearly the concept's.

A suggestion is for a person to decide on, never applied. Short names must be met exactly: two letters are like
everything.
"""

import re
from dataclasses import dataclass
from functools import cache

from client.mapping.vocabulary import LOINC, NAMES

CUTOFF, SHORT = 86.0, 4


@dataclass(frozen=True)
class Suggestion:
    """A concept, why, and how sure (0 to 100)."""

    concept: str
    why: str
    score: float


def suggest(code: str, label: str = "") -> Suggestion | None:
    """The concept that a local code may be, by the code itself or the name that the extract gives it."""
    by_loinc = _loinc().get(code.strip())
    if by_loinc is not None:
        return Suggestion(by_loinc, "LOINC", 100.0)
    found = [hit for text in (label, code) if (hit := _by_name(_plain(text))) is not None]
    return max(found, key=lambda hit: hit.score, default=None)


def _by_name(text: str) -> Suggestion | None:
    from rapidfuzz import fuzz, process

    names = _names()
    if text in names:
        return Suggestion(names[text], f"called {text!r}", 100.0)
    if len(text) <= SHORT:
        return None
    longer = [name for name in names if len(name) > SHORT]
    best = process.extractOne(text, longer, scorer=fuzz.token_sort_ratio, score_cutoff=CUTOFF)
    return None if best is None else Suggestion(names[best[0]], f"like {best[0]!r}", round(best[1], 1))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^0-9a-zäöüß()]+", " ", text.lower()).split())


@cache
def _names() -> dict[str, str]:
    return {_plain(name): concept for concept, names in NAMES.items() for name in names}


@cache
def _loinc() -> dict[str, str]:
    return {code: concept for concept, codes in LOINC.items() for code in codes}
