"""``ulcmod report``: the page, its figures and its tables."""

import logging
import platform
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import yaml

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.structure import count_overlap
from ulcmod_dist.pipeline.artifacts import GRAPH, METHOD_ABLATIONS
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.inputs import explain_no_ablation
from ulcmod_dist.pipeline.ledger import Ledger, replacing
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.report import paper
from ulcmod_dist.report.page import collect_figures, collect_tables, render_page
from ulcmod_dist.report.sections import build_sections
from ulcmod_dist.report.specs import Figure
from ulcmod_dist.results.ablation import Ablation, MethodAblations
from ulcmod_dist.results.discovery import Discovery, Overlap, ReportData, Reproduction, RunFacts
from ulcmod_dist.results.explanation import Explanation
from ulcmod_dist.results.types import Absent, Fact
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.rundir import REPORT, RunDir, figure_key, fingerprint, table_key
from ulcmod_dist.store.snapshot import Snapshot
from ulcmod_dist.store.versions import list_versions, version_directory

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"[/~\\]|\.{1,2}[/\\]|\w+:[/\\]")

logger = logging.getLogger(__name__)

# What the provenance of a store holds -> how the page names it, in the page's order.
PROVENANCE = {
    "statistic": "Statistic",
    "statistic.definition": "Activation on this page",
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

PARTS = ("figures", "tables", "page")

LIBRARIES = ("ulcmod-dist", "torch", "transformers", "ray", "dask", "zarr", "numpy", "numba")


@writes
def report(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Write ``report.html``, ``figures/*`` in the job's formats, and ``tables/*.parquet``.

    It shows the modules for every K in ``num_modules``; None for all that are evaluated.

    Raises:
        InvalidInput: None of them, or one that is named, is not evaluated with these settings.
    """
    shown = _require_evaluated(context, num_modules)
    save_job(context)
    records = make_report(context, dict.fromkeys(PARTS, ()), shown)
    left_out = sorted({*Ledger(context.run, context.job).num_modules} - {*shown})
    closing = []
    if left_out and num_modules is None:
        names = ", ".join(map(str, left_out))
        closing = [f"Not on the page, since not evaluated with these settings: K = {names}."]
    figures, run = len(list(context.run.keys("figures"))), context.run
    formats = ", ".join(context.job.report.formats)
    facts = {
        "page": run.show(REPORT),
        "figures": f"{run.show('figures')} ({figures} files: {formats})" if formats else "no files",
        "tables": f"{run.show('tables')} ({len(records)} files: parquet)",
    }
    data = {"figures": figures, "report": run.show(REPORT), "tables": records}
    return Summary(title="Report", facts=facts, data=data, closing=closing)


def _require_evaluated(context: Context, num_modules: Sequence[int] | None) -> list[int]:
    """The numbers of modules that the page will show.

    An evaluation with other settings may hold prompts that this job keeps out of the page.
    """
    ledger = Ledger(context.run, context.job, shown=num_modules)
    shown = ledger.on_page()
    wanted = context.job.discover.modules if num_modules is None else num_modules
    lacking = [k for k in wanted if k not in shown]
    if lacking and (num_modules is not None or not shown):
        k = lacking[0]
        changes = ledger.changes("evaluation", k) or [f"there is no evaluation for K = {k}"]
        raise InvalidInput(
            f"The modules for K = {k} of {context.run.url} have not been evaluated with these "
            f"settings: {changes[0]}.",
            "Run `ulcmod evaluate` with the same job and the same --set first.",
        )
    return shown


def make_report(
    context: Context, wanted: Mapping[str, Sequence[int]], shown: Sequence[int] | None = None
) -> dict[str, Any]:
    """Make page, figures and tables, as far as they are wanted; return the tables as records.

    They show the modules for every K in ``shown``; None for all that are evaluated.
    """
    numbers = Ledger(context.run, context.job, shown=shown).on_page()
    data = report_data(context, Run(context.run), numbers)
    parts = build_sections(data)
    figures, shown_tables = collect_figures(parts), collect_tables(parts)
    if "figures" in wanted:
        _draw_figures(context, figures if context.job.report.formats else {}, numbers)
    if "tables" in wanted:
        with replacing(context, "tables", shown=numbers) as record:
            for name, table in shown_tables.items():
                context.run.write_parquet(table_key(name), table.to_arrow())
            record.files = tuple(map(table_key, shown_tables))
            _remove_others(context.run, "tables", record.files)
    if "page" in wanted:
        with (
            track(context.on_progress, "Page", None, "pages"),
            replacing(context, "page", shown=numbers),
        ):
            context.run.write(REPORT, render_page(data).encode("utf-8"))
    if context.job.report.prompts == "none":
        _warn_of_older_prompts(context)
    return {name: table.to_records() for name, table in shown_tables.items()}


def _draw_figures(context: Context, figures: Mapping[str, Figure], numbers: Sequence[int]) -> None:
    """Write the files of all figures but those that would be drawn as they are stored."""
    run, settings = context.run, context.job.report
    titles, formats = settings.titles, settings.formats
    drawn = _find_drawn(context)
    digests = {name: paper.digest(spec, titles=titles) for name, spec in figures.items()}
    with (
        replacing(context, "figures", shown=numbers) as record,
        track(context.on_progress, "Figures", len(figures), "figures") as step,
    ):
        for done, (name, spec) in enumerate(figures.items(), start=1):
            if drawn.get(name) != digests[name]:
                for ending, content in paper.render(spec, formats, titles=titles).items():
                    run.write(figure_key(name, ending), content)
            step.update(done)
        record.files = tuple(key for name in figures for key in _figure_keys(name, formats))
        record.facts = {"drawn": digests}
        _remove_others(run, "figures", record.files)


def _find_drawn(context: Context) -> dict[str, str]:
    """Digest of each figure that this version of the program drew, if its files are there."""
    record = Ledger(context.run, context.job).record("figures")
    if record is None or record.version != GRAPH["figures"].version:
        return {}
    present = {key for key, _ in context.run.keys("figures")}
    drawn, formats = record.facts.get("drawn", {}), context.job.report.formats
    return {name: drawn[name] for name in drawn if present.issuperset(_figure_keys(name, formats))}


def _figure_keys(name: str, formats: Sequence[str]) -> list[str]:
    return [figure_key(name, ending) for ending in formats]


def _warn_of_older_prompts(context: Context) -> None:
    """Name what was written before the job kept texts of prompts out of the report."""
    kept = (version_directory(context.run, number) for number in list_versions(context.run))
    older = [old.show() for old in kept if Job.from_run(old).report.prompts != "none"]
    if older:
        logger.warning(
            "report.prompts is none, but earlier versions hold texts of prompts. Remove them if "
            f"these must go: {', '.join(older)}"
        )


def report_data(context: Context, run: Run, numbers: Sequence[int]) -> ReportData:
    """Everything the page shows of the modules for some K, from what is stored."""
    job = context.job
    return ReportData(
        run=_run_facts(job, run),
        discoveries=tuple(read_discovery(context, k) for k in numbers),
        overlaps=_overlaps(run, numbers),
        reproduction=_reproduction(job, run),
    )


def read_discovery(context: Context, num_modules: int) -> Discovery:
    """The evaluation of the modules for one K, with explanation and ablation if current."""
    run, ledger = context.run, Ledger(context.run, context.job)
    stored = read_result(run, "evaluation", num_modules, Discovery)
    if ledger.is_current("explanation", num_modules):
        explanation = read_result(run, "explanation", num_modules, Explanation)
        stored = replace(stored, explanation=explanation)
    if ledger.is_current(METHOD_ABLATIONS, num_modules):
        ablated = read_result(run, METHOD_ABLATIONS, num_modules, MethodAblations).methods
        stored = replace(stored, ablated_methods=ablated)
    if ledger.is_current("ablation", num_modules):
        return stored.with_ablation(read_result(run, "ablation", num_modules, Ablation))
    reason = explain_no_ablation(Run(run).snapshot.provenance)
    return stored if reason is None else replace(stored, ablation=Absent(reason))


def _overlaps(run: Run, numbers: Sequence[int]) -> tuple[Overlap, ...] | Absent:
    """How the modules of each K split into those of the next larger one."""
    if len(numbers) < 2:
        return Absent("The modules of a single K have been found.")
    modules = {k: run.modules(k) for k in numbers}
    units = {k: stored.unit_labels.astype(np.int64) for k, stored in modules.items()}
    samples = {k: stored.sample_labels("train").astype(np.int64) for k, stored in modules.items()}
    return tuple(
        count_overlap((units[k], units[m]), (samples[k], samples[m]), (k, m))
        for k, m in pairwise(numbers)
    )


def _run_facts(job: Job, run: Run) -> RunFacts:
    split = run.snapshot.samples["split"].to_numpy()
    name = run.directory.url.rstrip("/").rpartition("/")[2]
    return RunFacts(
        name=name,
        model=None if job.model is None else name_model(job.model.id),
        num_samples=int((split == "train").sum()),
        num_test_samples=int((split != "train").sum()),
        num_units=run.snapshot.units.num_rows,
        facts=(*_counted(run), *_recorded(job, run.snapshot)),
    )


def _counted(run: Run) -> Iterator[Fact]:
    """What the tables of samples and units tell."""
    samples, layers = run.snapshot.samples, run.snapshot.units["layer"]
    if constant := int((~run.snapshot.moments.varies()).sum()):
        yield Fact("Constant units", f"{constant:,}: they do not vary over the train samples")
    if not layers.null_count:
        yield Fact("Layers", f"{len(layers.unique()):,}")
    tokens = samples["tokens"].to_numpy()
    if tokens.any():
        middle = int(np.median(tokens))
        yield Fact("Tokens", f"{tokens.sum():,}; {middle:,} in the median sample")
    categories = [name for name in samples["category"].unique().to_pylist() if name is not None]
    if categories:
        yield Fact("Categories", f"{len(categories):,}")


def name_model(location: str) -> str:
    """The model as it is called on a hub, or the last folders of where it lies."""
    return "/".join(location.rstrip("/").split("/")[-2:])


def select_provenance(job: Job, snapshot: Snapshot) -> dict[str, str]:
    """The record of the forward pass that may be shown: without the place of the model.

    With ``report.prompts`` none it is also without the system message, which is part of the
    prompts.
    """
    named = {} if snapshot.statistic is None else {"statistic": snapshot.statistic}
    hidden = {"model.id"} | ({"prompt.system_message"} if job.report.prompts == "none" else set())
    return {key: value for key, value in (named | snapshot.provenance).items() if key not in hidden}


def _recorded(job: Job, snapshot: Snapshot) -> Iterator[Fact]:
    """The record of the forward pass for people; the whole digests are in the store's manifest."""
    record = select_provenance(job, snapshot)
    for key in (*PROVENANCE, *sorted(record.keys() - PROVENANCE.keys())):
        if key in record:
            value = record[key]
            name = PROVENANCE.get(key, key.replace(".", " ").replace("_", " "))
            yield Fact(name, f"{value[:12]}…" if _DIGEST.fullmatch(value) else value)


def _hide_places(value: Any) -> Any:
    """The value with every local path and URL reduced to its last part."""
    if isinstance(value, dict):
        return {key: _hide_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide_places(inner) for inner in value]
    if isinstance(value, str) and _PLACE.match(value):
        return "…/" + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _show_job(job: Job) -> str:
    """The job's text; with ``report.prompts`` none without places and the system message."""
    if job.report.prompts == "all":
        return job.to_yaml()
    shown = _hide_places(yaml.safe_load(job.to_yaml()))
    if shown.get("prompt", {}).get("system"):
        shown["prompt"]["system"] = "…"
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _reproduction(job: Job, run: Run) -> Reproduction:
    view = run.snapshot
    libraries = [Fact(name, version(name)) for name in LIBRARIES]
    command = "ulcmod run job.yaml" if job.matrix is None else "ulcmod run RUN"
    return Reproduction(
        commands=(f"pip install ulcmod-dist=={version('ulcmod-dist')}", command),
        job=_show_job(job),
        versions=(Fact("Python", platform.python_version()), *libraries),
        digests=(
            Fact("job", fingerprint(job.model_dump(mode="json"))),
            Fact(f"samples and activations (version {view.version})", view.digest),
        ),
    )


def _remove_others(run: RunDir, folder: str, kept: Collection[str]) -> None:
    """Remove what an earlier page of this run has written and this one has not."""
    for key, _ in list(run.keys(folder)):
        if key not in kept:
            run.delete(key)
