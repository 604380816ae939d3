"""Fits L(D) = E + B * D^-b: how a loss falls with more text.

Given the exponent b, the rest is linear, so a grid over b and a small least-squares problem for
each finds the best fit without a start value or a step size. The exponent is bounded, since three
or four points hardly distinguish it from the floor E.

Source: Hestness et al. 2017, https://arxiv.org/abs/1712.00409; with the floor, Rosenfeld et al.
2019, https://arxiv.org/abs/1909.12673.

Shapes:  P points · G exponents of the grid · R redrawn sets of points
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.linspace(0.1, 1.0, 91)
"""Candidates for b; published fits have 0.1 to 0.5."""
SEED_ERROR = 0.01
"""Nats per token by which two seeds of a small run differ, as one standard deviation."""
REDRAWS = 500
Floats = NDArray[np.float64]
Numbers = Sequence[float] | Floats


@dataclass(frozen=True)
class PowerLaw:
    """The best fit, and fits to points that are resampled within their errors."""

    floor: float
    """E in nats per token, which no amount of text goes below."""
    scale: float
    """B, where D is measured in units of the largest D."""
    exponent: float
    """The exponent b."""
    unit: float
    """The largest D that was fitted."""
    redrawn: Floats
    """(R, 3) floor, scale and exponent of each fit to resampled points."""

    def __call__(self, d: float) -> float:
        """The loss at D, in nats per token."""
        return self.floor + self.scale * (d / self.unit) ** -self.exponent

    def interval(self, d: float, reference: float | None = None) -> tuple[float, float]:
        """The central 90 % of the resampled fits at D, or of how far they fall below `reference`
        there.
        """
        floor, scale, exponent = self.redrawn.T
        values = floor + scale * (d / self.unit) ** -exponent
        if reference is not None:
            values = values - (floor + scale * (reference / self.unit) ** -exponent)
        low, high = np.quantile(values, (0.05, 0.95))
        return float(low), float(high)


def fit_power_law(amounts: Numbers, losses: Numbers) -> PowerLaw:
    """Fit at least three points.

    Args:
        amounts: (P,) amounts of text D, in any unit.
        losses: (P,) losses in nats per token.
    """
    d, loss = np.asarray(amounts, float), np.asarray(losses, float)
    assert len(d) == len(loss) >= 3
    unit = float(d.max())
    best, residuals = _fit(d / unit, loss[None])
    # The residuals of so few points are too small; the spread of seeds is known.
    left_over = float(np.sqrt((residuals**2).sum() / max(len(d) - 3, 1)))
    noise = np.random.default_rng(0).normal(0, max(SEED_ERROR, left_over), (REDRAWS, len(d)))
    redrawn, _ = _fit(d / unit, loss + noise)
    floor, scale, exponent = best[0]
    return PowerLaw(float(floor), float(scale), float(exponent), unit, redrawn)


def _fit(d: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """(P,), (R, P) -> (R, 3) floor, scale, exponent; (R, P) residuals."""
    powers = d ** -EXPONENTS[:, None]  # (G, P)
    centered = powers - powers.mean(1, keepdims=True)
    scale = losses @ centered.T / (centered**2).sum(1)  # (R, G)
    # More text never raises the loss, and the floor is never negative.
    scale = np.clip(scale, 0, losses.mean(1, keepdims=True) / powers.mean(1))
    floor = losses.mean(1, keepdims=True) - scale * powers.mean(1)
    residuals = losses[:, None] - floor[..., None] - scale[..., None] * powers  # (R, G, P)
    best = (residuals**2).sum(2).argmin(1)
    rows = np.arange(len(losses))
    return (
        np.stack([floor[rows, best], scale[rows, best], EXPONENTS[best]], 1),
        residuals[rows, best],
    )
