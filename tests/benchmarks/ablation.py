"""Which method finds modules that matter to the model, for several values of ablated units.

``python -m tests.benchmarks.ablation RUN --num-modules 7 --samples 4`` prints a table of the
methods, and for each its loss increases by category, less those of its control sets. `ulcmod
ablate` with `ablate.baselines` does the same for the page, by one kind of values. The run needs an
evaluation for this K, its model and its corpus.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from tests.intervene.shared_models import LocalPool
from ulcmod_dist.api import Run, open_run
from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import AblateConfig
from ulcmod_dist.corpus.prompts import read_corpus
from ulcmod_dist.intervene.ablation import AblationPool
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.masks import Mask, read_layer_units
from ulcmod_dist.intervene.selectivity import summarize_ablation
from ulcmod_dist.intervene.trials import measure_trials, plan_trials
from ulcmod_dist.passes.standardised import LabelArray
from ulcmod_dist.pipeline.ablate import draw_samples
from ulcmod_dist.pipeline.result_files import read_groupings
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import ITERD
from ulcmod_dist.results.types import Absent

HEADER = (
    "| Method | Values | Selective | Least | Median | Mean | Control sets | Advantage (95%) | "
    "Accuracy lost, own / other | General machinery |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, eq=False)
class Grouping:
    """The modules that a method found for one K."""

    method: str
    num_modules: int
    unit_labels: LabelArray
    sample_labels: LabelArray  # of the train samples


def read_methods(run: Run, num_modules: int, methods: Sequence[str]) -> Iterator[Grouping]:
    """The run's own modules and those of the methods that it was compared with."""
    stored = run.modules(num_modules)
    own = stored.unit_labels, stored.sample_labels("train")
    found = {ITERD: own, **read_groupings(run.directory, num_modules)}
    for method in methods or found:
        if method in found:
            yield Grouping(method, num_modules, *found[method])
        else:
            print(f"The run has no modules by {method} for K = {num_modules}.", flush=True)


def ablate_modules(run: Run, job: Job, pool: AblationPool, found: Grouping) -> Ablation:
    """Ablate the modules of one method as `ulcmod ablate` does."""
    assert job.corpus is not None
    table = run.snapshot.samples
    train = table.filter(table["split"].to_numpy() == "train")
    generator = np.random.default_rng([job.ablate.seed, found.num_modules])
    labels = found.sample_labels.astype(np.int64)
    corpus = read_corpus(job.corpus)
    samples = draw_samples(job, train, labels, len(found.unit_labels), corpus, generator)
    units = read_layer_units(run.snapshot.units)
    empty = Mask.empty(units)
    masks = [empty.select(found.unit_labels == module) for module in range(found.num_modules)]
    activation = np.asarray(run.activations().mean, np.float64)
    trials = plan_trials(masks, activation, job.ablate, generator)
    losses = measure_trials(pool, trials, samples, job.ablate, generator)
    return summarize_ablation(losses, trials, samples, job.ablate, generator)


def format_row(method: str, result: Ablation) -> str:
    """One row of the table of methods."""
    least, median = result.selectivity_quantiles
    low, high = result.advantage.low, result.advantage.high
    own, other = (
        np.nanmean([getattr(row.accuracy, side).mean for row in result.modules])
        for side in ("own", "other")
    )
    return (
        f"| {method} | {result.method} | {result.num_selective} of {len(result.modules)} | "
        f"{least:.2f} | {median:.2f} | {result.selectivity.mean:.2f} | "
        f"{result.control_selectivity.mean:.2f} | {result.advantage.mean:.2f} "
        f"({low:.2f} to {high:.2f}) | {own:.2f} / {other:.2f} | {len(result.general)} |"
    )


def format_matrix(method: str, found: Grouping, result: Ablation) -> Iterator[str]:
    """Loss increase by module and category, less that of the control sets."""
    if isinstance(result.by_category, Absent) or isinstance(result.control_by_category, Absent):
        return
    sizes = np.bincount(found.unit_labels, minlength=found.num_modules)
    yield f"\n{method}, {result.method}:\n"
    yield "| Module | Units | " + " | ".join(result.categories) + " | |"
    yield "|---" * (3 + len(result.categories)) + "|"
    excess = result.by_category - result.control_by_category
    for row, size, values in zip(result.modules, sizes, excess, strict=True):
        mark = "selective" if row.is_selective else "general" if row.is_general else ""
        cells = " | ".join(f"{value:+.2f}" for value in values)
        yield f"| {row.module} | {size:,} | {cells} | {mark} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--num-modules", type=int, default=7, help="K")
    parser.add_argument("--methods", nargs="+", default=(), help="by default all")
    parser.add_argument("--samples", type=int, default=4, help="samples of each module")
    choices = get_args(AblateConfig.model_fields["method"].annotation)
    parser.add_argument("--values", nargs="+", choices=choices, default=[choices[0]])
    parser.add_argument("--dtype", help="of the model; by default the job's")
    given = parser.parse_args()
    run, job = open_run(given.run), Job.from_yaml(given.run / "job.yaml")
    model = job.require_model()
    if given.dtype:
        model = model.model_copy(update={"dtype": given.dtype})
    matrices: list[str] = []
    pool = LocalPool(LossEngine.load(model, job.extract.device, job.extract.threads))
    print(HEADER, flush=True)
    for found in read_methods(run, given.num_modules, given.methods):
        for values in given.values:
            changes = {"method": values, "samples": given.samples}
            changed = job.model_copy(update={"ablate": job.ablate.model_copy(update=changes)})
            result = ablate_modules(run, changed, pool, found)
            print(format_row(found.method, result), flush=True)
            matrices.extend(format_matrix(found.method, found, result))
    print("\n".join(matrices))


if __name__ == "__main__":
    main()
