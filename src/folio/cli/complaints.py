"""What a verb tells of the checkpoint that it has opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from folio.console import say

if TYPE_CHECKING:
    from folio.run.writer import Writer


def say_complaints(opened: Writer) -> None:
    """Warn of checkpoints that were skipped, and of how the model may differ from the one that was
    trained.
    """
    for complaint in opened.complaints:
        say(f"warning: {complaint} Using {opened.checkpoint.path}.")
