"""The smallest values of a report: numbers with intervals, facts, and why something is absent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Absent:
    """Stands where a part of the report would be."""

    reason: str  # why the part is not there, as one full sentence


@dataclass(frozen=True)
class Fact:
    """One labelled fact, such as a version or a digest."""

    label: str
    value: str


@dataclass(frozen=True)
class Interval:
    """A number with the interval that its seeds, folds or bootstrap draws support."""

    mean: float  # the number itself
    low: float | None = None  # lower end of the interval, or None where only one value was measured
    high: float | None = None  # upper end of the interval, or None likewise


@dataclass(frozen=True)
class Repeats:
    """A number measured in repeats, such as with several seeds: shown one by one, never smoothed.

    Two or three values support no interval of their mean that keeps to what is possible: Student's
    ran below zero for accuracies. So the range is given, which holds for any number of them.
    """

    values: tuple[float, ...]  # one a repeat, at least one

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return float(np.mean(self.values))

    @property
    def low(self) -> float | None:
        """The least value; None for a single one."""
        return min(self.values) if len(self.values) > 1 else None

    @property
    def high(self) -> float | None:
        """The greatest value; None for a single one."""
        return max(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Objective:
    """The objective L(F) = xi(F) * B(F) of one set of modules.

    Attributes:
        xi: Activation modularity, the mean z inside the modules.
        balance: Harmonic mean B of the module sizes `|S_k||U_k|` over all K.
    """

    xi: float
    balance: float

    @property
    def value(self) -> float:
        """L(F) = xi(F) * B(F)."""
        return self.xi * self.balance


def divide(
    values: Counts | Floats, divisors: Counts | Floats, missing: float = float("nan")
) -> Floats:
    """Return quotients, and ``missing`` where a divisor is not positive."""
    out = np.full(np.broadcast_shapes(values.shape, divisors.shape), missing)
    quotients: Floats = np.divide(values, divisors, out=out, where=divisors > 0)
    return quotients


def share_rows(counts: Counts | Floats) -> Floats:
    """Return each row divided by its sum; empty rows stay zero."""
    return divide(counts, counts.sum(axis=1, keepdims=True), missing=0.0)
