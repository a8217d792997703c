"""Numbers with the interval that their seeds or bootstrap draws support."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ulcmod_dist.results.types import Interval

LEVEL = 0.95
"""Probability that every interval covers."""


def over_seeds(
    values: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> Interval:
    """Mean of independent runs with Student's interval of the mean; none for a single run.

    Args:
        values: One value a run.
        least: Smallest value that is possible: on few runs the interval reaches beyond it.
        most: Largest value that is possible.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean)
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * spread
    return Interval(mean, max(least, mean - reach), min(most, mean + reach))


def over_draws(value: float, draws: NDArray[np.float64]) -> Interval:
    """A measured value with the central interval of its bootstrap draws."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
