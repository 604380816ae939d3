"""The step of the decoder as a function of whole numbers alone, which is called without numba.

A table says where each array lies, a row for each field of `Weights` and then of `Work`: the
address, and up to four lengths.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.np.arrayobj import populate_array

from folio.fast.kernels.decoder import step
from folio.fast.kernels.vectors import intrinsic
from folio.fast.kernels.weights import PLACE_NUMBERS, Weights, Work
from folio.jit import kernel

NUMBER = ir.IntType(64)
N_WEIGHTS = len(Weights._fields)


@intrinsic(prefer_literal=True)  # since the type of the array has so many dimensions
def array_at(typing_context, table, row, kind, n_dimensions):
    """The array of a row of the table at an address."""
    n = n_dimensions.literal_value
    result = types.Array(kind.instance_type, n, "C")

    def codegen(context, builder, signature, arguments):
        table, row, _, _ = arguments
        first = builder.mul(row, NUMBER(PLACE_NUMBERS))
        table = builder.inttoptr(table, NUMBER.as_pointer())
        address, *shape = (
            builder.load(builder.gep(table, [builder.add(first, NUMBER(i))])) for i in range(n + 1)
        )
        kind = context.get_data_type(result.dtype)
        strides = [NUMBER(context.get_abi_sizeof(kind))]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        array = context.make_array(result)(context, builder)
        data = builder.inttoptr(address, kind.as_pointer())
        populate_array(array, data, shape, strides, strides[-1], meminfo=None)
        return array._getvalue()

    return result(types.int64, types.int64, kind, n_dimensions), codegen


@kernel(inner=True)
def step_of(kind, rank, table, seen, patience):
    """`decoder.step`, for panels of one kind of numbers."""
    weights = Weights(
        array_at(table, 0, kind, 1),
        array_at(table, 1, np.float32, 1),
        array_at(table, 2, np.float32, 2),
        array_at(table, 3, np.int64, 1),
        array_at(table, 4, np.int64, 2),
        array_at(table, 5, np.int64, 2),
    )
    work = Work(
        array_at(table, N_WEIGHTS, np.float32, 3),
        array_at(table, N_WEIGHTS + 1, np.uint32, 3),
        array_at(table, N_WEIGHTS + 2, np.float32, 2),
        array_at(table, N_WEIGHTS + 3, np.int32, 2),
        array_at(table, N_WEIGHTS + 4, np.float32, 4),
        array_at(table, N_WEIGHTS + 5, np.float32, 2),
        array_at(table, N_WEIGHTS + 6, np.float32, 2),
        array_at(table, N_WEIGHTS + 7, np.float32, 1),
        array_at(table, N_WEIGHTS + 8, np.float32, 1),
        array_at(table, N_WEIGHTS + 9, np.float32, 1),
        array_at(table, N_WEIGHTS + 10, np.float32, 1),
        array_at(table, N_WEIGHTS + 11, np.int64, 2),
        array_at(table, N_WEIGHTS + 12, np.int64, 1),
        array_at(table, N_WEIGHTS + 13, np.int64, 1),
    )
    return step(rank, weights, work, seen, patience)


@kernel(inner=True)
def float32(rank, table, seen, patience):
    """The step for weights in float32."""
    return step_of(np.float32, rank, table, seen, patience)


@kernel(inner=True)
def bfloat16(rank, table, seen, patience):
    """The step for weights in bfloat16."""
    return step_of(np.uint16, rank, table, seen, patience)


@kernel(inner=True)
def int8(rank, table, seen, patience):
    """The step for weights in int8."""
    return step_of(np.uint8, rank, table, seen, patience)
