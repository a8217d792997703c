"""The search against the published one in plain Python, and against what the machine can read.

    python -m tests.benchmarks.iterd speed|kernels|store|slope|restarts|noise [options]

Each command prints one table whose ratios come from one run. `store` and `slope` write a Zarr array
into --folder first and leave it to the page cache ("warm": every read is from memory); a limit on
the cache, if any, is the operator's to set and to state.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from tests.benchmarks import published
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.iterd.settings import Settings
from ulcmod_dist.iterd.values import Iteration
from ulcmod_dist.passes.executors import Threads
from ulcmod_dist.passes.grid import total
from ulcmod_dist.passes.standardised import Standardised, from_array
from ulcmod_dist.passes.tables import both_tables, sample_tables, unit_tables

GIB = 2**30
# Untyped in Dask and Zarr.
DASK: Any = da
ZARR: Any = zarr
CHUNKS = (1024, 2048)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {name: globals()[f"run_{name}"] for name in NAMES}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--samples", type=int, default=7000)
    parser.add_argument("--units", type=int, default=9216)
    parser.add_argument("--modules", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--matrix", type=Path, help="a .npy to use in place of a planted matrix")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/ulcmod-benchmark"))
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[1, 2, 4])
    parser.add_argument("--memory-share", type=float, default=0.25)
    parser.add_argument("--no-start", action="store_true", help="speed: leave out k-means")
    options = parser.parse_args()
    Console().print(commands[options.command](options))


NAMES = ("speed", "kernels", "store", "measured", "slope", "restarts", "noise")


def planted(samples: int, units: int, k: int, noise: float) -> tuple[Any, Any, Any]:
    """A float32 matrix of noise with k modules of mean 1, and the modules."""
    rng = np.random.default_rng(0)
    by_sample, by_unit = rng.permutation(samples) % k, rng.permutation(units) % k
    raw = rng.standard_normal((samples, units), dtype=np.float32)
    raw *= noise
    for module in range(k):
        raw[np.ix_(by_sample == module, by_unit == module)] += 1
    return raw, by_sample, by_unit


def standardised(raw: NDArray[np.float32]) -> Standardised:
    """A matrix in memory with its own statistics."""
    mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, ddof=1, dtype=np.float64)
    return Standardised(raw, mean, np.where(std < 1e-8, 1.0, std))


def timed(call: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Least seconds of some calls, and the last answer."""
    seconds, answer = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - started)
    return min(seconds), answer


def matrix_of(options: argparse.Namespace, noise: float = 4.0) -> Standardised:
    """The matrix of the options."""
    if options.matrix is not None:
        return standardised(np.load(options.matrix))
    return standardised(planted(options.samples, options.units, options.modules, noise)[0])


def warm_up() -> None:
    """Compile every kernel."""
    raw = planted(60, 80, 3, 1.0)[0]
    discover(standardised(raw), 3)
    discover(from_array(DASK.from_array(raw, chunks=(20, 20))), 3, mode="blockwise", block_units=20)


def run_speed(options: argparse.Namespace) -> Table:
    """Equal start and orders against plain Python; and whole searches with their starts."""
    warm_up()
    activations, k = matrix_of(options), options.modules
    samples, units = activations.shape
    z = ((activations.raw - activations.mean) / activations.std).astype(np.float32)
    rng = np.random.default_rng(1)
    orders = [(rng.permutation(units), rng.permutation(samples)) for _ in range(options.iterations)]
    begun = discover(activations, k, max_iterations=0)
    labels = begun.sample_labels.astype(np.int64), begun.unit_labels.astype(np.int64)
    ours, found = timed(
        lambda: discover(
            activations,
            k,
            initial_sample_labels=labels[0],
            initial_unit_labels=labels[1],
            sweep_orders=orders,
        ),
        3,
    )
    plain, value = timed(lambda: published.iterate(z, labels, k, orders))
    table = Table("what", "plain Python, s", "here, s", "ratio", "L here / L plain")
    table.add_row(
        f"{len(orders)} iterations, equal start and orders",
        *_ratio(plain, ours),
        f"{found.objective.value / value:.7f}",
    )
    if not options.no_start:
        start, begun_plain = timed(lambda: published.start(z, k, 1))
        plain_all, value = timed(lambda: published.iterate(z, begun_plain, k, orders))
        whole, found = timed(lambda: discover(activations, k, max_iterations=len(orders)), 2)
        table.add_row(
            "the whole search with its start",
            *_ratio(start + plain_all, whole),
            f"{found.objective.value / value:.7f}",
        )
    return table


def _ratio(plain: float, ours: float) -> tuple[str, str, str]:
    return f"{plain:.2f}", f"{ours:.3f}", f"{plain / ours:.1f}x"


def run_kernels(options: argparse.Namespace) -> Table:
    """Passes in memory against the rate of reading the matrix once."""
    activations, k, threads = matrix_of(options), options.modules, Threads()
    rng = np.random.default_rng(2)
    by_sample = rng.integers(0, k, activations.n_samples)
    by_unit = rng.integers(0, k, activations.n_units)
    thin = np.eye(k, dtype=np.float32)[by_unit]
    steps: dict[str, Callable[[], Any]] = {
        "sum of every block (memory)": lambda: total(activations.raw, _sum, executor=threads),
        "product with one-hot [units, K] (BLAS)": lambda: activations.raw @ thin,
        "T_u": lambda: unit_tables(activations, [by_sample], [k], threads),
        "T_s": lambda: sample_tables(activations, [by_unit], [k], threads),
        "T_u and T_s in one pass": lambda: both_tables(
            activations, [by_sample], [by_unit], [k], threads
        ),
    }
    table = Table("pass", "ms", "GB/s", "of memory", "of BLAS")
    rates = {}
    for name, step in steps.items():
        step()
        rates[name] = activations.raw.nbytes / timed(step, 5)[0] / 1e9
    memory, blas, *_ = rates.values()
    for name, rate in rates.items():
        milliseconds = activations.raw.nbytes / rate / 1e6
        table.add_row(
            name, f"{milliseconds:.1f}", f"{rate:.2f}", f"{rate / memory:.0%}", f"{rate / blas:.0%}"
        )
    return table


def _sum(block: Any) -> tuple[None, None]:
    block.sum()
    return None, None


def written(folder: Path, samples: int, units: int) -> Path:
    """An uncompressed, checksummed Zarr array of noise with modules, made once."""
    path = folder / f"{samples}x{units}.zarr"
    if not path.exists():
        array = ZARR.create_array(
            str(path),
            shape=(samples, units),
            chunks=CHUNKS,
            dtype="float32",
            compressors=None,
            serializer=ZARR.codecs.BytesCodec(),
            filters=None,
        )
        rng = np.random.default_rng(0)
        columns = rng.permutation(units) % 10
        for first in range(0, samples, CHUNKS[0]):
            rows = min(CHUNKS[0], samples - first)
            block = rng.standard_normal((rows, units), dtype=np.float32) * np.float32(3)
            block += (rng.integers(0, 10, rows)[:, None] == columns).astype(np.float32)
            array[first : first + rows] = block
    return path


def lazily(path: Path, count: list[int] | None = None) -> Standardised:
    """A stored matrix over Dask; counts the bytes of every chunk that is read."""
    stored: Any = zarr.open_array(str(path), mode="r")

    def read(block_info: Any = None) -> NDArray[np.float32]:
        place = tuple(slice(a, b) for a, b in block_info[None]["array-location"])
        block: NDArray[np.float32] = stored[place]
        if count is not None:
            count[0] += block.nbytes
        return block

    chunks = DASK.core.normalize_chunks(stored.chunks, stored.shape, dtype=stored.dtype)
    return from_array(
        DASK.map_blocks(read, chunks=chunks, dtype=stored.dtype, meta=np.empty((0, 0)))
    )


def run_store(options: argparse.Namespace) -> Table:
    """A matrix of four times the memory limit, in a process of its own."""
    table = Table("GB", "limit", "peak", "reads/iter", "s/iter", "GB/s", "bare GB/s", "share")
    for gigabytes in options.gigabytes:
        samples = int(gigabytes * 1e9 / 4 / 16_384) // 1024 * 1024
        path = written(options.folder, samples, 16_384)
        limit = int(options.memory_share * samples * 16_384 * 4)
        arguments = ["measured", "--matrix", str(path), "--gigabytes", str(limit)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.iterd", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        peak, reads, seconds, bare = (float(word) for word in done.stdout.split())
        size = path_bytes(samples)
        table.add_row(
            f"{size / 1e9:.1f}",
            f"{limit / GIB:.2f} GiB",
            f"{peak / GIB:.2f} GiB",
            f"{reads:.2f}",
            f"{seconds:.2f}",
            f"{size / seconds / 1e9:.2f}",
            f"{size / bare / 1e9:.2f}",
            f"{bare / seconds:.0%}",
        )
    return table


def path_bytes(samples: int) -> int:
    """Bytes of a stored matrix of 16,384 units."""
    return samples * 16_384 * 4


def run_measured(options: argparse.Namespace) -> str:
    """In a fresh process: peak memory, reads and seconds an iteration, and of a bare reading."""
    count = [0]
    activations = lazily(options.matrix, count)
    size = activations.raw.nbytes
    limit = int(options.gigabytes[0])
    seconds: dict[int, float] = {}
    read: dict[int, int] = {}

    def note(done: Iteration) -> None:
        seconds[done.iteration], read[done.iteration] = done.seconds, count[0]

    samples = np.arange(activations.n_samples) % 10
    discover(
        activations,
        10,
        memory=limit,
        max_iterations=3,
        initial_sample_labels=samples,
        progress=note,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bare, _ = timed(lambda: total(activations.raw, _nothing, executor=Threads()), 2)
    last = max(seconds)
    return f"{peak} {(read[last] - read[last - 1]) / size} {seconds[last]} {bare}"


def _nothing(block: Any) -> tuple[None, None]:
    return None, None


def run_slope(options: argparse.Namespace) -> Table:
    """Seconds an iteration against the size of the matrix, from a warm page cache."""
    warm_up()
    table = Table("GB", "s/iteration", "s/GB")
    sizes, times = [], []
    for gigabytes in options.gigabytes:
        samples = int(gigabytes * 1e9 / 4 / 16_384) // 1024 * 1024
        activations = lazily(written(options.folder, samples, 16_384))
        total(activations.raw, _sum, executor=Threads())
        heard: list[float] = []
        discover(
            activations,
            10,
            mode="blockwise",
            memory=int(options.memory_share * path_bytes(samples)),
            max_iterations=3,
            initial_sample_labels=np.arange(samples) % 10,
            progress=partial(_note, heard),
        )
        sizes.append(path_bytes(samples) / 1e9)
        times.append(min(heard[1:]))
        table.add_row(f"{sizes[-1]:.2f}", f"{times[-1]:.2f}", f"{times[-1] / sizes[-1]:.3f}")
    if len(sizes) > 1:
        slope = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        table.add_row("exponent", f"{slope:.3f}", "")
    return table


def _note(heard: list[float], done: Iteration) -> None:
    heard.append(done.seconds)


def _note_second(heard: list[float], done: Iteration) -> None:
    heard.append(done.seconds if done.iteration == 2 else 0.0)


def run_restarts(options: argparse.Namespace) -> Table:
    """Ten restarts against one, reading a store."""
    warm_up()
    samples = int(options.gigabytes[0] * 1e9 / 4 / 16_384) // 1024 * 1024
    activations = lazily(written(options.folder, samples, 16_384))
    table = Table("restarts", "s/iteration of all", "against one")
    first = 0.0
    for restarts in (1, 10):
        heard: list[float] = []
        settings: dict[str, Any] = {"mode": "blockwise", "max_iterations": 2, "restarts": restarts}
        plan = plan_search(activations, [10], Settings(**settings), Threads())
        discover(
            activations,
            10,
            **settings,
            memory=plan.needed - 1,
            initial_sample_labels=np.arange(samples) % 10,
            progress=partial(_note_second, heard),
        )
        seconds = sum(heard)
        first = first or seconds
        table.add_row(str(restarts), f"{seconds:.2f}", f"{seconds / first:.2f}x")
    return table


def run_noise(options: argparse.Namespace) -> Table:
    """Planted modules found again, against the noise around them."""
    table = Table("noise / signal", "adjusted Rand, samples", "adjusted Rand, units")
    for noise in (0.5, 1, 2, 4, 8, 16, 32):
        raw, by_sample, by_unit = planted(1000, 2000, options.modules, noise)
        found = discover(standardised(raw), options.modules, restarts=3)
        table.add_row(
            f"{noise:g}",
            f"{adjusted_rand_score(by_sample, found.sample_labels):.3f}",
            f"{adjusted_rand_score(by_unit, found.unit_labels):.3f}",
        )
    return table


if __name__ == "__main__":
    main()
