"""Reports of planted modules, which the product itself imports, searches, evaluates, describes.

Each category of prompts drives the units of one module. Texts are given to the description as those
of a corpus would be, losses to the summary of the ablation as a model would have them.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ulcmod_dist as um
from ulcmod_dist import cli
from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.evaluate.features import compute_module_features
from ulcmod_dist.evaluate.structure import count_overlap
from ulcmod_dist.evaluate.topics import Samples
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.intervene.ablation import AblationLosses
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.intervene.selectivity import summarize_ablation
from ulcmod_dist.intervene.trials import AblationSamples, Trial
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.pipeline.discovery import Found, describe
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.results.ablation import CONTROLS, AblatedMethod, Ablation
from ulcmod_dist.results.discovery import (
    RANDOM_GROUPS,
    Discovery,
    MethodComparison,
    ReportData,
    Reproduction,
    RunFacts,
)
from ulcmod_dist.results.types import Absent, Fact

HOSTILE_CATEGORY = "<script>window.pwned=1</script> & <b>poems"
CATEGORIES = (
    "Coding", "Mathematics", "Translation", HOSTILE_CATEGORY, "Law", "Medicine", "Open QA",
)  # fmt: skip
WORDS = (
    ("python", "function", "list", "sort", "loop", "string"),
    ("equation", "solve", "triangle", "sum", "integral", "proof"),
    ("translate", "spanish", "french", "sentence", "deutsch", "中文"),
    ("story", "poem", "dragon", "write", "character", "moon"),
    ("contract", "tenant", "liability", "clause", "court", "notice"),
    ("symptoms", "dose", "patient", "fever", "treatment", "diagnosis"),
    ("capital", "history", "river", "explain", "planet", "century"),
)
HOSTILE_TEXTS = (
    '<script>window.pwned = 1</script><img src=x onerror="window.pwned=1"> ',
    "</script><script>window.pwned = 1</script> {{ 7 * 7 }} {% raw %} $\\frac{1}{0}$ ",
    'Ignore <b>markup</b> & <a href="https://example.org/">links</a>, "quotes" and `ticks`. ',
)
LONG = "Summarise the following minutes of the meeting in three sentences. " * 40
RIGHT_TO_LEFT = "ترجم هذه الجملة إلى الإنجليزية: الطقس جميل اليوم."

TRAIN, TEST, UNITS = 350, 70, 420
RESTARTS, SEEDS, PERMUTATIONS = 3, 2, 2
LAYERS = tuple(LayerUnits(layer, f"layers.{layer}.mlp.down_proj", 70) for layer in range(6))


def write_text(sample: int) -> str:
    """A prompt of the sample's category, in one of five forms."""
    category, number = sample % len(CATEGORIES), sample // len(CATEGORIES)
    words = WORDS[category]
    first, second, third = (words[(number + i * (1 + number // 6)) % 6] for i in range(3))
    return (
        f"Please help me with {first} and {second}: what should I know about {third}?",
        f"def {first}({second}s):\n    # keep   the spaces\n    return sorted({third})",
        HOSTILE_TEXTS[category % 3] + first,
        f"{LONG} {first}" if category % 2 else RIGHT_TO_LEFT + first,
        f"{first} {second} {third}",
    )[number % 5]


def run_ulcmod(*words: object) -> None:
    """Run the command line in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ulcmod", *map(str, words)])
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    assert not code, f"ulcmod {words} ended with {code}"


def make_run(
    folder: Path,
    num_modules: Sequence[int],
    *settings: str,
    layers: int = 6,
    described: bool = True,
) -> Path:
    """Import a planted matrix, find its modules and evaluate them.

    Args:
        folder: Where files are written.
        num_modules: The values of K.
        settings: Further settings of the job.
        layers: Layers that the units are spread over.
        described: Whether categories, splits and layers are imported too.
    """
    rng = np.random.default_rng(7)
    samples, units = np.arange(TRAIN + TEST) % len(CATEGORIES), np.arange(UNITS) % len(CATEGORIES)
    values = rng.normal(1.0, 0.5, (len(samples), len(units)))
    values += 1.5 * (samples[:, None] == units)
    np.save(folder / "activations.npy", values.astype(np.float32))
    tables: list[object] = []
    if described:
        split = ["train"] * TRAIN + ["test"] * TEST
        names = [CATEGORIES[label] for label in samples]
        ids = [f"planted-{row:04d}" for row in range(len(samples))]
        table = pa.table({"sample_id": ids, "split": split, "category": names})
        pq.write_table(table, folder / "samples.parquet")
        depth = np.arange(UNITS) // len(CATEGORIES) % layers
        index = np.arange(UNITS) // len(CATEGORIES) // layers * len(CATEGORIES) + units
        pq.write_table(pa.table({"layer": depth, "index": index}), folder / "units.parquet")
        tables = ["--samples", folder / "samples.parquet", "--units", folder / "units.parquet"]
    chosen = [f"discover.modules={list(num_modules)}", *settings]
    words = [word for setting in chosen for word in ("--set", setting)]
    run = folder / "planted"
    run_ulcmod("import", folder / "activations.npy", "--out", run, *tables, *words)
    run_ulcmod("discover", run)
    run_ulcmod("evaluate", run)
    return run


def build_report(path: Path) -> ReportData:
    """Everything that the page shows of a run, had it a model and a corpus with texts."""
    run = um.open_run(path)
    job = Job.from_yaml(path / "job.yaml")
    samples = {split: read_samples(run, split) for split in ("train", "test")}
    numbers = run.num_modules()
    discoveries = [describe_planted(job, run, samples, number) for number in numbers]
    overlaps = [
        count_overlap(
            (one.unit_labels.astype(np.int64), two.unit_labels.astype(np.int64)),
            (one.sample_labels("train").astype(np.int64),
             two.sample_labels("train").astype(np.int64)),
            (smaller, larger),
        )
        for smaller, larger in pairwise(numbers)
        for one, two in [(run.modules(smaller), run.modules(larger))]
    ]  # fmt: skip
    return ReportData(
        run=RunFacts(
            name=f"planted: {len(CATEGORIES)} categories",
            model="planted-model",
            num_samples=TRAIN,
            num_test_samples=TEST,
            num_units=UNITS,
            facts=(Fact("Tokens counted", "all"), Fact("Precision", "float32")),
        ),
        discoveries=tuple(discoveries),
        overlaps=tuple(overlaps) or Absent("The modules of a single K have been found."),
        reproduction=Reproduction(
            commands=("ulcmod run job.yaml",),
            job=job.to_yaml(),
            versions=(Fact("numpy", np.__version__),),
            digests=(Fact("samples and activations", run.snapshot.digest),),
        ),
    )


def read_samples(run: Run, split: str) -> Samples:
    """The samples of a split with the texts that a corpus would have given them."""
    table = run.snapshot.samples
    table = table.filter(table["split"].to_numpy() == split)
    ids = table["sample_id"].to_pylist()
    texts = [write_text(int(sample_id.removeprefix("planted-"))) for sample_id in ids]
    tokens = np.array([len(text.split()) for text in texts], dtype=np.int64)
    return Samples(ids, table["category"].to_pylist(), tokens, texts)


def describe_planted(
    job: Job, run: Run, samples: dict[str, Samples], num_modules: int
) -> Discovery:
    """The modules of one K with texts, and with the null model and methods of the evaluation."""
    stored = run.modules(num_modules)
    train, test = (
        compute_module_features(
            run.activations(split), [stored.unit_labels], [num_modules], ThreadExecutor(2)
        )[0]
        for split in ("train", "test")
    )
    evaluated = read_result(run.directory, "evaluation", num_modules, Discovery)
    found = describe(
        job,
        Found(stored, train, test),
        samples,
        null=evaluated.null,
        methods=MethodComparison(evaluated.methods),
    )
    labels = stored.sample_labels("train").astype(np.int64)
    ablation, kmeans, random = (
        ablate_planted(job, labels, samples["train"].categories, num_modules, effect)
        for effect in (1.0, 0.7, 0.0)
    )
    others = AblatedMethod("k-means", kmeans), AblatedMethod(RANDOM_GROUPS, random)
    found = replace(found, membership=evaluated.membership, ablated_methods=others)
    return found.with_ablation(ablation)


def ablate_planted(
    job: Job,
    labels: np.ndarray,
    categories: Sequence[str | None],
    num_modules: int,
    effect: float,
) -> Ablation:
    """The ablation of modules that matter to their own samples, from losses as a model has them.

    What they cost is multiplied by ``effect``.
    """
    rng = np.random.default_rng(num_modules)
    measured = np.sort(rng.choice(len(labels), min(len(labels), 20 * num_modules), replace=False))
    modules = labels[measured]
    trials, rows = [], []
    for module in range(num_modules):
        cost = rng.uniform(0.5, 1.2) * (modules == module)
        drawn = [("module", 1.0), *((kind, 0.0) for kind in CONTROLS)]
        if module == 0:  # general machinery, most of it two units of extreme activation
            cost = np.full(len(modules), 3.0)
            drawn += [("extreme", 0.7), ("rest", 0.3)]
        chosen = np.arange(UNITS) == module
        chosen[7 * module + 9] = True
        for kind, share in drawn:
            trials.append(Trial(module, kind, Mask.empty(LAYERS).select(chosen)))
            rows.append(rng.normal(0.12, 0.05, len(modules)) + effect * share * cost)
    loss = np.vstack([np.full(len(modules), 2.5), 2.5 + np.array(rows)])
    accuracy = np.vstack([np.full(len(modules), 0.5), np.clip(0.5 - np.array(rows) / 10, 0, 1)])
    chosen_categories = [categories[row] for row in measured]
    return summarize_ablation(
        AblationLosses(loss, accuracy),
        trials,
        AblationSamples([], [], modules, chosen_categories),
        job.ablate,
        rng,
    )
