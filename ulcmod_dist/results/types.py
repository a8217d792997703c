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
