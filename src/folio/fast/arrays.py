"""A model without torch: its settings, and its weights as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folio.model.config import ModelConfig

Array = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class ModelArrays:
    """The weights and settings of a `GPT`, wherever they were read from."""

    config: ModelConfig
    arrays: Mapping[str, Array]
    """Every parameter by its name in `GPT`; that of a tied head is the embedding's."""

    def linear(self, name: str) -> tuple[Array, Array]:
        """(O, I) weights of a linear layer, and (O,) biases, zeros where it has none."""
        weight = self.arrays[f"{name}.weight"]
        bias = self.arrays.get(f"{name}.bias")
        return weight, np.zeros(len(weight), np.float32) if bias is None else bias

    def norm(self, name: str) -> Array | None:
        """(2, C) gains and biases of a norm; None where the model has none there."""
        gain, bias = self.arrays.get(f"{name}.weight"), self.arrays.get(f"{name}.bias")
        if gain is None:
            return None
        return np.stack((gain, np.zeros_like(gain) if bias is None else bias))

    def rotation(self) -> tuple[Array, Array]:
        """(context, D) cosines and sines, the latter negative in the first half, as
        `RotaryPositions` has them.
        """
        config = self.config
        angles = _angles(config.context_length, config.head_width, config.rope_base)
        sines = np.sin(angles)
        return np.tile(np.cos(angles), 2), np.hstack((-sines, sines))

    def added_positions(self) -> Array | None:
        """(context, C) that are added to the embedding; None for positions of other kinds."""
        if self.config.positions == "learned":
            return self.arrays["positions.weight"]
        if self.config.positions == "sinusoidal":
            angles = _angles(self.config.context_length, self.config.d_model, 10_000.0)
            return np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(len(angles), -1)
        return None


def _angles(length: int, width: int, base: float) -> Array:
    """(length, width / 2), as `positions.position_angles`."""
    frequencies = base ** (-np.arange(0, width, 2) / width)
    return np.outer(np.arange(length), frequencies).astype(np.float32)
