"""Mean and deviation of every unit, and the standardisation by them."""

from dataclasses import dataclass
from typing import Any, Self

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.linalg import raise_not_finite
from ulcmod_dist.passes.shares import (
    Blocks,
    Layout,
    Share,
    block_slices,
    common_blocks,
    cut_shares,
)
from ulcmod_dist.passes.standardised import (
    AnyArray,
    Standardised,
    as_standardised,
)
from ulcmod_dist.runtime.text import count

MIN_STD = 1e-8
"""Standard deviation below which a unit counts as constant."""

# Where a mean is so many standard deviations, float64 leaves z six digits.
_MAX_OFFSET = 1e9

BLOCK_BYTES = 64 * 2**20
"""Size in float32 of the rows whose moments are computed together."""
MAX_BLOCK_ROWS = 2**17

# Untyped in Dask.
_dask: Any = da

ROWS_AT_ONCE = 256
"""Rows converted to float64 at a time, which bounds the memory beside the block itself."""


@dataclass(frozen=True)
class Moments:
    """Count, mean [units] and ``m2`` [units], the sum of (a - mean)^2, over some samples."""

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def none(cls, units: int) -> Self:
        """The moments of no samples, the neutral element of `merge`."""
        return cls(0, np.zeros(units), np.zeros(units))

    @classmethod
    def of(cls, block: NDArray[np.floating]) -> Self:
        """The moments of a block [samples, units], in float64."""
        total = cls.none(block.shape[1])
        for start in range(0, block.shape[0], ROWS_AT_ONCE):
            part = block[start : start + ROWS_AT_ONCE].astype(np.float64)
            # The computed mean of a large constant may be off by rounding above MIN_STD.
            constant = (part == part[0]).all(axis=0)
            mean = np.where(constant, part[0], part.mean(axis=0))
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
        return np.where(self.varies(), np.sqrt(self.m2 / max(1, self.count - 1)), 1.0)

    def varies(self) -> NDArray[np.bool_]:
        """Whether each unit's standard deviation is at least 1e-8 [units]."""
        if self.count < 2:
            return np.zeros(self.mean.shape, bool)
        return np.asarray(np.sqrt(self.m2 / (self.count - 1)) >= MIN_STD)


def standardize(activations: AnyArray, executor: Executor) -> Standardised:
    """Standardise a matrix [samples, units] as a run does, by one pass over it.

    z[s,u] = (a[s,u] - mean_u) / std_u over all samples, the standard deviation with n - 1; below
    1e-8 it counts as 1.

    Raises:
        InvalidInput: Not a matrix of finite floats, one that is standardised already, one of which
            no unit varies, or one whose numbers are too large for its variation.
    """
    if isinstance(activations, Standardised):
        raise InvalidInput("The activations are standardised already.", "Leave standardize out.")
    given = as_standardised(activations)
    moments = _compute_moments(given.raw, executor)
    if not np.isfinite(moments.mean).all():
        raise_not_finite(given, executor)
    mean, std = moments.mean, moments.std()
    finite = np.isfinite(moments.m2)
    fits = finite & (np.abs(mean) <= _MAX_OFFSET * std)
    unfit = ~(fits | (finite & ~moments.varies()))
    if unfit.any():
        unit = int(np.argmax(unfit))
        raise InvalidInput(
            f"Unit {unit} has mean {mean[unit]:.6g} and standard deviation {std[unit]:.3g}, which "
            "float64 cannot standardise.",
            "Subtract a constant from the unit, or divide it by one.",
        )
    require_variation(moments)
    return Standardised(given.raw, mean, std)


def require_variation(moments: Moments) -> None:
    """Require train samples, and a unit that varies over them.

    Raises:
        InvalidInput: There are none: z is zero everywhere, and any modules are as good as others.
    """
    if moments.count == 0:
        raise InvalidInput(
            "There are no train samples, among which modules are found.",
            "Give some samples the split train.",
        )
    if not moments.varies().any():
        raise InvalidInput(
            f"No unit of {len(moments.mean):,} varies over {count(moments.count, 'train sample')} "
            f"(a standard deviation below {MIN_STD:g} counts as none), so there are no modules to "
            "find.",
            "Give more samples, or multiply tiny activations by a constant.",
        )


def count_block_rows(units: int) -> int:
    """Rows whose moments are computed together, as in a shard of an imported matrix."""
    return min(MAX_BLOCK_ROWS, max(1, BLOCK_BYTES // (4 * units)))


def _compute_moments(raw: AnyArray, executor: Executor) -> Moments:
    """Moments of a matrix, to the bit those of the shards of an import."""
    height = count_block_rows(raw.shape[1])
    if not isinstance(raw, da.Array):
        raw = _dask.from_array(raw, chunks=(height, -1))
    raw = raw.rechunk({0: height})
    rows, columns = (dict(enumerate(side)) for side in block_slices(raw))
    layout = Layout(rows, columns, [range(n, n + 1) for n in rows], [range(len(columns))])
    shares, total = cut_shares(raw, layout, layout.places), Moments.none(raw.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for moments in executor.map(_measure_share, shares, common_blocks(raw)):
            total = total.merge(moments)
    return total


def _measure_share(share: Share, common: Blocks | None) -> Moments:
    blocks = share.blocks or common
    assert blocks is not None
    # What is not finite is refused by name.
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [Moments.of(blocks[share.rows[0], column]) for column in share.columns]
    mean, m2 = (np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "m2"))
    return Moments(parts[0].count, mean, m2)
