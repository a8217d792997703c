"""``ulcmod report``: the page, its figures and its tables."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.ablatable import why_not_ablated
from ulcmod_dist.pipeline.context import Context, select_num_modules, stored_job, writes
from ulcmod_dist.pipeline.evaluate import OVERLAPS, evaluation_mark, name_of
from ulcmod_dist.pipeline.evaluation_files import ablation_mark, ablation_name, read_evaluation
from ulcmod_dist.pipeline.reported import note_reported
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.report import png
from ulcmod_dist.report.page import collect_figures, collect_tables, render_page
from ulcmod_dist.report.sections import build_sections
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import Discovery, Overlap, ReportData, Reproduction, RunFacts
from ulcmod_dist.results.types import Absent, Fact
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.rundir import REPORT, RunDir, figure_key, fingerprint, table_key
from ulcmod_dist.store.versions import list_versions, version_directory

_DIGEST = re.compile(r"[0-9a-f]{64}")

# What the record of a store holds -> how the page names it, in the page's order.
logger = logging.getLogger(__name__)

RECORD = {
    "model.architecture": "Architecture",
    "model.revision": "Revision",
    "model.weights": "Weights",
    "model.dtype": "Precision",
    "model.attention": "Attention",
    "prompt.template": "Chat template",
    "prompt.system_message": "System message",
    "prompt.system": "System role",
    "prompt.tokens": "Tokens counted",
    "prompt.max_tokens": "Longest prompt",
    "prompt.long": "Longer ones",
    "prompt.tokenizer": "Tokenizer",
    "model.library.torch": "PyTorch",
    "model.library.transformers": "Transformers",
    "model.forward": "Forward pass",
}

LIBRARIES = ("ulcmod-dist", "torch", "transformers", "ray", "dask", "zarr", "numpy", "numba")


@writes
def report(context: Context, *, num_modules: tuple[int, ...] | None = None) -> Summary:
    """Write ``report.html``, ``figures/*.png`` and ``tables/*.parquet``.

    Args:
        context: The job and its run directory.
        num_modules: Show these K only; None for all of the job.

    Raises:
        InvalidInput: The modules of a K of the job have not been evaluated.
    """
    run = Run(context.run)
    numbers = select_num_modules(context.job, num_modules)
    data = report_data(context, run, numbers)
    parts = build_sections(data)
    figures = collect_figures(parts)
    with track(context.on_progress, "Figures", len(figures), "figures") as step:
        for done, (name, spec) in enumerate(figures.items(), start=1):
            context.run.write(figure_key(name), png.render(spec))
            step.update(done)
    shown = collect_tables(parts)
    for name, table in shown.items():
        context.run.write_parquet(table_key(name), table.to_arrow())
    beside = [{figure_key(name) for name in figures}, {table_key(name) for name in shown}]
    for keys in beside:
        _remove_others(context.run, keys)
    with track(context.on_progress, "Page", None, "pages"):
        context.run.write(REPORT, render_page(data).encode("utf-8"))
    note_reported(context, numbers, {REPORT}.union(*beside))
    facts = {"figures": len(figures), "tables": len(shown), "report": context.run.show(REPORT)}
    records = {name: table.to_records() for name, table in shown.items()}
    if context.job.report.prompts == "none":
        _warn_of_older_prompts(context)
    return Summary(title="Report", facts=facts, data={**facts, "tables": records})


def _warn_of_older_prompts(context: Context) -> None:
    """Name what was written before the job kept texts of prompts out of the report."""
    kept = (version_directory(context.run, number) for number in list_versions(context.run))
    older = [old.show() for old in kept if stored_job(old).report.prompts != "none"]
    if older:
        logger.warning(
            "report.prompts is none, but earlier versions hold texts of prompts. Remove them if "
            f"these must go: {', '.join(older)}"
        )


def report_data(context: Context, run: Run, numbers: Sequence[int]) -> ReportData:
    """Everything the page shows, from what the stages before have stored."""
    job = context.job
    discoveries = tuple(_discovery(context, run, k) for k in numbers)
    overlaps = read_evaluation(run.directory, OVERLAPS, tuple[Overlap, ...]) or ()
    sizes = [(overlap.num_modules, overlap.next_num_modules) for overlap in overlaps]
    if sizes != list(pairwise(sorted(numbers))):
        overlaps = ()
    return ReportData(
        run=_run_facts(job, run),
        discoveries=discoveries,
        overlaps=overlaps
        or Absent(
            "The modules of a single K have been found."
            if len(numbers) == 1
            else "The evaluation does not compare these K; run `ulcmod evaluate` again."
        ),
        reproduction=_reproduction(job, run),
    )


def _discovery(context: Context, run: Run, num_modules: int) -> Discovery:
    modules = run.modules(num_modules)
    # An evaluation with other settings may hold prompts that this job keeps out of the page.
    evaluated = evaluation_mark(context, modules)
    stored = read_evaluation(run.directory, name_of(num_modules), Discovery, evaluated)
    if stored is None:
        raise InvalidInput(
            f"The modules for K = {num_modules} of {run.directory.url} have not been evaluated "
            "with these settings.",
            "Run `ulcmod evaluate` with the same job and the same --set first.",
        )
    mark = ablation_mark(context.job, modules)
    ablation = read_evaluation(run.directory, ablation_name(num_modules), Ablation, mark)
    if ablation is not None:
        return replace(stored, ablation=ablation)
    reason = why_not_ablated(run.snapshot.provenance)
    return stored if reason is None else replace(stored, ablation=Absent(reason))


def _run_facts(job: Job, run: Run) -> RunFacts:
    split = run.snapshot.samples["split"].to_numpy()
    name = run.directory.url.rstrip("/").rpartition("/")[2]
    return RunFacts(
        name=name,
        model=None if job.model is None else "/".join(job.model.id.rstrip("/").split("/")[-2:]),
        num_samples=int((split == "train").sum()),
        num_test_samples=int((split != "train").sum()),
        num_units=run.snapshot.units.num_rows,
        facts=(*_counted(run), *_recorded(run.snapshot.provenance)),
    )


def _counted(run: Run) -> Iterator[Fact]:
    """What the tables of samples and units tell."""
    samples, layers = run.snapshot.samples, run.snapshot.units["layer"]
    if not layers.null_count:
        yield Fact("Layers", f"{len(layers.unique()):,}")
    tokens = samples["tokens"].to_numpy()
    if tokens.any():
        middle = int(np.median(tokens))
        yield Fact("Tokens", f"{tokens.sum():,}; {middle:,} in the median sample")
    categories = [name for name in samples["category"].unique().to_pylist() if name is not None]
    if categories:
        yield Fact("Categories", f"{len(categories):,}")


def _recorded(record: dict[str, str]) -> Iterator[Fact]:
    """The record of the forward pass for people; the whole digests are in the store's manifest."""
    others = sorted(record.keys() - RECORD.keys() - {"model.id"})
    for key in (*RECORD, *others):
        if key in record:
            value = record[key]
            name = RECORD.get(key, key.replace(".", " ").replace("_", " "))
            yield Fact(name, f"{value[:12]}…" if _DIGEST.fullmatch(value) else value)


def _reproduction(job: Job, run: Run) -> Reproduction:
    view = run.snapshot
    libraries = [Fact(name, version(name)) for name in LIBRARIES]
    command = "ulcmod run job.yaml" if job.matrix is None else "ulcmod run RUN"
    return Reproduction(
        commands=(f"pip install ulcmod-dist=={version('ulcmod-dist')}", command),
        job=job.to_yaml(),
        versions=(Fact("Python", platform.python_version()), *libraries),
        digests=(
            Fact("job", fingerprint(job.model_dump(mode="json"))),
            Fact(f"samples and activations (version {view.version})", view.digest),
        ),
    )


def _remove_others(run: RunDir, kept: set[str]) -> None:
    """Remove what an earlier page of this run has written and this one has not."""
    folder = next(iter(kept)).partition("/")[0] if kept else None
    for key, _ in list(run.keys(folder)) if folder else []:
        if key not in kept:
            run.delete(key)
