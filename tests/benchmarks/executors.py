"""The same search on threads, Dask and Ray, and what driver and scheduler take of a large pass.

    python -m tests.benchmarks.executors searches [--gigabytes 0.26 4] [--matrix FILE.npy]
    python -m tests.benchmarks.executors machines [--gigabytes 1] [--modes exact]
    python -m tests.benchmarks.executors scheduling [--chunks 3200000] [--workers 50]

`searches` prints seconds an iteration after start-up, each executor beside threads: the executors
take turns, and of each search the median of all iterations but the first two counts. `machines`
does so on a Dask cluster of one machine and on one of two or three with as many processes together,
which are network namespaces here (needs root). `scheduling` makes the passes of an iteration over
chunks that are never read, with workers that compute nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.stored import CHUNKS
from tests.faults.machines import dask_hosts
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.iterations import overlap_blocks
from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.passes.executors import DaskExecutor, Executor, open_executor
from ulcmod_dist.passes.map_reduce import Side
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.shares import Share
from ulcmod_dist.passes.standardised import Standardised, as_standardised

# Untyped in Dask.
DASK: Any = da
# Strength of the planted modules in noise of 1. Where a start finds them, no iteration is left to
# measure; as weak as here, hundreds of items move in each, as in a real model.
_SIGNAL = np.float32(0.1)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["searches", "machines", "scheduling"])
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[0.26])
    parser.add_argument("--matrix", type=Path, help="a standardised .npy, cut into these sizes")
    parser.add_argument("--restarts", type=int, nargs="*", default=[1, 10])
    parser.add_argument("--modes", nargs="*", default=["exact", "blockwise"])
    parser.add_argument("--executors", nargs="*", default=["threads", "distributed", "ray"])
    parser.add_argument("--repeats", type=int, default=3, help="searches of each executor")
    parser.add_argument("--chunks", type=int, default=3_200_000)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--block-columns", type=int, default=16)
    options = parser.parse_args()
    Console().print(globals()[f"run_{options.command}"](options))


def matrix_of(gigabytes: float, matrix: Path | None) -> Standardised:
    """A standardised matrix as a store has it: chunks of a megabyte or eight, made when read."""
    if matrix is not None:
        raw = np.load(matrix)
        rows = min(len(raw), int(gigabytes * 1e9 / 4 / raw.shape[1]))
        return as_standardised(DASK.from_array(raw[:rows], chunks=(-(-rows // 2), 3072)))
    units = 8 * CHUNKS[1]
    samples = max(1, round(gigabytes * 1e9 / 4 / units / CHUNKS[0])) * CHUNKS[0]
    lazy = DASK.map_blocks(
        _noise,
        chunks=((CHUNKS[0],) * (samples // CHUNKS[0]), (CHUNKS[1],) * 8),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )
    return as_standardised(lazy)


def _noise(block_info: Any = None) -> Any:
    row, column = block_info[None]["chunk-location"]
    rng = np.random.default_rng([row, column])
    block = rng.standard_normal(CHUNKS, dtype=np.float32)
    planted = np.arange(CHUNKS[0])[:, None] % 10 == (np.arange(CHUNKS[1]) // 7) % 10
    return block + _SIGNAL * planted


def run_searches(options: argparse.Namespace) -> Table:
    """Seconds an iteration, and against threads: medians of searches that take turns."""
    table = Table("GB", "mode", "restarts", "executor", "s/iteration", "against threads", "L")
    cases = [(g, m, r) for g in options.gigabytes for m in options.modes for r in options.restarts]
    with ExitStack() as opened:
        executors = {name: opened.enter_context(open_executor(name)) for name in options.executors}
        for gigabytes, mode, restarts in cases:
            activations = matrix_of(gigabytes, options.matrix)
            spent: dict[str, list[float]] = {name: [] for name in executors}
            values = {}
            for _ in range(options.repeats):
                for name, executor in executors.items():
                    seconds, value = iteration_seconds(activations, mode, restarts, executor)
                    spent[name].append(seconds)
                    values[name] = value
            for name, seconds_each in spent.items():
                ratios = np.divide(seconds_each, spent.get("threads", np.nan))
                case = f"{gigabytes:g}", mode, str(restarts), name
                cells = f"{np.median(seconds_each):.3f}", f"{np.median(ratios):.2f}x"
                table.add_row(*case, *cells, f"{values[name]:.6f}")
                print(*case, *cells, np.round(ratios, 2), f"{values[name]:.6f}", flush=True)
    return table


def run_machines(options: argparse.Namespace) -> Table:
    """Seconds an iteration on one machine, and on several of as many processes together."""
    table = Table("GB", "mode", "restarts", "machines", "processes", "s/iteration", "against one")
    cases = [(g, m, r) for g in options.gigabytes for m in options.modes for r in options.restarts]
    alone: dict[Any, float] = {}
    for machines, each in [(1, 2), (2, 1), (1, 3), (3, 1)]:
        with dask_hosts(machines, each) as (address, _), open_executor(address) as executor:
            for case in cases:
                activations = matrix_of(case[0], options.matrix)
                spent, _ = iteration_seconds(activations, *case[1:], executor)
                ratio = spent / alone.setdefault((case, machines * each), spent)
                cells = f"{case[0]:g}", case[1], str(case[2]), str(machines), str(machines * each)
                table.add_row(*cells, f"{spent:.3f}", f"{ratio:.2f}x")
                print(*cells, f"{spent:.3f}", f"{ratio:.2f}x", flush=True)
    return table


def iteration_seconds(
    activations: Standardised, mode: str, restarts: int, executor: Executor
) -> tuple[float, float]:
    """Median seconds of an iteration of all restarts but the first two, and L."""
    spent: dict[int, float] = {}

    def note(done: Iteration) -> None:
        spent[done.iteration] = spent.get(done.iteration, 0.0) + done.seconds

    settings: dict[str, Any] = {"mode": mode, "restarts": restarts, "max_iterations": 6}
    found = discover(activations, 10, executor=executor, moves=False, progress=note, **settings)
    return float(np.median([spent[n] for n in sorted(spent) if n > 1])), found.objective.value


def run_scheduling(options: argparse.Namespace) -> Table:
    """Seconds of an iteration's passes in driver and scheduler, with workers in this process."""
    import distributed

    units = options.block_columns * CHUNKS[1]
    rows = -(-options.samples // CHUNKS[0])
    columns = -(-options.chunks // rows)
    shape = rows * CHUNKS[0], columns * CHUNKS[1]
    activations = as_standardised(DASK.zeros(shape, chunks=CHUNKS, dtype=np.float32))
    labels = np.zeros(shape[0], np.int32), np.zeros(shape[1], np.int32)
    table = Table("an iteration", "chunks", "tasks", "seconds", "of them in the process's CPU")
    cluster_of: Any = distributed.LocalCluster
    client_of: Any = distributed.Client
    local = {
        "processes": False,
        "n_workers": options.workers,
        "threads_per_worker": 1,
        "memory_limit": 0,
    }
    with (
        cluster_of(**local, dashboard_address=None) as cluster,
        client_of(cluster, set_as_default=False) as client,
    ):
        executor = Idle(client)
        matrix = ActivationMatrix(activations, executor)

        def exact() -> None:
            matrix.sample_tables([labels[1]], [1])
            matrix.unit_tables([labels[0]], [1])

        def blockwise() -> None:
            blocks = [slice(a, min(a + units, shape[1])) for a in range(0, shape[1], units)]
            overlap_blocks(matrix, blocks, [labels[0]], [1], lambda part, _: [labels[1][part]])

        for name, iterate in {
            "exact, two reads": exact,
            f"blocks of {units:,} units": blockwise,
        }.items():
            executor.tasks, started, cpu = 0, time.perf_counter(), time.process_time()
            iterate()
            spent = f"{time.perf_counter() - started:.1f}", f"{time.process_time() - cpu:.1f}"
            table.add_row(name, f"{rows * columns:,}", f"{executor.tasks:,}", *spent)
            print(name, executor.tasks, *spent, flush=True)
    return table


class Idle(DaskExecutor):
    """A Dask cluster whose workers read and compute nothing, but return sums of the right shape."""

    tasks = 0

    def map(self, function: Any, items: Any, shared: Any, *others: Any) -> Iterator[Any]:
        """As if the function had been called."""
        self.tasks += len(items)
        return super().map(_pretend, items, shared, *others)

    def keep(self, function: Any, items: Any, shared: Any) -> list[Any]:
        """As if the items had been read."""
        return super().keep(_leave, items, shared)


def _leave(share: Share, _: Any) -> Share:
    return share


def _pretend(_: Share, shared: Any, sides: tuple[Side, Side]) -> Any:
    """Sums of one module, for whichever side is asked for."""
    (rows, by_sample), (columns, by_unit) = sides
    samples, units = (
        sum(part.stop - part.start for part in side.values()) for side in (rows, columns)
    )
    of_samples = [(0, min(columns), np.zeros((samples, 1)))] if by_unit else []
    of_units = [(0, min(rows), np.zeros((1, units)))] if by_sample else []
    return of_samples, of_units


if __name__ == "__main__":
    main()
