"""What a metric reads without any model: the value to hold a result against."""

from __future__ import annotations

import math


def ideal_uniqueness(population: int, draws: int) -> float:
    """Expected share of distinct molecules among ``draws`` from a sampler that is perfect.

    Drawing n times uniformly, with replacement, from N molecules gives N (1 - exp(-n / N)) distinct ones. A
    model of an exhaustive set such as QM9 that is more unique than this has left its distribution.

    Raises:
        ValueError: ``population`` or ``draws`` is not positive.
    """
    if population <= 0 or draws <= 0:
        raise ValueError(f"population and draws must be positive, got {population} and {draws}")
    return -math.expm1(-draws / population) * population / draws
