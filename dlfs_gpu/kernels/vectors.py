"""A loop on the CPU whose sums stay in registers, which Numba's compiler does not find by itself.

Importing this module imports Numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic

cgutils: Any = untyped

VECTOR_BYTES = 128
"""Of the columns that are summed at a time."""
_CHAINS = 2  # sums at a time, so that one addition need not wait for the last


def combine_narrow(
    values: np.ndarray,
    which: np.ndarray,
    firsts: np.ndarray,
    lasts: np.ndarray,
    vectors: np.ndarray,
    out: np.ndarray,
) -> None:
    """Do what `dlfs_gpu.kernels.training_loops.combine` does.

    All arrays are contiguous, and the vectors fill `VECTOR_BYTES` or more. Where columns are left
    over, the last sum begins earlier.
    """
    lanes = VECTOR_BYTES // vectors.itemsize
    for start in range(0, vectors.shape[1], lanes):
        column = min(start, vectors.shape[1] - lanes)
        for r in range(len(out)):
            _sum(values, which, firsts[r], lasts[r], vectors, column, out[r])


def _combine_columns(
    _: Any, values: Any, which: Any, first: Any, last: Any, vectors: Any, column: Any, total: Any
) -> Any:
    """Write Σ values[k]·vectors[which[k], c], first ≤ k < last, to total[c] from `column` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def array(position: int) -> Any:
            return context.make_array(signature.args[position])(
                context, builder, arguments[position]
            )

        def at(pointer: Any, index: Any) -> Any:
            return builder.gep(pointer, [index])

        numbers, rows, matrix, sums = (array(position) for position in (0, 1, 4, 6))
        first, last, column = (arguments[position] for position in (2, 3, 5))
        length = cgutils.unpack_tuple(builder, matrix.shape, 2)[1]
        number = context.get_data_type(signature.args[0].dtype)
        size = context.get_abi_sizeof(number)
        lanes = VECTOR_BYTES // size
        vector, index, place = ir.VectorType(number, lanes), ir.IntType(64), ir.IntType(32)
        everywhere = ir.Constant(ir.VectorType(place, lanes), [0] * lanes)

        def add(k: Any, chain: Any) -> None:
            """Add values[k]·vectors[which[k], column:] to a sum."""
            row = builder.zext(builder.load(at(rows.data, k)), index)
            start = at(matrix.data, builder.add(builder.mul(row, length), column))
            columns = builder.load(builder.bitcast(start, vector.as_pointer()), align=size)
            value = builder.load(at(numbers.data, k))
            factor = builder.insert_element(ir.Constant(vector, ir.Undefined), value, place(0))
            factor = builder.shuffle_vector(factor, factor, everywhere)
            product = builder.fmul(factor, columns, flags=("contract",))
            builder.store(builder.fadd(builder.load(chain), product, flags=("contract",)), chain)

        chains = [
            cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(_CHAINS)
        ]
        step = index(_CHAINS)
        rest = builder.sub(last, builder.srem(builder.sub(last, first), step))
        with cgutils.for_range_slice(builder, first, rest, step) as (k, _):
            for n, chain in enumerate(chains):
                add(builder.add(k, index(n)), chain)
        with cgutils.for_range_slice(builder, rest, last, index(1)) as (k, _):
            add(k, chains[0])
        result = builder.load(chains[0])
        for chain in chains[1:]:
            result = builder.fadd(result, builder.load(chain))
        end = builder.bitcast(at(sums.data, column), vector.as_pointer())
        builder.store(result, end, align=size)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(values, which, integer, integer, vectors, integer, total), generate


_sum: Any = intrinsic(_combine_columns)
