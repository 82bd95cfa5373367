"""Vectors whose sums wrap around: weights modulo 2^32, exact integers modulo 2^128.

Why two rings: a weight is rounded anyway, and a model has millions; power sums of a large site pass 64 bits, must stay
exact, and are a few thousand. A mask is uniform in the ring, so a masked vector is, too, whatever it hides.

``words_P`` has the weights of all arrays in a row; ``limbs_K2`` has a low and a high 64-bit half of each integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared_model.errors import ContractError

WORD_BYTES, LIMBS_BYTES = 4, 16
WORD_LIMIT = 2**31  # words stand for -2^31 .. 2^31 - 1
INTEGER_LIMIT = 2**127


@dataclass(frozen=True)
class Vector:
    """What one site adds, masked or not, and what all of them add up to."""

    words_P: NDArray[np.uint32]
    limbs_K2: NDArray[np.uint64]

    @classmethod
    def of(cls, words: NDArray[np.int64], integers: Sequence[int]) -> "Vector":
        """From signed numbers. Raises ValueError when one does not fit: nothing wraps but masks."""
        if words.size and not -WORD_LIMIT <= int(words.min()) <= int(words.max()) < WORD_LIMIT:
            raise ValueError("a word does not fit 32 bits")
        if not all(-INTEGER_LIMIT <= value < INTEGER_LIMIT for value in integers):
            raise ValueError("an integer does not fit 128 bits")
        raw = b"".join(value.to_bytes(LIMBS_BYTES, "little", signed=True) for value in integers)
        return cls(words.astype(np.int32).view(np.uint32), _limbs(raw))

    @classmethod
    def from_bytes(cls, raw: bytes, words: int) -> "Vector":
        """The first ``words`` words, then integers: a mask from a key stream."""
        cut = words * WORD_BYTES
        return cls(np.frombuffer(raw, dtype="<u4", count=words), _limbs(raw[cut:]))

    @property
    def size(self) -> tuple[int, int]:
        """Words and integers."""
        return len(self.words_P), len(self.limbs_K2)

    @property
    def nbytes(self) -> int:
        """Of both parts."""
        return int(self.words_P.nbytes + self.limbs_K2.nbytes)

    def __add__(self, other: "Vector") -> "Vector":
        self._check(other)
        low_K = self.limbs_K2[:, 0] + other.limbs_K2[:, 0]
        carry_K = (low_K < other.limbs_K2[:, 0]).astype(np.uint64)
        high_K = self.limbs_K2[:, 1] + other.limbs_K2[:, 1] + carry_K
        return Vector(self.words_P + other.words_P, np.stack([low_K, high_K], axis=1))

    def __sub__(self, other: "Vector") -> "Vector":
        self._check(other)
        low_K = self.limbs_K2[:, 0] - other.limbs_K2[:, 0]
        borrow_K = (self.limbs_K2[:, 0] < other.limbs_K2[:, 0]).astype(np.uint64)
        high_K = self.limbs_K2[:, 1] - other.limbs_K2[:, 1] - borrow_K
        return Vector(self.words_P - other.words_P, np.stack([low_K, high_K], axis=1))

    def words(self) -> NDArray[np.int32]:
        """The weights as signed numbers."""
        return self.words_P.view(np.int32)

    def integers(self) -> list[int]:
        """The exact integers, signed."""
        raw = np.ascontiguousarray(self.limbs_K2).astype("<u8").tobytes()
        return [
            int.from_bytes(raw[n : n + LIMBS_BYTES], "little", signed=True) for n in range(0, len(raw), LIMBS_BYTES)
        ]

    def _check(self, other: "Vector") -> None:
        if self.size != other.size:
            raise ContractError(f"secure aggregation: vectors of {self.size} and {other.size} numbers")


def bytes_for(size: tuple[int, int]) -> int:
    """How long a key stream masks a vector of that size."""
    words, integers = size
    return words * WORD_BYTES + integers * LIMBS_BYTES


def _limbs(raw: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
