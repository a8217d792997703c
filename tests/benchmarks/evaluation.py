"""Evaluation of matrices that exist nowhere: blocks made on demand, passes and memory counted.

    python tests/benchmarks/evaluation.py --samples 100000 --units 400000

A block is noise from one tile plus the planted modules. Each step prints its seconds, its passes,
what that is beside as many bare readings (a sum over every block), and the peak memory since the
start. The command fails where memory went beyond the limit.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ulcmod_dist.evaluate.baselines import METHODS, find_baselines, unit_space
from ulcmod_dist.evaluate.comparison import score_methods
from ulcmod_dist.evaluate.confounds import measure_confounds
from ulcmod_dist.evaluate.downstream import score_downstream
from ulcmod_dist.evaluate.features import MeanTable, module_features
from ulcmod_dist.evaluate.hierarchy import link_modules
from ulcmod_dist.evaluate.null import permuted
from ulcmod_dist.evaluate.similarity import activation_heatmap, category_similarity
from ulcmod_dist.evaluate.spread import spread_over_layers
from ulcmod_dist.evaluate.topics import describe_topics
from ulcmod_dist.passes.executors import Threads
from ulcmod_dist.passes.products import unit_sums_of
from ulcmod_dist.passes.standardised import Standardised

CHUNK = (1024, 4096)
LAYERS = 36


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


def virtual(samples: int, units: int, num_modules: int, seed: int) -> Virtual:
    """Planted modules of equal size in noise."""
    rng = np.random.default_rng(seed)
    sample_labels = rng.integers(0, num_modules, samples).astype(np.int32)
    unit_labels = rng.integers(0, num_modules, units).astype(np.int32)
    tile = rng.normal(5, 1, CHUNK).astype(np.float32)

    def block(block_info: Any = None) -> Any:
        rows, columns = (slice(*bounds) for bounds in block_info[None]["array-location"])
        mine, theirs = sample_labels[rows], unit_labels[columns]
        # Another part of the tile for each block, so that columns are not equal.
        noise = np.roll(tile, rows.start // CHUNK[0] + 7 * (columns.start // CHUNK[1]), axis=0)
        return noise[: len(mine), : len(theirs)] + (mine[:, None] == theirs).astype(np.float32)

    chunks = tuple(
        tuple(min(size, length - first) for first in range(0, length, size))
        for length, size in zip((samples, units), CHUNK, strict=True)
    )
    lazy: Any = da
    raw = lazy.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    share = 1 / num_modules
    mean, std = np.full(units, 5 + share), np.full(units, (1 + share * (1 - share)) ** 0.5)
    return Virtual(Standardised(raw, mean, std), sample_labels, unit_labels)


def evaluate_features(problem: Virtual, features: MeanTable, num_modules: int, seed: int) -> None:
    """Everything that follows from the features without the matrix."""
    labels = problem.sample_labels.astype(np.int64)
    names: list[str | None] = [f"category {label}" for label in labels]
    rng = np.random.default_rng(seed)
    words = np.array([f"word{chr(97 + a)}{chr(97 + b)}" for a in range(26) for b in range(26)])
    picks = (rng.integers(0, len(words), (len(labels), 20)) // (1 + labels[:, None])).tolist()
    texts = [" ".join(words[row]) for row in picks]
    tokens = rng.integers(5, 500, len(labels))
    activation_heatmap(features.values, labels, num_modules)
    category_similarity(features.values, names)
    link_modules(features.values)
    score_downstream(features.values, names, seed=seed)
    layers = np.arange(len(problem.unit_labels)) * LAYERS // len(problem.unit_labels)
    spread_over_layers(problem.unit_labels.astype(np.int64), layers, num_modules, LAYERS)
    measure_confounds({"length": tokens}, labels, features.values, num_modules)
    margins = features.margins(problem.sample_labels)
    describe_topics(margins, labels, num_modules, texts=texts, categories=names, tokens=tokens)


def run(options: argparse.Namespace) -> Meter:
    """Measure the steps that the options ask for."""
    problem = virtual(options.samples, options.units, options.modules, options.seed)
    activations, threads = problem.activations, Threads(options.threads)
    meter = Meter(options.samples * options.units * 4 / 1e9)
    meter.measure("bare reading", 1, lambda: unit_sums_of(activations, threads))
    labels, k = problem.unit_labels, options.modules
    (features,) = meter.measure(
        "module features", 1, lambda: module_features(activations, [labels], [k], threads)
    )
    found = features.objective(problem.sample_labels)
    print(f"planted modules: xi {found.xi:.3f}, L {found.value:,.0f}")
    meter.measure(
        "all that follows from them",
        0,
        lambda: evaluate_features(problem, features, k, options.seed),
    )
    if options.baselines:
        space = meter.measure("baselines: unit space", 7, lambda: unit_space(activations, threads))
        candidates = meter.measure(
            f"baselines: {len(METHODS)} clusterings",
            0,
            lambda: find_baselines(space, options.samples, k),
        )
        nobody = [None] * options.samples
        meter.measure(
            "baselines: scores",
            1,
            lambda: score_methods(candidates, activations, None, nobody, [], threads),
        )
    if options.null:
        shuffled = permuted(activations, options.seed)
        meter.measure(
            "null model: one pass", 1, lambda: module_features(shuffled, [labels], [k], threads)
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
    parser.add_argument("--baselines", action="store_true", help="also the clusterings")
    parser.add_argument("--null", action="store_true", help="also a pass over permuted columns")
    options = parser.parse_args()
    meter = run(options)
    meter.table.title = (
        f"{options.samples:,} samples x {options.units:,} units = {meter.gigabytes:,.1f} GB, "
        f"K = {options.modules}, {options.threads} threads"
    )
    Console().print(meter.table)
    if peak_mib() > options.memory:
        raise SystemExit(f"Peak memory {peak_mib():,.0f} MiB is beyond {options.memory:,.0f} MiB.")


if __name__ == "__main__":
    main()
