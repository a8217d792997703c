"""The methods that IterD is compared with, made to work on matrices beyond memory.

Units are points in the space of the leading principal components of their activations over the
samples. K-means and mini-batch k-means group the points themselves; agglomerative and spectral
clustering group the centres of a pre-clustering; spectral co-clustering groups mean activations of
the pre-clusters and samples together. Other ways to group units are in `unit_groups`. Samples then
go to the module with the largest mean activation (in co-clustering to their own group).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import identity
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import ArpackError, eigsh
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import kneighbors_graph
from sklearn.utils.extmath import randomized_svd

from ulcmod_dist.config.schema import Baseline
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.evaluate.unit_groups import find_experts, find_networks
from ulcmod_dist.evaluate.ward import build_ward_tree, cut_tree
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.linalg import COMPONENTS, principal_components
from ulcmod_dist.passes.shares import read_matrix
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import SUPERVISED
from ulcmod_dist.results.types import Floats

METHODS: tuple[str, ...] = get_args(Baseline)

UNSEEDED = ("agglomerative", SUPERVISED)
"""Methods that draw nothing: every seed has the same answer."""

MAX_PRECLUSTERS = 10_000
"""Pre-clusters at most, as published; smaller models have one for each four units."""

MAX_POINTS = 50_000
"""Units that pre-clusters are fitted on at most, drawn with the seed; all are then assigned."""

MAX_PROFILE_CELLS = 20_000_000
"""Pre-clusters times samples that co-clustering holds; beyond it samples are drawn."""

STRIPE_CELLS = 16 * 2**20
"""Activations of drawn samples that are held at a time."""

# Bytes of a profile's cell, with the copies that co-clustering makes of it.
_CELL_BYTES = 8 * 8
_NEIGHBOURS = 9
# Of Lloyd's algorithm on SmolLM2: after 4 the inertia is 0.3% above that of convergence (10).
_PRECLUSTER_ROUNDS = 4
# Digits in which points are compared, of the largest coordinate.
_DIGITS = 9


@dataclass(frozen=True, eq=False)
class UnitSpace:
    """What the baselines know of the units."""

    components: Floats  # principal components of the units, shape (units, 16 or more)
    preclusters: LabelArray  # pre-cluster of each unit, shape (units,)
    centres: Floats  # centre of each pre-cluster, shape (pre-clusters, 16)
    profiles: Floats  # mean z of each pre-cluster for the drawn samples, (pre-clusters, drawn)
    drawn: NDArray[np.int64]  # rows of the drawn samples, ascending; all of them where they fit
    seed: int = 0  # seed of the pre-clusters and of what follows from them alone
    layers: LabelArray | None = None  # layer of each unit, if known
    selectivity: Floats | None = None  # of each unit for each category, if measured
    _held: dict[str, Floats] = field(default_factory=dict)

    @property
    def points(self) -> Floats:
        """The units as the clusterings see them, shape (units, 16)."""
        return self.components[:, :COMPONENTS]

    @cached_property
    def distinct_units(self) -> int:
        """Units that differ, by more than rounding; of very many, among the first."""
        return len(_find_distinct(self.points[:MAX_POINTS]))

    @cached_property
    def distinct_preclusters(self) -> int:
        """Pre-clusters that differ, by more than rounding."""
        return len(_find_distinct(self.centres))

    @cached_property
    def tree(self) -> NDArray[np.int64]:
        """Ward's tree of the pre-clusters, which is cut for each K, see `build_ward_tree`."""
        return build_ward_tree(self.centres)

    def spectral_vectors(self, count: int) -> Floats:
        """The leading eigenvectors of the pre-clusters' graph, shape (pre-clusters, count)."""
        return self._leading("graph", count, lambda: _embed_graph(self.centres, count, self.seed))

    def singular_vectors(self, count: int) -> Floats:
        """Those of co-clustering but the first, shape (pre-clusters + drawn samples, count)."""
        compute = lambda: _embed_profiles(self.profiles, count, self.seed)  # noqa: E731
        return self._leading("profiles", count, compute)

    def _leading(self, name: str, count: int, compute: Callable[[], Floats]) -> Floats:
        """The first vectors of those computed for the largest count so far."""
        if name not in self._held or self._held[name].shape[1] < count:
            self._held[name] = compute()
        return self._held[name][:, :count]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Modules that some method found, before they are scored."""

    method: str  # name of the method
    num_modules: int  # K
    seed: int  # seed they were found with
    unit_labels: LabelArray  # module of each unit
    sample_labels: LabelArray | None = None  # -1 or None: the module of largest mean activation


def count_preclusters(num_units: int) -> int:
    """Pre-clusters of the units by default: a quarter of these, at most 10,000."""
    return min(MAX_PRECLUSTERS, max(1, num_units // 4))


def build_unit_space(
    activations: Standardised,
    executor: Executor,
    *,
    seed: int = 0,
    num_preclusters: int | None = None,
    points: Floats | None = None,
    memory: int | None = None,
    layers: LabelArray | None = None,
    selectivity: Floats | None = None,
) -> UnitSpace:
    """Place the units in a space of few dimensions and pre-cluster them, in one pass.

    Without ``points``, the units' `principal_components`, it takes five more. Pre-clusters are by
    default a quarter of the units, at most 10,000. Less ``memory`` (bytes) than these and their
    profiles want leaves room for fewer of them and fewer samples. ``layers`` and ``selectivity``
    (`measure_selectivity`) are for the methods that need them.

    One space serves every K and seed: a method's own seed then chooses the centres that its k-means
    starts from, and agglomerative clustering, which draws nothing, has one answer.
    """
    if points is None:
        points = principal_components(activations, executor, side="units", seed=seed)
    count = min(num_preclusters or count_preclusters(activations.n_units), activations.n_units)
    preclusters, centres = _precluster(points[:, :COMPONENTS], count, seed)
    cells = MAX_PROFILE_CELLS if memory is None else min(MAX_PROFILE_CELLS, memory // _CELL_BYTES)
    size = min(activations.n_samples, max(1, cells // len(centres)))
    rng = np.random.default_rng([seed, 1])
    drawn = np.sort(rng.choice(activations.n_samples, size, replace=False))
    stripe = STRIPE_CELLS if memory is None else min(STRIPE_CELLS, memory // _CELL_BYTES)
    profiles = _profiles(activations, drawn, preclusters, len(centres), executor, stripe)
    return UnitSpace(points, preclusters, centres, profiles, drawn, seed, layers, selectivity)


def _profiles(
    activations: Standardised,
    drawn: NDArray[np.int64],
    preclusters: LabelArray,
    count: int,
    executor: Executor,
    stripe_cells: int,
) -> Floats:
    """Mean z of each pre-cluster for the drawn samples, shape (pre-clusters, drawn).

    Added up in one place, stripe by stripe of units: the sums of thousands of pre-clusters are
    larger than the blocks that they are of; those of many blocks at once took 2.4 GB more. One
    sample at a time, in half the time of the passes' kernel, which keeps the sums of eight.
    """
    sums = np.zeros((len(drawn), count))
    width = max(1, stripe_cells // len(drawn))
    for first in range(0, activations.n_units, width):
        stripe = slice(first, first + width)
        rows = read_matrix(activations.raw[:, stripe][drawn], executor)
        weights = activations.weights[stripe]
        for row, total in zip(rows, sums, strict=True):
            total += np.bincount(preclusters[stripe], row * weights, count)
    means = activations.mean * activations.weights
    sums -= np.bincount(preclusters, weights=means, minlength=count)
    return (sums / np.maximum(np.bincount(preclusters, minlength=count), 1)).T


def find_baseline(
    method: str, space: UnitSpace, num_samples: int, num_modules: int, *, seed: int = 0
) -> Candidate:
    """Find modules with a published clustering; no pass over the matrix.

    Raises:
        InvalidInput: The name is not known, or the method cannot find so many modules here.
    """
    if method not in METHODS:
        raise InvalidInput(f"Unknown baselines: {method}.", f"Known are {', '.join(METHODS)}.")
    if num_modules < 2:
        raise InvalidInput("With K = 1 any method puts all units and samples into one module.")
    _check_number(method, space, num_modules)
    try:
        with warnings.catch_warnings():
            # Fewer groups than asked for.
            warnings.simplefilter("error", ConvergenceWarning)
            return _find(method, space, num_samples, num_modules, seed)
    except (ConvergenceWarning, ValueError, ArpackError) as error:
        raise InvalidInput(f"No {num_modules:,} modules are found: {one_line(error)}.") from error


def _check_number(method: str, space: UnitSpace, num_modules: int) -> None:
    """Require what a method needs to find so many modules."""
    if method == SUPERVISED:
        count = 0 if space.selectivity is None else space.selectivity.shape[1]
        if count != num_modules:
            raise InvalidInput(
                "Each module is made of the units of one category, and K is not the number of "
                "categories."
            )
        return
    if method == "per-layer experts" and space.layers is None:
        raise InvalidInput("The matrix was imported without the layers of its units.")
    grouped, distinct = "pre-clusters of the units", space.distinct_preclusters
    if method not in {"agglomerative", "spectral", "spectral co-clustering"}:
        grouped, distinct = "units", space.distinct_units
    # The spectral methods need an eigenvector beside those that tell the groups apart.
    if distinct < num_modules + ("spectral" in method):
        raise InvalidInput(
            f"{distinct:,} {grouped} that differ are too few to find {num_modules:,} modules among "
            "them."
        )


def _find(
    method: str, space: UnitSpace, num_samples: int, num_modules: int, seed: int
) -> Candidate:
    sample_labels = None
    if method == "spectral co-clustering":
        vectors = space.singular_vectors(math.ceil(math.log2(num_modules)))
        groups = _group_vectors(vectors, num_modules, seed)
        labels = groups[space.preclusters]
        sample_labels = np.full(num_samples, -1, dtype=np.int32)
        sample_labels[space.drawn] = groups[len(space.centres) :]
    elif method == "spectral":
        groups = _group_vectors(space.spectral_vectors(num_modules), num_modules, seed)
        labels = groups[space.preclusters]
    elif method == "agglomerative":
        labels = cut_tree(space.tree, num_modules)[space.preclusters]
    elif method == "functional networks":
        labels = find_networks(space.components, num_modules, seed, _draw_units(space.points, seed))
    elif method == "per-layer experts":
        assert space.layers is not None
        labels = find_experts(space.points, space.layers, num_modules, seed)
    elif method == SUPERVISED:
        assert space.selectivity is not None
        labels = space.selectivity.argmax(axis=1)
    else:
        model = {"k-means": KMeans, "mini-batch k-means": MiniBatchKMeans}[method]
        labels = model(n_clusters=num_modules, random_state=seed).fit_predict(space.points)
    return Candidate(method, num_modules, seed, labels.astype(np.int32), sample_labels)


def _group_vectors(vectors: Floats, num_modules: int, seed: int) -> LabelArray:
    """Groups of rows of eigenvectors: k-means from ten starts, as in scikit-learn."""
    return np.asarray(KMeans(num_modules, n_init=10, random_state=seed).fit_predict(vectors))


def _precluster(points: Floats, count: int, seed: int) -> tuple[LabelArray, Floats]:
    drawn = points[_draw_units(points, seed, max(MAX_POINTS, count))]
    first = _find_distinct(drawn)
    # Among many equal points, as constant units are, random centres would coincide.
    init = "random" if len(first) > count else drawn[first]
    # A pre-cluster is a handful of units: a few rounds of rounded points serve as well.
    model = KMeans(
        n_clusters=min(count, len(first)),
        init=init if isinstance(init, str) else init.astype(np.float32),
        n_init=1,
        max_iter=_PRECLUSTER_ROUNDS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A pre-cluster that ends up empty is removed below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(drawn.astype(np.float32))
    # Predicting them again takes as long as a round of the fit.
    found = model.labels_ if len(drawn) == len(points) else model.predict(points.astype(np.float32))
    kept, labels = np.unique(found, return_inverse=True)
    return labels.astype(np.int32), np.asarray(model.cluster_centers_, np.float64)[kept]


def _draw_units(points: Floats, seed: int, most: int = MAX_POINTS) -> NDArray[np.int64]:
    """Rows of the units that a method is fitted on, ascending: all, or so many drawn."""
    rng = np.random.default_rng([seed, 2])
    return np.sort(rng.choice(len(points), min(len(points), most), replace=False))


def _find_distinct(points: Floats) -> NDArray[np.int64]:
    """Rows of the first of each set of points that are equal but for rounding, ascending."""
    scale = float(np.abs(points).max(initial=0.0)) or 1.0
    rounded = np.round(points / scale, _DIGITS)
    return np.sort(np.unique(rounded, axis=0, return_index=True)[1]).astype(np.int64)


def _embed_graph(centres: Floats, count: int, seed: int) -> Floats:
    """Leading eigenvectors of the graph of nearest neighbours, as `SpectralClustering` embeds.

    The smallest of the Laplacian, found without inverting it: scikit-learn factorises it, which
    took 40 s for 10,000 centres where this takes 0.1 s.
    """
    neighbours = kneighbors_graph(centres, min(_NEIGHBOURS, len(centres)), include_self=True)
    matrix, scale = laplacian(0.5 * (neighbours + neighbours.T), normed=True, return_diag=True)
    start = np.random.default_rng([seed, 3]).uniform(-1, 1, len(centres))
    # Eigenvalues of a normalised Laplacian are at most 2.
    values, vectors = eigsh(2 * identity(len(centres)) - matrix, count, which="LA", v0=start)
    return np.asarray(vectors[:, np.argsort(-values)] / scale[:, None])


def _embed_profiles(profiles: Floats, count: int, seed: int) -> Floats:
    """Singular vectors of pre-clusters and samples but the first, as `SpectralCoclustering` does.

    Raises:
        InvalidInput: Sums of a row or column are zero, by which it would divide.
    """
    shifted = profiles - min(0.0, profiles.min())
    sums = [shifted.sum(axis=axis) for axis in (1, 0)]
    if not all((part > 0).all() for part in sums):
        raise InvalidInput("A pre-cluster or a sample has the smallest activation throughout.")
    rows, columns = (1 / np.sqrt(part)[:, None] for part in sums)
    shifted *= rows
    shifted *= columns.T
    left, _, right = randomized_svd(shifted, count + 1, random_state=seed)
    return np.vstack([rows * left[:, 1:], columns * right.T[:, 1:]])
