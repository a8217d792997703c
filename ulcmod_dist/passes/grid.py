"""A pass over the matrix: a kernel for every block, and the sum of what the kernels hand back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from ulcmod_dist.passes.executors import Executor, Threads
from ulcmod_dist.passes.standardised import AnyArray, FloatArray

# Blocks that a matrix in memory is cut into, in bytes: some for every thread, none too small.
_BLOCK_BYTES = 16 * 2**20
# Partial sums that one task adds up.
_FAN_IN = 8

Kernel = Callable[..., tuple[FloatArray | None, FloatArray | None]]


def total(
    raw: AnyArray,
    kernel: Kernel,
    *,
    by_sample: Sequence[AnyArray] = (),
    by_unit: Sequence[AnyArray] = (),
    executor: Executor,
    only_samples: AnyArray | None = None,
    only_units: AnyArray | None = None,
) -> tuple[FloatArray | None, FloatArray | None]:
    """Run a kernel over the blocks of a matrix and add up its parts.

    Args:
        raw: NumPy or Dask array [samples, units].
        kernel: Called as ``kernel(block, *by_sample, *by_unit)``; hands back a part of the answer
            for the block's samples [samples, p] and one for its units [q, units], or None.
        by_sample: Arrays of which each block gets its samples' part, samples on the last axis.
        by_unit: Arrays of which each block gets its units' part, units on the last axis.
        executor: Where the kernels run.
        only_samples: Ascending samples; blocks without any of them are not read.
        only_units: The same for units.

    Returns:
        The sum for the samples [samples, p] and for the units [q, units], or None. Where blocks
        are left out, only a sum over the axis they are left out of is meaningful.
    """
    all_rows, all_columns = block_slices(raw)
    rows, columns = _touched(all_rows, only_samples), _touched(all_columns, only_units)
    if isinstance(raw, np.ndarray) and isinstance(executor, Threads):
        return _total_here(raw, kernel, by_sample, by_unit, [part for _, part in rows], executor)
    row_values = [_shared([_part(array, part) for array in by_sample]) for _, part in rows]
    column_values = [_shared([_part(array, part) for array in by_unit]) for _, part in columns]
    task = delayed(_apply, pure=False, nout=2)
    blocks = _blocks(raw, rows, columns)
    parts = [
        [task(kernel, block, row_values[i], column_values[j]) for j, block in enumerate(line)]
        for i, line in enumerate(blocks)
    ]
    sample_parts = [_added([part[0] for part in line]) for line in parts]
    unit_parts = [_added([line[j][1] for line in parts]) for j in range(len(columns))]
    results = executor.compute([*sample_parts, *unit_parts])
    return _joined(results[: len(rows)], 0), _joined(results[len(rows) :], 1)


def _total_here(
    raw: AnyArray,
    kernel: Kernel,
    by_sample: Sequence[AnyArray],
    by_unit: Sequence[AnyArray],
    rows: list[slice],
    executor: Threads,
) -> tuple[FloatArray | None, FloatArray | None]:
    """`total` for a matrix of this process, without the cost of a graph (a pass takes 20 ms)."""

    def part(row: slice) -> tuple[FloatArray | None, FloatArray | None]:
        return kernel(raw[row], *[_part(array, row) for array in by_sample], *by_unit)

    parts = executor.each(part, rows)
    return _joined([by_row for by_row, _ in parts], 0), _add([by_column for _, by_column in parts])


def block_slices(raw: AnyArray) -> tuple[list[slice], list[slice]]:
    """Samples and units of the blocks in which a matrix is read: its chunks, if it has any."""
    if isinstance(raw, da.Array):
        row_sizes, column_sizes = raw.chunks
    else:
        # Whole rows: a contiguous view, which no kernel has to copy.
        height = max(1, _BLOCK_BYTES // max(1, raw.shape[1] * raw.dtype.itemsize))
        row_sizes, column_sizes = _sizes(raw.shape[0], height), (raw.shape[1],)
    return list(_consecutive(row_sizes)), list(_consecutive(column_sizes))


def _touched(slices: list[slice], items: AnyArray | None) -> list[tuple[int, slice]]:
    """Numbers and slices of the blocks that hold one of the ascending items."""
    numbered = list(enumerate(slices))
    if items is None:
        return numbered
    firsts = np.searchsorted(items, [part.start for part in slices])
    ends = np.searchsorted(items, [part.stop for part in slices])
    return [numbered[i] for i in np.flatnonzero(ends > firsts)]


def _apply(
    kernel: Kernel, block: AnyArray, row_values: list[AnyArray], column_values: list[AnyArray]
) -> tuple[FloatArray | None, FloatArray | None]:
    return kernel(np.asarray(block), *row_values, *column_values)


def _part(array: AnyArray, part: slice) -> AnyArray:
    return np.ascontiguousarray(array[..., part])


def _shared(value: Any) -> Any:
    # One node of the graph that all blocks of a row or column read; nothing inside is hashed.
    return delayed(value, pure=False, traverse=False)


def _added(parts: list[Any]) -> Any:
    """One delayed value that adds up delayed parts, in a tree whose shape depends on them only."""
    add = delayed(_add, pure=False)
    while len(parts) > 1:
        parts = [add(parts[i : i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
    return parts[0]


def _add(parts: list[FloatArray | None]) -> FloatArray | None:
    first, *others = parts
    if first is None or not others:
        return first
    result = first.copy()
    for other in others:
        assert other is not None
        result += other
    return result


def _joined(parts: list[FloatArray | None], axis: int) -> FloatArray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=axis) if known else None


def _sizes(length: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, length - first) for first in range(0, length, size))


def _consecutive(sizes: Sequence[int]) -> Iterator[slice]:
    first = 0
    for size in sizes:
        yield slice(first, first + size)
        first += size


def _blocks(
    raw: AnyArray, rows: list[tuple[int, slice]], columns: list[tuple[int, slice]]
) -> list[list[Any]]:
    if not isinstance(raw, da.Array):
        return [[_shared(raw[row, column]) for _, column in columns] for _, row in rows]
    lines: Any = raw.to_delayed  # untyped in Dask
    blocks = lines()
    return [[blocks[i, j] for j, _ in columns] for i, _ in rows]
