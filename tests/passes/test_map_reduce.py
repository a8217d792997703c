"""A pass gives the same bits for any number of workers, and wherever blocks are held."""

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.kernels import both_sums
from ulcmod_dist.passes.map_reduce import TreeSum, map_reduce
from ulcmod_dist.passes.shares import KeptMatrix, keep_matrix, plan_layout, read_matrix

# Untyped in Dask.
DASK: Any = da


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 20),
    workers=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_map_reduce__has_the_same_bits_for_any_workers_kept_or_read(
    rows: int, columns: int, workers: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((rows, columns), dtype=np.float32)
    # One row a chunk: trees of several levels.
    lazy = DASK.from_array(raw, chunks=(1, 3)).map_blocks(np.asarray, dtype=raw.dtype)
    given_labels: dict[str, Any] = {
        "by_sample": [rng.integers(0, 3, (1, rows)).astype(np.int32)],
        "by_unit": [rng.integers(0, 3, (1, columns)).astype(np.int32), rng.random(columns)],
    }
    executor, kernel = ThreadExecutor(2), partial(both_sums, num_modules=3)
    executor.workers = workers
    blocks = [slice(0, 6), slice(6, columns)] if columns > 6 else []
    kept = keep_matrix(lazy, executor, blocks=blocks)
    expected = map_reduce(lazy, kernel, executor=ThreadExecutor(1), **given_labels)
    for matrix in (lazy, kept):
        found = map_reduce(matrix, kernel, executor=executor, **given_labels)
        for one, other in zip(found, expected, strict=True):
            assert one is not None
            assert other is not None
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65, 513])
def test_tree_sum__of_branches_is_that_of_their_leaves(count: int) -> None:
    leaves = np.random.default_rng(count).random((count, 1))
    whole, merged = TreeSum(), TreeSum()
    for number, leaf in enumerate(leaves.copy()):
        whole.add(leaf, number)
    for first in range(0, count, 8):
        branch = TreeSum()
        for number, leaf in enumerate(leaves[first : first + 8].copy(), first):
            branch.add(leaf, number)
        for level, number, part in branch.nodes:
            merged.add(part, number, level)
    assert whole.result() == merged.result()
    assert whole.result() == pytest.approx(leaves.sum())
    assert TreeSum().result() is None


@pytest.mark.parametrize("lazily", [True, False])
def test_kept_matrix__some_units_are_a_matrix(lazily: bool) -> None:
    raw = np.arange(60.0, dtype=np.float32).reshape(6, 10)
    array = DASK.from_array(raw, chunks=(4, 3)) + 0 if lazily else raw
    executor = ThreadExecutor(2)
    blocks = [slice(0, 3), slice(3, 9), slice(9, 10)]
    kept = keep_matrix(array, executor, blocks=blocks)
    for part in (kept.select_units(blocks[1]), keep_matrix(array, executor, units=blocks[1])):
        assert isinstance(part, KeptMatrix)
        assert part.shape == (6, 6)
        sums, _ = map_reduce(part, lambda block: (block.sum(1)[:, None], None), executor=executor)
        np.testing.assert_array_equal(sums, raw[:, 3:9].sum(axis=1)[:, None])
        np.testing.assert_array_equal(np.asarray(part[2]), raw[2, 3:9])


@pytest.mark.parametrize(("workers", "chunks"), [(2, (700, 3072)), (200, (1024, 2048))])
def test_plan_layout__gives_every_worker_a_few_shares(
    workers: int, chunks: tuple[int, int]
) -> None:
    lazy = DASK.zeros((chunks[0] * 200, chunks[1] * 90), chunks=chunks, dtype=np.float32)
    layout = plan_layout(lazy, workers)
    assert 2 * workers < len(layout.places) <= 8 * workers
    covered = {(i, j) for rows, columns in layout.places for i in rows for j in columns}
    assert len(covered) == sum(len(r) * len(c) for r, c in layout.places) == 200 * 90


def test_read_matrix__returns_what_dask_computes() -> None:
    raw = np.random.default_rng(0).random((30, 20))
    lazy = DASK.from_array(raw, chunks=(7, 6))[:, 3:18][np.array([3, 4, 20, 29])]
    np.testing.assert_array_equal(read_matrix(lazy, ThreadExecutor(2)), lazy.compute())
