from typing import Any

import dask.array as da
import numpy as np

from ulcmod_dist.passes.executors import ProgressExecutor, ThreadExecutor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import as_standardised


def test_progress__tells_every_pass_and_changes_no_answer() -> None:
    raw = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    arrays: Any = da
    lazy = as_standardised(arrays.from_array(raw, chunks=(10, 10)))
    labels = np.arange(30, dtype=np.int32) % 3
    told: list[float] = []
    followed = ProgressExecutor(ThreadExecutor(2), told.append)
    for _ in range(2):
        (table,) = ActivationMatrix(lazy, followed).sample_tables([labels], [3])
        np.testing.assert_array_equal(
            table, ActivationMatrix(lazy, ThreadExecutor(2)).sample_tables([labels], [3])[0]
        )
    assert told == sorted(told)
    assert told[-1] == 2
    assert sum(0 < value < 1 for value in told) > 5
