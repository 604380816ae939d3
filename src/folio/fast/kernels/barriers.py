"""Threads that wait for each other in compiled code, for a fraction of a microsecond.

A counter is a number of an int64 array that threads change and read whole.
"""

from __future__ import annotations

import os
import platform

from llvmlite import ir
from numba.core import types

from folio.fast.kernels.vectors import address, call, intrinsic
from folio.jit import kernel

COUNTER = ir.IntType(64)
PATIENCE = 1000
"""Looks, of some 20 to 40 nanoseconds, until a waiting thread lets others run."""
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


@intrinsic
def add_to(typing_context, array, place, number):
    """Add to a counter, and give what it was. What this thread wrote before is seen by those
    that see the change.
    """

    def codegen(context, builder, signature, arguments):
        array, place, number = arguments
        at = address(context, builder, signature.args[0], array, place, COUNTER)
        return builder.atomic_rmw("add", at, number, "acq_rel")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def read(typing_context, array, place):
    """Read a counter. What was written before it was changed is seen from here on."""

    def codegen(context, builder, signature, arguments):
        at = address(context, builder, signature.args[0], *arguments, like=COUNTER)
        return builder.load_atomic(at, "acquire", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def write(typing_context, array, place, number):
    """Set a counter. What this thread wrote before is seen by those that see the change."""

    def codegen(context, builder, signature, arguments):
        array, place, number = arguments
        at = address(context, builder, signature.args[0], array, place, COUNTER)
        builder.store_atomic(number, at, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def pause(typing_context):
    """Tell the processor that this thread only waits."""

    def codegen(context, builder, signature, arguments):
        if IS_X86:
            call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def give_way(typing_context):
    """Let another thread run that waits for this processor, where the system has a call for it."""

    def codegen(context, builder, signature, arguments):
        if os.name == "posix":
            call(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(), codegen


@kernel(inner=True)
def barrier(counters, place, arrivals):
    """Wait until a counter has seen so many arrivals, this one among them."""
    add_to(counters, place, 1)
    looks = 0
    while read(counters, place) < arrivals:
        pause()
        looks += 1
        if looks % PATIENCE == 0:  # the others may wait for this processor
            give_way()
