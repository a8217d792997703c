"""The search against the published one in plain Python, and against what the machine can read.

    python -m tests.benchmarks.iterd speed|kernels|first|store|slope|restarts|starts|noise [options]

Each command prints one table whose ratios come from one run. `store`, `slope` and `restarts` first
write a Zarr array coded as the store codes it into --folder. With --cache cold (the default) its
files are put out of the page cache before every iteration and every bare reading, so that each of
them reads the disk; with --cache warm they are read once before, and stay if memory allows.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from tests.benchmarks import published
from tests.benchmarks.stored import lazily, set_cache, side, written
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.iterd import init
from ulcmod_dist.iterd.balanced_kmeans import balanced_kmeans
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import principal_components
from ulcmod_dist.passes.map_reduce import map_reduce
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import Standardised, as_standardised
from ulcmod_dist.runtime.memory import reuse_freed_memory

GIB = 2**30
# Untyped in Dask.
DASK: Any = da


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {name[4:]: call for name, call in globals().items() if name.startswith("run_")}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--samples", type=int, default=7000)
    parser.add_argument("--units", type=int, default=9216)
    parser.add_argument("--modules", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--matrix", type=Path, help="a .npy to use in place of a planted matrix")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/ulcmod-benchmark"))
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[1, 2, 4])
    parser.add_argument("--memory-share", type=float, default=0.25)
    parser.add_argument("--cache", choices=["cold", "warm"], default="cold")
    parser.add_argument("--no-start", action="store_true", help="speed: leave out k-means")
    options = parser.parse_args()
    Console().print(commands[options.command](options))


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
    discover(
        as_standardised(DASK.from_array(raw, chunks=(20, 20))), 3, mode="blockwise", block_units=20
    )


def run_speed(options: argparse.Namespace) -> Table:
    """Equal start and orders against plain Python; and whole searches with their starts."""
    warm_up()
    activations, k = matrix_of(options), options.modules
    samples, units = activations.shape
    z = ((activations.raw - activations.mean) / activations.std).astype(np.float32)
    rng = np.random.default_rng(1)
    orders = [(rng.permutation(units), rng.permutation(samples)) for _ in range(options.iterations)]
    search = partial(discover, activations, k, max_iterations=0)
    first = search()
    labels = first.sample_labels.astype(np.int64), first.unit_labels.astype(np.int64)
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
        start, start_plain = timed(lambda: published.start(z, k, 1))
        plain_all, value = timed(lambda: published.iterate(z, start_plain, k, orders))
        whole, found = timed(lambda: discover(activations, k, max_iterations=len(orders)), 2)
        table.add_row(
            "the whole search with its start",
            *_ratio(start + plain_all, whole),
            f"{found.objective.value / value:.7f}",
        )
        init.FIRST_RESTARTS = 10
        ten, found = timed(lambda: discover(activations, k, restarts=10, moves=False), 2)
        table.add_row(
            "ten restarts to convergence against one plain search",
            *_ratio(start + plain_all, ten),
            f"{found.objective.value / value:.7f}",
        )
        points = principal_components(activations, ThreadExecutor(), side="samples", seed=0)
        quality = spread_within(points, labels[0]) / spread_within(points, start_plain[0])
        table.add_row(
            "its start alone", *_ratio(start, timed(search)[0]), f"{quality:.5f} (spread)"
        )
    return table


def _ratio(plain: float, ours: float) -> tuple[str, str, str]:
    return f"{plain:.2f}", f"{ours:.3f}", f"{plain / ours:.1f}x"


def run_kernels(options: argparse.Namespace) -> Table:
    """Passes in memory against the rate of reading the matrix once."""
    activations, k, threads = matrix_of(options), options.modules, ThreadExecutor()
    matrix = ActivationMatrix(activations, threads)
    rng = np.random.default_rng(2)
    by_sample = rng.integers(0, k, activations.n_samples)
    by_unit = rng.integers(0, k, activations.n_units)
    thin = np.eye(k, dtype=np.float32)[by_unit]
    steps: dict[str, Callable[[], Any]] = {
        "sum of every block (memory)": lambda: map_reduce(activations.raw, _sum, executor=threads),
        "product with one-hot (units, K) (BLAS)": lambda: activations.raw @ thin,
        "T_u": lambda: matrix.unit_tables([by_sample], [k]),
        "T_s": lambda: matrix.sample_tables([by_unit], [k]),
        "T_u and T_s in one pass": lambda: matrix.both_tables([by_sample], [by_unit], [k]),
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


def run_first(options: argparse.Namespace) -> Table:
    """The first search of a process against its second, in two fresh processes."""
    table = Table("kernels", "first search, s", "second, s", "more, s")
    with tempfile.TemporaryDirectory() as cache:
        for kernels in ("compiled", "of the cache"):
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.iterd", "twice"],
                env=os.environ | {"NUMBA_CACHE_DIR": cache},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            first, second = map(float, done.stdout.split())
            table.add_row(kernels, f"{first:.2f}", f"{second:.2f}", f"{first - second:.2f}")
    return table


def run_twice(options: argparse.Namespace) -> str:
    """Seconds of two equal searches in a fresh process."""
    activations = standardised(planted(1260, 3072, 7, 4.0)[0])
    return " ".join(str(timed(lambda: discover(activations, 7))[0]) for _ in range(2))


def run_store(options: argparse.Namespace) -> Table:
    """A matrix of four times the memory limit, in a process of its own."""
    table = Table("GB", "limit", "peak", "reads/iter", "s/iter", "GB/s", "bare GB/s", "share")
    for gigabytes in options.gigabytes:
        path = written(options.folder, gigabytes)
        size = lazily(path).raw.nbytes
        limit = int(options.memory_share * size)
        arguments = ["measured", "--matrix", str(path), "--gigabytes", str(limit)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.iterd", *arguments, "--cache", options.cache],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        peak, reads, seconds, bare = (float(word) for word in done.stdout.split())
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


def run_measured(options: argparse.Namespace) -> str:
    """In a fresh process: peak memory, reads and seconds an iteration, and of a bare reading."""
    reuse_freed_memory()  # as the command line does
    count = [0]
    activations = lazily(options.matrix, count)
    set_cache(options.matrix, options.cache)
    seconds: list[float] = []
    read: list[int] = []

    def note(done: Iteration) -> None:
        seconds.append(done.seconds)
        read.append(count[0])
        set_cache(options.matrix, options.cache)

    discover(
        activations,
        10,
        memory=int(options.gigabytes[0]),
        max_iterations=4,
        initial_sample_labels=np.arange(activations.n_samples) % 10,
        progress=note,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bare = []
    for _ in range(3):
        set_cache(options.matrix, options.cache)
        bare.append(
            timed(lambda: map_reduce(activations.raw, _nothing, executor=ThreadExecutor()))[0]
        )
    reads = (read[-1] - read[-2]) / activations.raw.nbytes
    # The first iteration compiles the kernels.
    return f"{peak} {reads} {np.median(seconds[2:])} {np.median(bare)}"


def _nothing(block: Any) -> tuple[None, None]:
    return None, None


def iterations(
    path: Path, activations: Standardised, options: argparse.Namespace, **settings: Any
) -> list[float]:
    """Seconds of each iteration of all restarts, the cache in its state before each."""
    heard: dict[int, float] = {}
    set_cache(path, options.cache)

    def note(done: Iteration) -> None:
        heard[done.iteration] = heard.get(done.iteration, 0.0) + done.seconds

    discover(
        activations,
        10,
        mode="blockwise",
        initial_sample_labels=np.arange(activations.n_samples) % 10,
        progress=note,
        checkpoint=lambda _: set_cache(path, options.cache),
        **settings,
    )
    return [heard[i] for i in sorted(heard) if i]


def run_slope(options: argparse.Namespace) -> Table:
    """Seconds an iteration against the size of the matrix."""
    warm_up()
    table = Table("GB", "s/iteration", "s/GB")
    path = written(options.folder, max(options.gigabytes))
    sizes, times = [], []
    # The first run is thrown away: memory that a machine hands out for the first time is slow.
    for number, gigabytes in enumerate([options.gigabytes[0], *options.gigabytes]):
        activations = lazily(path, size=side(gigabytes))
        size = activations.raw.nbytes
        memory = max(GIB // 2, int(options.memory_share * size))
        seconds = float(
            np.median(iterations(path, activations, options, memory=memory, max_iterations=3))
        )
        if number:
            sizes.append(size / 1e9)
            times.append(seconds)
            table.add_row(f"{sizes[-1]:.2f}", f"{seconds:.2f}", f"{seconds / sizes[-1]:.3f}")
    if len(sizes) > 1:
        slope = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        table.add_row("exponent", f"{slope:.3f}", "")
    return table


def run_restarts(options: argparse.Namespace) -> Table:
    """Ten restarts against one, reading a store."""
    warm_up()
    path = written(options.folder, options.gigabytes[0])
    table = Table("restarts", "s/iteration of all", "against one")
    first = 0.0
    for restarts in (1, 10):
        settings: dict[str, Any] = {"mode": "blockwise", "restarts": restarts}
        plan = plan_search(
            lazily(path), [10], SearchConfig(modules=(10,), **settings), ThreadExecutor()
        )
        memory = plan.projected_mem - 1
        found = iterations(
            path, lazily(path), options, memory=memory, max_iterations=3, restarts=restarts
        )
        seconds = float(np.median(found))
        first = first or seconds
        table.add_row(str(restarts), f"{seconds:.2f}", f"{seconds / first:.2f}x")
    return table


def run_starts(options: argparse.Namespace) -> Table:
    """Balanced k-means of millions of samples in 16 dimensions: time, balance, quality."""
    balanced_kmeans(np.random.default_rng(0).normal(size=(100, 16)), 3, np.random.default_rng(0))
    table = Table("samples", "s", "sizes", "mean squared distance")
    for samples in (20_000, 200_000, 2_000_000):
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(options.modules, 16)) * 2
        points = rng.normal(size=(samples, 16)) + centres[rng.integers(0, len(centres), samples)]
        seconds, labels = timed(partial(balanced_kmeans, points, options.modules, rng))
        sizes = np.bincount(labels, minlength=options.modules)
        table.add_row(
            f"{samples:,}",
            f"{seconds:.1f}",
            f"{sizes.min():,} to {sizes.max():,}",
            f"{spread_within(points, labels):.4f}",
        )
    return table


def spread_within(points: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Mean squared distance of points to the mean of their group."""
    means = np.stack([points[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    return float(((points - means[labels]) ** 2).sum(axis=1).mean())


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
