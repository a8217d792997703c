"""A pass over the matrix: a kernel for every block, and the sum of what the kernels hand back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from ulcmod_dist.passes.executors import Executor
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
) -> tuple[FloatArray | None, FloatArray | None]:
    """Run a kernel over all blocks of a matrix and add up its parts.

    Args:
        raw: NumPy or Dask array [samples, units].
        kernel: Called as ``kernel(block, *by_sample, *by_unit)``; hands back a part of the answer
            for the block's samples [samples, p] and one for its units [q, units], or None.
        by_sample: Arrays of which each block gets its samples' part, samples on the last axis.
        by_unit: Arrays of which each block gets its units' part, units on the last axis.
        executor: Where the kernels run.

    Returns:
        The sum for the samples [samples, p] and for the units [q, units], or None.
    """
    rows, columns = _slices(raw)
    row_values = [_shared([_part(array, part) for array in by_sample]) for part in rows]
    column_values = [_shared([_part(array, part) for array in by_unit]) for part in columns]
    task = delayed(_apply, pure=False, nout=2)
    parts = [
        [task(kernel, block, row_values[i], column_values[j]) for j, block in enumerate(blocks)]
        for i, blocks in enumerate(_blocks(raw, rows, columns))
    ]
    sample_parts = [_added([part[0] for part in line]) for line in parts]
    unit_parts = [_added([line[j][1] for line in parts]) for j in range(len(columns))]
    results = executor.compute([*sample_parts, *unit_parts])
    return _joined(results[: len(rows)], 0), _joined(results[len(rows) :], 1)


def _apply(
    kernel: Kernel, block: AnyArray, row_values: list[AnyArray], column_values: list[AnyArray]
) -> tuple[FloatArray | None, FloatArray | None]:
    return kernel(np.asarray(block), *row_values, *column_values)


def _part(array: AnyArray, part: slice) -> AnyArray:
    return np.ascontiguousarray(array[..., part])


def _shared(value: list[AnyArray]) -> Any:
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
    if first is None:
        return None
    result = first.copy()
    for other in others:
        assert other is not None
        result += other
    return result


def _joined(parts: list[FloatArray | None], axis: int) -> FloatArray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=axis) if known else None


def _slices(raw: AnyArray) -> tuple[list[slice], list[slice]]:
    if isinstance(raw, da.Array):
        row_sizes, column_sizes = raw.chunks
    else:
        # Whole rows: a contiguous view, which no kernel has to copy.
        height = max(1, _BLOCK_BYTES // max(1, raw.shape[1] * raw.dtype.itemsize))
        row_sizes, column_sizes = _sizes(raw.shape[0], height), (raw.shape[1],)
    return list(_consecutive(row_sizes)), list(_consecutive(column_sizes))


def _sizes(length: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, length - first) for first in range(0, length, size))


def _consecutive(sizes: Sequence[int]) -> Iterator[slice]:
    first = 0
    for size in sizes:
        yield slice(first, first + size)
        first += size


def _blocks(raw: AnyArray, rows: list[slice], columns: list[slice]) -> list[list[Any]]:
    if isinstance(raw, da.Array):
        lines: Any = raw.to_delayed  # untyped in Dask
        return [list(line) for line in lines()]
    return [[_shared(raw[row, column]) for column in columns] for row in rows]
