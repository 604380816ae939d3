"""Position encodings: learned, sinusoidal, rotary, or none.

Shapes:  B batch · T positions · C = d_model · H heads · D head dimension
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from folio.model.config import ModelConfig


class LearnedPositions(nn.Module):
    """One trained vector for each position, as in GPT-2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.context_length, config.d_model))

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Add the positions start ... start + T - 1 to x: (B, T, C) -> (B, T, C)."""
        return x + self.weight[start : start + x.shape[1]]


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines with wavelengths from 1 to 10,000 tokens (times two pi).

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5.
    """

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        angles = position_angles(config.context_length, config.d_model, base=10_000.0)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (context, C)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Add the positions start ... start + T - 1 to x: (B, T, C) -> (B, T, C)."""
        return x + self.table[start : start + x.shape[1]].to(x.dtype)


class NoPositions(nn.Module):
    """Adds nothing: for `none`, where only the causal mask tells the order, and for `rope`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, start: int) -> Tensor:
        """(B, T, C) -> (B, T, C), unchanged."""
        return x


ADDED_POSITIONS = {
    "none": NoPositions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rope": NoPositions,
}


class RotaryPositions(nn.Module):
    """Rotate pairs of query and key dimensions by an angle that grows with the position.

    The dot product of a query and a key then depends on their distance alone. Dimension i is paired
    with i + D/2, the layout of Llama and Qwen.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        angles = position_angles(config.context_length, config.head_width, config.rope_base)
        self.register_buffer("cosines", angles.cos().repeat(1, 2), persistent=False)
        # The sign of the first half is in the table, which saves one multiplication per step.
        sines = torch.cat((-angles.sin(), angles.sin()), dim=-1)
        self.register_buffer("sines", sines, persistent=False)

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Rotate queries or keys of the positions from `start` on: (B, H, T, D), same shape."""
        cosines, sines = (table.to(x.dtype) for table in self.tables(start, x.shape[2]))
        return x * cosines + x.roll(x.shape[3] // 2, dims=3) * sines

    def tables(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """(T, D) cosines and sines of the positions; the sines are negated in the first half."""
        positions = slice(start, start + length)
        return self.cosines[positions], self.sines[positions]


def position_angles(length: int, width: int, base: float) -> Tensor:
    """Rotation angle of each position and pair of dimensions, in radians: (length, width / 2)."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequencies).float()
