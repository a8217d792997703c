"""Where the modules are: over the categories of the samples and over the layers of the units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.results.types import Absent

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CategorySpread:
    """Modules over categories (function comprehensiveness).

    Attributes:
        names: Names of the C categories, sorted.
        counts: Samples with a category, module by category, shape (K, C).
        breadth: Effective number of categories of each module, exp of the entropy of its mix:
            1 for a single category, C for an even mix, 0 for a module without such samples.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    breadth: Floats


@dataclass(frozen=True, eq=False)
class LayerSpread:
    """Modules over layers (spatial arrangement).

    Attributes:
        counts: Units, module by layer, shape (K, layers).
        concentration: Distance (total variation, 0 to 1) of each module's distribution over the
            layers from that of all units: 0 for a module spread like the model itself; NaN for a
            module without units.
    """

    counts: NDArray[np.int64]
    concentration: Floats


def count_pairs(rows: Labels, columns: Labels, shape: tuple[int, int]) -> NDArray[np.int64]:
    """How often each pair of labels occurs, shape ``shape``."""
    flat = np.asarray(rows, dtype=np.int64) * shape[1] + np.asarray(columns, dtype=np.int64)
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def spread_over_categories(
    sample_labels: Labels, categories: Sequence[str | None], num_modules: int
) -> CategorySpread | Absent:
    """Count the samples of each module and category; samples without a category are left out."""
    known = np.array([name is not None for name in categories], dtype=bool)
    truth = np.array([name for name in categories if name is not None], dtype=str)
    if len(truth) == 0:
        return Absent("The corpus has no categories.")
    names, classes = np.unique(truth, return_inverse=True)
    counts = count_pairs(np.asarray(sample_labels)[known], classes, (num_modules, len(names)))
    shares = _shares(counts)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    breadth = np.where(counts.sum(axis=1) > 0, np.exp(-(shares * logs).sum(axis=1)), 0.0)
    return CategorySpread(tuple(str(name) for name in names), counts, breadth)


def spread_over_layers(
    unit_labels: Labels, layers: Labels, num_modules: int, num_layers: int
) -> LayerSpread:
    """Count the units of each module and layer and say how far each module keeps to layers.

    Args:
        unit_labels: Module of each unit.
        layers: Layer of each unit, from 0 at the input.
        num_modules: K.
        num_layers: Layers of the model.
    """
    counts = count_pairs(unit_labels, layers, (num_modules, num_layers))
    shares = _shares(counts)
    overall = _shares(counts.sum(axis=0, keepdims=True))
    distance = np.abs(shares - overall).sum(axis=1) / 2
    return LayerSpread(counts, np.where(counts.sum(axis=1) == 0, np.nan, distance))


def _shares(counts: NDArray[np.int64]) -> Floats:
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0))
