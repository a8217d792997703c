"""Mean and deviation of every unit, and the standardisation by them."""

from typing import Any

import dask.array as da
import numpy as np

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
    MIN_STD,
    AnyArray,
    Moments,
    Standardised,
    as_standardised,
)
from ulcmod_dist.runtime.text import count

# Where a mean is so many standard deviations, float64 leaves z six digits.
_MAX_OFFSET = 1e9

BLOCK_BYTES = 64 * 2**20
"""Size in float32 of the rows whose moments are computed together."""
MAX_BLOCK_ROWS = 2**17

# Untyped in Dask.
_dask: Any = da


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
