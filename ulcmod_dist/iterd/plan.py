"""Plan of a search: what it keeps in memory and how it reads, before anything is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import dask.array as da
import numpy as np

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.moves import CANDIDATES, part_shape
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.linalg import COMPONENTS, SKETCH_WIDTH
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.shares import block_slices, keep_matrix, plan_layout
from ulcmod_dist.passes.standardised import AnyArray, Standardised, as_standardised

# Share of the machines' memory that a search takes where no limit is given.
_DEFAULT_SHARE = 0.7
# At least so many blocks in the blockwise mode, where memory allows any choice: their random order
# stands in for a random order of all units.
_MIN_BLOCKS = 8
# A chunk while it is read: encoded, decoded, and the piece that a kernel converts.
_CHUNK_COPIES = 3
# Entries of the part of the matrix on which moves are searched, where memory allows, and fewer.
_PARTS = (2**23, 2**21, 2**19)
# The part while it is read: its blocks, their sum, and what is kept.
_PART_COPIES = 3
# Parts of the tables that one pass makes of several blocks in memory: a pass to other processes
# takes some milliseconds for its messages.
_PASS_BYTES = 2**28
_MIB = 2**20


@dataclass(frozen=True)
class SearchPlan:
    """Memory and reads of a search. Sizes are bytes.

    Attributes:
        resident: The whole matrix is kept in memory after its first read.
        block_units: Units in a block of the blockwise mode; 0 in the exact mode.
        together: Blocks that share passes: where all are in memory, what costs little more.
        part: Entries of the part of the matrix on which moves are searched; 0 without moves.
        reads: Reads of the matrix from elsewhere in an iteration, at most.
        kept: Matrix, or the two blocks of the blockwise mode, kept in memory.
        tables: Tables and labels of all searches, held by the driver.
        working: Chunks and partial sums of the tasks that run at once.
        start: Sketch and components of the start, before the tables are there.
        held_out: Table and labels of the held-out samples, once a search is over.
    """

    mode: str
    resident: bool
    keep: str
    block_units: int
    part: int
    reads: int
    matrix: int
    kept: int
    tables: int
    working: int
    start: int
    held_out: int
    limit: int
    together: int = 1

    @property
    def projected_mem(self) -> int:
        """Peak memory of the search."""
        if self.resident:
            return self.working + max(self.kept + max(self.tables, self.start), self.held_out)
        return self.working + max(self.kept + self.tables, self.start, self.held_out)


def plan_search(
    activations: Standardised,
    modules: Sequence[int],
    config: SearchConfig,
    executor: Executor,
    *,
    held_out: int = 0,
    block_units: int | None = None,
) -> SearchPlan:
    """The plan that fits the memory: resident, else with the fewest reads. Nothing is read.

    ``held_out`` samples will be assigned to the modules. ``block_units`` are those of a block of
    the blockwise mode; by default as many as memory allows, at most an eighth of all.

    Raises:
        InvalidInput: K does not fit the matrix, or the memory is too small; names the smallest
            that works.
    """
    check_modules(activations, modules)
    limit = memory_limit(config.memory, executor)
    # Held-out samples are assigned for one K at a time, while the labels of all K are kept.
    labels = len(modules) * sum(activations.shape) * 12
    assigned = held_out and labels + held_out * (max(modules) * 16 + 4)
    # The part last: with the same one, labels do not depend on where the matrix is kept.
    plans = [
        replace(plan, limit=limit, held_out=assigned)
        for part in (_PARTS if config.moves and max(modules) > 2 else (0,))
        for plan in _list_plans(activations, modules, config, executor, block_units, part)
    ]
    fitting = [plan for plan in plans if plan.projected_mem <= limit]
    if not fitting:
        smallest = min(plan.projected_mem for plan in plans)
        raise InvalidInput(
            f"The search needs more than the {limit / _MIB:,.0f} MiB it may use.",
            f"Allow it at least {-(-smallest // _MIB):,} MiB"
            + (", or mode auto." if config.mode == "exact" else "."),
        )
    return fitting[0]


def memory_limit(given: int | None, executor: Executor) -> int:
    """Bytes that a search may use: what is given, else a share of what its machines have."""
    return given or int(_DEFAULT_SHARE * executor.memory)


def check_modules(activations: Standardised, modules: Sequence[int]) -> None:
    """Require distinct K, each from 1 to the number of samples and of units.

    Raises:
        InvalidInput: They are not.
    """
    most = min(activations.shape)
    unfit = [k for k in modules if not 1 <= k <= most]
    if unfit:
        raise InvalidInput(
            f"K = {unfit[0]} modules do not fit {activations.n_samples} samples and "
            f"{activations.n_units} units.",
            f"Choose K from 1 to {most}.",
        )
    if not modules or len(set(modules)) < len(modules):
        raise InvalidInput(f"A search needs distinct numbers of modules, not {list(modules)}.")


def unit_blocks(activations: Standardised, block_units: int) -> list[slice]:
    """Blocks of the blockwise mode: neighbouring units, whole chunks where there are chunks."""
    if isinstance(activations.raw, np.ndarray):
        ends = [*range(block_units, activations.n_units, block_units), activations.n_units]
        return [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    blocks: list[slice] = []
    for part in block_slices(activations.raw)[1]:
        if blocks and part.stop - blocks[-1].start <= block_units:
            blocks[-1] = slice(blocks[-1].start, part.stop)
        else:
            blocks.append(part)
    return blocks


def open_matrix(
    activations: Standardised, plan: SearchPlan, executor: Executor
) -> ActivationMatrix:
    """The matrix as planned: decoded and kept in memory, or read again by every pass."""
    if not plan.resident:
        return ActivationMatrix(activations, executor)
    raw: AnyArray = activations.raw
    if plan.keep == "float16" and raw.dtype != np.float16:
        if not isinstance(raw, da.Array):
            from_array = getattr(da, "from_array")  # noqa: B009 - untyped in Dask
            raw = from_array(raw, chunks=plan_layout(raw, executor.workers).widest_block)
        z = ((raw - activations.mean) / activations.std).astype(np.float16)
        activations = as_standardised(z)
    blocks = unit_blocks(activations, plan.block_units) if plan.mode == "blockwise" else ()
    kept = replace(activations, raw=keep_matrix(activations.raw, executor, blocks=blocks))
    return ActivationMatrix(kept, executor, resident=True)


def _list_plans(
    activations: Standardised,
    modules: Sequence[int],
    config: SearchConfig,
    executor: Executor,
    block_units: int | None,
    part: int,
) -> list[SearchPlan]:
    """Plans in the order of preference; limit and held-out samples are still missing."""
    samples, units = activations.shape
    itemsize = activations.raw.dtype.itemsize
    kept_size = min(itemsize, np.dtype(config.keep).itemsize)
    here = executor.in_process and not isinstance(activations.raw, da.Array)
    # Restarts have dropped their tables before moves have any.
    width = config.restarts * sum(modules)
    searches = (config.restarts + 2) * len(modules)
    labels = searches * (samples + units) * 12 + samples * COMPONENTS * 8
    rows, columns = part_shape(activations.shape, part, max(modules))
    moves = rows * columns * _PART_COPIES * max(4, itemsize)
    moves += (rows + columns) * CANDIDATES * sum(modules) * 16
    # Twice: a table and the sums that it is made of.
    tables = labels + max((samples + units) * width * 16, moves if part else 0)
    exact = SearchPlan(
        mode="exact",
        resident=True,
        keep="float32" if here else config.keep,
        block_units=0,
        part=part,
        reads=0,
        matrix=samples * units * itemsize,
        kept=0 if here else samples * units * kept_size,
        tables=tables,
        working=_working(activations, width, executor.workers),
        # The sketch with its products and the factors of it, or the tables of the first labels.
        start=(samples + units) * max(SKETCH_WIDTH * 24, width * 16),
        held_out=0,
        limit=0,
    )
    streaming = replace(exact, resident=False, kept=0, reads=2)
    if config.mode == "exact":
        return [exact, streaming]
    resident, by_block = [], []
    for size in _block_sizes(activations, block_units):
        tables = labels + max((samples + 2 * size) * width * 16, moves if part else 0)
        plan = replace(exact, mode="blockwise", block_units=size, tables=tables)
        kept = 0 if here else 2 * samples * size * itemsize
        parts = (samples + size) * width * 16
        together = max(1, _PASS_BYTES // parts)
        more = (together - 1) * parts
        resident.append(replace(plan, tables=tables + more, together=together))
        by_block.append(replace(plan, resident=here, reads=1, kept=kept))
    return [*resident, *by_block] if config.mode == "blockwise" else [exact, *by_block, streaming]


def _block_sizes(activations: Standardised, wanted: int | None) -> list[int]:
    """Units in a block, largest first."""
    widest = max(part.stop - part.start for part in block_slices(activations.raw)[1])
    least = widest if isinstance(activations.raw, da.Array) else 1
    if wanted is not None:
        return [max(least, wanted)]
    sizes = [max(least, activations.n_units // _MIN_BLOCKS)]
    while sizes[-1] > least:
        sizes.append(max(least, sizes[-1] // 2))
    return sizes


def _working(activations: Standardised, width: int, workers: int) -> int:
    """Chunks, and the partial sums of their shares, of the tasks that run at once."""
    layout = plan_layout(activations.raw, workers)
    rows, columns = layout.widest_block
    lazily = isinstance(activations.raw, da.Array)
    chunk = rows * columns * activations.raw.dtype.itemsize * _CHUNK_COPIES if lazily else 0
    # A product converts its block to float64.
    product = rows * columns * 8
    # Of a share for its samples: those of the blocks of a column, and of some levels of the tree.
    tall, wide = (
        max(sum(side[n].stop - side[n].start for n in cut) for cut in cuts)
        for side, cuts in [(layout.rows, layout.row_cuts), (layout.columns, layout.column_cuts)]
    )
    levels = max(map(len, layout.column_cuts)).bit_length() + 1
    sums = (tall * levels + 2 * wide) * width * 8
    return int(workers * (chunk + product + sums))
