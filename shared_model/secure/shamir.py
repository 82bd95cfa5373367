"""Shamir's secret sharing (1979, doi 10.1145/359168.359176) of 32-byte secrets over the integers modulo 2^521 - 1.

Why not Flower's: it shares block by block in GF(2^128) with a padding block, and importing it costs each message a
quarter of a second. A Mersenne prime and Python's integers do the same in twenty lines.
"""

import secrets
from collections.abc import Mapping

PRIME = 2**521 - 1
SECRET_BYTES, SHARE_BYTES = 32, 66


def split(secret: bytes, threshold: int, places: int) -> list[bytes]:
    """Shares at 1 .. ``places``; any ``threshold`` of them give the secret back, fewer tell nothing of it. The
    polynomial is drawn from the operating system's entropy."""
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= places:
        raise ValueError(f"a {len(secret)}-byte secret, {threshold} of {places} shares")
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_at(coefficients, place).to_bytes(SHARE_BYTES) for place in range(1, places + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from shares by place. Raises ValueError when they are no shares of one; too few, or a changed one,
    give another secret or this error."""
    points = {place: int.from_bytes(share) for place, share in shares.items()}
    if (
        not points
        or min(points) < 1
        or max(points.values()) >= PRIME
        or any(len(s) != SHARE_BYTES for s in shares.values())
    ):
        raise ValueError("no shares")
    total = 0
    for place, value in points.items():
        above = below = 1
        for other in points:
            if other != place:
                above, below = above * other % PRIME, below * (other - place) % PRIME
        total = (total + value * above * pow(below, -1, PRIME)) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("the shares belong to no secret")
    return total.to_bytes(SECRET_BYTES)


def _at(coefficients: list[int], place: int) -> int:
    """Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % PRIME
    return value
