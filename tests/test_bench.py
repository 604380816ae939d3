"""The opponent of the benchmarks is a fair one."""

from __future__ import annotations

from bench.plain_loop import Shape
from bench.training import check_same_function, recipe_of


def test_the_plain_loop_trains_the_same_function_as_the_gpt2_preset():
    shape = Shape(vocab_size=61, context_length=31, n_layers=2, n_heads=3, d_model=24)
    check_same_function(shape, recipe_of(shape))
