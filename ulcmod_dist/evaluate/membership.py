"""How strongly each unit and each sample belongs to every module.

The degree of a unit in module k is its mean z over the module's samples, T_u[u,k] / |S_k|; that of
a sample is its module feature, T_s[s,k] / |U_k|. Both average to the mean z inside module k over
its own members, which so is the level that degrees of either side are compared with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.evaluate.features import ModuleFeatures
from ulcmod_dist.iterd.modules import count_pairs
from ulcmod_dist.iterd.objective import table_means
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import MembershipKind
from ulcmod_dist.results.types import Counts, Floats, share_rows

STRONG = 0.5
"""Share of a module's mean z inside from which a degree is strong."""

STANDARD_ERRORS = 3
"""Standard errors of a mean over |S_k| samples that a strong degree of a unit exceeds."""

SILENT = 0.1
"""Share of its layer's median root mean square below which a unit is hardly ever active."""

CONSTANT = 1e-9
"""Degree below which a unit does not vary, but for rounding."""


@dataclass(frozen=True, eq=False)
class Degrees:
    """Degrees of units or samples in every module, and what follows from them.

    Attributes:
        values: Mean z [items, K].
        strong: Whether an item is strong in a module [items, K].
        silent: Whether an item is hardly ever active [items].
    """

    values: Floats
    strong: NDArray[np.bool_]
    silent: NDArray[np.bool_]

    @property
    def kinds(self) -> NDArray[np.int64]:
        """Position of each item's kind in `MembershipKind` [items]."""
        modules = self.strong.sum(axis=1)
        none = np.where(self.silent, 3, 2)
        return np.asarray(np.where(modules == 0, none, np.minimum(modules, 2) - 1), np.int64)

    @property
    def breadth(self) -> Floats:
        """Effective number of modules, exp of the entropy of the shares; 0 without any [items]."""
        shares = share_degrees(self.values)
        entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
        return np.where(shares.any(axis=1), np.exp(entropy), 0.0)

    def count_kinds(self, labels: LabelArray) -> Counts:
        """Items of each module by kind [K, 4]; ``labels`` are their modules [items]."""
        return count_pairs(labels, self.kinds, (self.values.shape[1], len(MembershipKind)))


def share_degrees(degrees: Floats) -> Floats:
    """Soft membership: the positive part of each degree as a share of their sum [items, K].

    Zero for an item that is above its own mean in no module.
    """
    return share_rows(np.maximum(degrees, 0))


def compute_degrees(
    activations: Standardised,
    sample_labels: Sequence[LabelArray],
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> tuple[list[ModuleFeatures], list[Floats]]:
    """Degrees of samples (the module features) and of units, of several K by one pass."""
    matrix = ActivationMatrix(activations, executor)
    by_sample, by_unit = matrix.both_tables(sample_labels, unit_labels, num_modules)
    features = list(map(ModuleFeatures.from_table, by_sample, unit_labels))
    return features, list(map(table_means, by_unit, sample_labels))


def grade_samples(degrees: Floats, inside: Floats) -> Degrees:
    """Find in which modules samples are strong; ``inside`` is the mean z of each module [K]."""
    strong = (degrees >= STRONG * inside) & (degrees > 0)
    return Degrees(degrees, strong, np.zeros(len(degrees), np.bool_))


def grade_units(
    degrees: Floats,
    inside: Floats,
    sample_labels: LabelArray,
    activations: Standardised,
    layers: NDArray[np.int64] | None,
) -> Degrees:
    """Find in which modules units are strong, and which are silent.

    Args:
        degrees: Mean z over the samples of each module [units, K].
        inside: Mean z of each module on its own samples [K].
        sample_labels: Module of each train sample.
        activations: Mean and deviation of the units.
        layers: Layer of each unit, with whose median it is compared; None for all units alike.
    """
    sizes = np.maximum(np.bincount(sample_labels, minlength=degrees.shape[1]), 1)
    # Of many units a few are by chance far from their mean over the samples of a small module.
    strong = degrees >= np.maximum(STRONG * inside, STANDARD_ERRORS / np.sqrt(sizes))
    # A unit that does not vary has a deviation of one there.
    varies = np.abs(degrees).max(axis=1) > CONSTANT
    size = np.hypot(activations.mean, activations.std * varies)
    known, groups = np.unique(
        np.zeros(len(size), np.int64) if layers is None else layers, return_inverse=True
    )
    medians = np.array([np.median(size[groups == group]) for group in range(len(known))])
    return Degrees(degrees, strong, size < SILENT * medians[groups])
