"""The file format of llama.cpp, written and read: settings by name, then tensors.

    magic, version, number of tensors, number of settings
    settings     name, type, value
    tensors      name, number of dimensions, sizes (fastest first), type, offset
    data         each tensor begins at a multiple of 32 bytes

Little-endian. What is read is somebody else's: each length is compared with what is left of the
file before anything is made of it.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.storage import atomic_write

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
F32, F16, Q4_0, Q4_1, Q8_0, BF16 = 0, 1, 2, 3, 8, 30
BLOCKS = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q8_0: (32, 34), Q4_0: (32, 18), Q4_1: (32, 20)}
"""Type of a tensor -> numbers per block, and bytes per block."""
NUMBERS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f"},
    **{7: "?", 10: "Q", 11: "q", 12: "d"},
}
"""Type of a setting -> its code in `struct`."""
BOOL, FLOAT, STRING, ARRAY, UINT = 7, 6, 8, 9, 4
MOST_DIMENSIONS, LONGEST_NAME = 4, 1 << 16


class Packed(NamedTuple):
    """Holds a tensor as the file does."""

    shape: tuple[int, ...]
    """Slowest dimension first, as everywhere here."""
    kind: int
    """F32, F16, BF16, Q8_0, or what is read and never written: Q4_0 and Q4_1."""
    data: NDArray[np.uint8]
    """Its bytes; of a file that was read, mapped into memory."""


# ---- writing -----------------------------------------------------------------------------


def write_gguf(
    path: Path,
    settings: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], int]],
    data: Callable[[str], NDArray[np.uint8]],
) -> None:
    """Write a file; it appears whole or not at all.

    Args:
        path: the file.
        settings: text, bool, int, float, and lists of one of them.
        tensors: name -> shape and type, in the order of the file.
        data: gives the bytes of a tensor by its name.
    """
    with atomic_write(path, "wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(settings)))
        for name, value in settings.items():
            _write_text(file, name)
            kind = _kind_of(value)
            file.write(struct.pack("<I", kind))
            _write_value(file, value, kind)
        offset = 0
        for name, (shape, kind) in tensors.items():
            _write_text(file, name)
            sizes = (len(shape), *reversed(shape), kind, offset)
            file.write(struct.pack(f"<I{len(shape)}QIQ", *sizes))
            offset += _padded(n_bytes(shape, kind))
        file.write(bytes(-file.tell() % ALIGNMENT))
        for name, (shape, kind) in tensors.items():
            block = data(name)
            assert block.nbytes == n_bytes(shape, kind)
            file.write(block.data)
            file.write(bytes(-block.nbytes % ALIGNMENT))


def n_bytes(shape: tuple[int, ...], kind: int) -> int:
    """Count the bytes that a tensor takes in the file."""
    numbers, size = BLOCKS[kind]
    return math.prod(shape) // numbers * size


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT


def _kind_of(value: Any) -> int:
    if isinstance(value, list):
        return ARRAY
    kinds = {bool: BOOL, int: UINT, float: FLOAT, str: STRING}
    return kinds[type(value)]


def _write_text(file: IO[bytes], text: str) -> None:
    data = text.encode("utf-8")
    file.write(struct.pack("<Q", len(data)) + data)


def _write_value(file: IO[bytes], value: Any, kind: int) -> None:
    if kind == ARRAY:
        of = _kind_of(value[0]) if value else STRING
        of = 5 if of == UINT else of  # token types are signed
        file.write(struct.pack("<IQ", of, len(value)))
        for item in value:
            _write_value(file, item, of)
    elif kind == STRING:
        _write_text(file, value)
    else:
        file.write(struct.pack("<" + NUMBERS[kind], value))


# ---- reading -----------------------------------------------------------------------------


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Packed]]:
    """Read the settings and tensors of a file.

    Raises:
        UserError: no such file, cut short, or one that says of itself what cannot be.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as GGUF: {error}.") from None
    try:
        return _Reader(data).file()
    except (ValueError, struct.error, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a complete GGUF file: {error}.") from None


class _Reader:
    """Reads from front to back; raises ValueError where the file promises more than it has."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.place = data, 0

    def file(self) -> tuple[dict[str, Any], dict[str, Packed]]:
        if bytes(self.take(4)) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(f"its version is {version}; 2 and 3 are read")
        n_tensors, n_settings = self.count(24), self.count(13)
        settings: dict[str, Any] = {}
        for _ in range(n_settings):
            name = self.text()
            settings[name] = self.value(self.number("I"))
        infos = list(self.infos(n_tensors))
        alignment = settings.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 16:
            raise ValueError(f"its alignment is {alignment}")
        start = self.place + -self.place % alignment
        tensors: dict[str, Packed] = {}
        end = start  # of the tensors before, by their place: a few bytes must not become many
        for name, shape, kind, offset in sorted(infos, key=lambda info: info[3]):
            first = start + offset
            last = first + n_bytes(shape, kind)
            if name in tensors or first < end or last > len(self.data):
                raise ValueError(
                    f"the tensor {name!r} ends beyond the file, lies over another, or comes twice"
                )
            tensors[name], end = Packed(shape, kind, self.data[first:last]), last
        return settings, tensors

    def infos(self, n_tensors: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        for _ in range(n_tensors):
            name = self.text()
            n_dimensions = self.number("I")
            if not 1 <= n_dimensions <= MOST_DIMENSIONS:
                raise ValueError(f"the tensor {name!r} has {n_dimensions} dimensions")
            shape = tuple(self.number("Q") for _ in range(n_dimensions))[::-1]
            kind, offset = self.number("I"), self.number("Q")
            if kind not in BLOCKS:
                raise ValueError(
                    f"the tensor {name!r} is of type {kind}; f32, f16, bf16, q8_0, q4_0 and q4_1 "
                    f"are read, so quantize the model anew as one of them"
                )
            if not all(shape) or math.prod(shape) > 8 * len(self.data):
                raise ValueError(f"the tensor {name!r} has the shape {shape}")
            if shape[-1] % BLOCKS[kind][0]:
                raise ValueError(f"a row of the tensor {name!r} is no whole number of blocks")
            yield name, shape, kind, offset

    def take(self, size: int) -> NDArray[np.uint8]:
        if size > len(self.data) - self.place:
            raise ValueError(f"it ends within what begins at byte {self.place:,}")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, code: str) -> Any:
        (number,) = struct.unpack("<" + code, bytes(self.take(struct.calcsize("<" + code))))
        return number

    def count(self, least: int) -> int:
        """Read a number of things that take `least` bytes each, and so must fit."""
        number = self.number("Q")
        if number * least > len(self.data) - self.place:
            raise ValueError(f"it promises {number:,} entries, more than fit into it")
        return number

    def text(self) -> str:
        return bytes(self.take(self.count(1))).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            if kind not in NUMBERS:
                raise ValueError(f"a setting is of type {kind}, which does not exist")
            number = self.number(NUMBERS[kind])
            # The shortest number that is this float32: 1e-6, and not 9.999999974752427e-07.
            return float(str(np.float32(number))) if kind == FLOAT else number
        of = self.number("I")
        if of == STRING:
            return [self.text() for _ in range(self.count(8))]
        if of not in NUMBERS:
            raise ValueError(f"a list is of type {of}, which is not read")
        size = struct.calcsize("<" + NUMBERS[of])
        return np.frombuffer(self.take(self.count(size) * size), f"<{NUMBERS[of]}").tolist()
