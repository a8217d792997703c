"""Split-and-merge moves: out of a local optimum by merging two modules and splitting a third.

A sweep moves one item at a time, so a search that has joined two true modules in one, and spread a
third over two, stays there: every way out lowers L at first. A round of moves proposes several such
changes at once, follows each by ordinary iterations that share passes, and keeps the best one if
it raises L (split-and-merge as in Ueda et al. 2000, for mixtures).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, islice, product

import numpy as np

from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.iterd.objective import table_means
from ulcmod_dist.iterd.search import Role, Search
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import FloatArray, LabelArray

# A candidate is given up, from this iteration on, once so many more that raise L as its last one
# would not reach the best L of the round. Not sooner: a merge costs L through B, whatever it leads
# to, so L of the first iterations hardly predicts L at the end (docs/method.md).
_FIRST_JUDGED = 3
_LOOK_AHEAD = 3
# Alternations between samples and units when modules are split in two.
_REFINEMENTS = 2
# Relative difference of two L that may be the same modules, summed in another order.
_ROUNDING = 1e-12


def propose_moves(
    matrix: ActivationMatrix, blocks: Sequence[slice], answers: Sequence[Search], most: int
) -> list[Search]:
    """Candidates of one round, at most ``most`` for each answer; their tables are missing.

    ``blocks`` of units are loaded one by one, as in the blockwise mode; none for the whole matrix.
    """
    modules = [answer.num_modules for answer in answers]
    tables = matrix.sample_tables([answer.unit_labels for answer in answers], modules)
    halves = [
        2 * answer.sample_labels + _split_rows(table, answer)
        for answer, table in zip(answers, tables, strict=True)
    ]
    by_sample, by_unit = _refine_halves(matrix, blocks, answers, halves)
    return [
        _apply(answer, samples, units, *move)
        for answer, table, samples, units in zip(answers, tables, by_sample, by_unit, strict=True)
        for move in _choose_moves(answer, table, samples, units, most)
    ]


def wants_moves(answer: Search, limit: int) -> bool:
    """Whether its sweeps have converged, and its rounds of moves have not."""
    may_go_on = answer.num_modules > 2 and answer.iteration < limit
    return may_go_on and answer.converged != (answer.rounds > 0)


def select_contenders(answer: Search, candidates: Sequence[Search], limit: int) -> list[Search]:
    """Candidates of an answer that iterate next: those that may still become the best.

    A function of their histories, so that a resumed round goes on with the same ones.
    """
    best = max(search.history[-1].objective for search in (answer, *candidates))
    contenders = []
    for candidate in candidates:
        before, last = (row.objective for row in (candidate.history * 2)[-2:])
        is_early = candidate.iteration < _FIRST_JUDGED
        if is_running(candidate, limit) and (
            is_early or last + _LOOK_AHEAD * (last - before) >= best
        ):
            contenders.append(candidate)
    return contenders


def is_running(search: Search, limit: int) -> bool:
    """Whether a search has neither converged nor used up its iterations."""
    return not search.converged and search.iteration < limit


def end_round(answer: Search, candidates: Sequence[Search]) -> Iteration:
    """Take over the best candidate if its L is higher, and append the round to the history.

    Its row counts the units and samples that changed their module, 0 if no candidate was better.
    """
    answer.rounds += 1
    now, moved = answer.history[-1], (0, 0)
    best = select_best(candidates) if candidates else answer
    if best.history[-1].objective > now.objective + _ROUNDING * abs(now.objective):
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
        seconds=sum(row.seconds for candidate in candidates for row in candidate.history),
    )
    answer.history.append(row)
    return row


def select_best(searches: Sequence[Search]) -> Search:
    """The first search whose L none beats by more than rounding."""
    values = np.array([search.history[-1].objective for search in searches])
    return searches[int(np.argmax(values >= values.max() - _ROUNDING * abs(values.max())))]


def _split_rows(table: FloatArray, answer: Search) -> LabelArray:
    """Which half of its module each sample belongs to, 0 or 1 [samples], by its row of T_s.

    The sign of the leading principal component of the module's rows: the relaxed solution of
    2-means (Ding and He 2004), and without random starts.
    """
    halves = np.zeros(len(table), np.int32)
    scaled = table / np.sqrt(np.maximum(answer.unit_sizes, 1))
    for k in range(answer.num_modules):
        members = np.flatnonzero(answer.sample_labels == k)
        rows = scaled[members] - scaled[members].mean(axis=0)
        scores = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -1]
        # LAPACK's choice of sign is arbitrary and differs between builds.
        halves[members] = scores * scores[np.argmax(np.abs(scores))] > 0
    return halves


def _refine_halves(
    matrix: ActivationMatrix,
    blocks: Sequence[slice],
    answers: Sequence[Search],
    by_sample: Sequence[LabelArray],
) -> tuple[Sequence[LabelArray], list[LabelArray]]:
    """Halves of every module, 2 k and 2 k + 1, of samples and of units: each to its larger mean z.

    Units follow samples and samples units, inside each module, over some passes.
    """
    by_unit = [np.empty_like(answer.unit_labels) for answer in answers]
    modules = [2 * answer.num_modules for answer in answers]
    for _ in range(_REFINEMENTS):
        sums = [np.zeros((len(answer.sample_labels), 2 * answer.num_modules)) for answer in answers]
        loaded = matrix.load_blocks(blocks) if blocks else [matrix]
        for units, part in zip(blocks or [slice(None)], loaded, strict=True):
            tables = part.unit_tables(by_sample, modules)
            for i, answer in enumerate(answers):
                by_unit[i][units] = _choose_half(tables[i], answer.unit_labels[units], by_sample[i])
            parts = part.sample_tables([labels[units] for labels in by_unit], modules)
            for total, summand in zip(sums, parts, strict=True):
                total += summand
        by_sample = [
            _choose_half(total, answer.sample_labels, labels)
            for total, answer, labels in zip(sums, answers, by_unit, strict=True)
        ]
    return by_sample, by_unit


def _choose_half(table: FloatArray, labels: LabelArray, other_halves: LabelArray) -> LabelArray:
    """The half of its module in which each item has the larger mean z, 2 k or 2 k + 1 [items]."""
    means, items = table_means(table, other_halves), np.arange(len(labels))
    second = means[items, 2 * labels + 1] > means[items, 2 * labels]
    return np.asarray(2 * labels + second, np.int32)


def _choose_moves(
    answer: Search, table: FloatArray, by_sample: LabelArray, by_unit: LabelArray, most: int
) -> list[tuple[int, int, int]]:
    """Moves (a, b, c), merging a and b and splitting c: for each c the best pair, then the next.

    With I[k, l] the sum of z over S_k x U_l, pairs come by the smallest I[a,a] + I[b,b] - I[a,b] -
    I[b,a], what is lost if a and b become one module of their size. Modules to be split come by the
    smallest mean z inside.
    """
    k = answer.num_modules
    sums = np.eye(k)[answer.sample_labels].T @ table
    inside = np.diag(sums)
    loss = inside[:, None] + inside - sums - sums.T
    pairs = sorted(combinations(range(k), 2), key=lambda pair: loss[pair])
    sizes = np.bincount(by_sample, minlength=2 * k) * np.bincount(by_unit, minlength=2 * k)
    means = inside / (answer.sample_sizes * answer.unit_sizes)
    split = [c for c in np.argsort(means, kind="stable").tolist() if sizes[2 * c : 2 * c + 2].all()]
    ranked = [[(*pair, c) for pair in pairs if c not in pair] for c in split]
    by_rank = (
        moves[rank] for rank, moves in product(range(len(pairs)), ranked) if rank < len(moves)
    )
    return list(islice(by_rank, most))


def _apply(
    answer: Search, by_sample: LabelArray, by_unit: LabelArray, a: int, b: int, c: int
) -> Search:
    """A candidate: b joins a, and the second half of c becomes module b."""
    pairs = (answer.sample_labels, by_sample), (answer.unit_labels, by_unit)
    by_sample, by_unit = (
        np.where(halves == 2 * c + 1, b, np.where(labels == b, a, labels)).astype(np.int32)
        for labels, halves in pairs
    )
    candidate = Search(answer.restart, answer.num_modules, answer.seed, by_sample, by_unit)
    candidate.tolerance, candidate.rounds = answer.tolerance, answer.rounds + 1
    candidate.role = Role.CANDIDATE
    return candidate
