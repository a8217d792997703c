"""A search on two machines, of which one is cut off in mid-search."""

import time
from typing import Any

import dask.array as da
import numpy as np
import pytest

from tests.faults.machines import dask_hosts
from tests.iterd.problem import planted
from tests.submit.hosts import needs_root
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.passes.standardised import Standardised

pytestmark = [pytest.mark.faults, needs_root, pytest.mark.filterwarnings("ignore")]
chunked: Any = da.from_array  # untyped in Dask


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_search__a_machine_that_is_cut_off_costs_a_minute_at_most(mode: Any) -> None:
    problem = planted(noise=3.0, samples=400, units=900)
    given = problem.standardised()
    lazy = Standardised(chunked(problem.raw, chunks=(40, 150)), given.mean, given.std)
    search: dict[str, Any] = {"mode": mode, "block_units": 150, "restarts": 2, "moves": False}
    here = discover(lazy, 5, **search)
    cut: list[float] = []
    with dask_hosts(machines=2, processes=1) as (address, hosts):

        def cut_one(done: Iteration) -> None:
            if done.iteration == 2 and not cut:
                hosts[1].cut_off()
                cut.append(time.monotonic())

        found = discover(lazy, 5, executor=address, progress=cut_one, **search)
        seconds = time.monotonic() - cut[0]
    assert np.array_equal(found.sample_labels, here.sample_labels)
    assert np.array_equal(found.unit_labels, here.unit_labels)
    assert seconds < 60
