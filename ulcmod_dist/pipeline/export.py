"""``ulcmod export``: modules as masks and lists, in a folder that is ready to be published."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.provenance import split_gguf
from ulcmod_dist.intervene.engine import estimate_pruned_size
from ulcmod_dist.intervene.masks import Mask, masks_to_safetensors, read_layer_units
from ulcmod_dist.pipeline.artifacts import GRAPH
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.ledger import Ledger
from ulcmod_dist.pipeline.report import name_model, read_discovery, select_provenance
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.report.readme import render_readme
from ulcmod_dist.runtime.rundir import RunDir

COLUMNS = {
    "name": "Mask",
    "modules": "Modules",
    "units": "Units",
    "removed": "Parameters cut",
    "share": "Share of all",
}


def export(context: Context, *, num_modules: int, modules: Sequence[int], out: Path) -> Summary:
    """Write masks, lists of the modules, a README and the report into the folder ``out``.

    One mask ablates all ``modules`` together; without any there is a mask of each module. Of the
    report, parts that are not up to date with the job are left out, so that with ``report.prompts``
    none no text of a prompt gets into the folder.

    Raises:
        InvalidInput: There are no such modules, or the run's units are not those of a whole model.
    """
    run = Run(context.run)
    units = read_layer_units(run.snapshot.units)
    labels = run.modules(num_modules).unit_labels
    together = tuple(dict.fromkeys(modules))
    chosen = [together] if together else [(module,) for module in range(num_modules)]
    masks = {}
    for each in chosen:
        name = f"K{num_modules:03d}-module-" + "-".join(f"{module:02d}" for module in each)
        masks[name] = Mask.from_modules(units, labels, each)
    target = RunDir.at(out)
    target.write("masks.safetensors", masks_to_safetensors(masks, units))
    target.write_parquet("masks.parquet", _tabulate_masks(masks, run.modules(num_modules).units))
    lacking = [*_write_lists(context, target, num_modules, next(iter(masks)))]
    lacking += _copy_report(context, target)
    sizes, unknown = _pruned_sizes(context.job, masks.values())
    rows = [
        {"name": name, "modules": list(each), "units": mask.num_units, **size}
        for (name, mask), each, size in zip(masks.items(), chosen, sizes, strict=True)
    ]
    closing = [*unknown, *lacking, f"Wrote the folder {out}"]
    return Summary(title="Masks", columns=COLUMNS, rows=rows, closing=closing)


def _tabulate_masks(masks: Mapping[str, Mask], units: pa.Table) -> pa.Table:
    """A row for each ablated unit: ``unit`` counts over the model, ``index`` in one projection."""
    tables = []
    for name, mask in masks.items():
        rows = units.filter(mask.ablated).select(["unit", "layer", "index", "path", "expert"])
        rows = rows.append_column("mask", pa.array([name] * len(rows), pa.string()))
        tables.append(rows.append_column("value", pa.array(mask.values[mask.ablated])))
    return pa.concat_tables(tables)


def _write_lists(context: Context, target: RunDir, num_modules: int, mask: str) -> Iterator[str]:
    """Write the lists of units, the provenance and the README; yield what is lacking."""
    run, job = Run(context.run), context.job
    stored, discovery = run.modules(num_modules), None
    units = stored.units.select(["layer", "index", "expert", "path", "module"])
    units = units if units["expert"].null_count < len(units) else units.drop_columns(["expert"])
    if Ledger(context.run, job).is_current("evaluation", num_modules):
        discovery = read_discovery(context, num_modules)
        degrees = run.membership(num_modules).filter(like="degree_").to_numpy()
        score = degrees[np.arange(len(units)), stored.unit_labels]
        units = units.append_column("score", pa.array(np.round(score.astype(np.float64), 6)))
        units = units.sort_by([("module", "ascending"), ("score", "descending")])
    else:
        yield f"Without names and scores: modules for K = {num_modules} are not evaluated as asked."
    sink = pa.BufferOutputStream()
    csv.write_csv(units, sink)
    target.write("modules.csv", sink.getvalue().to_pybytes())
    names: list[dict[str, str]] = [{}] * num_modules
    if discovery is not None:
        names = [{"name": name} for name in discovery.names]
    lists = [
        {"module": k, **names[k], **rows.drop_columns(["module"]).to_pydict()}
        for k in range(num_modules)
        for rows in [units.filter(pc.equal(units["module"], k))]
    ]
    target.write("modules.json", json.dumps({"modules": lists}, ensure_ascii=False).encode())
    made = {
        "model": name_model(job.model.id) if job.model else "an imported matrix",
        "version": version("ulcmod-dist"),
        **{key: stored.metrics[key] for key in ("num_modules", "objective", "seed")},
    }
    record = select_provenance(job, run.snapshot)
    made_in = {"snapshot": run.snapshot.digest, "provenance": record}
    target.write_json("provenance.json", made | made_in)
    arguments = _format_arguments(job.model) if job.model else json.dumps(made["model"])
    readme = render_readme(discovery, mask=mask, arguments=arguments, **made)
    target.write("README.md", readme.encode())


def _format_arguments(model: ModelConfig) -> str:
    """What `from_pretrained` takes for a model, without the place of a local one."""
    location, *file = split_gguf(model) or (model.id,)
    named = {"gguf_file": file[0] if file else None, "revision": model.revision}
    words = [f"{name}={json.dumps(value)}" for name, value in named.items() if value]
    return ", ".join([json.dumps(name_model(location)), *words])


def _copy_report(context: Context, target: RunDir) -> Iterator[str]:
    """Copy page, figures and tables as far as they are fresh; yield what is left out and why."""
    ledger = Ledger(context.run, context.job)
    for name in ("page", "figures", "tables"):
        status, record = ledger.status(name), ledger.record(name)
        for key in (*GRAPH[name].files, *(record.files if record else ())):
            if status.state == "fresh":
                target.write(key, context.run.read(key))
            else:
                # An earlier export's may hold what the job leaves out now.
                target.delete(key)
        if status.state != "fresh":
            reason = status.reasons[0] if status.reasons else "there is none"
            yield f"Without {name}: {reason}. `ulcmod report {context.run.url}` updates it."


def _pruned_sizes(job: Job, masks: Collection[Mask]) -> tuple[list[dict[str, float]], list[str]]:
    """What each mask would cut out of the model; masks need no model, but their sizes do."""
    try:
        config = load_config(job.require_model())
    except InvalidInput as error:
        return [{} for _ in masks], [f"How much the masks would cut is not known. {error.fact}"]
    sizes = (estimate_pruned_size(config, mask) for mask in masks)
    return [
        {"parameters": size.parameters, "removed": size.removed, "share": size.share}
        for size in sizes
    ], []
