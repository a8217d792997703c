"""Runs of the same prompts by different statistics, side by side: the table of docs/results.md.

    python -m tests.benchmarks.attribution runs/activation runs/attribution --num-modules 7 10

The runs are evaluated already (`ulcmod run`); ablation is shown where a run has it. L is left out,
since that of another statistic is no larger or smaller.
"""

import argparse
from collections.abc import Iterator, Sequence

from ulcmod_dist.api import Run, open_run
from ulcmod_dist.pipeline.compare import compare_modules
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import RANDOM_GROUPS, Discovery
from ulcmod_dist.results.types import Repeats

NONE = "-"


def list_measures(run: Run, num_modules: int) -> Iterator[tuple[str, str]]:
    """Each measure and its figure, for the modules of one K."""
    found = read_result(run.directory, "evaluation", num_modules, Discovery)
    iterd = found.methods[0]
    level = next((row for row in found.methods if row.method == RANDOM_GROUPS), None)
    yield "xi", _format(iterd.xi)
    yield "adjusted Rand index with the categories", _format(iterd.adjusted_rand)
    yield "mutual information with the categories", _format(iterd.mutual_information)
    yield "held-out accuracy from the K features", _format(iterd.accuracy)
    yield "the same of random groups of units", _format(level.accuracy if level else None)
    yield f"modules that stand out, of {num_modules}", _format(iterd.stand_out)
    units, samples = iterd.seeds_agreement or (None, None)
    yield "agreement of seeds: units", NONE if units is None else f"{units:.3f}"
    yield "agreement of seeds: samples", NONE if samples is None else f"{samples:.3f}"
    halves = iterd.halves_agreement
    yield "agreement of halves of the corpus: units", NONE if halves is None else f"{halves:.3f}"
    sizes = sorted(module.num_units for module in found.modules)
    yield "units of the smallest and largest module", f"{sizes[0]:,} to {sizes[-1]:,}"
    yield from _list_ablation(run, num_modules)


def _list_ablation(run: Run, num_modules: int) -> Iterator[tuple[str, str]]:
    try:
        ablation = read_result(run.directory, "ablation", num_modules, Ablation)
    except FileNotFoundError:
        return
    least, median = ablation.selectivity_quantiles
    yield f"selective modules, of {num_modules}", str(ablation.num_selective)
    yield f"selectivity ({ablation.method}), least and median", f"{least:.2f}, {median:.2f}"


def _format(values: Repeats | None) -> str:
    if values is None:
        return NONE
    low, high = min(values.values), max(values.values)
    mean = sum(values.values) / len(values.values)
    return f"{mean:.3f}" if low == high else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--num-modules", type=int, nargs="+", default=[7])
    options = parser.parse_args()
    runs = [open_run(path) for path in options.runs]
    names = [str(run.snapshot.statistic) for run in runs]
    print("| K | Measure |", " | ".join(names), "|")
    print("|---:|---|", "---|" * len(runs), sep="")
    for num_modules in options.num_modules:
        print_measures(runs, num_modules)
    for run, name in zip(runs[1:], names[1:], strict=True):
        for num_modules in options.num_modules:
            modules = runs[0].modules(num_modules), run.modules(num_modules)
            matching = compare_modules((runs[0], run), modules).matching
            units, samples = matching.units_adjusted_rand or 0.0, matching.samples_adjusted_rand
            print(
                f"\n{names[0]} and {name}, K = {num_modules}: adjusted Rand index of units "
                f"{units:.3f}, of samples {samples or 0.0:.3f}"
            )


def print_measures(runs: Sequence[Run], num_modules: int) -> None:
    """Print a row for each measure, with the figures of all runs."""
    columns = [dict(list_measures(run, num_modules)) for run in runs]
    for number, measure in enumerate(dict.fromkeys(key for column in columns for key in column)):
        cells = [column.get(measure, NONE) for column in columns]
        print(f"| {num_modules if number == 0 else ''} | {measure} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
