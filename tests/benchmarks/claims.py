r"""The paper's claims against what a run measured, as the tables of docs/results.md.

    python -m tests.benchmarks.claims runs/smollm2-135m            # the first K of the run
    python -m tests.benchmarks.claims RUN RUN --num-modules 7      # a column for each run

The runs are evaluated already; what they lack, such as the ablation, is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.api import Run, open_run
from ulcmod_dist.evaluate.structure import count_overlap, describe_layers
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import RANDOM_GROUPS, SUPERVISED, Discovery, MethodRow, Overlap
from ulcmod_dist.results.types import Absent, Floats, Repeats
from ulcmod_dist.runtime.text import MINUS
from ulcmod_dist.store.modules import StoredModules

RANDOM_DRAWS = 100
# Rows that are no other method of finding modules: one draws them, the other reads the categories.
REFERENCES = (RANDOM_GROUPS, SUPERVISED)
MEASURES: dict[str, Callable[[MethodRow], Repeats | None]] = {
    "L": lambda row: row.value,
    "adjusted Rand index": lambda row: row.adjusted_rand,
    "accuracy": lambda row: row.accuracy,
    "modules that stand out": lambda row: row.stand_out,
}
# Claim, measure, and its figure.
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Evidence:
    """What is stored of the modules of one run for one K."""

    run: Run
    num_modules: int

    @cached_property
    def found(self) -> Discovery:
        """The evaluation."""
        return read_result(self.run.directory, "evaluation", self.num_modules, Discovery)

    @cached_property
    def ablation(self) -> Ablation | None:
        """The ablation, if the run has one."""
        try:
            return read_result(self.run.directory, "ablation", self.num_modules, Ablation)
        except FileNotFoundError:
            return None

    @cached_property
    def overlap(self) -> Overlap | None:
        """Overlap with the modules of the next larger K, if the run has any."""
        larger = [k for k in self.run.num_modules() if k > self.num_modules]
        if not larger:
            return None
        one, other = self.run.modules(self.num_modules), self.run.modules(larger[0])
        return count_overlap(
            (one.unit_labels.astype(np.int64), other.unit_labels.astype(np.int64)),
            (_get_samples(one), _get_samples(other)),
            (self.num_modules, larger[0]),
        )

    def random_concentrations(self) -> Floats:
        """Layer focus of each module if its units were drawn at random, shape (draws, K)."""
        labels = np.array(self.run.modules(self.num_modules).unit_labels)
        layers = self.run.units()["layer"].to_numpy()
        chance = np.random.default_rng(0)
        draws = (chance.permutation(labels) for _ in range(RANDOM_DRAWS))
        return np.array(
            [describe_layers(draw, layers, self.num_modules).concentration for draw in draws]
        )


def _get_samples(modules: StoredModules) -> NDArray[np.int64]:
    return modules.sample_labels("train").astype(np.int64)


def list_claims(evidence: Evidence) -> Iterator[Row]:
    """Each claim with its measures."""
    yield from _decoupled(evidence)
    yield from _meaningful(evidence.found)
    yield from _comprehensive(evidence.found)
    yield from _spatial(evidence)
    yield from _hierarchical(evidence)
    yield from _better(evidence.found)


def _decoupled(evidence: Evidence) -> Iterator[Row]:
    found = evidence.found
    own = np.diag(found.activation)
    apart = found.activation[~np.eye(len(own), dtype=bool)]
    yield "decoupled", "mean z on own samples (least)", f"{own.mean():.2f} ({own.min():.2f})"
    yield "", "mean z on other samples (largest)", f"{apart.mean():.2f} ({apart.max():.2f})"
    if not isinstance(found.null, Absent) and found.null:
        null = np.mean([row.value for row in found.null])
        ratio = found.objective.value / null
        yield "", "L, relative to the null model", f"{found.objective.value:,.0f}, {ratio:.1f}x"
    if (ablation := evidence.ablation) is not None:
        costly = sum((row.loss.selectivity.low or 0) > 0 for row in ablation.modules)
        yield "", "modules whose ablation costs own samples more", _share(costly, len(own))
        yield "", "selective modules", _share(ablation.num_selective, len(own))
        least, median = ablation.selectivity_quantiles
        yield "", "selectivity, least and median", f"{least:.2f}, {median:.2f}"


def _meaningful(found: Discovery) -> Iterator[Row]:
    for row in () if isinstance(found.agreement, Absent) else found.agreement:
        claim = "meaningful" if row.split == "train" else ""
        yield (
            claim,
            f"adjusted Rand index with the categories, {row.split}",
            f"{row.adjusted_rand:.3f}",
        )
        yield "", f"purity, {row.split}", f"{row.purity:.3f}"


def _comprehensive(found: Discovery) -> Iterator[Row]:
    if isinstance(found.downstream, Absent):
        return
    accuracy = found.downstream.classifiers[0].accuracy
    figure = f"{accuracy.mean:.3f}"
    if accuracy.low is not None and accuracy.high is not None:
        figure += f" ({accuracy.low:.3f} to {accuracy.high:.3f})"
    yield "comprehensive", "held-out accuracy from the K features", figure
    level = found.random_groups
    if level is not None and level.accuracy is not None:
        yield "", "the same of random groups of units as large", _range(level.accuracy)


def _spatial(evidence: Evidence) -> Iterator[Row]:
    layers = evidence.found.layers
    if isinstance(layers, Absent):
        return
    random, focus = evidence.random_concentrations(), layers.concentration
    depth = layers.units @ np.arange(layers.units.shape[1]) / layers.units.sum(axis=1)
    yield "spatial", "layer focus of the modules", f"{focus.min():.2f} to {focus.max():.2f}"
    yield "", "layer focus of random units", f"{random.min():.2f} to {random.max():.2f}"
    yield "", "mean layer of the modules", f"{depth.min():.1f} to {depth.max():.1f}"


def _hierarchical(evidence: Evidence) -> Iterator[Row]:
    overlap = evidence.overlap
    if overlap is not None:
        measure = f"units of K = {overlap.next_num_modules} inside one module of this K"
        yield "hierarchical", measure, f"{overlap.nestedness:.3f} (chance {overlap.expected:.3f})"


def _better(found: Discovery) -> Iterator[Row]:
    """IterD beside the method that does best by each measure."""
    claim = "better than clustering"
    others = [row for row in found.methods[1:] if row.method not in REFERENCES]
    for measure, get in MEASURES.items():
        own = get(found.methods[0]) if found.methods else None
        scored = [(values.mean, row.method) for row in others if (values := get(row)) is not None]
        if own is not None and scored:
            mean, name = max(scored)
            yield (
                claim,
                f"{measure}, best other method",
                f"{_show(own.mean)}, {_show(mean)} ({name})",
            )
            claim = ""


def _range(values: Repeats) -> str:
    if values.low is None or values.high is None:
        return f"{values.mean:.3f}"
    return f"{values.mean:.3f} ({values.low:.3f} to {values.high:.3f})"


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def tabulate_claims(columns: Sequence[tuple[str, list[Row]]]) -> list[str]:
    """Markdown table of the claims, a column for each run; measures are matched by name."""
    measured = [{measure: figure for _, measure, figure in rows} for _, rows in columns]
    lines = ["| Claim | Measure | " + " | ".join(name for name, _ in columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    named: dict[str, str] = {}
    for _, rows in columns:
        for claim, measure, _ in rows:
            named.setdefault(measure, claim)
    for measure, claim in named.items():
        cells = " | ".join(row.get(measure, "") for row in measured)
        lines.append(f"| {claim} | {measure} | {cells} |")
    return [line.replace("-0.", f"{MINUS}0.") for line in lines]


def tabulate_modules(evidence: Evidence) -> list[str]:
    """Markdown table of the modules: what they are, where they sit, what ablating them costs."""
    found, ablation = evidence.found, evidence.ablation
    heads = ["Module", "Units", "Samples", "Largest category", "Mean layer"]
    lines = [f"| {' | '.join(heads)} | Own loss | Other loss | Ablation |"]
    lines.append("|---|---:|---:|---|---:|---:|---:|---|")
    for number, module in enumerate(found.modules):
        category, depth, own, other, verdict = "", "", "", "", ""
        if not isinstance(found.categories, Absent):
            counts = found.categories.counts[number]
            largest = int(counts.argmax())
            category = f"{found.categories.names[largest]} {counts[largest] / counts.sum():.0%}"
        if not isinstance(found.layers, Absent):
            units = found.layers.units[number]
            depth = f"{units @ np.arange(len(units)) / units.sum():.1f}"
        if ablation is not None:
            ablated = ablation.modules[number]
            effect, verdict = ablated.loss, "selective" if ablated.is_selective else ""
            verdict = "general" if ablated.is_general else verdict
            own, other = f"{effect.own.mean:+.2f}", f"{effect.other.mean:+.2f}"
        lines.append(
            f"| {module.name} | {module.num_units:,} | {module.num_samples:,} | {category} | "
            f"{depth} | {own} | {other} | {verdict} |"
        )
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Tables of docs/results.md.")
    parser.add_argument("runs", nargs="+", help="run directories")
    parser.add_argument("--num-modules", type=int, help="K; by default the smallest of each run")
    options = parser.parse_args()
    runs = [open_run(run) for run in options.runs]
    all_evidence = [Evidence(run, options.num_modules or run.num_modules()[0]) for run in runs]
    columns = [
        (path, list(list_claims(evidence)))
        for path, evidence in zip(options.runs, all_evidence, strict=True)
    ]
    print("\n".join(tabulate_claims(columns)))
    for path, evidence in zip(options.runs, all_evidence, strict=True):
        print(f"\n{path}, K = {evidence.num_modules}:\n")
        print("\n".join(tabulate_modules(evidence)))


if __name__ == "__main__":
    main()
