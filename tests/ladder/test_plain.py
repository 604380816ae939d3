"""Step -1, in plain Python, against step 1 in torch."""

from __future__ import annotations

import ast
from itertools import islice
from pathlib import Path

import pytest
import torch

from folio.ladder import plain
from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import LanguageModel
from folio.ladder.step1_head import build as build_step1
from folio.model.loss import next_token_loss

V, T, C = 7, 5, 4
WINDOWS = [[(3 * i + w * i * i) % V for i in range(T + 1)] for w in range(6)]


def as_step1(weights: dict[str, list[list[plain.Number]]]) -> LanguageModel:
    model = build_step1(Sizes(vocab_size=V, context_length=T, d_model=C)).double()
    assert isinstance(model, LanguageModel)
    values = {
        name: torch.tensor([[x.value for x in row] for row in matrix], dtype=torch.float64)
        for name, matrix in weights.items()
    }
    names = {
        "token_embedding": "token_embedding.weight",
        "position_embedding": "position_embedding.weight",
        "q_proj": "body.q_proj.weight",
        "k_proj": "body.k_proj.weight",
        "v_proj": "body.v_proj.weight",
        "lm_head": "lm_head.weight",
    }
    state = {theirs: values[ours] for ours, theirs in names.items()}
    state |= {"lm_head.bias": values["bias"][0]}
    state |= {"body.lower_triangle": model.state_dict()["body.lower_triangle"]}
    model.load_state_dict(state)
    return model


def test_losses_of_a_training_are_those_of_step_1():
    weights = plain.build(V, T, C)
    model = as_step1(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for window, loss in zip(WINDOWS, plain.train(weights, WINDOWS, learning_rate=1e-2)):
        ids = torch.tensor([window])
        expected = next_token_loss(model(ids[:, :-1]), ids[:, 1:])
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert loss == pytest.approx(expected.item(), abs=1e-6)
    trained = torch.tensor([[x.value for x in row] for row in weights["q_proj"]])
    torch.testing.assert_close(trained, model.state_dict()["body.q_proj.weight"].float())


@pytest.mark.parametrize("x", [1e-9, 0.3, 1.0, 2.5, 40.0])
def test_log_and_exp_undo_each_other(x: float):
    assert plain.Number(x).log().exp().value == pytest.approx(x, rel=1e-9)


def test_a_number_that_is_used_twice_gets_both_gradients():
    x = plain.Number(3.0)
    (x + x / plain.Number(2.0)).backward()
    assert x.gradient == 1.5


def test_it_writes_what_it_learned():
    ids = [i % 3 for i in range(60)]
    weights = plain.build(3, 4, 6)
    windows = (ids[i : i + 5] for i in range(55))
    assert len([*plain.train(weights, windows, learning_rate=0.1)]) == 55
    assert plain.write(weights, [0, 1], 7) == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_it_imports_nothing():
    tree = ast.parse(Path(plain.__file__).read_text(encoding="utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]


def test_draws_are_even():
    draws = [*islice(plain.uniform(5), 4000)]
    assert all(0 <= x < 1 for x in draws)
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.02)
