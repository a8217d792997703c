"""What IterD and the methods it is compared with find, and what comparing costs.

    python -m tests.benchmarks.methods table RUN --modules 5 7 10 15
    python -m tests.benchmarks.methods null --samples 1000000 --units 512

``table`` copies an extracted (or imported) run, searches it and evaluates it as `ulcmod evaluate`
does, and prints a row for each method and K with the processor time of its clusterings, then the
processor time of each step beside the search. ``null`` compares the null model of a planted matrix
with its search. Processor time is that of all threads; OMP_NUM_THREADS=1 keeps idle ones from
counting.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask.array as da
import numpy as np

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.evaluate.baselines import METHODS, find_baseline
from ulcmod_dist.evaluate.null import NULL_TOLERANCE, search_null_model
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.pipeline import methods
from ulcmod_dist.pipeline.context import open_target
from ulcmod_dist.pipeline.discover import discover
from ulcmod_dist.pipeline.evaluate import evaluate
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.results.discovery import MethodComparison, MethodRow
from ulcmod_dist.results.types import Objective, Repeats
from ulcmod_dist.runtime.progress import ProgressUpdate

HEADER = (
    "Method", "L", "xi", "B", "Accuracy", "Macro-F1", "Rand", "Information", "Stand out",
    "Rand of seeds: units, samples", "Of halves: units", "Seconds",
)  # fmt: skip


def processor_seconds() -> float:
    """Processor time of this process so far, of all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Meter:
    """Processor time and wall time by step, and processor time by method and K."""

    steps: dict[str, list[float]] = field(default_factory=dict)
    by_method: dict[tuple[str, int], float] = field(default_factory=lambda: defaultdict(float))

    def on_progress(self, update: ProgressUpdate) -> None:
        """Start or stop the clock of a step of the program."""
        if update.state == "started":
            before = self.steps.get(update.step, [0.0, 0.0])
            now = processor_seconds(), time.perf_counter()
            self.steps[update.step] = [
                spent - start for spent, start in zip(before, now, strict=True)
            ]
        elif update.state == "finished":
            self.steps[update.step][0] += processor_seconds()
            self.steps[update.step][1] += time.perf_counter()

    def measure(self, name: str, step: Callable[[], Any]) -> Any:
        """Run a step of the benchmark."""
        start = processor_seconds(), time.perf_counter()
        answer = step()
        self.steps[name] = [processor_seconds() - start[0], time.perf_counter() - start[1]]
        return answer

    def find_baseline(self, method: str, *words: Any, **keys: Any) -> Any:
        """The program's own function, its time added up."""
        start = processor_seconds()
        try:
            return find_baseline(method, *words, **keys)
        finally:
            self.by_method[method, words[2]] += processor_seconds() - start

    def print_steps(self, search: str) -> None:
        """Print a row a step, and what it is beside the search."""
        print("\n| Step | Processor s | Wall s | Of the search's processor time |")
        print("|---|---:|---:|---:|")
        for name, (processor, wall) in self.steps.items():
            ratio = processor / self.steps[search][0]
            print(f"| {name} | {processor:.1f} | {wall:.1f} | {ratio:.2f} |")


def tabulate(options: argparse.Namespace) -> None:
    """Search and evaluate a copy of a run, and print the tables."""
    meter = Meter()
    # A run keeps the defaults of the version that made it.
    settings = [
        f"evaluate.seeds={options.seeds}",
        f"evaluate.baselines={list(METHODS)}",
        f"discover.modules={options.modules}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(options.run, Path(folder) / "run")
        for kept in ("modules", "evaluation", "artifacts"):
            for old in copy.glob(f"{kept}/K=*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        context = open_target(str(copy), settings, meter.on_progress)
        meter.measure("Search", lambda: discover(context))
        with patch.object(methods, "find_baseline", meter.find_baseline):
            meter.measure("Whole evaluation", lambda: evaluate(context))
        for k in options.modules:
            print_methods(k, read_result(context.run, "methods", k, MethodComparison), meter)
    meter.print_steps("Search")


def print_methods(num_modules: int, found: MethodComparison, meter: Meter) -> None:
    """Print the rows of one K, and what was left out."""
    print(
        f"\n### K = {num_modules}\n\n| {' | '.join(HEADER)} |\n|---{'|---:' * (len(HEADER) - 1)}|"
    )
    for row in found.rows:
        seconds = meter.by_method.get((row.method, num_modules))
        cells = [*format_row(row), "" if seconds is None else f"{seconds:.1f}"]
        print(f"| {row.method} | {' | '.join(cells)} |")
    for fact in found.left_out:
        print(f"\nLeft out: {fact.label}. {fact.value}")


def format_row(row: MethodRow) -> list[str]:
    """The figures of a method: means over its seeds."""

    def mean(value: Repeats | None, form: str) -> str:
        return "" if value is None else format(value.mean, form)

    agreement = "" if row.seeds_agreement is None else "{:.2f}, {:.2f}".format(*row.seeds_agreement)
    return [
        mean(row.value, ",.0f"),
        mean(row.xi, ".3f"),
        mean(row.balance, ",.0f"),
        mean(row.accuracy, ".3f"),
        mean(row.macro_f1, ".3f"),
        mean(row.adjusted_rand, ".3f"),
        mean(row.mutual_information, ".3f"),
        mean(row.stand_out, ".1f"),
        agreement,
        "" if row.halves_agreement is None else f"{row.halves_agreement:.2f}",
    ]


def compare_null(options: argparse.Namespace) -> None:
    """Search a planted matrix and its permuted columns, and print both."""
    meter, executor = Meter(), ThreadExecutor()
    activations = plant(options.samples, options.units)

    def search(matrix: Standardised, seed: int = 0, **settings: Any) -> dict[int, Objective]:
        config = SearchConfig(modules=tuple(options.modules), seed=seed, **settings)
        found = discover_all(matrix, options.modules, config, executor=executor)
        return {k: modules.objective for k, modules in found.items()}

    # Compiles what both measure.
    discover_all(plant(2000, 64), [2], SearchConfig(modules=(2,)), executor=executor)
    found = meter.measure("Search, ten restarts", lambda: search(activations, restarts=10))
    # As the evaluation searches it.
    search_null = partial(search, restarts=1, moves=False, tolerance=NULL_TOLERANCE)
    null = meter.measure(
        "Null model, three permutations",
        lambda: search_null_model(activations, search_null, 3, 0, executor),
    )
    for k in options.modules:
        print(f"K = {k}: L {found[k].value:,.0f}, null {np.mean([o.value for o in null[k]]):,.0f}")
    meter.print_steps("Search, ten restarts")


def plant(samples: int, units: int, rows: int = 4096) -> Standardised:
    """Ten planted modules in noise, as chunks in memory."""
    rng = np.random.default_rng(0)
    mine, theirs = rng.integers(0, 10, samples), rng.integers(0, 10, units)
    raw = rng.standard_normal((samples, units), dtype=np.float32)
    raw += mine[:, None] == theirs
    mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, ddof=1, dtype=np.float64)
    lazy: Any = da
    return Standardised(lazy.from_array(raw, chunks=(rows, units)), mean, std)


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    table = commands.add_parser("table", allow_abbrev=False)
    table.add_argument("run", type=Path)
    table.add_argument("--modules", type=int, nargs="+", default=[5, 7, 10, 15])
    table.add_argument("--seeds", type=int, default=3)
    table.set_defaults(command=tabulate)
    null = commands.add_parser("null", allow_abbrev=False)
    null.add_argument("--samples", type=int, default=100_000)
    null.add_argument("--units", type=int, default=512)
    null.add_argument("--modules", type=int, nargs="+", default=[10])
    null.set_defaults(command=compare_null)
    options = parser.parse_args(words)
    options.command(options)


if __name__ == "__main__":
    main()
