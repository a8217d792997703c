"""Executors: the same tables wherever tasks run, and progress of their passes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
import ray
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.passes import executors
from ulcmod_dist.passes.executors import (
    DaskExecutor,
    Executor,
    ProgressExecutor,
    ThreadExecutor,
    open_executor,
)
from ulcmod_dist.passes.linalg import matmat
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.shares import keep_matrix
from ulcmod_dist.passes.standardised import Standardised, as_standardised

chunked: Any = da.from_array  # untyped in Dask
# Ray and distributed warn about their own insides and leave sockets to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["threads", "distributed", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with open_executor(request.param) as running:
        yield running


def test_executors__make_the_same_tables(executor: Executor, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = (rng.integers(-64, 64, (90, 70)) / 16).astype(np.float32)
    samples, units = rng.integers(0, 4, 90), rng.integers(0, 4, 70)
    lazy = chunked(raw, chunks=(31, 20))
    mapped = lazy.map_blocks(np.asarray, dtype=raw.dtype)
    np.save(tmp_path / "raw.npy", raw)
    file = chunked(np.load(tmp_path / "raw.npy", mmap_mode="r"), chunks=(31, 20))
    kept = [keep_matrix(array, executor) for array in (raw, lazy, mapped, file)]
    for array in (*kept, file, mapped, lazy, raw):
        by_sample, by_unit = ActivationMatrix(matrix_of(array), executor).both_tables(
            [samples], [units], [4]
        )
        assert np.array_equal(by_sample[0], raw @ np.eye(4)[units])
        assert np.array_equal(by_unit[0], raw.T @ np.eye(4)[samples])
    product = matmat(matrix_of(kept[1]), np.ones((70, 1)), executor)
    np.testing.assert_allclose(product[:, 0], raw.sum(axis=1))


def matrix_of(raw: Any) -> Standardised:
    return Standardised(raw, np.zeros(raw.shape[1]), np.ones(raw.shape[1]))


def test_executors__know_their_machines(executor: Executor) -> None:
    assert executor.workers >= 1
    assert executor.memory > 2**28


def test_open_executor__an_address_is_a_scheduler() -> None:
    import distributed

    cluster_of: Any = distributed.LocalCluster
    local = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"}
    with (
        cluster_of(processes=False, **local) as cluster,
        open_executor(cluster.scheduler_address) as executor,
    ):
        assert isinstance(executor, DaskExecutor)
        assert executor.workers == 2


SCRIPT = """
import numpy as np
from ulcmod_dist.passes.executors import open_executor
from ulcmod_dist.passes.linalg import matmat
from ulcmod_dist.passes.standardised import as_standardised
with open_executor("distributed") as executor:
    ones = as_standardised(np.ones((4, 3), "f4"))
    print(executor.workers, matmat(ones, np.ones((3, 1)), executor).sum())
"""


def test_open_executor__a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.stdout.split(), done.returncode) == ([str(CPU_COUNT), "12.0"], 0), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_open_executor__an_address_where_nothing_listens_is_named_within_seconds(
    closed_port: int,
) -> None:
    address = f"tcp://127.0.0.1:{closed_port}"
    began = time.monotonic()
    with (
        pytest.raises(UlcmodError, match=f"No Dask scheduler answers at {address}: .*refused"),
        open_executor(address),
    ):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "tcp://:8786", "tcp://h:x", "moon://h:1"])
def test_open_executor__refuses_what_is_no_address(address: str) -> None:
    with pytest.raises(InvalidInput, match="is no address of a Dask"), open_executor(address):
        pass


def test_open_executor__a_scheduler_without_workers_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import distributed

    monkeypatch.setattr(executors, "DASK_TIMEOUT", 1.0)
    cluster_of: Any = distributed.LocalCluster
    with (
        cluster_of(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(UlcmodError, match=r"The Dask cluster at .* has no workers"),
        open_executor(cluster.scheduler_address),
    ):
        pass


def test_open_executor__refuses_a_name_it_does_not_know() -> None:
    with pytest.raises(InvalidInput, match="no executor 'spark'"), open_executor("spark"):
        pass


def test_open_executor__returns_a_given_executor() -> None:
    threads = ThreadExecutor(1)
    with open_executor(threads) as executor:
        assert executor is threads


def test_open_executor__blas_has_one_thread_meanwhile() -> None:
    def count_threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = count_threads()
        with open_executor("threads") as threads, open_executor(threads):
            assert set(count_threads()) == {1}
        assert count_threads() == before != [1] * len(before)


def test_open_executor__a_dask_of_this_machine_listens_on_it_alone() -> None:
    before = listening()  # such as a Ray of other tests
    with open_executor("distributed"):
        assert {ip for ip, _ in listening() - before} == {"127.0.0.1"}


def listening() -> set[tuple[str, int]]:
    """Addresses on which this process and its children wait for others."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for process in family for socket in process.net_connections("tcp")]
    return {tuple(s.laddr) for s in sockets if s.status == psutil.CONN_LISTEN}


@pytest.fixture
def fresh_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No Ray in this process, whatever other tests did; addresses that one is asked for."""
    asked: list[str] = []
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    return asked


def test_open_executor__a_local_ray_is_quiet_and_its_token_closed(
    fresh_ray: list[str], tmp_path: Path
) -> None:
    with open_executor("ray"):
        assert fresh_ray == ["local"]
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_open_executor__a_ray_elsewhere_needs_a_token(
    fresh_ray: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "198.51.100.7:6379")
    with pytest.raises(InvalidInput, match="without token authentication"), open_executor("ray"):
        pass
    assert fresh_ray == []


def test_progress_executor__reports_every_pass_and_changes_no_result() -> None:
    raw = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    lazy = as_standardised(chunked(raw, chunks=(10, 10)))
    labels = np.arange(30, dtype=np.int32) % 3
    seen: list[float] = []
    reporting = ProgressExecutor(ThreadExecutor(2), seen.append)
    for _ in range(2):
        (table,) = ActivationMatrix(lazy, reporting).sample_tables([labels], [3])
        np.testing.assert_array_equal(
            table, ActivationMatrix(lazy, ThreadExecutor(2)).sample_tables([labels], [3])[0]
        )
    assert seen == sorted(seen)
    assert seen[-1] == 2
    assert sum(0 < value < 1 for value in seen) > 5
