"""Standardised activations: raw numbers with the statistics that standardise them."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput

FloatArray: TypeAlias = NDArray[np.float64]
LabelArray: TypeAlias = NDArray[np.integer[Any]]
# Dask arrays carry no element type that mypy could check.
AnyArray: TypeAlias = Any


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
    raw = activations if isinstance(activations, da.Array) else np.asarray(activations)
    if any(np.isnan(length) for length in raw.shape):
        raise InvalidInput(
            f"The Dask array has chunks of unknown size: its shape is {raw.shape}.",
            "Call its method compute_chunk_sizes first.",
        )
    units = raw.shape[1] if raw.ndim == 2 else 0
    return Standardised(raw, np.zeros(units), np.ones(units))
