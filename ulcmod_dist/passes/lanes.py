"""Operations on eight numbers at once, for loops that numba compiles to one number at a time.

LLVM leaves loops of fixed length to its SLP vectoriser, which numba switches off. As vectors, sums
of the units of each module take a third of the time, on any processor that LLVM knows.

numba's cache follows the file of a kernel, not this one: touch those files after a change here.
"""

# numba calls the functions with types, and what they return with LLVM's builder.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core.cgutils import get_item_pointer

from ulcmod_dist.passes.standardised import FloatArray

LANES = 8
# Its type says that calls have the arguments of the function that describes them.
_intrinsic: Any = extending.intrinsic


def allocate_lanes(rows: int) -> FloatArray:
    """Zeros [rows, lanes], each row one line of the cache, which makes sums a fifth faster."""
    buffer = np.zeros((rows + 1) * LANES)
    first = -buffer.ctypes.data // buffer.itemsize % LANES
    return buffer[first : first + rows * LANES].reshape(rows, LANES)


@_intrinsic
def turn_tile(_, block, row, column, weights, tile):
    """Write ``block[row + i, column + j] * weights[column + j]`` to ``tile[j, i]`` for all lanes.

    The block holds float32 or float64 in C order; the tile is float64.
    """

    def generate(context, builder, signature, args):
        column = args[2]
        factors = builder.load(_point(context, builder, signature, args, 3, column), align=8)
        rows = []
        for lane in range(LANES):
            place = builder.add(args[1], args[1].type(lane)), column
            pointer = _point(context, builder, signature, args, 0, *place)
            numbers = builder.load(pointer, align=block.dtype.bitwidth // 8)
            if block.dtype != types.float64:
                numbers = builder.fpext(numbers, factors.type)
            rows.append(builder.fmul(numbers, factors))
        _transpose(builder, rows)
        for lane, numbers in enumerate(rows):
            place = column.type(lane), column.type(0)
            builder.store(numbers, _point(context, builder, signature, args, 4, *place), align=8)
        return context.get_dummy_value()

    return types.void(block, types.intp, types.intp, weights, tile), generate


@_intrinsic
def transpose_tile(_, source, row, column, target):
    """Write ``source[row + i, column + j]`` to ``target[column + j, row + i]`` for all lanes.

    Both hold numbers of one type, those of a row next to each other.
    """

    def generate(context, builder, signature, args):
        row, column, align = args[1], args[2], source.dtype.bitwidth // 8
        lanes = [row.type(lane) for lane in range(LANES)]
        places = [(builder.add(row, lane), column) for lane in lanes]
        pointers = [_point(context, builder, signature, args, 0, *place) for place in places]
        rows = [builder.load(pointer, align=align) for pointer in pointers]
        _transpose(builder, rows)
        for lane, numbers in zip(lanes, rows, strict=True):
            place = builder.add(column, lane), row
            pointer = _point(context, builder, signature, args, 3, *place)
            builder.store(numbers, pointer, align=align)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target), generate


@_intrinsic
def add_lanes(_, sums, k, tile, j):
    """Add ``tile[j]`` to ``sums[k]``, float64 [:, lanes] both."""

    def generate(context, builder, signature, args):
        start = args[1].type(0)
        total, part = (
            _point(context, builder, signature, args, n, args[n + 1], start) for n in (0, 2)
        )
        added = builder.fadd(builder.load(total, align=8), builder.load(part, align=8))
        builder.store(added, total, align=8)
        return context.get_dummy_value()

    return types.void(sums, types.intp, tile, types.intp), generate


@_intrinsic
def move_lanes(_, block, row, column, weight, sums, before, after):
    """Subtract ``block[row + i, column] * weight`` from ``sums[before, i]``, add it to ``after``.

    The block holds float32 or float64; the sums are float64 [:, lanes].
    """

    def generate(context, builder, signature, args):
        array = context.make_array(block)(context, builder, args[0])
        numbers = ir.VectorType(context.get_value_type(block.dtype), LANES)(ir.Undefined)
        for lane in range(LANES):
            place = builder.add(args[1], args[1].type(lane)), args[2]
            number = builder.load(get_item_pointer(context, builder, block, array, place))
            numbers = builder.insert_element(numbers, number, ir.IntType(32)(lane))
        wide = ir.VectorType(args[3].type, LANES)
        if block.dtype != types.float64:
            numbers = builder.fpext(numbers, wide)
        factors = wide(ir.Undefined)
        for lane in range(LANES):
            factors = builder.insert_element(factors, args[3], ir.IntType(32)(lane))
        moved = builder.fmul(numbers, factors)
        for place, change in ((args[5], builder.fsub), (args[6], builder.fadd)):
            total = _point(context, builder, signature, args, 4, place, args[5].type(0))
            builder.store(change(builder.load(total, align=8), moved), total, align=8)
        return context.get_dummy_value()

    numbers = types.intp, types.intp, types.float64
    return types.void(block, *numbers, sums, types.intp, types.intp), generate


def _point(context, builder, signature, args, number, *place):
    """Pointer to neighbouring numbers of an argument, an array, from a place on."""
    kind = signature.args[number]
    array = context.make_array(kind)(context, builder, args[number])
    vector = ir.VectorType(context.get_value_type(kind.dtype), LANES)
    pointer = get_item_pointer(context, builder, kind, array, place)
    return builder.bitcast(pointer, vector.as_pointer())


def _transpose(builder, rows):
    """Exchange halves of the lanes between rows, then quarters, then single lanes."""
    half = LANES // 2
    while half:
        kept, taken = (
            ir.VectorType(ir.IntType(32), LANES)(
                [i + first + (LANES - half if i & half else 0) for i in range(LANES)]
            )
            for first in (0, half)
        )
        for n in (n for n in range(LANES) if not n & half):
            pair = rows[n], rows[n + half]
            rows[n] = builder.shuffle_vector(*pair, kept)
            rows[n + half] = builder.shuffle_vector(*pair, taken)
        half //= 2
