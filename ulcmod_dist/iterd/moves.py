"""Split-and-merge moves: out of a local optimum by merging two modules and splitting a third.

A sweep moves one item at a time, so a search that has joined two true modules in one, and spread a
third over two, stays there: every way out lowers L at first. A round of moves proposes several such
changes at once, follows each by ordinary iterations that share passes, and keeps the best one if
it raises L (split-and-merge as in Ueda et al. 2000, for mixtures). Which changes are worthwhile
shows on a random part of the matrix, at a fraction of the cost; only what they lead to is iterated
on the whole matrix.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, islice, product
from typing import TypeAlias

import numpy as np

from ulcmod_dist.iterd.init import build_tables, fill_missing
from ulcmod_dist.iterd.iterations import exact_iteration
from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.iterd.objective import table_means
from ulcmod_dist.iterd.search import Role, Search
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.kernels import select_entries
from ulcmod_dist.passes.map_reduce import map_reduce
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import FloatArray, LabelArray, as_standardised

CANDIDATES = 10
"""Moves of a round on a part of the matrix that are iterated together."""

# So many times other candidates are tried before none is held to raise L.
_TRIES = 4

# A candidate is given up, from this iteration on, once so many more that raise L as its last one
# would not reach the best L of the round. Not sooner: a merge costs L through B, whatever it leads
# to, so L of the first iterations hardly predicts L at the end (docs/method.md).
_FIRST_JUDGED = 3
_LOOK_AHEAD = 3
# Alternations between samples and units when modules are split in two.
_REFINEMENTS = 2
# Relative difference of two L that may be the same modules, summed in another order.
_ROUNDING = 1e-12
# Rounds go on if the last ones raised L by more than this share: below it, single items moved.
_RISE = 3e-5
# Iterations on a part end at this tolerance: what they lead to is iterated again on the whole.
_PART_TOLERANCE = 1e-5

Exploration: TypeAlias = Generator[list[Search], None, Search | None]
"""Requests an iteration of some searches at a time; returns the best modules, if they raised L."""


def part_shape(shape: tuple[int, int], entries: int, num_modules: int) -> tuple[int, int]:
    """Samples and units of a part of about so many entries: as square as the matrix allows.

    More entries where modules would have fewer than 16 samples or units.
    """
    shortest = min(*shape, max(int(entries**0.5), 16 * num_modules))
    longest = min(max(shape), max(shortest, entries // max(1, shortest)))
    return (shortest, longest) if shape[0] < shape[1] else (longest, shortest)


def propose_moves(
    matrix: ActivationMatrix, answers: Sequence[Search], entries: int, limit: int
) -> list[Search]:
    """What moves on a part of the matrix lead to, at most one candidate for each answer.

    The candidates have labels of the whole matrix; their tables are missing. The part is another
    one in each round.
    """
    shape = part_shape(matrix.activations.shape, entries, max(s.num_modules for s in answers))
    part, samples, units = _draw_part(matrix, shape, [answers[0].seed, 4, answers[0].rounds])
    starts = [_candidate(s, s.sample_labels[samples], s.unit_labels[units]) for s in answers]
    for start in starts:
        start.tolerance = max(start.tolerance, _PART_TOLERANCE)
    ends = _search_part(part, starts, limit)
    pairs = zip(answers, ends, strict=True)
    improved = [(answer, end) for answer, end in pairs if end is not None]
    if not improved:
        return []
    modules = [answer.num_modules for answer, _ in improved]
    n_samples, n_units = matrix.activations.shape
    by_sample = [_spread(end.sample_labels, samples, n_samples) for _, end in improved]
    by_unit = [_spread(end.unit_labels, units, n_units) for _, end in improved]
    by_unit = fill_missing(by_unit, matrix.unit_tables, by_sample, modules)
    by_sample = fill_missing(by_sample, matrix.sample_tables, by_unit, modules)
    labels = zip(by_sample, by_unit, strict=True)
    return [_candidate(answer, *pair) for (answer, _), pair in zip(improved, labels, strict=True)]


def wants_moves(answer: Search, limit: int, in_vain: int) -> bool:
    """Whether its sweeps have converged, and its last rounds of moves, ``in_vain`` of them, not."""
    if answer.num_modules < 3 or answer.iteration >= limit:
        return False
    if answer.rounds < in_vain:
        return answer.converged or answer.rounds > 0
    before, last = (answer.history[i].objective for i in (-1 - in_vain, -1))
    return _has_risen(before, last, max(answer.tolerance, _RISE))


def _has_risen(before: float, after: float, share: float) -> bool:
    return after - before > share * abs(before)


def is_running(search: Search, limit: int) -> bool:
    """Whether a search has neither converged nor used up its iterations."""
    return not search.converged and search.iteration < limit


def end_round(answer: Search, candidates: Sequence[Search], seconds: float) -> Iteration:
    """Take over the best candidate if its L is higher, and append the round to the history.

    Its row counts the units and samples that changed their module, 0 if no candidate was better.
    ``seconds`` are those before the candidates' iterations.
    """
    answer.rounds += 1
    now, moved = answer.history[-1], (0, 0)
    best = select_best([answer, *candidates])
    if best is not answer:
        now = best.history[-1]
        pairs = (best.unit_labels, answer.unit_labels), (best.sample_labels, answer.sample_labels)
        units_moved, samples_moved = (int(np.sum(new != old)) for new, old in pairs)
        moved = units_moved, samples_moved
        answer.unit_labels, answer.sample_labels = best.unit_labels, best.sample_labels
    row = replace(
        now,
        iteration=answer.iteration + 1,
        units_moved=moved[0],
        samples_moved=moved[1],
        seconds=seconds + sum(row.seconds for other in candidates for row in other.history),
    )
    answer.history.append(row)
    return row


def select_best(searches: Sequence[Search]) -> Search:
    """The first search whose L none beats by more than rounding."""
    values = np.array([search.history[-1].objective for search in searches])
    return searches[int(np.argmax(values >= values.max() - _ROUNDING * abs(values.max())))]


def _draw_part(
    matrix: ActivationMatrix, shape: tuple[int, int], key: Sequence[int]
) -> tuple[ActivationMatrix, LabelArray, LabelArray]:
    """A random part of the matrix in memory, by one pass; its samples and units, ascending."""
    activations, rng = matrix.activations, np.random.default_rng(key)
    pairs = zip(activations.shape, shape, strict=True)
    samples, units = (np.sort(rng.choice(n, m, replace=False)) for n, m in pairs)
    z, _ = map_reduce(
        activations.raw,
        partial(select_entries, num_units=len(units)),
        by_unit=[np.arange(len(units)), activations.mean[units], activations.std[units]],
        executor=matrix.executor,
        only_samples=samples,
        only_units=units,
    )
    # Small enough for the threads of this process, wherever the passes run.
    part = ActivationMatrix(as_standardised(z), ThreadExecutor(), resident=True)
    return part, samples, units


def _spread(values: LabelArray, items: LabelArray, length: int) -> LabelArray:
    """Values of some items among all [length], -1 for the others."""
    spread = np.full(length, -1, np.int32)
    spread[items] = values
    return spread


def _search_part(
    part: ActivationMatrix, starts: Sequence[Search], limit: int
) -> list[Search | None]:
    """The best modules of the part that moves lead each search to; None where none raised L.

    Candidates of all searches share passes, whichever step each search has come to.
    """
    ends: list[Search | None] = [None] * len(starts)

    def explore(number: int) -> Iterator[list[Search]]:
        ends[number] = yield from _explore(part, starts[number], limit)

    explorations = map(explore, range(len(starts)))
    running = [(exploration, next(exploration)) for exploration in explorations]
    while running:
        _iterate_once(part, [search for _, active in running for search in active])
        running = [(each, active) for each, _ in running if (active := next(each, []))]
    return ends


def _iterate_once(matrix: ActivationMatrix, searches: Sequence[Search]) -> None:
    """An iteration of searches that share passes; new ones get their tables and first record."""
    new = [search for search in searches if not search.history]
    if new:
        build_tables(matrix, new)
    for search in new:
        search.record(0, 0, 0.0)
    for search, moved in zip(searches, exact_iteration(matrix, searches, None), strict=True):
        search.record(*moved, 0.0)


def _explore(part: ActivationMatrix, search: Search, limit: int) -> Exploration:
    """Request the iterations that the moves of one search take; returns as `_search_part`."""
    yield from _request_iterations([search], list, limit)
    best = None
    while (better := (yield from _improve(part, best or search, limit))) is not None:
        best = better
    return best


def _improve(part: ActivationMatrix, search: Search, limit: int) -> Exploration:
    """The best of the first candidates of which one has a higher L; None if there are none."""
    halves = 2 * search.sample_labels + _split_rows(search.sample_table, search)
    by_sample, by_unit = _refine_halves(part, search, halves)
    moves = _choose_moves(search, by_sample, by_unit)
    for first in range(0, len(moves), CANDIDATES):
        chosen = moves[first : first + CANDIDATES]
        candidates = [_move(search, by_sample, by_unit, *move) for move in chosen]
        yield from _request_iterations(candidates, partial(_select_contenders, search), limit)
        best = select_best(candidates)
        if _has_risen(search.history[-1].objective, best.history[-1].objective, _RISE):
            return best
    return None


def _request_iterations(
    searches: Sequence[Search],
    select: Callable[[Sequence[Search]], list[Search]],
    limit: int,
) -> Iterator[list[Search]]:
    """Request iterations until none of the searches that ``select`` returns is running."""
    active = list(searches)
    while active:
        yield active
        active = [search for search in select(searches) if is_running(search, limit)]


def _select_contenders(search: Search, candidates: Sequence[Search]) -> list[Search]:
    """Candidates that may still become the best."""
    best = max(other.history[-1].objective for other in (search, *candidates))
    contenders = []
    for candidate in candidates:
        before, last = (row.objective for row in (candidate.history * 2)[-2:])
        if candidate.iteration < _FIRST_JUDGED or last + _LOOK_AHEAD * (last - before) >= best:
            contenders.append(candidate)
    return contenders


def _split_rows(table: FloatArray, search: Search) -> LabelArray:
    """Which half of its module each sample belongs to, 0 or 1 [samples], by its row of T_s.

    The sign of the leading principal component of the module's rows: the relaxed solution of
    2-means (Ding and He 2004), and without random starts.
    """
    halves = np.zeros(len(table), np.int32)
    scaled = table / np.sqrt(np.maximum(search.unit_sizes, 1))
    for k in range(search.num_modules):
        members = np.flatnonzero(search.sample_labels == k)
        rows = scaled[members] - scaled[members].mean(axis=0)
        scores = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -1]
        # LAPACK's choice of sign is arbitrary and differs between builds.
        halves[members] = scores * scores[np.argmax(np.abs(scores))] > 0
    return halves


def _refine_halves(
    matrix: ActivationMatrix, search: Search, by_sample: LabelArray
) -> tuple[LabelArray, LabelArray]:
    """Halves of every module, 2 k and 2 k + 1, of samples and of units: each to its larger mean z.

    Units follow samples and samples units, inside each module, over some passes.
    """
    modules = [2 * search.num_modules]
    for _ in range(_REFINEMENTS):
        (table,) = matrix.unit_tables([by_sample], modules)
        by_unit = _choose_half(table, search.unit_labels, by_sample)
        (table,) = matrix.sample_tables([by_unit], modules)
        by_sample = _choose_half(table, search.sample_labels, by_unit)
    return by_sample, by_unit


def _choose_half(table: FloatArray, labels: LabelArray, other_halves: LabelArray) -> LabelArray:
    """The half of its module in which each item has the larger mean z, 2 k or 2 k + 1 [items]."""
    means, items = table_means(table, other_halves), np.arange(len(labels))
    second = means[items, 2 * labels + 1] > means[items, 2 * labels]
    return np.asarray(2 * labels + second, np.int32)


def _choose_moves(
    search: Search, by_sample: LabelArray, by_unit: LabelArray
) -> list[tuple[int, int, int]]:
    """Moves (a, b, c), merging a and b and splitting c: for each c the best pair, then the next.

    With I[k, l] the sum of z over S_k x U_l, pairs come by the smallest I[a,a] + I[b,b] - I[a,b] -
    I[b,a], what is lost if a and b become one module of their size. Modules to be split come by the
    smallest mean z inside.
    """
    k = search.num_modules
    sums = np.eye(k)[search.sample_labels].T @ search.sample_table
    inside = np.diag(sums)
    loss = inside[:, None] + inside - sums - sums.T
    pairs = sorted(combinations(range(k), 2), key=lambda pair: loss[pair])
    sizes = np.bincount(by_sample, minlength=2 * k) * np.bincount(by_unit, minlength=2 * k)
    means = inside / (search.sample_sizes * search.unit_sizes)
    split = [c for c in np.argsort(means, kind="stable").tolist() if sizes[2 * c : 2 * c + 2].all()]
    ranked = [[(*pair, c) for pair in pairs if c not in pair] for c in split]
    by_rank = (
        moves[rank] for rank, moves in product(range(len(pairs)), ranked) if rank < len(moves)
    )
    return list(islice(by_rank, CANDIDATES * _TRIES))


def _move(
    search: Search, by_sample: LabelArray, by_unit: LabelArray, a: int, b: int, c: int
) -> Search:
    """A candidate: b joins a, and the second half of c becomes module b."""
    pairs = (search.sample_labels, by_sample), (search.unit_labels, by_unit)
    moved = [
        np.where(halves == 2 * c + 1, b, np.where(labels == b, a, labels)).astype(np.int32)
        for labels, halves in pairs
    ]
    return _candidate(search, *moved)


def _candidate(answer: Search, sample_labels: LabelArray, unit_labels: LabelArray) -> Search:
    """A candidate with other labels; its random orders are those of the next round."""
    return Search(
        answer.restart,
        answer.num_modules,
        answer.seed,
        sample_labels.copy(),
        unit_labels.copy(),
        tolerance=answer.tolerance,
        role=Role.CANDIDATE,
        rounds=answer.rounds + 1,
    )
