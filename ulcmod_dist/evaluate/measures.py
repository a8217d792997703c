"""Measures that favour no method: agreement, stability, and modules that stand out.

They stand beside L, which is what IterD maximises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.downstream import INTERVAL_LEVEL, SelectedCategories, draw_subsample
from ulcmod_dist.iterd.modules import Modules, adjusted_rand_index, mean_rand_index
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.moments import standardize
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import RANDOM_GROUPS
from ulcmod_dist.results.types import Floats

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


def measure_seeds_agreement(
    labels: Sequence[tuple[LabelArray, LabelArray]],
) -> tuple[float, float] | None:
    """Mean adjusted Rand index over all pairs of seeds, of units and of samples.

    Args:
        labels: Modules of the units and of the samples, one pair a seed.
    """
    if len(labels) < 2:
        return None
    units, samples = zip(*labels, strict=True)
    return mean_rand_index(units), mean_rand_index(samples)


def compare_halves(
    activations: Standardised,
    search: Callable[[Standardised], Mapping[int, Modules]],
    executor: Executor,
    seed: int,
) -> dict[int, float]:
    """Adjusted Rand index of the units' modules that two random halves of the samples lead to.

    Each half is standardised by its own statistics, as a corpus of its own would be, and
    ``search`` finds the modules of every K in it.

    Raises:
        InvalidInput: A half holds too few samples, or does not vary.
    """
    order = np.random.default_rng([seed, 3]).permutation(activations.n_samples)
    middle = len(order) // 2
    first, second = (
        search(standardize(activations.raw[np.sort(rows)], executor))
        for rows in (order[:middle], order[middle:])
    )
    return {
        k: adjusted_rand_index(modules.unit_labels, second[k].unit_labels)
        for k, modules in first.items()
    }


@dataclass(frozen=True, eq=False)
class Separation:
    """How well each module's feature tells categories apart."""

    scores: Floats  # area under the ROC curve of module k for category c, shape (K, C)
    best: Labels  # category that each module tells best on the train samples, shape (K,)
    low: Floats  # lower end of the 95% interval of the area for that category, shape (K,)


def measure_separation(
    train: Floats, test: Floats | None, categories: SelectedCategories, seed: int = 0
) -> Separation:
    """Measure how well module features tell each category from all others.

    The area under the ROC curve is the probability that a sample of the category has a larger
    feature than one of the others (ties count half). The category of a module is chosen on train
    samples and scored on held-out ones, or on the same where there are none; of very many, 10,000
    are drawn of either. Features have the shape (samples, K).
    """
    rows = draw_subsample(categories.train, seed)
    fitted, truth = train[rows], categories.train[rows]
    scored, scored_truth = fitted, truth
    if categories.held_out and test is not None:
        rows = draw_subsample(categories.test, seed)
        scored, scored_truth = test[rows], categories.test[rows]
    count = len(categories.names)
    scores = compute_areas(scored, scored_truth, count)
    known = compute_areas(fitted, truth, count)
    # A category that no held-out sample has cannot be scored.
    known[np.isnan(known) | np.isnan(scores)] = -np.inf
    best = known.argmax(axis=1)
    low = [
        scores[k, c]
        - norm.ppf((1 + INTERVAL_LEVEL) / 2) * _area_error(scored[:, k], scored_truth == c)
        for k, c in enumerate(best)
    ]
    return Separation(scores, best, np.array(low))


def count_standing_out(found: Separation, random: Sequence[Separation]) -> int:
    """Modules that tell their category better than 95% of the random groups of all draws do.

    The whole interval of a module's area must lie above those of the groups for its category.
    """
    areas = np.concatenate([draw.scores for draw in random])
    return int((found.low > np.quantile(areas, INTERVAL_LEVEL, axis=0)[found.best]).sum())


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
    areas: Floats = np.divide(above, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)
    return areas.T


def _area_error(feature: Floats, is_own: NDArray[np.bool_]) -> float:
    """Standard error of the area under the ROC curve (DeLong, DeLong and Clarke-Pearson, 1988)."""
    ranks, count = rankdata(feature), int(is_own.sum())
    if min(count, len(feature) - count) < 2:
        return np.inf
    own = (ranks[is_own] - rankdata(feature[is_own])) / (len(feature) - count)
    other = (ranks[~is_own] - rankdata(feature[~is_own])) / count
    return float(np.sqrt(own.var(ddof=1) / own.size + other.var(ddof=1) / other.size))
