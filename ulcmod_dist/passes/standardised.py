"""Standardised activations: raw numbers with the statistics that standardise them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput

FloatArray: TypeAlias = NDArray[np.float64]
LabelArray: TypeAlias = NDArray[np.integer[Any]]
# Dask arrays carry no element type that mypy could check.
AnyArray: TypeAlias = Any

MIN_STD = 1e-8
"""Standard deviation below which a unit counts as constant."""

ROWS_AT_ONCE = 256
"""Rows converted to float64 at a time, which bounds the memory beside the block itself."""
_COLUMNS_AT_ONCE = 1024  # converted, they stay in a core's cache


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
    def of(cls, block: NDArray[np.floating], apply: Callable[..., Iterable[Self]] = map) -> Self:
        """The moments of a block [samples, units], in float64, of its parts as ``apply`` does."""
        # At least so wide: NumPy sums the rows of a single column in another order.
        parts = np.array_split(block, max(1, block.shape[1] // _COLUMNS_AT_ONCE), axis=1)
        moments = list(apply(cls._of_columns, parts))
        mean, m2 = (
            np.concatenate(each) for each in zip(*((m.mean, m.m2) for m in moments), strict=True)
        )
        return cls(block.shape[0], mean, m2)

    @classmethod
    def _of_columns(cls, block: NDArray[np.floating]) -> Self:
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


@dataclass(frozen=True, eq=False)
class Standardised:
    """Activations z[s,u] = (raw[s,u] - mean[u]) / std[u], as raw values and statistics.

    Attributes:
        raw: NumPy or Dask array of floats [samples, units].
        mean: Mean of each unit over the train samples, float64 [units].
        std: Standard deviation of each unit (n-1) over the train samples, float64 [units]; one
            where it was below 1e-8.

    Raises:
        InvalidInput: The parts do not fit together.
    """

    raw: AnyArray
    mean: FloatArray
    std: FloatArray

    def __post_init__(self) -> None:
        # numba knows floats up to eight bytes.
        dtype = np.dtype(self.raw.dtype)
        if self.raw.ndim != 2 or dtype.kind != "f" or dtype.itemsize > 8:
            raise InvalidInput(
                f"Activations are floats [samples, units], not {self.raw.dtype} of shape "
                f"{self.raw.shape}."
            )
        if not self.mean.shape == self.std.shape == (self.n_units,):
            raise InvalidInput(
                f"{self.n_units} units need as many means and standard deviations, not "
                f"{self.mean.shape} and {self.std.shape}."
            )
        if np.any(self.std <= 0):
            unit = int(np.argmax(self.std <= 0))
            raise InvalidInput(
                f"The standard deviation of unit {unit} is {self.std[unit]}, not positive."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and units."""
        return self.n_samples, self.n_units

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return int(self.raw.shape[0])

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.raw.shape[1])

    @property
    def weights(self) -> FloatArray:
        """1 / std [units]."""
        return 1.0 / self.std


def as_standardised(activations: AnyArray) -> Standardised:
    """Activations used as given, with mean 0 and standard deviation 1; a `Standardised` as it is.

    Raises:
        InvalidInput: Not a matrix of floats, or one with masked entries or unknown chunks.
    """
    if isinstance(activations, Standardised):
        return activations
    if np.ma.is_masked(activations):
        raise InvalidInput(
            "The activations have masked entries, whose values are unknown.",
            "Fill them, or leave their samples out.",
        )
    # Not above: what only opens a run does without Dask, which takes most of a second to import.
    import dask.array as da

    raw = activations if isinstance(activations, da.Array) else np.asarray(activations)
    if any(np.isnan(length) for length in raw.shape):
        raise InvalidInput(
            f"The Dask array has chunks of unknown size: its shape is {raw.shape}.",
            "Call its method compute_chunk_sizes first.",
        )
    units = raw.shape[1] if raw.ndim == 2 else 0
    return Standardised(raw, np.zeros(units), np.ones(units))
