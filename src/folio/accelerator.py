"""What is peculiar to accelerators: CUDA devices of NVIDIA, and MPS, the GPU of a Mac.

Nothing here is needed on a processor, and nothing else in Folio asks which accelerator it has.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

HAS_BFLOAT16 = 8
"""Major compute capability from which an NVIDIA card multiplies bfloat16 in its tensor cores; older
ones (T4, V100) have float16 there."""


def available(kind: str) -> bool:
    """Whether this machine and this build of torch have `cuda` or `mps`."""
    import torch

    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()


def usual_precisions(kind: str) -> tuple[str, ...]:
    """Precisions among which a device's speed decides, where none is asked for.

    A card with tensor cores multiplies many times as fast in them, though products of small models
    are too short to show it, so nothing is measured there.
    """
    if kind != "cuda":
        return "float32", "bfloat16"
    import torch

    major, _ = torch.cuda.get_device_capability()
    return ("bfloat16" if major >= HAS_BFLOAT16 else "float16",)


def own_device(kind: str) -> torch.device:
    """The device of this process: of several on a machine, each takes a card of its own."""
    import torch

    if kind != "cuda" or not (n := torch.cuda.device_count()):
        return torch.device(kind)
    return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")) % n)


def prepare(kind: str, precision: str, deterministic: bool) -> None:
    """Set what torch keeps for the whole process; to be called before anything is computed.

    Args:
        kind: `cuda` or `mps`.
        precision: of the model. Beside a rounded one, Muon's products in float32 may be rounded
            too (TF32): float32 as it was asked for stays exact.
        deterministic: take only kernels that give the same bytes again, which are slower.
    """
    import torch

    if kind == "cuda":
        if (device := own_device(kind)).index is not None:
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.fp32_precision = "ieee" if precision == "float32" else "tf32"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)


def to_device(
    rows: tuple[NDArray[np.int64], ...], device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Tensors of arrays of one shape: on an accelerator in one copy, for which nobody waits."""
    import numpy as np
    import torch

    if device.type == "cpu":
        return tuple(map(torch.as_tensor, rows))
    together = torch.from_numpy(np.stack(rows))
    if device.type == "cuda":
        together = together.pin_memory()
    return together.to(device, non_blocking=True).unbind()


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of the generators from which dropout draws, by the kind of device."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Take up `random_states`; those of devices that this process does not use are left out."""
    import torch

    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the processor or of an accelerator: fewer windows at once may
    help. Only CUDA has a class for it.
    """
    import torch

    known = MemoryError, torch.OutOfMemoryError
    words = "DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"
    is_torchs = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return isinstance(error, known) or is_torchs


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take of an accelerator, those included that torch keeps."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()


def peak_memory(device: torch.device) -> int:
    """Most bytes that tensors of this process have taken of an accelerator; 0 where it is
    unknown.
    """
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def release() -> None:
    """Give back what torch keeps of freed memory, so that others or larger pieces may have it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(AttributeError, RuntimeError):  # of builds without MPS
        torch.mps.empty_cache()
