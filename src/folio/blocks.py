"""Curves in a terminal, drawn with characters that every font has, and without colors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from folio.console import cut
from folio.curves import Series, height_of, ticks

BLOCKS, LETTERS = "█░▒▓", "#o+x"
"""What the series are drawn with; letters where the terminal's encoding lacks blocks."""
MOST_COLUMNS = 100


def draw_blocks(
    series: Sequence[Series], width: int, height: int = 12, encoding: str | None = "utf-8"
) -> str:
    """Draw series as lines of text, with a legend below.

    Args:
        series: with ascending x and finite y; more than four repeat their characters.
        width: columns that there are; 24 are needed.
        height: rows of the picture.
        encoding: of the terminal.

    >>> print(draw_blocks([Series("a", [0, 10], [1, 3])], width=24, height=3, encoding="ascii"))
    3 |              #######
    2 |       #######
    1 |#######
      +---------------------
       0                  10
    # a
    """
    width = max(24, min(width, MOST_COLUMNS))
    marks = BLOCKS if _has(BLOCKS, encoding) else LETTERS
    low, high = height_of(series)
    left, right = (end(x for one in series for x in one.x) for end in (min, max))
    labels = {_row(value, low, high, height): words for value, words in ticks(low, high, height)}
    margin = max(map(len, labels.values()))
    n = width - margin - 2
    rows = [[" "] * n for _ in range(height)]
    for number, one in enumerate(series):
        for column in range(n):
            x = left + (right - left) * column / max(n - 1, 1)
            if (y := _at(one, x)) is None or not low <= y <= high:
                continue
            row = rows[_row(y, low, high, height)]
            if row[column] == " " or column % 2:  # of two at one place, each shows every other time
                row[column] = marks[number % len(marks)]
    lines = [
        f"{labels.get(number, ''):>{margin}} |{''.join(row)}".rstrip()
        for number, row in enumerate(rows)
    ]
    ends = f"{left:,.0f}", f"{right:,.0f}"
    between = " " * max(1, n - len(ends[0]) - len(ends[1]))
    lines += [f"{'':>{margin}} +{'-' * n}", f"{'':>{margin}}  {between.join(ends)}"]
    lines += [f"{marks[i % len(marks)]} {one.label}" for i, one in enumerate(series)]
    return "\n".join(cut(line, width) for line in lines)


def _has(characters: str, encoding: str | None) -> bool:
    try:
        characters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _row(y: float, low: float, high: float, height: int) -> int:
    """The row of a value between both ends, from the top."""
    return min(int((high - y) / (high - low) * height), height - 1)


def _at(series: Series, x: float) -> float | None:
    """The value at x, on a straight line between the points beside it; None outside of them."""
    points = [*zip(series.x, series.y)]
    if not points[0][0] <= x <= points[-1][0]:
        return points[0][1] if len(points) == 1 and x == points[0][0] else None
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / ((x1 - x0) or 1)
    return points[-1][1]
