"""Where a job's search runs and how it will use its memory."""

from contextlib import AbstractContextManager

import dask.array as da
import numpy as np

from ulcmod_dist.config.job import Job
from ulcmod_dist.iterd.plan import SearchPlan
from ulcmod_dist.passes.executors import Executor, open_executor
from ulcmod_dist.passes.standardised import Standardised, as_standardised
from ulcmod_dist.pipeline.summary import format_bytes
from ulcmod_dist.store.schema import ChunkShape


def job_executor(job: Job) -> AbstractContextManager[Executor]:
    """The executor that the job names; ``ray`` uses the Ray cluster of ``extract.address``."""
    return open_executor(job.discover.executor, ray_address=job.extract.address)


def placeholder_activations(samples: int, units: int, chunks: ChunkShape) -> Standardised:
    """Zeros [samples, units] in the chunks that the store will have, to plan a search with."""
    zeros = getattr(da, "zeros")  # noqa: B009 - untyped in Dask
    shape = (samples, units)
    return as_standardised(zeros(shape, chunks=(chunks.rows, chunks.columns), dtype=np.float32))


def describe_plan(plan: SearchPlan) -> dict[str, str]:
    """A plan for people: mode, reads, blocks, what stays in memory and what it needs."""
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
        "chunks and partial sums": format_bytes(plan.working),
        "sketch of the initial modules": format_bytes(plan.start),
        "held-out samples": format_bytes(plan.held_out),
        "memory of the search": (
            f"{format_bytes(plan.projected_mem)} of {format_bytes(plan.limit)} allowed"
        ),
    }
