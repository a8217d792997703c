"""``ulcmod export`` and ``um.mask_modules``: modules as masks of a live model's units."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.intervene.engine import estimate_pruned_size
from ulcmod_dist.intervene.masks import Mask, masks_to_safetensors, masks_to_table, read_layer_units
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.rundir import RunDir

COLUMNS = {
    "name": "Mask",
    "modules": "Modules",
    "units": "Units",
    "removed": "Parameters cut",
    "share": "Share of all",
}


def export(context: Context, *, num_modules: int, modules: Sequence[int], out: Path) -> Summary:
    """Write ``masks.safetensors`` and ``masks.parquet`` into the folder ``out``.

    One mask ablates all ``modules`` together; without any there is a mask of each module.

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
    out.mkdir(parents=True, exist_ok=True)
    (out / "masks.safetensors").write_bytes(masks_to_safetensors(masks, units))
    RunDir.at(out).write_parquet("masks.parquet", masks_to_table(masks))
    sizes, unknown = _pruned_sizes(context.job, masks.values())
    rows = [
        {"name": name, "modules": list(each), "units": mask.num_units, **size}
        for (name, mask), each, size in zip(masks.items(), chosen, sizes, strict=True)
    ]
    written = [f"Wrote {out / name}" for name in ("masks.safetensors", "masks.parquet")]
    return Summary(title="Masks", columns=COLUMNS, rows=rows, closing=[*unknown, *written])


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
