"""Planted problems: every sample and unit has a module, and noise hides it."""

from dataclasses import dataclass

import numpy as np

from ulcmod_dist.passes.standardised import Standardised


@dataclass(frozen=True)
class Planted:
    raw: np.ndarray
    by_sample: np.ndarray
    by_unit: np.ndarray

    def standardised(self) -> Standardised:
        wide = self.raw.astype(np.float64)
        std = wide.std(axis=0, ddof=1)
        return Standardised(self.raw, wide.mean(axis=0), np.where(std < 1e-8, 1.0, std))


def planted(
    k: int = 4, samples: int = 120, units: int = 200, noise: float = 0.3, seed: int = 0
) -> Planted:
    rng = np.random.default_rng(seed)
    by_sample, by_unit = rng.permutation(samples) % k, rng.permutation(units) % k
    raw = rng.normal(0, noise, (samples, units)) + (by_sample[:, None] == by_unit)
    return Planted(raw.astype(np.float32), by_sample, by_unit)
