"""Numbers as the report writes them: one way for each, a true minus sign, and words where there is no number."""

import math
from typing import TypeGuard

from server.results import Estimate

MISSING = "n/a"
NBSP, DASH, MINUS = "\u00a0", "\u2013", "\u2212"


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to print; a diverged loss is a NaN, and is none."""
    return value is not None and math.isfinite(value)


def number(value: float | None, places: int = 3) -> str:
    """A decimal with a true minus sign, or 'n/a'."""
    return f"{value:.{places}f}".replace("-", MINUS) if known(value) else MISSING


def digits(value: float | None) -> str:
    """Four significant digits, for figures whose magnitude is not known beforehand."""
    return f"{value:.4g}".replace("-", MINUS) if known(value) else MISSING


def count(value: int | None, missing: str = MISSING) -> str:
    return missing if value is None else f"{value:,}"


def share(part: float | None, whole: float | None) -> str:
    """A percentage with one decimal; 'n/a' of nothing."""
    return MISSING if part is None or not whole else f"{100 * part / whole:.1f}{NBSP}%"


def size(number_of_bytes: int) -> str:
    """Bytes in decimal units, as networks are sold."""
    value, units = float(number_of_bytes), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 999.5 and unit != "GB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f}{NBSP}{unit}" if unit == "B" or value >= 99.95 else f"{value:.1f}{NBSP}{unit}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 120:
        return f"{seconds:.0f}{NBSP}s"
    return f"{minutes}{NBSP}min" if not hours else f"{hours}{NBSP}h {minutes - 60 * hours}{NBSP}min"


def interval(estimate: Estimate | None, places: int = 3) -> str:
    """The 95 % interval in parentheses, or nothing where there is none."""
    if not estimate or not all(known(value) for value in (estimate.value, estimate.low, estimate.high)):
        return ""
    between = " to " if estimate.low is not None and estimate.low < 0 else DASH
    return f"({number(estimate.low, places)}{between}{number(estimate.high, places)})"


def undefined(patients: int, deaths: int) -> str:
    """Why an AUROC is not defined: it compares those who died with those who lived."""
    if not patients:
        return "not defined: no patients"
    if not deaths:
        return "not defined: no deaths"
    return "not defined: no survivors" if deaths == patients else "not defined"
