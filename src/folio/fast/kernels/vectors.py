"""Sixteen float32 at once, so that the order of every sum stands in the source.

A loop that the compiler vectorizes adds up in an order of its own, which may change with what
stands around it. Here a text must come out the same alone and beside others, so what adds up is
written with vectors, whatever the processor: one of AVX-512 takes one in a register, others in two
or four.

    total = zeros()
    for i in range(0, n, LANES):
        total = fused(load(x, i), load(y, i), total)     # total + x * y, rounded once
    number = sum_of(total)

A place is an index into a flat array. None is checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.extending import models, overload, register_model
from numba.np.arrayobj import populate_array

intrinsic: Any = extending.intrinsic
"""Decorates a function whose LLVM instructions are written out; numba leaves its first argument to
us."""

LANES = 16
PLACE, WORD, FLOAT, BIT = ir.IntType(64), ir.IntType(32), ir.FloatType(), ir.IntType(1)
FLOATS, WORDS, BITS = (ir.VectorType(kind, LANES) for kind in (FLOAT, WORD, BIT))


class Vector(types.Type):
    """The type of `LANES` float32, for numba."""

    def __init__(self) -> None:
        super().__init__(name="Vector")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """Tells the compiler that a vector is a single value, like a number."""

    def __init__(self, manager, kind):
        super().__init__(manager, kind, FLOATS)


def address(context, builder, kind, array, place, like: ir.Type = FLOATS):
    """Point at a place of a flat array, as if it held `like`."""
    start = context.make_array(kind)(context, builder, value=array).data
    return builder.bitcast(builder.gep(start, [place]), like.as_pointer())


def splat_of(builder, number):
    """Fill a vector with one number of 32 bits."""
    many = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(many, ir.Undefined), number, WORD(0))
    return builder.shuffle_vector(first, ir.Constant(many, ir.Undefined), WORDS([0] * LANES))


def call(builder, name, result, *arguments):
    """Call an intrinsic function of LLVM."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def fused_of(builder, a, b, c):
    """a * b + c, rounded once."""
    return call(builder, "llvm.fma.v16f32", FLOATS, a, b, c)


def lanes_below(builder, count):
    """A mask of the first `count` lanes."""
    numbers = ir.Constant(WORDS, list(range(LANES)))
    return builder.icmp_signed("<", numbers, splat_of(builder, builder.trunc(count, WORD)))


def halved(builder, a, b, width):
    """Two vectors of sums that lie `width` lanes wide -> one of half that width, a's first."""
    groups = range(0, LANES, width)
    low = [g + i for g in groups for i in range(width // 2)]
    low += [LANES + i for i in low]
    high = [i + width // 2 for i in low]
    picked = [builder.shuffle_vector(a, b, ir.Constant(WORDS, lanes)) for lanes in (low, high)]
    return builder.fadd(*picked)


@intrinsic
def zeros(typing_context):
    """Return sixteen zeros."""

    def codegen(context, builder, signature, arguments):
        return ir.Constant(FLOATS, [0.0] * LANES)

    return vector(), codegen


@intrinsic
def splat(typing_context, number):
    """Give sixteen times one float32."""

    def codegen(context, builder, signature, arguments):
        return splat_of(builder, arguments[0])

    return vector(types.float32), codegen


@intrinsic
def floats_at(typing_context, number):
    """Treat a number as the address of a flat float32 array of any length."""

    def codegen(context, builder, signature, arguments):
        array = context.make_array(signature.return_type)(context, builder)
        shape, strides, size = [PLACE(1 << 40)], [PLACE(4)], PLACE(4)
        data = builder.inttoptr(arguments[0], FLOAT.as_pointer())
        populate_array(array, data, shape, strides, size, meminfo=None)
        return array._getvalue()

    return types.Array(types.float32, 1, "C")(types.int64), codegen


@intrinsic
def load(typing_context, array, place):
    """Read sixteen float32 from a place of a flat array on."""

    def codegen(context, builder, signature, arguments):
        at = address(context, builder, signature.args[0], *arguments)
        return builder.load(at, align=4)

    return vector(array, types.intp), codegen


@intrinsic
def load_some(typing_context, array, place, count):
    """Read the first `count` of them; the other lanes are 0, and their memory is not touched."""

    def codegen(context, builder, signature, arguments):
        array, place, count = arguments
        at = address(context, builder, signature.args[0], array, place)
        return load_masked(builder, at, lanes_below(builder, count))

    return vector(array, types.intp, types.intp), codegen


def load_masked(builder, at, mask):
    """Read the lanes of a mask, and 0 elsewhere."""
    empty = ir.Constant(FLOATS, [0.0] * LANES)
    return call(builder, masked("load", at), FLOATS, at, WORD(4), mask, empty)


def masked(what, at):
    """LLVM's name of it, which in older versions has the type of the pointer."""
    return f"llvm.masked.{what}.v16f32.{'p0' if at.type.is_opaque else 'p0v16f32'}"


@intrinsic
def store(typing_context, array, place, numbers):
    """Write sixteen float32 from a place of a flat array on."""

    def codegen(context, builder, signature, arguments):
        array, place, numbers = arguments
        at = address(context, builder, signature.args[0], array, place)
        builder.store(numbers, at, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def store_some(typing_context, array, place, numbers, count):
    """Write the first `count` lanes, and nothing beside them."""

    def codegen(context, builder, signature, arguments):
        array, place, numbers, count = arguments
        at = address(context, builder, signature.args[0], array, place)
        name, mask = masked("store", at), lanes_below(builder, count)
        call(builder, name, ir.VoidType(), numbers, at, WORD(4), mask)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), codegen


@intrinsic
def whole(typing_context, numbers, shift):
    """The whole numbers whose bits stand in the lanes, less another one."""

    def codegen(context, builder, signature, arguments):
        numbers, shift = arguments
        counts = builder.sub(builder.bitcast(numbers, WORDS), splat_of(builder, shift))
        return builder.sitofp(counts, FLOATS)

    return vector(vector, types.int32), codegen


@intrinsic
def fused(typing_context, a, b, c):
    """a * b + c, rounded once."""

    def codegen(context, builder, signature, arguments):
        return fused_of(builder, *arguments)

    return vector(vector, vector, vector), codegen


@intrinsic
def larger(typing_context, a, b):
    """The larger number in each lane."""

    def codegen(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return vector(vector, vector), codegen


@intrinsic
def keep(typing_context, numbers, count, other):
    """The first `count` lanes, with a float32 in the others."""

    def codegen(context, builder, signature, arguments):
        numbers, count, other = arguments
        return builder.select(lanes_below(builder, count), numbers, splat_of(builder, other))

    return vector(vector, types.intp, types.float32), codegen


@intrinsic
def sum_of(typing_context, numbers):
    """The sum of all lanes, by halves."""

    def codegen(context, builder, signature, arguments):
        (numbers,) = arguments
        for width in (16, 8, 4, 2):
            numbers = halved(builder, numbers, numbers, width)
        return builder.extract_element(numbers, WORD(0))

    return types.float32(vector), codegen


@intrinsic
def largest_of(typing_context, numbers):
    """The largest of all lanes."""

    def codegen(context, builder, signature, arguments):
        (numbers,) = arguments
        for distance in (8, 4, 2, 1):
            turned = ir.Constant(WORDS, [(i + distance) % LANES for i in range(LANES)])
            other = builder.shuffle_vector(numbers, numbers, turned)
            numbers = builder.select(builder.fcmp_ordered(">", numbers, other), numbers, other)
        return builder.extract_element(numbers, WORD(0))

    return types.float32(vector), codegen


def _lanewise(instruction):
    """Make a function of two vectors of an instruction that takes them lane by lane."""

    @intrinsic
    def lanewise(typing_context, a, b):
        def codegen(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments)

        return vector(vector, vector), codegen

    return lanewise


_plus, _minus, _times = _lanewise("fadd"), _lanewise("fsub"), _lanewise("fmul")


@overload(operator.add)
def _add(a, b):
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _plus(a, b)
    return None


@overload(operator.sub)
def _subtract(a, b):
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _minus(a, b)
    return None


@overload(operator.mul)
def _multiply(a, b):
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _times(a, b)
    return None
