"""How good the modules of a search are, and what they cost, against ten plain restarts.

    python -m tests.benchmarks.search_quality --matrix z.npy [--modules 5 7 10 15] [--seeds 10]

The matrix is one of standardised activations [samples, units]. L is shown as a share of the best
known one (``--best``, else the best of this run). Processor time counts both searches alone.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.iterd import init
from ulcmod_dist.iterd.driver import discover, discover_all
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.passes.executors import ThreadExecutor


def main() -> None:
    """Print one row for each K."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrix", type=Path, required=True)
    parser.add_argument("--categories", type=Path, help="a .npy with the category of each sample")
    parser.add_argument("--modules", type=int, nargs="+", default=[5, 7, 10, 15])
    parser.add_argument("--best", type=float, nargs="+", help="best known L of each K")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    z = np.load(options.matrix)
    categories = None
    if options.categories is not None:
        categories = np.load(options.categories, allow_pickle=True)
    discover(z[:60, :90], 3)  # compiles the kernels
    table = Table("K", "L: ten restarts", "L: new", "processor time", "ARI: ten", "ARI: new")
    for number, k in enumerate(options.modules):
        runs = [[search(z, k, seed, plain) for seed in range(options.seeds)] for plain in (1, 0)]
        values = [[found.objective.value for found, _ in group] for group in runs]
        best = options.best[number] if options.best else max(map(max, values))
        spent = [sum(seconds for _, seconds in group) for group in runs]
        shares = [f"{min(v) / best:.5f} to {max(v) / best:.5f}" for v in values]
        agreement = ["" if categories is None else compare(group, categories) for group in runs]
        table.add_row(str(k), *shares, f"{spent[1] / spent[0]:.2f}x", *agreement)
    Console().print(table)


def search(z: Any, k: int, seed: int, plain: int) -> tuple[Modules, float]:
    """Modules and seconds of processor time: of ten restarts without moves, or as a job's."""
    config = SearchConfig(modules=(k,), restarts=10, seed=seed, moves=not plain)
    init.FIRST_RESTARTS = 10 if plain else 3
    started = time.process_time()
    found = discover_all(z, [k], config, executor=ThreadExecutor(2))[k]
    return found, time.process_time() - started


def compare(group: list[tuple[Modules, float]], categories: Any) -> str:
    """Mean adjusted Rand index of the samples' modules with the categories."""
    scores = [adjusted_rand_score(categories, found.sample_labels) for found, _ in group]
    return f"{np.mean(scores):.3f}"


if __name__ == "__main__":
    main()
