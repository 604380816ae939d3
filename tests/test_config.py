from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from folio.config import (
    ELSEWHERE,
    Table,
    from_table,
    merge,
    overrides_table,
    read_toml,
    settings,
    to_table,
    to_toml,
)
from folio.errors import UserError
from folio.recipe.recipe import Recipe, make_recipe


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 4
    """How wide."""
    rate: float = 0.5
    kind: Literal["soft", "hard"] = "soft"


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    limit: int | None = None
    deep: bool = False


def test_a_table_becomes_a_config_and_back():
    table = {"inner": {"width": 8, "rate": 2}, "names": ["a", "b"], "limit": 3, "deep": True}
    config = from_table(Outer, table)
    assert config == Outer(inner=Inner(width=8, rate=2.0), names=("a", "b"), limit=3, deep=True)
    assert from_table(Outer, to_table(config)) == config


def test_none_is_left_out_of_a_table():
    assert "limit" not in to_table(Outer())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"inner": {"widht": 1}}, "Unknown setting 'inner.widht'. Did you mean 'inner.width'?"),
        ({"inner": {"width": "8"}}, "inner.width must be a whole number, got '8'."),
        ({"inner": {"width": -(10**30)}}, "inner.width must be at most 4,611,686,018,427,387,904"),
        ({"inner": {"width": True}}, "inner.width must be a whole number, got True."),
        ({"inner": {"width": 1.5}}, "inner.width must be a whole number, got 1.5."),
        ({"inner": 3}, "inner must be a table, got 3."),
        ({"names": "a"}, "names must be a list of texts, got 'a'."),
        ({"deep": 1}, "deep must be true or false, got 1."),
        ({"inner": {"kind": "sofd"}}, "Did you mean 'soft'?"),
    ],
)
def test_a_mistake_in_a_table_is_named(table: Table, message: str):
    with pytest.raises(UserError) as caught:
        from_table(Outer, table)
    assert message in str(caught.value)


def test_flags_are_typed_by_their_setting():
    flags = [
        ("inner.width", "9"),
        ("inner.rate", "1e-3"),
        ("names", "a,b"),
        ("limit", "none"),
        ("deep", "true"),
    ]
    assert overrides_table(Outer, flags) == {
        "inner": {"width": 9, "rate": 0.001},
        "names": ("a", "b"),
        "limit": None,
        "deep": True,
    }


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (("inner.width", "wide"), "inner.width must be a whole number, got 'wide'."),
        (("inner.width", "9" * 20), "inner.width must be at most 4,611,686,018,427,387,904"),
        (("inner.kind", "firm"), "inner.kind must be one of soft, hard, got 'firm'."),
        (("width", "3"), "Unknown setting 'width'. Did you mean 'inner.width'?"),
    ],
)
def test_a_mistake_in_a_flag_is_named(flag: tuple[str, str], message: str):
    with pytest.raises(UserError) as caught:
        overrides_table(Outer, [flag])
    assert message in str(caught.value)


def test_merging_keeps_both_arguments_as_they_were():
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(below, above) == {"a": {"b": 1, "c": 2}}
    assert below == {"a": {"b": 1}}


def test_settings_carry_the_text_under_the_field():
    assert {s.name: s.explanation for s in settings(Outer)}["inner.width"] == "How wide."


def test_every_setting_of_a_recipe_is_explained():
    assert [s.name for s in settings(Recipe) if not s.explanation] == []


def test_a_recipe_survives_toml(tmp_path: Path):
    recipe = make_recipe({"preset": "gpt2", "corpus": {"sources": ["a", "b"]}})
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert make_recipe(read_toml(path)) == recipe


def test_damaged_toml_names_the_line(tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_text("seed = \n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        read_toml(path)


def test_rates_that_a_recipe_does_not_name_follow_from_the_width():
    def rates(*layers: Table) -> tuple[float, float]:
        optimizer = make_recipe(*layers).optimizer
        return optimizer.learning_rate, optimizer.matrix_learning_rate

    adamw = {"preset": "gpt2"}
    narrow, wide = {"model": {"d_model": 64}}, {"model": {"d_model": 256}}
    ratio = rates(adamw, narrow)[0] / rates(adamw, wide)[0]
    assert ratio == pytest.approx(4, rel=0.05)  # of two digits each
    assert rates(narrow)[1] == 2 * rates(wide)[1]
    given = {"optimizer": {"learning_rate": 7e-3}}
    assert rates(given) == (7e-3, rates()[1])
    named = {"optimizer": {"matrix_learning_rate": 0.5, "kind": "adamw"}}
    assert rates(named, {"model": {"d_model": 200}}) == (2.5e-3, 0.5)
    # What is written down is whole, and stays.
    recipe = make_recipe({"size": "mini"})
    assert make_recipe(to_table(recipe)) == recipe


@pytest.mark.parametrize("name", ["width", "rate"])
@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 9000])
def test_a_number_of_thousands_of_digits_in_a_file_is_told_in_a_line(
    tmp_path: Path, name: str, number: str
):
    (tmp_path / "recipe.toml").write_text(f"[inner]\n{name} = {number}\n")
    with pytest.raises(UserError, match=r"not valid TOML|must be at most|must be a finite"):
        from_table(Outer, read_toml(tmp_path / "recipe.toml"))


def test_what_other_programs_call_a_setting_is_understood():
    for name, meant in ELSEWHERE.items():
        flag = name.replace("_", "-")
        with pytest.raises(UserError, match=f"'{name}'. Did you mean '{meant}'"):
            overrides_table(Recipe, [(flag, "3")])
