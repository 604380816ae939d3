"""Pictures repeat, and show what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from folio import pictures
from folio.curves import Series, height_of
from folio.pictures import Dots, draw_curves, draw_dots
from tests.test_curves import overfit


def draw(path: Path, *rows: Dots) -> str:
    draw_dots(path, rows, title="T", x_label="loss", level=("base", 1.5))
    return path.read_text(encoding="utf-8")


def test_the_same_dots_give_the_same_file_and_others_another(tmp_path: Path):
    one = [Dots("a", [1.0, 1.1]), Dots("b", [2.0, 2.1], expected=2.05)]
    first, again = draw(tmp_path / "1.svg", *one), draw(tmp_path / "2.svg", *one)
    assert first == again
    assert first != draw(tmp_path / "3.svg", one[0], Dots("b", [2.0, 2.1], expected=2.3))
    assert first != draw(tmp_path / "4.svg", one[0], Dots("b", [2.0, 2.2], expected=2.05))


def test_each_row_is_a_line_of_its_own(tmp_path: Path):
    rows = [Dots(f"row {i}", [float(i)]) for i in range(12)]
    short, long = draw(tmp_path / "1.svg", *rows[:2]), draw(tmp_path / "2.svg", *rows)

    def height(svg: str) -> float:
        return float(svg.split('height="')[1].split("pt")[0])

    assert height(long) > 2 * height(short)


def test_a_picture_of_curves_shows_them_as_high_as_a_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    figures = list[Any]()
    monkeypatch.setattr(pictures, "_save", lambda figure, path: figures.append(figure))
    draw_curves(tmp_path / "loss.svg", overfit(), title="T", x_label="step", y_label="loss")
    assert figures[0].axes[0].get_ylim() == pytest.approx(height_of(overfit()))


def test_curves_beyond_the_colors_have_another_dash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    figures = list[Any]()
    monkeypatch.setattr(pictures, "_save", lambda figure, path: figures.append(figure))
    series = [Series(str(number), [0, 1], [2, number]) for number in range(20)]
    draw_curves(tmp_path / "compare.svg", series, title="T", x_label="step", y_label="loss")
    lines = figures[0].axes[0].get_lines()
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 20
