"""A small problem with known modules: six categories in three groups, units that follow them."""

from collections.abc import Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.evaluate.baselines import METHODS, Candidate, UnitSpace, find_baseline
from ulcmod_dist.passes.standardised import Standardised

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Planted:
    """Activations with three modules of unequal size, and samples of two categories a module."""

    train: Standardised
    test: Standardised
    sample_labels: Labels
    unit_labels: Labels
    test_labels: Labels
    categories: list[str | None]
    test_categories: list[str | None]

    def z(self) -> Floats:
        """The standardised train matrix, formed."""
        return np.asarray((self.train.raw - self.train.mean) / self.train.std)

    def lazy(self, chunks: tuple[int, int]) -> Standardised:
        """The train activations as Dask blocks."""
        raw = da.from_array(self.train.raw, chunks=chunks)
        return Standardised(raw, self.train.mean, self.train.std)


def draw(rng: np.random.Generator, samples: Labels, units: Labels) -> NDArray[np.float32]:
    active = samples[:, None] == units[None, :]
    return np.asarray(rng.normal(size=active.shape) + 2.0 * active + 5.0, dtype=np.float32)


def plant() -> Planted:
    rng = np.random.default_rng(7)
    samples = np.repeat(np.arange(3), (50, 30, 40)).astype(np.int32)
    units = rng.permutation(np.repeat(np.arange(3), (30, 50, 20))).astype(np.int32)
    held_out = np.repeat(np.arange(3), 20).astype(np.int32)
    raw, test = draw(rng, samples, units), draw(rng, held_out, units)
    mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, ddof=1, dtype=np.float64)
    return Planted(
        train=Standardised(raw, mean, std),
        test=Standardised(test, mean, std),
        sample_labels=samples,
        unit_labels=units,
        test_labels=held_out,
        categories=[f"category {label}" for label in samples],
        test_categories=[f"category {label}" for label in held_out],
    )


def find_baselines(
    space: UnitSpace,
    num_samples: int,
    num_modules: int,
    *,
    seed: int = 0,
    methods: Sequence[str] = METHODS,
) -> tuple[Candidate, ...]:
    """The modules of several methods."""
    return tuple(
        find_baseline(method, space, num_samples, num_modules, seed=seed) for method in methods
    )
