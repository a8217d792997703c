"""How modules lie over categories and layers, and how they relate to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from ulcmod_dist.iterd.modules import count_pairs
from ulcmod_dist.results.discovery import Categories, Layers, Overlap
from ulcmod_dist.results.types import Absent, Floats, divide, share_rows

Labels = NDArray[np.int64]

MAX_COMPARED = 50
"""Categories that are told apart at most: what compares them grows with their square."""

MAX_LISTED = 1000
"""Categories that are listed by name at most: a corpus may have one for every sample."""

MIN_SPREAD = 1e-9
"""Deviation of mean z below which a module answers all samples alike, but for rounding."""


@dataclass(frozen=True, eq=False)
class CodedCategories:
    """The category of each sample, as a number."""

    names: tuple[str, ...]  # names of the C categories, sorted
    codes: Labels  # category of each sample, -1 where it has none, shape (samples,)

    @classmethod
    def of(cls, categories: Sequence[str | None]) -> "CodedCategories":
        """From names."""
        # Not an array of texts, in which each takes the space of the longest.
        names = tuple(sorted({name for name in categories if name is not None}))
        positions: dict[str | None, int] = {name: code for code, name in enumerate(names)}
        codes = (positions.get(name, -1) for name in categories)
        return cls(names, np.fromiter(codes, np.int64, len(categories)))

    @property
    def counts(self) -> Labels:
        """Samples of each category, shape (C,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


def most_frequent(counts: Labels, most: int) -> Labels:
    """The largest of the counts, at most so many; ascending positions, the lower of equals."""
    return np.sort(np.argsort(-counts, kind="stable")[:most])


def average_by_module(features: Floats, sample_labels: Labels, num_modules: int) -> Floats:
    """Mean z of the samples of module k on the units of module l, shape (K, K).

    A mean over samples of the module features, since each feature is already the mean over units;
    NaN in rows of modules without samples.
    """
    sums = np.zeros((num_modules, features.shape[1]))
    np.add.at(sums, np.asarray(sample_labels), features)
    counts = np.bincount(sample_labels, minlength=num_modules)[:, None]
    return divide(sums, counts)


def describe_categories(
    features: Floats, sample_labels: Labels, categories: Sequence[str | None], num_modules: int
) -> Categories | Absent:
    """Modules over the categories of their samples; samples without a category are left out."""
    coded = CodedCategories.of(categories)
    if not coded.names:
        return Absent("The corpus has no categories.")
    known = coded.codes >= 0
    modules, classes = np.asarray(sample_labels)[known], coded.codes[known]
    listed = most_frequent(coded.counts, MAX_LISTED)
    # Categories beyond those listed share the last position.
    position = np.full(len(coded.names), len(listed))
    position[listed] = np.arange(len(listed))
    counts = count_pairs(modules, position[classes], (num_modules, len(listed) + 1))
    compared = most_frequent(coded.counts[listed], MAX_COMPARED)
    return Categories(
        names=tuple(coded.names[code] for code in listed),
        counts=counts[:, :-1],
        breadth=_effective_number(modules, classes, num_modules),
        similarity=_category_similarity(features, coded.codes, listed[compared]),
        compared=tuple(compared.tolist()),
        num_others=len(coded.names) - len(listed),
        others=tuple(counts[:, -1].tolist()) if len(coded.names) > len(listed) else (),
    )


def _effective_number(modules: Labels, classes: Labels, num_modules: int) -> Floats:
    """Effective number of categories of each module; 0 for one without samples, shape (K,)."""
    width = int(classes.max(initial=0)) + 1
    pairs, together = np.unique(modules * width + classes, return_counts=True)
    sizes = np.bincount(modules, minlength=num_modules)
    shares = together / sizes[pairs // width]
    entropy = np.bincount(pairs // width, -shares * np.log(shares), minlength=num_modules)
    return np.where(sizes > 0, np.exp(entropy), 0.0)


def _category_similarity(features: Floats, codes: Labels, compared: Labels) -> Floats:
    """Mean cosine of the feature vectors of two samples, category by category compared.

    Pairs of a sample with itself do not count, and samples with a zero vector are left out; NaN
    where no pair is left. The mean over all pairs follows from each category's mean direction, so
    the cost is linear in the samples.
    """
    norms = np.linalg.norm(features, axis=1)
    sums, counts = np.zeros((len(compared), features.shape[1])), np.zeros(len(compared))
    for row, code in enumerate(compared):
        usable = (norms > 0) & (codes == code)
        sums[row] = (features[usable] / norms[usable, None]).sum(axis=0)
        counts[row] = usable.sum()
    totals = sums @ sums.T - np.diag(counts)
    pairs = np.outer(counts, counts) - np.diag(counts)
    return divide(totals, pairs)


def describe_layers(unit_labels: Labels, layers: Labels, num_modules: int) -> Layers:
    """Modules over the layers of their units (from 0), and how far each keeps to few of them."""
    num_layers = int(layers.max()) + 1
    counts = count_pairs(unit_labels, layers, (num_modules, num_layers))
    overall = share_rows(counts.sum(axis=0, keepdims=True))
    distance = np.abs(share_rows(counts) - overall).sum(axis=1) / 2
    return Layers(
        names=tuple(str(layer) for layer in range(num_layers)),
        units=counts,
        concentration=np.where(counts.sum(axis=1) == 0, np.nan, distance),
    )


def link_modules(features: Floats) -> Floats | Absent:
    """Tree of the modules by how alike the samples drive them, as SciPy's matrix (K - 1, 4).

    It is the average linkage of 1 - r, r being the correlation of two modules' features.
    """
    if features.shape[1] < 2:
        return Absent("One module alone has no hierarchy.")
    if (features.std(axis=0) < MIN_SPREAD).any():
        return Absent("A module responds equally to all samples, so it has no place in a tree.")
    return np.asarray(linkage(features.T, method="average", metric="correlation"))


def count_overlap(
    units: tuple[Labels, Labels], samples: tuple[Labels, Labels], num_modules: tuple[int, int]
) -> Overlap:
    """How the modules of two searches, the one with the smaller K first, share their members."""
    unit_counts, sample_counts = (count_pairs(*labels, num_modules) for labels in (units, samples))
    members = max(int(unit_counts.sum()), 1)
    return Overlap(
        *num_modules,
        units=unit_counts,
        samples=sample_counts,
        nestedness=float(unit_counts.max(axis=0).sum() / members),
        # Every module of the larger K would then have the largest of the smaller for its parent.
        expected=float(unit_counts.sum(axis=1).max() / members),
    )
