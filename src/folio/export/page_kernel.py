"""The page's WebAssembly, as a listing and as bytes.

y[i] = s[i] * sum over j of w[i, j] x[j], w in int8.

The listing is in the text format of WebAssembly, one instruction after the other. A few lines make
the module of it, so that the bytes in a page can be read here.

Source: https://webassembly.github.io/spec/core/binary/ and the SIMD instructions therein.
"""

from __future__ import annotations

from collections.abc import Iterator

LISTING = """
loop                                                      ;; over rows
  v128.const 0  local.set a   v128.const 0  local.set b   ;; eight sums
  local.get x  local.set j
  local.get x  local.get k  i32.const 2  i32.shl  i32.add  local.set last
  loop                                                    ;; over columns, eight at a time
    local.get w  v128.load8x8_s 0 0  local.set eight
    local.get a  local.get j  v128.load 0 0
    local.get eight  i32x4.extend_low_i16x8_s  f32x4.convert_i32x4_s  f32x4.mul  f32x4.add
    local.set a
    local.get b  local.get j  v128.load 0 16
    local.get eight  i32x4.extend_high_i16x8_s  f32x4.convert_i32x4_s  f32x4.mul  f32x4.add
    local.set b
    local.get w  i32.const 8  i32.add  local.set w
    local.get j  i32.const 32  i32.add  local.tee j
    local.get last  i32.lt_u  br_if 0
  end
  local.get a  local.get b  f32x4.add  local.set a
  local.get y  local.get s  f32.load 0 0
  local.get a  f32x4.extract_lane 0  local.get a  f32x4.extract_lane 1  f32.add
  local.get a  f32x4.extract_lane 2  local.get a  f32x4.extract_lane 3  f32.add  f32.add
  f32.mul  f32.store 0 0
  local.get s  i32.const 4  i32.add  local.set s
  local.get y  i32.const 4  i32.add  local.set y
  local.get r  i32.const 1  i32.sub  local.tee r  br_if 0
end
"""
"""w, s, x, y: addresses; r rows; k columns, a multiple of eight. A load has its alignment and its
offset."""

MOST_PAGES = 4096
"""Most pages of 64 KiB in the kernel's memory."""

_I32, _V128, _EMPTY = 0x7F, 0x7B, 0x40
_LOCALS = ["w", "s", "x", "y", "r", "k", "j", "last", "a", "b", "eight"]
_OPCODES = {
    "loop": (0x03, _EMPTY),
    "end": (0x0B,),
    "br_if": (0x0D,),
    "local.get": (0x20,),
    "local.set": (0x21,),
    "local.tee": (0x22,),
    "f32.load": (0x2A,),
    "f32.store": (0x38,),
    "i32.const": (0x41,),
    "i32.lt_u": (0x49,),
    "i32.add": (0x6A,),
    "i32.sub": (0x6B,),
    "i32.shl": (0x74,),
    "f32.add": (0x92,),
    "f32.mul": (0x94,),
    "v128.load": (0xFD, 0),
    "v128.load8x8_s": (0xFD, 1),
    "v128.const": (0xFD, 12),
    "f32x4.extract_lane": (0xFD, 31),
    "i32x4.extend_low_i16x8_s": (0xFD, 0xA7, 1),
    "i32x4.extend_high_i16x8_s": (0xFD, 0xA8, 1),
    "f32x4.add": (0xFD, 0xE4, 1),
    "f32x4.mul": (0xFD, 0xE6, 1),
    "f32x4.convert_i32x4_s": (0xFD, 0xFA, 1),
}


def kernel_bytes() -> bytes:
    """Assemble the module: memory `m`, function `q`."""
    code = bytes([2, 2, _I32, 3, _V128, *_instructions(), 0x0B])
    body = [*_length(len(code)), *code]
    sections = {
        1: [1, 0x60, 6, *[_I32] * 6, 0],  # a type: six whole numbers, no result
        3: [1, 0],  # a function of it
        5: [1, 1, 1, *_length(MOST_PAGES)],  # a memory
        7: [2, 1, ord("m"), 2, 0, 1, ord("q"), 0, 0],  # what is seen from outside
        10: [1, *body],
    }
    module = b"\0asm\1\0\0\0"
    for number, content in sections.items():
        module += bytes([number, *_length(len(content)), *content])
    return module


def _instructions() -> Iterator[int]:
    words = " ".join(line.partition(";;")[0] for line in LISTING.splitlines()).split()
    for before, word in zip(["", *words], words):
        if word in _OPCODES:
            yield from _OPCODES[word]
        elif word in _LOCALS:
            yield _LOCALS.index(word)
        elif before == "v128.const":
            yield from bytes(16)
        else:
            yield int(word)  # all below 64, where one byte says them


def _length(n: int) -> Iterator[int]:
    """Write a number as WebAssembly does: LEB128, without a sign."""
    while n > 127:
        yield n % 128 + 128
        n //= 128
    yield n
