"""Columns and concepts that know a few values only, so that another is refused and does not silently mean nothing."""

from client import sepsis_rules
from client.mapping.texts import Scalar
from shared_model import concepts

DOMAINS: dict[str, tuple[Scalar, ...]] = {
    "gender": ("F", "M", "unknown"),
    "hospital_expire_flag": (0, 1),
    "icd_version": (9, 10),
}


def support_states(concept: str) -> tuple[str, ...]:
    """States of breathing support that the words of a concept tell; empty for another concept."""
    told = {status for status, name, _ in sepsis_rules.VENTILATION_WORDS if name == concept}
    return tuple(state for state in concepts.VENTILATION_LEVELS if state in told)


def words_of(concept: str) -> tuple[str, ...]:
    """The words of a concept of breathing support that mean something, as MIMIC-IV writes them; empty for another."""
    return tuple(word for _, name, words in sepsis_rules.VENTILATION_WORDS if name == concept for word in words)
