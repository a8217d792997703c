"""The smallest values of a report: numbers with intervals, facts, and why something is absent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Absent:
    """Stands where a part of the report would be.

    Attributes:
        reason: Why the part is not there, as one full sentence.
    """

    reason: str


@dataclass(frozen=True)
class Fact:
    """One labelled fact, such as a version or a digest."""

    label: str
    value: str


@dataclass(frozen=True)
class Interval:
    """A number with the interval that its seeds, folds or bootstrap draws support.

    Attributes:
        mean: The number itself.
        low: Lower end of the interval, or None where only one value was measured.
        high: Upper end of the interval, or None likewise.
    """

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Score:
    """The objective L = xi * B of one set of modules (DESIGN equations L, xi and B).

    Attributes:
        value: Objective L.
        xi: Activation modularity.
        balance: Harmonic mean of the modules' block sizes.
    """

    value: float
    xi: float
    balance: float
