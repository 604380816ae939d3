"""Multiplies panels of weights with tokens: the inner loop of the decoder.

A panel is the weights of 16, 32, 48 or 64 neighbouring outputs, one strip for each 16. A word is 32
bits: one float32, two bfloat16 or four bytes of neighbouring inputs. Word after word, a panel holds
that of each output. So an output keeps a lane to itself, in which its sum grows from the first
input to the last: however many tokens are read at once and whoever reads them, its bits are the
same. Nothing is added across lanes, and memory is read from its beginning to its end.

Shapes:  P strips of a panel, up to 4 · M tokens at once · N words of an input
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba.core import cgutils, types

from folio.fast.kernels.vectors import (
    FLOAT,
    FLOATS,
    LANES,
    PLACE,
    WORD,
    WORDS,
    address,
    call,
    fused_of,
    halved,
    intrinsic,
    lanes_below,
    load_masked,
    splat_of,
    vector,
)

STRIPS = 4
"""Most strips of a panel: so many sums hide the latency of an addition."""
PANEL = STRIPS * LANES
UNROLLED = 4
"""Words between two looks at whether the loop ends; all inputs are padded to them."""
STRIPS_AT_ONCE = (4, 2, 1)
TOKENS_AT_ONCE = (6, 2, 1)
SUMS_AT_ONCE = 24 if binding.get_host_cpu_features().get("avx512f") else 6
"""Strips times tokens that are multiplied together. Their sums are to stay in registers, of which
AVX-512 has 32 for one each; AVX2 has 16, and a sum takes two."""
ZERO_BYTE = 128
"""Int8 weights are stored with this offset, since the CPU multiplies unsigned with signed bytes."""


@intrinsic
def product(
    typing_context, panel, place, depth, strips, strip, some, x, x_place, x_stride, tokens, sums
):
    """Multiply some strips of one panel by some tokens.

    Args:
        panel: flat, of float32, uint16 (bfloat16) or uint8 (int8 above `ZERO_BYTE`).
        place: where the panel begins.
        depth: words of an input, a multiple of UNROLLED.
        strips: of the panel.
        strip, some: the first one that is multiplied, and how many, as `strips_at_once` says.
        x: flat uint32, the words of all tokens.
        x_place, x_stride: where the first one's begin, and how far apart they are.
        tokens: one of TOKENS_AT_ONCE.
        sums: flat float32, in which each token has PANEL numbers; written from its beginning on.
            Of bytes they are whole numbers, by their bits.
    """

    def codegen(context, builder, signature, arguments):
        panel, place, depth, strips, strip, some, x, x_place, x_stride, tokens, sums = arguments
        first, stride = (builder.mul(n, PLACE(LANES)) for n in (strip, strips))
        panel_at = address(context, builder, signature.args[0], panel, place, WORD)
        panel_at = builder.gep(panel_at, [first])
        x_at = address(context, builder, signature.args[6], x, x_place, WORD)
        sums_at = address(context, builder, signature.args[10], sums, first, WORD)
        tiles = tiles_of(context, builder.module, signature.args[0].dtype)
        case = builder.add(builder.mul(some, PLACE(8)), tokens)
        builder.call(tiles, [case, panel_at, stride, depth, x_at, x_stride, sums_at])
        return context.get_dummy_value()

    place_type = types.intp
    signature = types.void(panel, *[place_type] * 5, x, place_type, place_type, place_type, sums)
    return signature, codegen


def tiles_of(context, module, kind):
    """The function of all tiles, of which a module needs one however often it is called."""
    name = f"folio_tiles_{kind}"
    words = WORD.as_pointer()
    kinds = [PLACE, words, PLACE, PLACE, words, PLACE, words]
    function_type = ir.FunctionType(ir.VoidType(), kinds)
    function = cgutils.get_or_insert_function(module, function_type, name)
    if function.blocks:
        return function
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    features = set(context.codegen()._tm_features.split(","))
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    case, *others = function.args
    done = function.append_basic_block("done")
    switch = builder.switch(case, done)
    for p in STRIPS_AT_ONCE:
        for m in [m for m in TOKENS_AT_ONCE if p * m <= SUMS_AT_ONCE]:
            block = function.append_basic_block(f"tile_{p}_{m}")
            switch.add_case(PLACE(8 * p + m), block)
            builder.position_at_end(block)
            tile(builder, kind, features, p, m, *others)
            builder.branch(done)
    builder.position_at_end(done)
    builder.ret_void()
    return function


def tile(builder, kind, features, p, m, panel_at, stride, depth, x_at, x_stride, sums_at):
    """Write out the loop for P strips and M tokens, with all sums in registers."""
    sum_type = WORDS if kind == types.uint8 else FLOATS
    zero = ir.Constant(sum_type, [0 if sum_type is WORDS else 0.0] * LANES)
    sums = [[cgutils.alloca_once(builder, sum_type) for _ in range(p)] for _ in range(m)]
    for one in [one for row in sums for one in row]:
        builder.store(zero, one)
    rows = [builder.gep(x_at, [builder.mul(x_stride, PLACE(i))]) for i in range(m)]
    with cgutils.for_range(builder, builder.udiv(depth, PLACE(UNROLLED))) as loop:
        first = builder.mul(loop.index, PLACE(UNROLLED))
        for step in range(UNROLLED):
            word = builder.add(first, PLACE(step))
            weights = []
            for strip in range(p):
                lane = builder.add(builder.mul(word, stride), PLACE(strip * LANES))
                at = builder.bitcast(builder.gep(panel_at, [lane]), WORDS.as_pointer())
                weights.append(builder.load(at, align=4))
            for token in range(m):
                x = splat_of(builder, builder.load(builder.gep(rows[token], [word]), align=4))
                for strip in range(p):
                    at = sums[token][strip]
                    more = multiply_add(
                        builder, kind, features, builder.load(at), weights[strip], x
                    )
                    builder.store(more, at)
    for token in range(m):
        for strip in range(p):
            at = builder.gep(sums_at, [PLACE(token * PANEL + strip * LANES)])
            at = builder.bitcast(at, sum_type.as_pointer())
            builder.store(builder.load(sums[token][strip]), at, align=4)


def multiply_add(builder, kind, features, total, weights, x):
    """The sums after one more word of each output."""
    if kind == types.float32:
        a, b = (builder.bitcast(v, FLOATS) for v in (weights, x))
        return fused_of(builder, a, b, total)
    if kind == types.uint16:
        return add_bfloat16(builder, features, total, weights, x)
    return add_bytes(builder, features, total, weights, x)


def add_bfloat16(builder, features, total, weights, x):
    """Two products a lane; the processor's own instruction rounds otherwise in the last bit."""
    if "+avx512bf16" in features:
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        return call(builder, name, FLOATS, total, weights, x)
    high_bits = splat_of(builder, WORD(0xFFFF0000))
    for half in (
        lambda v: builder.shl(v, splat_of(builder, WORD(16))),
        lambda v: builder.and_(v, high_bits),
    ):
        a, b = (builder.bitcast(half(v), FLOATS) for v in (weights, x))
        total = fused_of(builder, a, b, total)
    return total


def add_bytes(builder, features, total, weights, x):
    """Four products a lane, of a byte without a sign by one with it, exact."""
    if "+avx512vnni" in features:
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, total, weights, x)
    if "+avx2" in features:
        return add_pairs_of_bytes(builder, total, weights, x)
    for byte in range(4):
        shift = splat_of(builder, WORD(8 * byte))
        a = builder.and_(builder.lshr(weights, shift), splat_of(builder, WORD(0xFF)))
        b = builder.shl(x, splat_of(builder, WORD(24 - 8 * byte)))
        b = builder.ashr(b, splat_of(builder, WORD(24)))
        total = builder.add(total, builder.mul(a, b))
    return total


def add_pairs_of_bytes(builder, total, weights, x):
    """The same by AVX2, which adds up two products of 16 bits a lane: even bytes, then odd ones."""
    kind = ir.VectorType(ir.IntType(16), 2 * LANES)
    eight, low = (ir.Constant(kind, [number] * (2 * LANES)) for number in (8, 0xFF))
    weights, x = (builder.bitcast(v, kind) for v in (weights, x))
    even = builder.and_(weights, low), builder.ashr(builder.shl(x, eight), eight)
    odd = builder.lshr(weights, eight), builder.ashr(x, eight)
    for pair in (even, odd):
        halves = []
        for first in (0, LANES):
            lanes = ir.Constant(WORDS, list(range(first, first + LANES)))
            a, b = (builder.shuffle_vector(v, v, lanes) for v in pair)
            half = ir.VectorType(WORD, LANES // 2)
            halves.append(call(builder, "llvm.x86.avx2.pmadd.wd", half, a, b))
        whole = builder.shuffle_vector(*halves, ir.Constant(WORDS, list(range(LANES))))
        total = builder.add(total, whole)
    return total


@intrinsic
def scores_of(typing_context, query, query_place, keys, keys_place, head_dim, count):
    """Multiply a query by 16 keys, one below the other; those from `count` on are not read.

    Args:
        query: flat float32, padded to whole vectors.
        query_place: where it begins.
        keys: flat float32.
        keys_place: where the first one begins.
        head_dim: of each.
        count: 1 or more; in the lanes from it on the last one stands again.
    """

    def codegen(context, builder, signature, arguments):
        query, query_place, keys, keys_place, head_dim, count = arguments
        query_at = address(context, builder, signature.args[0], query, query_place, FLOAT)
        keys_at = address(context, builder, signature.args[2], keys, keys_place, FLOAT)
        found = cgutils.alloca_once(builder, FLOATS)
        whole = builder.icmp_signed(">=", count, PLACE(LANES))
        last = builder.sub(count, PLACE(1))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                rows = [PLACE(j) for j in range(LANES)]
                builder.store(_scores(builder, query_at, keys_at, head_dim, rows), found)
            with otherwise:
                rows = [
                    builder.select(builder.icmp_signed("<", PLACE(j), last), PLACE(j), last)
                    for j in range(LANES)
                ]
                builder.store(_scores(builder, query_at, keys_at, head_dim, rows), found)
        return builder.load(found)

    return vector(query, types.intp, keys, types.intp, types.intp, types.intp), codegen


def _scores(builder, query_at, keys_at, head_dim, rows):
    starts = [builder.gep(keys_at, [builder.mul(row, head_dim)]) for row in rows]
    zero = ir.Constant(FLOATS, [0.0] * LANES)
    sums = [cgutils.alloca_once(builder, FLOATS) for _ in rows]
    for one in sums:
        builder.store(zero, one)

    def add_chunk(first, mask=None):
        at = builder.bitcast(builder.gep(query_at, [first]), FLOATS.as_pointer())
        query = builder.load(at, align=4)
        for start, one in zip(starts, sums):
            at = builder.bitcast(builder.gep(start, [first]), FLOATS.as_pointer())
            key = builder.load(at, align=4) if mask is None else load_masked(builder, at, mask)
            builder.store(fused_of(builder, query, key, builder.load(one)), one)

    with cgutils.for_range(builder, builder.udiv(head_dim, PLACE(LANES))) as loop:
        add_chunk(builder.mul(loop.index, PLACE(LANES)))
    rest = builder.urem(head_dim, PLACE(LANES))
    with builder.if_then(builder.icmp_signed("!=", rest, PLACE(0))):
        add_chunk(builder.sub(head_dim, rest), lanes_below(builder, rest))
    vectors, width = [builder.load(one) for one in sums], LANES
    while len(vectors) > 1:
        vectors = [halved(builder, a, b, width) for a, b in zip(vectors[::2], vectors[1::2])]
        width //= 2
    return vectors[0]
