"""Curves are drawn as they are, in words too, and in colors that everyone tells apart."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from folio.curves import DARK, DASHES, LIGHT, STYLE, TOP, Series, height_of, svg_curves, ticks
from tests.test_report import Reader

# Machado, Oliveira and Fernandes 2009, https://doi.org/10.1109/TVCG.2009.113, severity 1.
SEEN = {
    "all colors": np.eye(3),
    "no red": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "no green": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "no blue": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def linear(color: str) -> NDArray[np.float64]:
    """(3,) light of a color of the form #rrggbb."""
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Of WCAG 2, 1 to 21."""
    low, high = sorted(float(np.array(XYZ)[1] @ linear(color)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) coordinates in which distances are those that are seen (CIELAB)."""
    x, y, z = np.cbrt(np.array(XYZ) @ light.clip(0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("colors", "ground"), [(LIGHT, "#ffffff"), (DARK, "#111827")])
def test_colors_stand_out_from_the_ground_and_from_each_other(colors: tuple[str, ...], ground: str):
    assert min(contrast(color, ground) for color in colors) >= 4.5  # as for text, WCAG AA
    for matrix in SEEN.values():
        places = [lab(np.array(matrix) @ linear(color)) for color in colors]
        assert min(math.dist(a, b) for a, b in combinations(places, 2)) > 10
    assert len(set(DASHES)) == len(colors)  # no color stands alone


def test_a_picture_says_in_words_what_it_shows():
    series = [Series("<training>", [0, 100], [4.0, 2.0]), Series("validation", [100], [2.5])]
    read = Reader(svg_curves(series, x_label="step", y_label="loss", level=("bare", 3.0)))
    assert not read.open
    label = next(a["aria-label"] for _, a in read.attributes if a.get("role") == "img")
    assert label is not None and label.startswith("loss by step. <training>: from 4 to 2, lowest 2")
    assert read.text["li"] == ["<training>", "validation"] and read.text["figcaption"] == ["loss"]
    assert {"bare", "step", "100", "3.0"} <= set(read.text["text"])


def test_a_band_is_two_standard_errors_wide():
    series = Series("a", [0, 1, 2], [1.0, 1.5, 2.0], [0.1, 0.05, 0.1])
    drawn = svg_curves([series], x_label="x", y_label="y")
    (band,) = [a["points"] for tag, a in Reader(drawn).attributes if tag == "polygon"]
    (line,) = [a["points"] for tag, a in Reader(drawn).attributes if tag == "polyline"]
    assert band is not None and line is not None
    edge, middle = (
        [float(point.split(",")[1]) for point in points.split()] for points in (band, line)
    )
    per_unit = (middle[0] - middle[2]) / (2.0 - 1.0)
    assert edge[4] - edge[1] == pytest.approx(4 * 0.05 * per_unit, abs=0.2)


def test_what_is_not_finite_is_left_out():
    def points(*y: float) -> str:
        drawn = svg_curves([Series("a", range(len(y)), y)], x_label="x", y_label="y")
        return next(str(a["points"]) for tag, a in Reader(drawn).attributes if tag == "polyline")

    assert len(points(3.0, math.nan, 2.0, math.inf).split()) == 2
    assert svg_curves([Series("a", [1], [math.nan])], x_label="x", y_label="y") == ""
    assert len(points(2.0, 2.0).split()) == 2  # a flat curve has a height, too


@pytest.mark.parametrize("span", [(0, 1), (0.98, 1.02), (-3, 7), (0, 1e6), (1e-4, 3e-4)])
def test_ticks_are_few_round_and_inside(span: tuple[float, float]):
    values = [value for value, _ in ticks(*span)]
    assert 2 <= len(values) <= 6 and values[0] >= span[0] and values[-1] <= span[1] * (1 + 1e-9)
    assert [float(words.replace(",", "")) for _, words in ticks(*span)] == pytest.approx(values)


def test_each_series_has_a_color_and_a_dash_of_its_own():
    assert all(f".d{i} {{ stroke-dasharray: {dash} }}" in STYLE for i, dash in enumerate(DASHES))
    one = Series("a", [0, 1], [2, 1])
    drawn = svg_curves([replace(one, noisy=True), *[one] * 36], x_label="x", y_label="y")
    noisy, *classes = [a["class"] for tag, a in Reader(drawn).attributes if tag == "polyline"]
    assert noisy == f"{classes[0]} noisy"  # a noisy one is of the next
    assert len(set(classes)) == 36
    few = [str(words).split() for words in classes[:6]]  # each tells apart alone
    assert len({words[1] for words in few}) == len({words[2] for words in few}) == 6


def overfit() -> list[Series]:
    """A run of 1,000 batches, whose validation loss rises to 4."""
    steps, at = range(1, 5001, 5), range(250, 5001, 250)
    fall = [0.15 + 3.5 * math.exp(-step / 300) for step in steps]
    return [
        Series("training, each batch", steps, fall, noisy=True),
        Series("validation", at, [1.7 + 2.3 * i / 19 for i in range(20)]),
    ]


def test_a_series_that_rises_at_its_end_is_seen_to_rise():
    batches, validation = overfit()
    low, high = height_of([batches, validation])
    assert low < 0.15 and 4 < high < 4.5
    others = [Series("other", validation.x, [1.5] * 20)] * 20
    assert height_of([*others, validation])[1] > 4  # beside runs that did not overfit, too
    assert height_of([Series("a", [0, 10], [4.0, 1.0])])[1] > 4  # a fall of two points is all
    twelve = Series("a", range(12), [9.0, *[2.5, 2.0] * 5, 2.0])
    assert height_of([twelve])[1] < 3


def test_the_fall_of_the_first_steps_is_cropped_and_not_drawn_level():
    y = [9.0, 9.5, *[2.0] * 30, *[1.0] * 28]
    one = Series("a", range(60), y)
    assert 2 < height_of([one])[1] < 2.1 and height_of([one], [0.5])[0] < 0.5
    drawn = svg_curves([one], x_label="x", y_label="y")
    (line,) = [str(a["points"]) for tag, a in Reader(drawn).attributes if tag == "polyline"]
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert heights[1] < heights[0] < TOP  # above the axes, which what they clip does not leave
    names = [a["id"] for tag, a in Reader(drawn).attributes if tag.lower() == "clippath"]
    assert [f'<g clip-path="url(#{name})"><polyline' in drawn for name in names] == [True]
