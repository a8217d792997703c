"""A pass over blocks in memory gives the bits of a pass by graph."""

from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.kernels import both_sums
from ulcmod_dist.passes.map_reduce import (
    TreeSum,
    local_blocks,
    map_reduce,
    select_block_columns,
)

# Untyped in Dask.
DASK: Any = da


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 150), columns=st.integers(1, 20), seed=st.integers(0, 99))
def test_map_reduce__has_the_bits_of_a_graph_without_one(
    rows: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((rows, columns), dtype=np.float32)
    # One row a chunk: trees of up to three levels.
    lazy = DASK.from_array(raw, chunks=(1, 3)).map_blocks(np.asarray, dtype=raw.dtype)
    given_labels: dict[str, Any] = {
        "by_sample": [rng.integers(0, 3, (1, rows)).astype(np.int32)],
        "by_unit": [rng.integers(0, 3, (1, columns)).astype(np.int32), rng.random(columns)],
    }
    executor, kernel = ThreadExecutor(2), partial(both_sums, num_modules=3)
    held = executor.persist(lazy)
    assert local_blocks(lazy) is None
    assert local_blocks(held) is not None
    for one, other in zip(
        map_reduce(lazy, kernel, executor=executor, **given_labels),
        map_reduce(held, kernel, executor=executor, **given_labels),
        strict=True,
    ):
        assert one is not None
        assert other is not None
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65, 513])
def test_tree_sum__adds_up_every_part_and_changes_none(count: int) -> None:
    parts = [np.array([float(number)]) for number in range(1, count + 1)]
    tree = TreeSum()
    for part in parts:
        tree.add(part)
    assert tree.result() == [count * (count + 1) / 2]
    assert [part[0] for part in parts] == list(range(1, count + 1))
    assert TreeSum().result() is None


def test_select_block_columns__of_local_chunks_are_local() -> None:
    raw = np.arange(60.0, dtype=np.float32).reshape(6, 10)
    held = ThreadExecutor(2).persist(DASK.from_array(raw, chunks=(4, 3)) + 0)
    part = select_block_columns(held, 1, 3)
    assert local_blocks(part) is not None
    np.testing.assert_array_equal(part.compute(), raw[:, 3:9])
