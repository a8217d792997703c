"""Measures that favour no method: agreement, stability, and modules that stand out.

They stand beside L, which is what IterD maximises.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.downstream import INTERVAL_LEVEL, SelectedCategories, draw_subsample
from ulcmod_dist.iterd.modules import adjusted_rand_index
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.moments import standardize
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import RANDOM_GROUPS
from ulcmod_dist.results.types import Floats, divide

Labels = NDArray[np.int64]

RANDOM_DRAWS = 5
"""Draws of random groups."""


def draw_random_groups(
    unit_labels: LabelArray, num_modules: int, seed: int
) -> tuple[Candidate, ...]:
    """Draw groups of units as large as the modules, 5 times: the level that any modules must beat.

    K features of random groups carry what all units have in common, such as a prompt's length, so
    a classifier on them does much better than guessing.
    """
    return tuple(
        Candidate(
            RANDOM_GROUPS,
            num_modules,
            draw,
            np.random.default_rng([seed, draw]).permutation(unit_labels),
        )
        for draw in range(RANDOM_DRAWS)
    )


def compare_halves(
    activations: Standardised,
    find: Callable[[Standardised, NDArray[np.int64]], Sequence[Candidate]],
    executor: Executor,
    seed: int,
) -> dict[tuple[str, int], float]:
    """Adjusted Rand index of the units' modules that two random halves of the samples lead to.

    Each half is standardised by its own statistics, as a corpus of its own would be, and ``find``
    gets it with its rows, ascending. The index is for each method and K with modules in both.

    Raises:
        InvalidInput: A half holds too few samples, or does not vary.
    """
    order = np.random.default_rng([seed, 3]).permutation(activations.n_samples)
    middle = len(order) // 2
    first, second = (
        {(each.method, each.num_modules): each.unit_labels for each in find(half, rows)}
        for rows in map(np.sort, (order[:middle], order[middle:]))
        for half in [standardize(activations.raw[rows], executor)]
    )
    return {key: adjusted_rand_index(first[key], second[key]) for key in first if key in second}


def measure_separation(
    train: Floats, test: Floats | None, categories: SelectedCategories, seed: int = 0
) -> tuple[Floats, Floats]:
    """Areas under the ROC curve of each module's feature for each category, and lower bounds.

    The area is the probability that a sample of the category has a larger feature than one of the
    others (ties count half). It is that of the held-out samples, or of the train samples where
    there are none; of very many, 10,000 are drawn. The bounds are the lower ends of the 95%
    intervals (Hanley and McNeil, 1982), for the category that a module tells best on the train
    samples alone; -inf for the others. Features have the shape (samples, K), both results (K, C).
    """
    rows, count = draw_subsample(categories.train, seed), len(categories.names)
    features, truth = train[rows], categories.train[rows]
    known = compute_areas(features, truth, count)
    if categories.held_out and test is not None:
        rows = draw_subsample(categories.test, seed)
        features, truth = test[rows], categories.test[rows]
    areas = compute_areas(features, truth, count)
    own = np.bincount(truth, minlength=count)
    others = len(truth) - own
    variance = areas * (1 - areas)
    variance += (own - 1) * (areas / (2 - areas) - areas**2)
    variance += (others - 1) * (2 * areas**2 / (1 + areas) - areas**2)
    low = areas - norm.ppf((1 + INTERVAL_LEVEL) / 2) * np.sqrt(
        variance / np.maximum(own * others, 1)
    )
    # A category that no held-out sample has cannot be scored.
    known[np.isnan(known) | np.isnan(areas)] = -np.inf
    is_best = np.arange(count) == known.argmax(axis=1)[:, None]
    return areas, np.where(is_best, low, -np.inf)


def count_standing_out(low: Floats, random: Sequence[Floats]) -> int:
    """Modules that tell their category better than 95% of the random groups do.

    The whole interval of a module's area must lie above those of the groups for its category.

    Args:
        low: Lower bounds of the modules' areas, as of `measure_separation`.
        random: Areas of the random groups, one matrix a draw.
    """
    level = np.quantile(np.concatenate(random), INTERVAL_LEVEL, axis=0)
    return int((low > level).any(axis=1).sum())


def compute_areas(features: Floats, categories: Labels, num_categories: int) -> Floats:
    """Area under the ROC curve of each feature for each category, shape (K, C).

    It follows from the ranks of the category's samples (Mann and Whitney, 1947); NaN where all or
    none of the samples are of the category.
    """
    sums = np.zeros((num_categories, features.shape[1]))
    np.add.at(sums, categories, rankdata(features, axis=0))
    own = np.bincount(categories, minlength=num_categories)[:, None]
    pairs = own * (len(categories) - own)
    above = sums - own * (own + 1) / 2
    return divide(above, pairs).T
