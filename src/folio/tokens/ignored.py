"""The target that no loss counts; a file of its own, so that the model loads nothing else."""

from __future__ import annotations

IGNORED = -100
"""Target that adds nothing to the loss: past the end of a short window, or not to be learned."""
