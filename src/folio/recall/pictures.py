"""The pictures of the page, as SVG that takes the colors of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from folio import curves
from folio.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, band_and_line, below, figure, grid


@dataclass(frozen=True)
class Line:
    """A curve with a band of two standard errors."""

    label: str
    css: str
    """CSS class of its color."""
    y: Sequence[float]
    errors: Sequence[float]


def novelty_picture(lines: Sequence[Line]) -> str:
    """Picture of the share of n-grams of n = 1, 2 ... characters that occur in the training
    text.
    """
    legend = [(line.label, line.css) for line in lines]
    return figure(_novelty(lines), legend, _named(legend))


def _novelty(lines: Sequence[Line]) -> list[str]:
    n = len(lines[0].y)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value) / math.log(n)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value, 0.0), 1.0))

    body = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        body.append(grid(y(share), f"{share:.0%}"))
    ticks = [(x(v), str(v)) for v in (1, 2, 5, 10, 20, 50, 100) if v <= n]
    body += below(ticks, "characters in a row")
    for line in lines:
        places = [x(i) for i in range(1, n + 1)]
        over = [y(v + 2 * e) for v, e in zip(line.y, line.errors)]
        under = [y(v - 2 * e) for v, e in zip(line.y, line.errors)]
        body += band_and_line(line.css, places, [y(v) for v in line.y], over, under)
    return body


def bits_picture(series: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Draw histograms of the bits of passages.

    Args:
        series: label, class of the color, and bits.
    """
    top = max(30.0, float(np.quantile([v for _, _, of in series for v in of], 0.995)))
    edges = np.linspace(0, top, 41)
    shares = [np.histogram(values, edges)[0] / max(len(values), 1) for _, _, values in series]
    highest = max(float(of.max()) for of in shares) or 1.0

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / float(edges[-1])

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / highest / 1.08)

    body = [grid(y(share), f"{share:.0%}") for share in (0, highest / 2, highest)]
    step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if edges[-1] / s <= 8)
    ticks = [(x(v), str(v)) for v in range(0, int(edges[-1]) + 1, step)]
    body += below(ticks, "bits: 10 are 1 in 1,000 tries, 20 are 1 in a million")
    for row, (words, tries) in enumerate((("100 tries", 100), ("a million", 1_000_000))):
        at = x(math.log2(tries))
        body.insert(0, f'<path class="mark" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        body.append(f'<text class="over" x="{at + 4:.1f}" y="{TOP + 10 + 14 * row}">{words}</text>')
    for (_, css, _), of in zip(series, shares):
        corners = [(x(0.0), y(0.0))]
        for low, high, share in zip(edges[:-1], edges[1:], of):
            corners += [(x(float(low)), y(float(share))), (x(float(high)), y(float(share)))]
        corners.append((x(float(edges[-1])), y(0.0)))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        body.append(f'<polygon class="band {css}" points="{points}"/>')
        body.append(f'<polyline class="line {css}" points="{points}"/>')
    legend = [(label, css) for label, css, _ in series]
    return figure(body, legend, _named(legend))


def _named(legend: Sequence[tuple[str, str]]) -> str:
    return "; ".join(label for label, _ in legend)


STYLE = (
    curves.STYLE
    + """
.model { color: #2563eb } .author { color: #ea580c } .new { color: #059669 }
@media (prefers-color-scheme: dark) { .model { color: #60a5fa } .author { color: #fb923c }
  .new { color: #34d399 } }
"""
)
