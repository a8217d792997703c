"""Searches at their start: given labels, or balanced k-means and largest means."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.balanced_kmeans import balanced_kmeans
from ulcmod_dist.iterd.objective import assign_to_largest_mean, validate_labels
from ulcmod_dist.iterd.search import Checkpoint, Role, Search
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import principal_components
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, Standardised

# Below it moves of standardised size fall under the threshold of `sweep`.
_MIN_SUM = 1e-5
# Restarts at first, and the relative difference within which two ended at the same L.
FIRST_RESTARTS = 3
_SAME = 1e-4

logger = logging.getLogger(__name__)


def init_searches(
    matrix: ActivationMatrix,
    restarts: Sequence[tuple[int, int]],
    config: SearchConfig,
    points: Callable[[], FloatArray],
    sample_labels: AnyArray | None = None,
    unit_labels: AnyArray | None = None,
) -> list[Search]:
    """Searches with labels for some restarts (K, number); their tables are still missing.

    Given labels are -1 where the largest mean z decides. By default, samples are grouped by
    balanced k-means on their principal components, `sample_points`, and units by the largest mean
    z.

    Raises:
        InvalidInput: Labels that do not fit, or given for several K.
    """
    modules = sorted({k for k, _ in restarts})
    if sample_labels is None and unit_labels is None:
        # In this process for any executor, so that its processors decide no label.
        samples = list(ThreadExecutor().map(_group_samples, restarts, (points(), config.seed)))
        tables = matrix.unit_tables(samples, [k for k, _ in restarts])
        units = [assign_to_largest_mean(*pair) for pair in zip(tables, samples, strict=True)]
    else:
        if len(modules) > 1:
            raise InvalidInput(
                f"Initial labels belong to one K, not to {modules}.",
                "Search for one K at a time.",
            )
        labels = _complete_labels(matrix, modules[0], sample_labels, unit_labels)
        samples, units = ([side.copy() for _ in restarts] for side in labels)
    return [
        Search(restart, k, config.seed, by_sample, by_unit, tolerance=config.tolerance)
        for (k, restart), by_sample, by_unit in zip(restarts, samples, units, strict=True)
    ]


def _group_samples(start: tuple[int, int], shared: tuple[FloatArray, int]) -> LabelArray:
    """Sample labels of a start (K, restart) by the points of the samples, and the seed."""
    points, seed = shared
    # A generator for each restart: adding a K or a restart leaves the others' starts alone.
    return balanced_kmeans(points, start[0], np.random.default_rng([seed, 2, *start]))


def next_restarts(objectives: Sequence[float], most: int) -> range:
    """Restarts to add to those that ended with these objectives, none once they suffice.

    They do where at least two ended at the best L: finding it again, another start would most
    likely end there as well. Else there are as many again, up to ``most``.
    """
    done = len(objectives)
    if done:
        best = max(objectives)
        again = sum(value >= best - _SAME * abs(best) for value in objectives)
        return range(done, done if again > 1 else min(2 * done, most))
    return range(min(FIRST_RESTARTS, most))


def resume_searches(
    checkpoint: Checkpoint, modules: Sequence[int], config: SearchConfig
) -> list[Search]:
    """Searches that go on from a checkpoint; their tables are still missing.

    Raises:
        InvalidInput: The checkpoint is of another search.
    """
    found = {k: [s.restart for s in checkpoint.searches if s.num_modules == k] for k in modules}
    strangers = {s.num_modules for s in checkpoint.searches} - set(modules)
    unfit = any(not found[k] or max(found[k]) >= config.restarts for k in modules)
    if strangers or unfit or checkpoint.seed != config.seed:
        raise InvalidInput(
            f"The checkpoint is of a search with seed {checkpoint.seed} for K = "
            f"{sorted({s.num_modules for s in checkpoint.searches})}, up to restart "
            f"{max(s.restart for s in checkpoint.searches) + 1}; this one has seed {config.seed}, "
            f"K = {list(modules)} and at most {config.restarts} restarts.",
            "Resume with the settings of the earlier search, or start anew.",
        )
    return [replace(s.copy_state(), tolerance=config.tolerance) for s in checkpoint.searches]


def build_tables(matrix: ActivationMatrix, searches: Sequence[Search]) -> None:
    """Build both tables of every search, and give each empty module an item."""
    pending = list(searches)
    while pending:
        by_sample, by_unit = matrix.both_tables(
            [search.sample_labels for search in pending],
            [search.unit_labels for search in pending],
            [search.num_modules for search in pending],
        )
        for search, sample_table, unit_table in zip(pending, by_sample, by_unit, strict=True):
            search.sample_table, search.unit_table = sample_table, unit_table
            search.summed_labels = search.sample_labels.copy()
        pending = [search for search in pending if search.fill_empty_modules()]
        for search in (search for search in pending if search.role is Role.RESTART):
            logger.info(
                "Restart %d for K = %d began with empty modules; each was given the sample or unit "
                "that gains most by it.",
                search.restart,
                search.num_modules,
            )


def check_scale(searches: Sequence[Search]) -> None:
    """Require sums of z large enough for a sweep to tell moves apart.

    Raises:
        InvalidInput: They are tiny, as of raw activations that were not standardised: no move would
            raise L by the threshold, and the search would end where it started.
    """
    # With a single module all sums may cancel, and nothing moves.
    tables = [search.sample_table for search in searches if search.num_modules > 1]
    largest = max((float(np.abs(table).max()) for table in tables), default=0.0)
    if 0 < largest < _MIN_SUM:
        raise InvalidInput(
            f"Sums of activations over the units of a module are at most {largest:.1e}, too small "
            "to search: a move has to raise L by 1e-8.",
            "Standardise the activations (standardize=True), or multiply them by a constant.",
        )


def validate_sweep_orders(
    orders: Sequence[tuple[AnyArray, AnyArray]], activations: Standardised
) -> list[tuple[LabelArray, LabelArray]]:
    """Sweep orders as int32, each a permutation of all units or all samples.

    Raises:
        InvalidInput: An order that is no permutation.
    """
    lengths = activations.n_units, activations.n_samples
    for pair in orders:
        for order, length in zip(pair, lengths, strict=True):
            if not np.array_equal(np.sort(np.asarray(order)), np.arange(length)):
                raise InvalidInput(
                    f"A sweep order holds each number from 0 to {length - 1} once.",
                    "Give pairs (order of units, order of samples).",
                )
    return [
        (np.asarray(units, np.int32), np.asarray(samples, np.int32)) for units, samples in orders
    ]


def sample_points(matrix: ActivationMatrix, seed: int) -> FloatArray:
    """Principal components of the samples, the largest entry of each component positive.

    LAPACK's choice of sign is arbitrary and differs between builds.
    """
    scores = principal_components(matrix.activations, matrix.executor, side="samples", seed=seed)
    signs = np.sign(scores[np.argmax(np.abs(scores), axis=0), np.arange(scores.shape[1])])
    return np.asarray(scores * np.where(signs == 0, 1.0, signs))


def _complete_labels(
    matrix: ActivationMatrix, k: int, sample_labels: AnyArray | None, unit_labels: AnyArray | None
) -> tuple[LabelArray, LabelArray]:
    """Given labels, with every -1 replaced by the module of the largest mean z."""
    samples, units = (
        validate_labels(np.full(length, -1) if given is None else given, length, k, lowest=-1)
        for given, length in zip(
            (sample_labels, unit_labels), matrix.activations.shape, strict=True
        )
    )
    if (samples < 0).all() and (units < 0).all():
        raise InvalidInput("None of the initial labels names a module.", "Leave them out.")
    if (samples < 0).all():
        (samples,) = fill_missing([samples], matrix.sample_tables, [units], [k])
    (units,) = fill_missing([units], matrix.unit_tables, [samples], [k])
    (samples,) = fill_missing([samples], matrix.sample_tables, [units], [k])
    return samples, units


def fill_missing(
    labels: Sequence[LabelArray],
    tables: Callable[[Sequence[LabelArray], Sequence[int]], list[FloatArray]],
    other_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
) -> list[LabelArray]:
    """Labels of each search with -1 replaced by the module of the largest mean z, by one pass.

    The mean is over the other side as far as it has labels. No pass where no label is missing.
    """
    if all((own >= 0).all() for own in labels):
        return list(labels)
    # Items of the other side without a label are summed into a module K that is then cut off.
    pairs = list(zip(other_labels, num_modules, strict=True))
    with_rest = [np.where(other < 0, k, other) for other, k in pairs]
    filled: list[LabelArray] = []
    built = tables(with_rest, [k + 1 for k in num_modules])
    for own, table, (other, k) in zip(labels, built, pairs, strict=True):
        best = assign_to_largest_mean(table[:, :k], other[other >= 0])
        filled.append(np.where(own < 0, best, own).astype(np.int32))
    return filled
