"""Random numbers that nobody can foresee, for noise and coins that protect: the operating system's entropy, byte by
byte.

Not the run's seed: both sides know it. Not a ``torch.Generator``: on a CPU it keeps 32 bits of its seed, which can be
tried one by one, and its later numbers follow from earlier ones.
"""

import os
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Entropy = Callable[[int], bytes]  # how many -> bytes


def entropy_of(number: int | None) -> Entropy:
    """The operating system's; with a number a repeatable one, for tests: what can be foreseen hides nothing."""
    return os.urandom if number is None else random.Random(number).randbytes  # noqa: S311 - for tests alone


def uniform(source: Entropy, count: int) -> NDArray[np.float64]:
    """[count] in [0, 1), multiples of 2^-53."""
    return np.asarray((np.frombuffer(source(8 * count), dtype=np.uint64) >> np.uint64(11)) * 2.0**-53)


def gaussian(source: Entropy, count: int) -> NDArray[np.float64]:
    """[count] standard normal numbers in double precision, by the transform of Box & Muller 1958 (doi
    10.1214/aoms/1177706645). The largest possible is 8.6, which real ones pass with a probability of 1e-17."""
    first, second = uniform(source, 2 * (-(-count // 2))).reshape(2, -1)
    radius, angle = np.sqrt(-2.0 * np.log1p(-first)), 2.0 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
