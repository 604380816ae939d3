"""A space is read strictly, and draws recipes that can be trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from folio.config import merge
from folio.errors import UserError
from folio.recipe.recipe import make_recipe
from folio.tuning.space import DEFAULT_SPACE, default_space, parse_space

BASE = {"preset": "gpt2", "model": {"d_model": 64, "vocab_size": 65}}


class Draws:
    """Draws at random, and remembers what was asked."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked[name] = (low, high, log)
        return self.random.uniform(low, high)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.asked[name] = (low, high, log)
        return self.random.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = tuple(choices)
        return self.random.choice(choices)


@pytest.mark.parametrize(("optimizer", "of"), [("adamw", ""), ("sgd", ""), ("muon", "matrix_")])
def test_the_default_space_is_the_six_settings_that_matter_with_rates_by_their_logarithm(
    optimizer: str, of: str
):
    draws, base = Draws(1), merge(BASE, {"optimizer": {"kind": optimizer}})
    drawn = parse_space(default_space(optimizer)).draw(draws, base)
    rates = {name: asked[2] for name, asked in draws.asked.items() if "optimizer" in name}
    names = {f"{of}learning_rate", f"{of}weight_decay"}
    assert (
        rates == {f"optimizer.{name}": True for name in names} and set(drawn["optimizer"]) == names
    )
    for name in names:
        low, high, _ = draws.asked[f"optimizer.{name}"]
        assert low < getattr(make_recipe(base).optimizer, name) < high
    assert set(draws.asked) - set(rates) == {
        "model.n_layers", "model.n_heads", "model.activation", "model.d_ff/d_model",
    }  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "modern"])
@pytest.mark.parametrize("d_model", [64, 36, 24, 6])
def test_heads_divide_the_width(family: str, d_model: int):
    base = merge(BASE, {"preset": family, "model": {"d_model": d_model}})
    for seed in range(20):
        drawn = parse_space(DEFAULT_SPACE).draw(Draws(seed), base)
        make_recipe(merge(base, drawn))  # raises where they do not


def test_choices_of_heads_that_depend_on_a_drawn_width_have_a_name_of_their_own():
    widths = {"model": {"d_model": {"choices": [32, 36]}, "n_heads": {"choices": [2, 4, 8]}}}
    asked = {}
    for seed in range(20):
        draws = Draws(seed)
        parse_space(widths).draw(draws, BASE)
        asked |= draws.asked
    assert asked["model.n_heads"] == (2, 4, 8)
    assert asked["model.n_heads of 36"] == (2, 4)


def test_the_feed_forward_width_is_a_multiple_of_the_width():
    space = parse_space({"model": {"d_ff": {"choices": [2.5, 2.5001], "times_width": True}}})
    assert space.draw(Draws(1), BASE) == {"model": {"d_ff": 160}}


def test_at_a_fixed_size_every_model_is_as_large_as_its_width_allows():
    space = parse_space(DEFAULT_SPACE | {"n_parameters": 300_000})
    for seed in range(20):
        drawn = space.draw(Draws(seed), BASE)
        model = make_recipe(merge(BASE, drawn)).model
        step = 2 * model.n_heads
        assert model.n_parameters <= 300_000 and model.d_model % step == 0
        factor = model.d_ff / model.d_model
        d_ff = round(factor * (model.d_model + step))
        wider = {"model": {"d_model": model.d_model + step, "d_ff": d_ff + 8}}
        assert make_recipe(merge(BASE, drawn, wider)).model.n_parameters > 300_000


def test_a_size_that_no_model_has_is_one_line():
    space = parse_space({"n_parameters": 500, "model": {"n_layers": {"low": 3, "high": 4}}})
    with pytest.raises(UserError, match="as small as n_parameters = 500"):
        space.draw(Draws(1), BASE)


MISTAKES = [
    ({}, "empty"),
    ({"model": {"n_layer": {"low": 1, "high": 2}}}, "Did you mean 'model.n_layers'"),
    ({"model": {"n_layers": 3}}, "either low and high or choices"),
    ({"model": {"n_layers": {"low": 3, "high": 3}}}, "low is below high"),
    ({"model": {"n_layers": {"low": 1, "high": 2, "lgo": True}}}, "Did you mean"),
    ({"model": {"n_layers": {"low": 1.5, "high": 3}}}, "must be a whole number"),
    ({"model": {"activation": {"choices": ["relu", "relo"]}}}, "Did you mean 'relu'"),
    ({"model": {"activation": {"choices": ["relu"]}}}, "two or more"),
    ({"model": {"n_layers": {"low": 1, "high": 3, "step": -1}}}, "step in the space must be above"),
    ({"model": {"n_layers": {"low": 1, "high": 3, "step": "a"}}}, "step .* must be a number"),
    ({"model": {"n_layers": {"low": 1, "high": 3, "step": 0.5}}}, "step must be a whole number"),
    ({"optimizer": {"beta1": {"low": 0.1, "high": 0.9, "step": 0.0}}}, "must be above 0"),
    ({"model": {"d_ff": {"low": 2, "high": 4, "step": 0, "times_width": True}}}, "above 0"),
    ({"model": {"n_layers": {"low": 1}}}, "high in the space must be a number"),
    ({"model": {"n_layers": {"choices": 3}}}, "must be a list, got 3"),
    ({"model": {"activation": {"choices": "relu"}}}, "must be a list, got 'relu'"),
    ({"model": {"activation": {"choices": []}}}, "two or more"),
    ({"model": {"activation": {"choices": [["relu"], ["gelu"]]}}}, "must be a single value"),
    ({"model": {"n_layers": {"low": 1, "high": 3, "log": "no"}}}, "must be true or false"),
    ({"optimizer": {"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}}, "above 0"),
    ({"optimizer": {"learning_rate": {"low": "a", "high": 1.0}}}, "must be a number"),
    ({"n_parameters": 10, "model": {"d_model": {"low": 8, "high": 16}}}, "Leave one of them out"),
    ({"n_parameters": "many"}, "a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "message"), MISTAKES)
def test_a_mistake_in_a_space_is_one_line(table: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as caught:
        parse_space(table)
    assert "\n" not in str(caught.value)
