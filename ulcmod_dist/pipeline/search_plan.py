"""What a search will hold in memory and read, as it is shown before anything is read."""

from __future__ import annotations

import dask.array as da
import numpy as np

from ulcmod_dist.iterd.plan import SearchPlan
from ulcmod_dist.passes.standardised import Standardised, as_standardised
from ulcmod_dist.pipeline.summary import format_bytes
from ulcmod_dist.store.schema import ChunkShape


def to_be_extracted(samples: int, units: int, grid: ChunkShape) -> Standardised:
    """Activations [samples, units] in the chunks that the store will have, to plan with."""
    zeros = getattr(da, "zeros")  # noqa: B009 - untyped in Dask
    return as_standardised(
        zeros((samples, units), chunks=(grid.rows, grid.columns), dtype=np.float32)
    )


def facts_of(plan: SearchPlan) -> dict[str, str]:
    """A plan for people: order, reads, blocks, residency, tables and the memory they need."""
    mode = plan.mode
    if plan.block_units:
        mode += f", blocks of up to {plan.block_units:,} units"
    reads = {0: "read once", 1: "read once an iteration", 2: "read twice an iteration at most"}
    kept = f"{format_bytes(plan.kept)} in {plan.keep}" if plan.resident else "nothing"
    if plan.block_units and not plan.resident:
        kept = f"two blocks, {format_bytes(plan.kept)}"
    return {
        "search": mode,
        "matrix": f"{format_bytes(plan.matrix)}, {reads[plan.reads]}",
        "kept in memory": kept,
        "tables and labels": format_bytes(plan.tables),
        "chunks and sums at work": format_bytes(plan.working),
        "sketch of the start": format_bytes(plan.start),
        "held-out samples": format_bytes(plan.held_out),
        "memory of the search": (
            f"{format_bytes(plan.projected_mem)} of {format_bytes(plan.limit)} allowed"
        ),
    }
