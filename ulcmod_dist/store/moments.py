"""Mean and spread of every unit as values that merge: each shard keeps its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 256
"""Rows turned into float64 together, so that a block costs little memory beside itself."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of each unit over some samples.

    Attributes:
        count: Number of samples.
        mean: float64 [units].
        m2: float64 [units], sum over the samples of (a - mean)^2.
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def none(cls, units: int) -> Self:
        """The moments of no samples, which merging leaves others as they are."""
        return cls(0, np.zeros(units), np.zeros(units))

    @classmethod
    def of(cls, block: NDArray[np.floating]) -> Self:
        """The moments of a block [samples, units], in float64."""
        total = cls.none(block.shape[1])
        for start in range(0, block.shape[0], ROWS_AT_ONCE):
            part = block[start : start + ROWS_AT_ONCE].astype(np.float64)
            mean = part.mean(axis=0)
            part -= mean
            m2 = np.einsum("su,su->u", part, part)
            total = total.merge(cls(part.shape[0], mean, m2))
        return total

    def merge(self, other: Self) -> Self:
        """The moments of both sets of samples together (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        if other.count == 0 or self.count == 0:
            return self if other.count == 0 else other
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / count)
        return type(self)(count, mean, m2)

    def std(self) -> NDArray[np.float64]:
        """Standard deviation with n - 1; below 1e-8, or of one sample, it counts as 1."""
        if self.count < 2:
            return np.ones_like(self.mean)
        std: NDArray[np.float64] = np.sqrt(self.m2 / (self.count - 1))
        return np.where(std < 1e-8, 1.0, std)
