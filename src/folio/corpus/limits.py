"""How much a file may cost. A file above a limit is refused by name; the others are still read."""

from __future__ import annotations

from dataclasses import dataclass

from folio.errors import UserError

EXPANSION = 200
"""Largest ratio of unpacked to packed bytes. Text packs to a tenth, rarely a fiftieth; bombs to a
thousandth."""
EXPANSION_BYTES = 16 << 20
"""In bytes; below this any expansion is harmless."""
ARCHIVE_MEMBERS = 1_000_000
ARCHIVE_DEPTH = 3
"""How deeply archives may be nested."""
DICTIONARY_BYTES = 256 << 20
"""Memory in bytes that unpacking a file may take; xz -9 takes 65 MB."""
WORKER_MEMORY_BYTES = 4 << 30
"""Memory in bytes that the process reading a document may take."""


@dataclass
class Expansion:
    """Counts what is unpacked from a file, including archives inside it."""

    packed_bytes: int
    unpacked_bytes: int = 0

    def add(self, n_bytes: int) -> None:
        """Raise a UserError if the file has expanded suspiciously far."""
        self.unpacked_bytes += n_bytes
        if self.unpacked_bytes > max(EXPANSION_BYTES, EXPANSION * self.packed_bytes):
            raise UserError(
                f"it unpacks to more than {self.unpacked_bytes >> 20} MB, over {EXPANSION} times "
                f"its size, as zip bombs do"
            )
