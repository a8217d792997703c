"""Evaluation and report of matrices that exist nowhere: blocks made on demand, passes counted.

    python -m tests.benchmarks.evaluation --samples 100000 --units 400000

A block is noise from one tile plus the planted modules. Each step prints its seconds, its passes,
what that is beside as many bare readings (a sum over every block), and the peak memory since the
start. The page is rendered as a run's is, and opened in Chromium where there is one. The command
fails where memory went beyond the limit, or the page beyond its size or its time.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tests.evaluate.problem import find_baselines
from tests.report.chromium import CHROMIUM, launch_chromium, measure_opening
from ulcmod_dist.config.job import Job
from ulcmod_dist.evaluate.baselines import METHODS, build_unit_space
from ulcmod_dist.evaluate.features import ModuleFeatures, compute_module_features
from ulcmod_dist.evaluate.methods import score_methods
from ulcmod_dist.evaluate.null import SearchFunction, search_null_model
from ulcmod_dist.evaluate.topics import Samples
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import rmatmat
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.pipeline.discovery import Found, describe
from ulcmod_dist.report.page import render_page
from ulcmod_dist.results.discovery import (
    Discovery,
    MethodComparison,
    ReportData,
    Reproduction,
    RunFacts,
)
from ulcmod_dist.results.types import Absent, Objective
from ulcmod_dist.store.modules import StoredModules

CHUNK = (1024, 4096)
LAYERS = 36
CLUSTERINGS = METHODS[:6]
PAGE_MEGABYTES, PAGE_SECONDS = 15, 3
JOB = Job.from_text(
    "run: runs/virtual\nmatrix: {path: none.npy}\ndiscover: {modules: [10]}\n",
    source="the benchmark",
    folder=Path.cwd(),
)


@dataclass(frozen=True)
class Virtual:
    """Activations that are generated, and the modules planted in them."""

    activations: Standardised
    sample_labels: NDArray[np.int32]
    unit_labels: NDArray[np.int32]


class Meter:
    """Times steps and prints them beside a bare reading of the matrix."""

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes = gigabytes
        self.reading = 0.0
        self.table = Table("step", "seconds", "passes", "of bare readings", "peak MiB")

    def measure(self, name: str, passes: int, step: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        answer = step()
        seconds = time.perf_counter() - start
        self.reading = self.reading or seconds
        ratio = f"{seconds / (passes * self.reading):.2f}" if passes else "-"
        self.table.add_row(name, f"{seconds:.1f}", str(passes), ratio, f"{peak_mib():,.0f}")
        return answer


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@njit(nogil=True)
def planted_block(
    tile: NDArray[np.float32], shift: int, mine: NDArray[np.int32], theirs: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Noise from the tile, its rows shifted, one higher where sample and unit share a module."""
    block = np.empty((len(mine), len(theirs)), np.float32)
    for row in range(len(mine)):
        noise = tile[(row + shift) % len(tile)]
        for column in range(len(theirs)):
            block[row, column] = noise[column] + np.float32(mine[row] == theirs[column])
    return block


def virtual(samples: int, units: int, num_modules: int, seed: int) -> Virtual:
    """Planted modules of equal size in noise."""
    rng = np.random.default_rng(seed)
    sample_labels = rng.integers(0, num_modules, samples).astype(np.int32)
    unit_labels = rng.integers(0, num_modules, units).astype(np.int32)
    tile = rng.normal(5, 1, CHUNK).astype(np.float32)

    def block(block_info: Any = None) -> Any:
        rows, columns = (slice(*bounds) for bounds in block_info[None]["array-location"])
        # Another part of the tile for each block, so that columns are not equal.
        shift = rows.start // CHUNK[0] + 7 * (columns.start // CHUNK[1])
        return planted_block(tile, shift, sample_labels[rows], unit_labels[columns])

    chunks = tuple(
        tuple(min(size, length - first) for first in range(0, length, size))
        for length, size in zip((samples, units), CHUNK, strict=True)
    )
    lazy: Any = da
    raw = lazy.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    share = 1 / num_modules
    mean, std = np.full(units, 5 + share), np.full(units, (1 + share * (1 - share)) ** 0.5)
    return Virtual(Standardised(raw, mean, std), sample_labels, unit_labels)


def found_modules(problem: Virtual, features: ModuleFeatures, num_modules: int, seed: int) -> Found:
    """The planted modules as a search would have stored them."""
    units, samples = len(problem.unit_labels), len(problem.sample_labels)
    score = features.objective(problem.sample_labels)
    stored = StoredModules(
        units=pa.table(
            {
                "layer": np.arange(units) * LAYERS // units,
                "module": problem.unit_labels,
                "stability": np.full(units, 0.9),
            }
        ),
        samples=pa.table({"split": ["train"] * samples, "module": problem.sample_labels}),
        history=pa.table(
            {
                "restart": [0, 0],
                "objective": [score.value / 2, score.value],
                "units_moved": [units, 0],
                "samples_moved": [samples, 0],
            }
        ),
        metrics={
            "num_modules": num_modules,
            "seed": seed,
            "objective": score.value,
            "xi": score.xi,
            "balance": score.balance,
            "unit_agreement": None,
            "sample_agreement": None,
        },
    )
    return Found(stored, features, None)


def prompts(problem: Virtual, seed: int) -> dict[str, Samples]:
    """Prompts of twenty words each, which follow the planted modules a little."""
    labels = problem.sample_labels
    rng = np.random.default_rng(seed)
    words = np.array([f"word{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26)])
    picks = (rng.integers(0, len(words), (len(labels), 20)) // (1 + labels[:, None])).tolist()
    train = Samples(
        ids=[f"sample-{row}" for row in range(len(labels))],
        categories=[f"category {label}" for label in labels],
        tokens=rng.integers(5, 500, len(labels)),
        texts=[" ".join(words[row]) for row in picks],
    )
    return {"train": train, "test": Samples([], [], np.empty(0, np.int64), [])}


def report_of(problem: Virtual, discovery: Discovery) -> ReportData:
    """The report of one K."""
    return ReportData(
        run=RunFacts(
            "virtual", None, *problem.activations.shape[:1], 0, problem.activations.n_units
        ),
        discoveries=(discovery,),
        overlaps=Absent("The modules of a single K have been found."),
        reproduction=Reproduction((), "", (), ()),
    )


def one_pass(problem: Virtual, num_modules: int, executor: ThreadExecutor) -> SearchFunction:
    """What stands in for a search: the objective of the planted modules, which takes one pass."""

    def search(activations: Standardised, _seed: int) -> dict[int, Objective]:
        labels = [problem.unit_labels]
        (features,) = compute_module_features(activations, labels, [num_modules], executor)
        return {num_modules: features.objective(problem.sample_labels)}

    return search


def seconds_to_open(page: Path) -> float | None:
    """Processor time of the page's main thread in Chromium; None where there is no Chromium."""
    if CHROMIUM is None:
        return None
    with launch_chromium() as browser:
        return measure_opening(browser, page)["TaskDuration"]


def run(options: argparse.Namespace) -> Meter:
    """Measure the steps that the options ask for."""
    problem = virtual(options.samples, options.units, options.modules, options.seed)
    activations, threads = problem.activations, ThreadExecutor(options.threads)
    meter = Meter(options.samples * options.units * 4 / 1e9)
    ones = np.ones((problem.activations.n_samples, 1))
    meter.measure("bare reading", 1, lambda: rmatmat(activations, ones, threads))
    labels, k = problem.unit_labels, options.modules
    (features,) = meter.measure(
        "module features", 1, lambda: compute_module_features(activations, [labels], [k], threads)
    )
    found = found_modules(problem, features, k, options.seed)
    print(f"planted modules: xi {found.stored.metrics['xi']:.3f}")
    samples = prompts(problem, options.seed)
    absent = Absent("Not measured here.")
    discovery = meter.measure(
        "all that follows from them",
        0,
        lambda: describe(JOB, found, samples, null=absent, methods=MethodComparison(())),
    )
    page = meter.measure("page", 0, lambda: render_page(report_of(problem, discovery)))
    options.page.write_text(page, encoding="utf-8")
    # In the order of the evaluation, which lets go of each before it begins the next.
    if options.null:
        meter.measure(
            "null model: one pass",
            1,
            lambda: search_null_model(activations, one_pass(problem, k, threads), 1, options.seed),
        )
    if options.baselines:
        space = meter.measure(
            "baselines: unit space", 7, lambda: build_unit_space(activations, threads)
        )
        candidates = meter.measure(
            f"baselines: {len(CLUSTERINGS)} clusterings",
            0,
            lambda: find_baselines(space, options.samples, k, methods=CLUSTERINGS),
        )
        no_categories = [None] * options.samples
        meter.measure(
            "baselines: scores",
            1,
            lambda: score_methods(candidates, activations, None, no_categories, [], threads),
        )
    return meter


def main() -> None:
    """Print the table; exit with 1 where memory went beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=40_000)
    parser.add_argument("--modules", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, default=4096, help="limit in MiB")
    parser.add_argument("--page", type=Path, default=Path(tempfile.gettempdir()) / "virtual.html")
    parser.add_argument("--baselines", action="store_true", help="also the clusterings")
    parser.add_argument("--null", action="store_true", help="also a pass over permuted columns")
    options = parser.parse_args()
    meter = run(options)
    meter.table.title = (
        f"{options.samples:,} samples x {options.units:,} units = {meter.gigabytes:,.1f} GB, "
        f"K = {options.modules}, {options.threads} threads"
    )
    Console().print(meter.table)
    megabytes, seconds = options.page.stat().st_size / 1e6, seconds_to_open(options.page)
    opening = (
        "no Chromium here" if seconds is None else f"{seconds:.2f} s of processor time to open"
    )
    print(f"page: {megabytes:.1f} MB, {opening}")
    if megabytes > PAGE_MEGABYTES or (seconds or 0.0) > PAGE_SECONDS:
        raise SystemExit(f"The page is beyond {PAGE_MEGABYTES} MB or {PAGE_SECONDS} s.")
    if peak_mib() > options.memory:
        raise SystemExit(f"Peak memory {peak_mib():,.0f} MiB is beyond {options.memory:,.0f} MiB.")


if __name__ == "__main__":
    main()
