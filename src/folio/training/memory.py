"""Where memory runs out: both steps then begin a batch anew, with half as many windows at once."""

from __future__ import annotations

import torch


def ran_out_of_memory(error: Exception) -> bool:
    """Whether fewer windows at once may help; torch has no class for a processor's memory."""
    known = MemoryError, torch.OutOfMemoryError
    return isinstance(error, known) or "DefaultCPUAllocator" in str(error)
