"""Pictures as SVG, all with the same look: curves, rows of dots and parallel coordinates."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from folio.curves import DASHES, Series, finite, height_of
from folio.report import COLORS, FAINT, INK
from folio.storage import atomic_write


def draw_curves(
    path: Path,
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
    levels: Sequence[tuple[str, float]] = (),
    mark: tuple[str, float, float] | None = None,
) -> None:
    """Write an SVG of some curves.

    Args:
        path: the file.
        series: drawn in order, without bands; each with a point that is finite.
        title, x_label, y_label: the labels.
        level: a horizontal line, with its name.
        levels: further ones; of those that are close together only one is labelled.
        mark: name, x and y of a point that stands out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    number = 0
    for one in (shown := [finite(one) for one in series]):
        axes.plot(
            one.x,
            one.y,
            color=COLORS[number % len(COLORS)],
            linestyle=_line_style(number // len(COLORS)),
            label=one.label,
            marker="o" if not one.noisy and len(one.x) <= 40 else "",
            markersize=3.5,
            linewidth=0.8 if one.noisy else 1.8,
            alpha=0.35 if one.noisy else 1.0,
        )
        number += not one.noisy
    named: list[float] = []
    for name, y in [level, *levels] if level is not None else levels:
        axes.axhline(y, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        _annotate(
            axes,
            name if all(abs(y / other - 1) > 0.04 for other in named) else "",
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            color=FAINT,
            fontsize=8,
            annotation_clip=True,
        )
        named.append(y)
    if mark is not None:
        name, x, y = mark  # in the legend, since curves would cross words beside the point
        axes.plot([x], [y], "o", color=INK, markersize=5, zorder=5, linestyle="", label=name)
    _dress(axes, title, x_label, y_label)
    axes.margins(x=0.02)
    axes.set_ylim(height_of(shown, [y for _, y in levels]))
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    _save(figure, path)


@dataclass(frozen=True)
class Dots:
    """Several measurements of one item: a row of a picture."""

    label: str
    values: Sequence[float]
    expected: float | None = None


def draw_dots(
    path: Path,
    rows: Sequence[Dots],
    *,
    title: str,
    x_label: str,
    expected_label: str = "expected",
    each_label: str = "each seed",
    level: tuple[str, float] | None = None,
) -> None:
    """Write an SVG with a row for each item: its measurements, their mean, and the expected value.

    Args:
        path: the file.
        rows: from top to bottom.
        title, x_label: the labels.
        expected_label: label of the marks for `expected`.
        level: a vertical line to compare with, with its name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.34 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    if level is not None:
        axes.axvline(level[1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label=level[0])
    places = range(len(rows))
    means = [sum(row.values) / len(row.values) for row in rows]
    several = any(len(row.values) > 1 for row in rows)
    expected = [(row.expected, y) for y, row in zip(places, rows) if row.expected is not None]
    if expected:
        axes.plot(
            *zip(*expected), "D", color=COLORS[1], fillstyle="none", markersize=8,
            linestyle="", label=expected_label,
        )  # fmt: skip
    if several:
        points = [(value, y) for y, row in zip(places, rows) for value in row.values]
        axes.plot(
            *zip(*points), "o", color=COLORS[0], alpha=0.35, markersize=5, linestyle="",
            markeredgewidth=0, label=each_label,
        )  # fmt: skip
    marker, size = ("|", 15) if several else ("o", 6)
    name = "mean" if several else "measured"
    axes.plot(
        means, places, marker, color=COLORS[0], markersize=size, markeredgewidth=2,
        linestyle="", label=name,
    )  # fmt: skip
    for mean, y in zip(means, places):
        words = f"{mean:.3f}"
        axes.annotate(
            words, (1.01, y), xycoords=("axes fraction", "data"), va="center", color=INK, fontsize=9
        )
    _dress(axes, title, x_label, "")
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.set_yticks(list(places), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    _save(figure, path)


def svg_history(
    points: Sequence[tuple[float, float, int]],
    best: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Draw single results and the best so far as SVG.

    Args:
        points: x, y, and index in `names`.
        best: x and y of the falling line.
        names: kinds of points; the first one stands out.
        x_label, y_label: the labels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.step(*zip(*best), where="post", color=INK, linewidth=1.2, label="best so far")
    for kind, name in enumerate(names):
        chosen = [(x, y) for x, y, of in points if of == kind]
        if chosen:
            color, alpha = (COLORS[0], 1.0) if kind == 0 else (FAINT, 0.8)
            axes.plot(
                *zip(*chosen), "o" if kind == 0 else "x", color=color, alpha=alpha,
                markersize=5, linestyle="", label=name,
            )  # fmt: skip
    _dress(axes, "", x_label, y_label)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return _svg(figure)


@dataclass(frozen=True)
class Axis:
    """A quantity, as a slice or a parallel coordinate shows it."""

    label: str
    places: Sequence[float]
    """Position of each item on the axis."""
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()
    """Positions and labels of ticks; numbers if empty."""


def svg_slices(axes_of: Sequence[Axis], values: Sequence[float], *, y_label: str) -> str:
    """Draw one small picture per quantity as SVG, with a point for each item.

    Args:
        axes_of: the quantities.
        values: y of each item.
        y_label: what the values are.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(axes_of))
    rows = -(-len(axes_of) // columns)
    figure = Figure(figsize=(8, 0.3 + 2.3 * rows), layout="constrained")
    pictures = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for number, picture in enumerate(pictures.flat):
        if number >= len(axes_of):
            picture.set_visible(False)
            continue
        axis = axes_of[number]
        picture.plot(
            axis.places, values, "o", color=COLORS[0], alpha=0.75, markersize=4.5, linestyle=""
        )
        _dress(picture, "", axis.label, y_label if number % columns == 0 else "")
        if axis.log:
            picture.set_xscale("log")
            picture.minorticks_off()
        if axis.ticks:
            picture.set_xticks(*zip(*axis.ticks))
            picture.margins(x=0.12)
    return _svg(figure)


def svg_parallel(axes_of: Sequence[Axis], values: Sequence[float], *, value_label: str) -> str:
    """Draw parallel coordinates as SVG: a line for each item, the better the darker.

    Args:
        axes_of: the quantities, from left to right.
        values: value of each item on the last axis; the lowest are the best.
        value_label: what they are.
    """
    from matplotlib.figure import Figure

    everything = [*axes_of, Axis(value_label, values)]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    heights = [_unit_places(axis) for axis in everything]
    order = sorted(range(len(values)), key=lambda i: -values[i])  # the best on top
    for rank, i in enumerate(order):
        best = rank == len(order) - 1
        goodness = (rank + 1) / len(order)
        axes.plot(
            range(len(everything)), [column[i] for column in heights],
            color=COLORS[1] if best else COLORS[0], linewidth=2.4 if best else 1.1,
            alpha=1.0 if best else 0.12 + 0.55 * goodness**2,
        )  # fmt: skip
    for x, axis in enumerate(everything):
        axes.axvline(x, color=FAINT, linewidth=1, zorder=0)
        ticks = axis.ticks or [(p, f"{p:.3g}") for p in (min(axis.places), max(axis.places))]
        for (_, words), y in zip(ticks, _unit_places(axis, [place for place, _ in ticks])):
            note = axes.annotate(
                words, (x, y), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=8, color=INK,
            )  # fmt: skip
            note.set_bbox({"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0})
    axes.set_xticks(range(len(everything)), [axis.label for axis in everything])
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(everything) - 0.5)
    for side in axes.spines.values():
        side.set_visible(False)
    return _svg(figure)


def _unit_places(axis: Axis, places: Sequence[float] | None = None) -> list[float]:
    """Positions on an axis, scaled to 0 ... 1."""
    scale = math.log if axis.log else float
    ends = [*axis.places, *(place for place, _ in axis.ticks)]
    low, high = scale(min(ends)), scale(max(ends))
    spread = (high - low) or 1.0
    chosen = axis.places if places is None else places
    return [(scale(place) - low) / spread if high > low else 0.5 for place in chosen]


def _dress(axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def _save(figure, path: Path) -> None:
    """Write an SVG without a date or random ids, so that equal curves give equal files."""
    with atomic_write(path, "wb") as file:
        _write_svg(figure, file)


def _svg(figure) -> str:
    """The <svg> element alone, for a page; its ids are unique."""
    file = io.BytesIO()
    _write_svg(figure, file)
    text = file.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    salt = hashlib.sha256(text.encode("utf-8")).hexdigest()[:6]
    # Pictures on one page must not use each other's clip paths and glyphs.
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{salt}-", text)


def _write_svg(figure, file: IO[bytes]) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "folio", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")


def _line_style(number: int) -> str | tuple[int, tuple[int, ...]]:
    """The dash of the curves that have their colors for the first time, the second time ..."""
    dash = DASHES[number % len(DASHES)]
    return "-" if dash == "none" else (0, tuple(map(int, dash.split())))


def _annotate(axes, text: str, at: tuple[float, float], **style) -> None:
    """Put a label at a point; it may leave the frame rather than squeeze the picture."""
    axes.annotate(text, at, textcoords="offset points", ha="right", **style).set_in_layout(False)
