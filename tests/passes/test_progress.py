from typing import Any

import dask.array as da
import numpy as np

from ulcmod_dist.passes.executors import ProgressExecutor, ThreadExecutor
from ulcmod_dist.passes.standardised import as_standardised
from ulcmod_dist.passes.tables import sample_tables


def test_progress__tells_every_pass_and_changes_no_answer() -> None:
    raw = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    arrays: Any = da
    lazy = as_standardised(arrays.from_array(raw, chunks=(10, 10)))
    labels = np.arange(30, dtype=np.int32) % 3
    told: list[float] = []
    followed = ProgressExecutor(ThreadExecutor(2), told.append)
    for _ in range(2):
        (table,) = sample_tables(lazy, [labels], [3], followed)
        np.testing.assert_array_equal(
            table, sample_tables(lazy, [labels], [3], ThreadExecutor(2))[0]
        )
    assert told == sorted(told)
    assert told[-1] == 2
    assert sum(0 < value < 1 for value in told) > 5
