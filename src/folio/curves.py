"""Curves as SVG, drawn by hand in a millisecond; they take the colors of the page around them.

No color stands alone: a series has a dash of its own, too, and every picture says in words what it
shows.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 14, 42

LIGHT = ("#0072b2", "#c4500a", "#00805e", "#1c0a29", "#7a0bfb", "#4d1403")
DARK = ("#56b4e9", "#f59e42", "#2ad1a3", "#fcfda1", "#b6fefc", "#ab8f59")
"""Colors of the series on a light and on a dark ground; those of few series come first. Told apart
by those who do not see red, green or blue (after Okabe and Ito, https://jfly.uni-koeln.de/color/)."""
FEW_POINTS = 10
"""Of a series with fewer, none is cropped."""
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "12 4", "4 6")

STYLE = (
    """
.drawn text { fill: var(--faint); font-variant-numeric: tabular-nums }
.drawn .over { paint-order: stroke; stroke: var(--ground); stroke-width: 4px }
.drawn .grid { stroke: var(--line) } .drawn .mark { stroke: var(--faint); stroke-dasharray: 4 3 }
.drawn .line { fill: none; stroke: currentColor; stroke-width: 2 }
.drawn .band { fill: currentColor; opacity: .16 }
"""
    + "\n".join(
        f".c{i} {{ color: var(--c{i}) }} .drawn .d{i} {{ stroke-dasharray: {dash} }}"
        for i, dash in enumerate(DASHES)
    )
    + """
.drawn { margin: 1rem 0 } .drawn svg { width: 100%; max-width: 38rem; background: none;
  font: 12px system-ui, sans-serif }
.drawn .line.noisy { stroke-width: 1; opacity: .55; stroke-dasharray: none }
.drawn .legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0;
  margin: 0 0 .5rem; font-size: .9rem } .drawn .legend li { color: var(--ink); margin: 0 }
.drawn .legend svg { width: 2em; height: .6em; margin-right: .4em }
.drawn figcaption { color: var(--faint); font-size: .9rem }
"""
)
"""Rules for a page that defines --ink, --faint, --line, --ground and the colors of `variables`."""


@dataclass(frozen=True)
class Series:
    """A line in a picture, with a band of two standard errors where they are known."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] = ()
    noisy: bool = False
    """Drawn thin and pale, with the color of the series after it."""


def variables(colors: Sequence[str]) -> str:
    """CSS variables of the series' colors, `LIGHT` or `DARK`.

    >>> variables(["#000000", "#123456"])
    '--c0: #000000; --c1: #123456'
    """
    return "; ".join(f"--c{i}: {color}" for i, color in enumerate(colors))


THEMES = f"""
:root {{ {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
"""
"""The colors of a page of its own, as `html_page` makes it."""


def svg_curves(
    series: Sequence[Series], *, x_label: str, y_label: str, level: tuple[str, float] | None = None
) -> str:
    """Draw series as a figure with a legend; points that are not finite are left out.

    Args:
        series: drawn in order; those without a point are left out.
        x_label, y_label: the labels.
        level: a horizontal line to compare with, with its name; left out if it is far away.
    """
    shown = [kept for one in series if len((kept := finite(one)).x)]
    if not shown:
        return ""
    classes = _classes(shown)
    low_x, high_x = _ends([x for one in shown for x in one.x])
    low, high = height_of(shown)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low_x) / (high_x - low_x)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    body = [grid(y(value), words) for value, words in ticks(low, high, 6)]
    body += below([(x(value), words) for value, words in ticks(low_x, high_x, 6)], x_label)
    if level is not None and low <= level[1] <= high:
        at = y(level[1])
        body.append(f'<path class="mark" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        body.append(
            f'<text class="over" x="{WIDTH - RIGHT}" y="{at - 4:.1f}" text-anchor="end">'
            f"{escape(level[0])}</text>"
        )
    lines = list[str]()
    for one, css in zip(shown, classes):
        lines += band_and_line(
            css,
            [x(value) for value in one.x],
            [y(value) for value in one.y],
            [y(value + 2 * e) for value, e in zip(one.y, one.errors)],
            [y(value - 2 * e) for value, e in zip(one.y, one.errors)],
        )
    described = f"{y_label} by {x_label}. {in_words(shown)}"
    body.append(_within_axes("".join(lines), described))
    legend = [(one.label, css) for one, css in zip(shown, classes)]
    return figure(body, legend, described, y_label)


def in_words(series: Sequence[Series]) -> str:
    """What a picture shows, for those who do not see it.

    >>> in_words([Series("validation", [0, 10], [4.25, 1.5])])
    'validation: from 4.25 to 1.5, lowest 1.5 at 10.'
    """
    parts = []
    for one in series:
        lowest = min(range(len(one.y)), key=one.y.__getitem__)
        parts.append(
            f"{one.label}: from {one.y[0]:.4g} to {one.y[-1]:.4g}, "
            f"lowest {one.y[lowest]:.4g} at {one.x[lowest]:,.6g}."
        )
    return " ".join(parts)


def height_of(series: Sequence[Series], levels: Iterable[float] = ()) -> tuple[float, float]:
    """The ends of the vertical axis, without the fall of the first steps, which would flatten
    everything after it: a twentieth of the points of a series may lie above, or one of ten, the
    first ones, or the highest of a noisy series. So one that rises at its end is seen to rise.

    Args:
        series: with finite y, each at least one.
        levels: values that must not lie below.
    """
    values = [y for one in series for y in one.y]
    later = [
        y
        for one in series
        for y in (sorted(one.y, reverse=True) if one.noisy else one.y)[
            max(len(one.y) // 20, min(len(one.y) // FEW_POINTS, 1)) :
        ]
    ]
    low, high = _ends([min([*values, *levels]), max(later)])
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def ticks(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Round values between two ends, with their words.

    >>> ticks(1.42, 2.6)
    [(1.5, '1.5'), (2.0, '2.0'), (2.5, '2.5')]
    >>> ticks(0, 2000)
    [(0, '0'), (500, '500'), (1000, '1,000'), (1500, '1,500'), (2000, '2,000')]
    """
    power = math.floor(math.log10((high - low) / most))
    steps = [(unit, power) for unit in (1, 2, 5)] + [(1, power + 1)]
    unit, power = next(s for s in steps if (high - low) / (s[0] * 10.0 ** s[1]) <= most)
    step = unit * 10**power if power >= 0 else unit / 10**-power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(i * step, f"{i * step:,.{max(0, -power)}f}") for i in range(first, last + 1)]


# ---- the pieces of a picture ----------------------------------------------------------------


def band_and_line(
    css: str, x: Sequence[float], y: Sequence[float], over: Sequence[float], under: Sequence[float]
) -> list[str]:
    """A curve in a class of CSS, with a band if its edges are given; all in units of the SVG."""
    parts = []
    if over and under:
        edge = [*zip(x, over), *reversed([*zip(x, under)])]
        parts.append(f'<polygon class="band {css}" points="{_points(edge)}"/>')
    if len(x) == 1:
        parts.append(
            f'<circle class="{css}" cx="{x[0]:.1f}" cy="{y[0]:.1f}" r="3" fill="currentColor"/>'
        )
    parts.append(f'<polyline class="line {css}" points="{_points(zip(x, y))}"/>')
    return parts


def grid(y: float, words: str) -> str:
    """A horizontal line of the grid, with its value to the left."""
    return (
        f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
    )


def below(marks: Sequence[tuple[float, str]], label: str) -> list[str]:
    """The words under the horizontal axis, each at its place, and the axis' name."""
    y = HEIGHT - BOTTOM + 16
    words = [f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{w}</text>' for x, w in marks]
    middle = (LEFT + WIDTH - RIGHT) / 2
    name = f'<text x="{middle}" y="{y + 19}" text-anchor="middle">{escape(label)}</text>'
    return [*words, name]


def figure(
    body: Sequence[str], legend: Sequence[tuple[str, str]], described: str, caption: str = ""
) -> str:
    """A picture with a legend above it.

    Args:
        body: elements of the SVG.
        legend: labels, and the CSS class of each.
        described: what it shows, in words.
        caption: what goes upwards, as there is no room beside the axis.
    """
    above = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    names = "".join(
        f'<li><svg viewBox="0 0 32 8" class="{css}" aria-hidden="true">'
        f'<path class="line {css}" d="M0 4H32"/></svg>{escape(label)}</li>'
        for label, css in legend
    )
    return (
        f'<figure class="drawn">{above}<ul class="legend">{names}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(described)}">'
        f"{''.join(body)}</svg></figure>"
    )


def _within_axes(lines: str, described: str) -> str:
    """Lines without what lies outside of the axes; what they show names the axes on a page."""
    name = f"axes-{zlib.crc32((described + lines).encode()):08x}"
    return (
        f'<clipPath id="{name}"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath><g clip-path="url(#{name})">{lines}</g>'
    )


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _classes(series: Sequence[Series]) -> list[str]:
    """The CSS classes of each series, of its color and its dash, which differ for 36 of them; a
    noisy one has the color of the next.
    """
    classes, number, n = list[str](), 0, len(DASHES)
    for one in series:
        color, dash = number % n, (number + number // n) % n
        classes.append(f"c{color} d{dash}" + (" noisy" if one.noisy else ""))
        number += not one.noisy
    return classes


def finite(series: Series) -> Series:
    """The points of a series that are numbers."""
    kept = [i for i, y in enumerate(series.y) if math.isfinite(y)]
    errors = [e if math.isfinite(e) else 0.0 for e in series.errors]
    x, y, errors = ([of[i] for i in kept] if of else [] for of in (series.x, series.y, errors))
    return Series(series.label, x, y, errors, series.noisy)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest value, apart from each other."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
