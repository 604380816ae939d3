"""The pictures of the page, as SVG that takes the colors of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 14, 42


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
    return _figure(_novelty(lines), [(line.label, line.css) for line in lines])


def novelty_svg(lines: Sequence[Line], style: str) -> str:
    """The same as a separate file, with the names beside the curves.

    Args:
        lines: up to three.
        style: CSS, since there is no page around it.
    """
    names = [
        f'<text class="line-name {line.css}" x="{WIDTH - RIGHT}" y="{TOP + 76 + 17 * row}" '
        f'text-anchor="end">{escape(line.label)}</text>'
        for row, line in enumerate(lines)
    ]
    body = "\n".join([*_novelty(lines), *names])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" class="drawn" '
        f'font-family="system-ui, sans-serif" font-size="12">\n'
        f"<style>{style}</style>\n{body}\n</svg>"
    )


def _novelty(lines: Sequence[Line]) -> list[str]:
    n = len(lines[0].y)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value) / math.log(n)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value, 0.0), 1.0))

    body = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        body.append(_grid(y(share), f"{share:.0%}"))
    ticks = [(x(v), str(v)) for v in (1, 2, 5, 10, 20, 50, 100) if v <= n]
    body += _below(ticks, "characters in a row")
    for line in lines:
        places = range(1, n + 1)
        over = [(x(i), y(v + 2 * e)) for i, v, e in zip(places, line.y, line.errors)]
        under = [(x(i), y(v - 2 * e)) for i, v, e in zip(places, line.y, line.errors)]
        band = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*over, *under[::-1]])
        path = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in zip(places, line.y))
        body.append(f'<polygon class="band {line.css}" points="{band}"/>')
        body.append(f'<polyline class="line {line.css}" points="{path}"/>')
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

    body = [_grid(y(share), f"{share:.0%}") for share in (0, highest / 2, highest)]
    step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if edges[-1] / s <= 8)
    ticks = [(x(v), str(v)) for v in range(0, int(edges[-1]) + 1, step)]
    body += _below(ticks, "bits: 10 are 1 in 1,000 tries, 20 are 1 in a million")
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
    return _figure(body, [(label, css) for label, css, _ in series])


def _grid(y: float, words: str) -> str:
    return (
        f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
    )


def _below(ticks: Sequence[tuple[float, str]], label: str) -> list[str]:
    y = HEIGHT - BOTTOM + 16
    words = [f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{w}</text>' for x, w in ticks]
    middle = (LEFT + WIDTH - RIGHT) / 2
    name = f'<text x="{middle}" y="{y + 19}" text-anchor="middle">{escape(label)}</text>'
    return [*words, name]


def _figure(body: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    names = "".join(f'<li class="{css}">{escape(label)}</li>' for label, css in legend)
    label = escape("; ".join(label for label, _ in legend))
    return (
        f'<figure class="drawn"><ul class="legend">{names}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(body)}</svg></figure>"
    )


_SHAPES = """
.drawn text { fill: var(--faint); font-variant-numeric: tabular-nums }
.drawn .over { paint-order: stroke; stroke: var(--ground); stroke-width: 4px }
.drawn .grid { stroke: var(--line) } .drawn .mark { stroke: var(--faint); stroke-dasharray: 4 3 }
.drawn .line { fill: none; stroke: currentColor; stroke-width: 2 }
.drawn .band { fill: currentColor; opacity: .16 }
.model { color: #2563eb } .author { color: #ea580c } .new { color: #059669 }
@media (prefers-color-scheme: dark) { .model { color: #60a5fa } .author { color: #fb923c }
  .new { color: #34d399 } }
"""

STYLE = f"""{_SHAPES}
.drawn svg {{ width: 100%; max-width: 38rem; background: none; font-size: 12px }}
.legend {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0;
  margin: 0 0 .5rem; font-size: .9rem }}
.legend li::before {{ content: ""; display: inline-block; width: 1.1em; height: .25em;
  margin-right: .4em; vertical-align: middle; background: currentColor }}
"""

STANDALONE = f"""
.drawn {{ --faint: #6b7280; --line: #e5e7eb }}
@media (prefers-color-scheme: dark) {{ .drawn {{ --faint: #9ca3af; --line: #374151 }} }}
{_SHAPES}
.drawn .line-name {{ fill: currentColor }}
"""
