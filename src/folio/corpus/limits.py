"""How much a file may cost. Above a limit it is refused by name, and the others go on."""

from __future__ import annotations

from folio.errors import UserError

EXPANSION = 200
"""Unpacked over packed bytes. Text packs to a tenth, rarely a fiftieth; bombs to a thousandth."""
EXPANSION_BYTES = 16 << 20
"""Below this, any expansion is harmless."""
ARCHIVE_MEMBERS = 1_000_000
ARCHIVE_DEPTH = 3
"""Archives inside archives."""
WORKER_MEMORY_BYTES = 4 << 30
"""Of the process that reads a document."""


def check_expansion(packed_bytes: int, unpacked_bytes: int) -> None:
    """Raise a UserError where a file unpacks to suspiciously much."""
    if unpacked_bytes > max(EXPANSION_BYTES, EXPANSION * packed_bytes):
        raise UserError(
            f"it unpacks to more than {unpacked_bytes >> 20} MB, over {EXPANSION} times its size, "
            f"as zip bombs do"
        )
