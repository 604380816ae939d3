"""Pictures: one look for every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from folio.storage import atomic_write

COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#65a30d", "#4b5563")
INK, FAINT = "#1f2937", "#9ca3af"


@dataclass(frozen=True)
class Curve:
    """A line in a picture."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    """Drawn thin and pale, behind the others; for noisy series."""
    dots: bool = False
    color: int = 0
    """Which of the colors."""


def draw_curves(
    path: Path,
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
    mark: tuple[str, float, float] | None = None,
) -> None:
    """Write an SVG of some curves.

    Args:
        path: the file.
        curves: drawn in order.
        title, x_label, y_label: words on it.
        level: a horizontal line, with its name.
        mark: one point to look at, with its name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        color = COLORS[curve.color % len(COLORS)]
        marker = "o" if curve.dots and len(curve.x) <= 40 else ""
        axes.plot(
            curve.x,
            curve.y,
            color=color,
            label=curve.label,
            marker=marker,
            markersize=3.5,
            linewidth=0.8 if curve.faint else 1.8,
            alpha=0.35 if curve.faint else 1.0,
        )
    if level is not None:
        axes.axhline(level[1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        _annotate(
            axes,
            level[0],
            (1, level[1]),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            color=FAINT,
            fontsize=8,
        )
    if mark is not None:
        axes.plot([mark[1]], [mark[2]], "o", color=INK, markersize=5, zorder=5)
        _annotate(
            axes,
            mark[0],
            mark[1:],
            xytext=(0, 9),
            color=INK,
            fontsize=9,
        )
    _dress(axes, title, x_label, y_label)
    axes.margins(x=0.02)
    _fit_height(axes, curves)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    _save(figure, path)


@dataclass(frozen=True)
class Dots:
    """Some measurements of one thing; a row of a picture."""

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
    level: tuple[str, float] | None = None,
) -> None:
    """Write an SVG with a row for each thing: its measurements, their mean, what was expected.

    Args:
        path: the file.
        rows: from top to bottom.
        title, x_label: words on it.
        expected_label: of the marks for `expected`.
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
            markeredgewidth=0, label="each seed",
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
    """Write an SVG; without a date or random ids, so that the same curves give the same file."""
    import matplotlib

    with (
        atomic_write(path, "wb") as file,
        matplotlib.rc_context({"svg.hashsalt": "folio", "svg.fonttype": "path"}),
    ):
        figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")


def _annotate(axes, text: str, at: tuple[float, float], **style) -> None:
    """Words at a point; they may leave the frame rather than squeeze the picture."""
    axes.annotate(text, at, textcoords="offset points", ha="right", **style).set_in_layout(False)


def _fit_height(axes, curves: Sequence[Curve]) -> None:
    """Leave out the fall of the first steps, which would flatten all that follows."""
    values = sorted(y for curve in curves for y in curve.y)
    if len(values) > 20:
        low, high = values[0], values[int(len(values) * 0.97)]
        margin = 0.06 * (high - low)
        if high > low:
            axes.set_ylim(low - margin, high + margin)
