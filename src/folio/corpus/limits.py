"""How much a file may cost. Above a limit it is refused by name, and the others go on."""

from __future__ import annotations

from dataclasses import dataclass

from folio.errors import UserError

EXPANSION = 200
"""Unpacked over packed bytes. Text packs to a tenth, rarely a fiftieth; bombs to a thousandth."""
EXPANSION_BYTES = 16 << 20
"""Below this, any expansion is harmless."""
ARCHIVE_MEMBERS = 1_000_000
ARCHIVE_DEPTH = 3
"""Archives inside archives."""
DICTIONARY_BYTES = 256 << 20
"""Of memory that unpacking a file may take; xz -9 takes 65 MB."""
WORKER_MEMORY_BYTES = 4 << 30
"""Of the process that reads a document."""


@dataclass
class Expansion:
    """What comes out of a file, out of the archives inside it too."""

    packed_bytes: int
    unpacked_bytes: int = 0

    def add(self, n_bytes: int) -> None:
        """Raise a UserError where the file unpacks to suspiciously much."""
        self.unpacked_bytes += n_bytes
        if self.unpacked_bytes > max(EXPANSION_BYTES, EXPANSION * self.packed_bytes):
            raise UserError(
                f"it unpacks to more than {self.unpacked_bytes >> 20} MB, over {EXPANSION} times "
                f"its size, as zip bombs do"
            )
