"""The sweep: every move raises L, totals stay true, no module empties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.iterd.objective import objective_from_table
from ulcmod_dist.iterd.sweep import margins, sweep, sweep_part


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k, items, others = draw(st.integers(1, 6)), draw(st.integers(6, 40)), draw(st.integers(6, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    table = rng.normal(size=(items, k)) * scale
    if draw(st.booleans()):
        table = np.round(table / scale) * scale  # many ties
    labels = rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, items - k)]))
    other = rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, others - k)]))
    return table, labels.astype(np.int32), other.astype(np.int32)


def sizes(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.bincount(labels, minlength=table.shape[1])


@settings(max_examples=100, deadline=None)
@given(tables())
def test_sweep__every_move_raises_the_objective(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    table, labels, other = problem
    before = objective_from_table(table, labels, sizes(other, table)).value
    for item in range(len(labels)):
        moved = sweep(table, labels, np.array([item], np.int32), other)
        after = objective_from_table(table, labels, sizes(other, table)).value
        assert after > before if moved else after == before
        assert sizes(labels, table).min() >= 1
        before = after


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 100))
def test_sweep__totals_equal_recomputed_ones(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int
) -> None:
    table, labels, other = problem
    counts, other_counts = sizes(labels, table), sizes(other, table)
    inside = table[np.arange(len(labels)), labels].sum()
    rng = np.random.default_rng(seed)
    for _ in range(5):
        order = rng.permutation(len(labels)).astype(np.int32)
        _, inside = sweep_part(table, labels, order, counts, other_counts, inside)
        np.testing.assert_array_equal(counts, sizes(labels, table))
        recomputed = table[np.arange(len(labels)), labels].sum()
        np.testing.assert_allclose(inside, recomputed, atol=1e-9 * np.abs(table).max())


def test_sweep__agrees_with_trying_every_module() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(60, 4))
    labels, other = np.arange(60, dtype=np.int32) % 4, np.arange(50, dtype=np.int32) % 4
    expected, order = labels.copy(), rng.permutation(60).astype(np.int32)
    for item in order:
        values = []
        for k in range(4):
            tried = expected.copy()
            tried[item] = k
            values.append(objective_from_table(table, tried, sizes(other, table)).value)
        expected[item] = int(np.argmax(values))
    sweep(table, labels, order, other)
    assert np.array_equal(labels, expected)


def test_sweep__ties_stay_where_they_are() -> None:
    table = np.full((12, 3), 2.5)
    labels, other = np.arange(12, dtype=np.int32) % 3, np.arange(9, dtype=np.int32) % 3
    assert sweep(table, labels, np.arange(12, dtype=np.int32), other) == 0


def test_sweep__first_of_equal_modules_wins() -> None:
    table = np.zeros((9, 3))
    table[0] = [0.0, 5.0, 5.0]
    labels, other = np.repeat(np.arange(3), 3).astype(np.int32), np.arange(9, dtype=np.int32) % 3
    assert sweep(table, labels, np.array([0], np.int32), other) == 1
    assert labels[0] == 1


def test_sweep__the_last_item_stays() -> None:
    table = np.array([[0.0, 100.0], [0.0, 1.0], [0.0, 1.0]])
    labels = np.array([0, 1, 1], np.int32)
    assert sweep(table, labels, np.arange(3, dtype=np.int32), np.array([0, 1], np.int32)) == 0
    assert labels.tolist() == [0, 1, 1]


def test_sweep__rounding_never_moves_labels_for_ever() -> None:
    rng = np.random.default_rng(4)
    table = rng.normal(size=(200, 3)) * 1e9
    labels, other = np.arange(200, dtype=np.int32) % 3, np.arange(100_000, dtype=np.int32) % 3
    moves = [sweep(table, labels, np.arange(200, dtype=np.int32), other) for _ in range(30)]
    assert moves[-1] == 0


@settings(max_examples=60, deadline=None)
@given(tables())
def test_margins__are_what_the_best_other_module_loses(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    table, labels, other = problem
    found = margins(table, labels, sizes(labels, table), sizes(other, table))
    k = table.shape[1]
    if k == 1:
        assert np.isnan(found).all()
        return
    now = objective_from_table(table, labels, sizes(other, table)).value
    for item in range(len(labels)):
        values = []
        for module in set(range(k)) - {int(labels[item])}:
            tried = labels.copy()
            tried[item] = module
            values.append(objective_from_table(table, tried, sizes(other, table)).value)
        lost = now if sizes(labels, table)[labels[item]] == 1 else now - max(values)
        assert found[item] == pytest.approx(lost, rel=1e-6, abs=1e-6 * max(1e-6, abs(now)))
