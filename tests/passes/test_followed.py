from typing import Any

import dask.array as da
import numpy as np

from ulcmod_dist.passes.executors import Threads
from ulcmod_dist.passes.followed import Followed
from ulcmod_dist.passes.standardised import from_array
from ulcmod_dist.passes.tables import sample_tables


def test_followed__tells_every_pass_and_changes_no_answer() -> None:
    raw = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    arrays: Any = da
    lazy = from_array(arrays.from_array(raw, chunks=(10, 10)))
    labels = np.arange(30, dtype=np.int32) % 3
    told: list[float] = []
    followed = Followed(Threads(2), told.append)
    for _ in range(2):
        (table,) = sample_tables(lazy, [labels], [3], followed)
        np.testing.assert_array_equal(table, sample_tables(lazy, [labels], [3], Threads(2))[0])
    assert told == sorted(told)
    assert told[-1] == 2
    assert sum(0 < value < 1 for value in told) > 5
