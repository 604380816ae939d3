"""The rules for GPUs, against those that are written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from folio.testing import tiny_gpt
from folio.training import optimizers
from folio.training.accelerated.rules import GraphedRule, accelerate_rules, orthogonalize_stack
from folio.training.config import OptimizerConfig
from folio.training.optimizers import Optimizer, orthogonalize
from tests.training.test_optimizers import draw_gradients, every_case, flat


@every_case
def test_an_accelerated_rule_moves_the_weights_as_the_plain_one_does(
    kind: str, settings: dict[str, Any]
):
    ours, theirs = (tiny_gpt(initialization_std=0.3) for _ in range(2))
    config = OptimizerConfig(kind=kind, **settings)
    fast, plain = Optimizer(config, ours), Optimizer(config, theirs)
    accelerate_rules(fast)
    assert any(isinstance(rule, GraphedRule) for rule in fast.rules) == (kind != "sgd")
    for step in range(3):
        for model, optimizer in ((ours, fast), (theirs, plain)):
            draw_gradients(model, step)
            optimizer.step(1 - step / 10)
    assert (flat(ours) - flat(theirs)).norm() <= 3e-5 * flat(theirs).norm()
    assert list(fast.tensors) == list(plain.tensors)
    for name, other in plain.tensors.items():
        torch.testing.assert_close(fast.tensors[name], other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_stacked_matrices_become_orthogonal_one_by_one(shape: tuple[int, int]):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(5, *shape, generator=draw) * 10.0 ** torch.arange(-6, 4, 2).view(5, 1, 1)
    x[3] = 0
    found = orthogonalize_stack(x)
    for one, matrix in zip(found, x):
        torch.testing.assert_close(one, orthogonalize(matrix), rtol=1e-3, atol=1e-4)


def test_an_edited_rule_runs_as_it_is_written(monkeypatch: pytest.MonkeyPatch):
    optimizer = Optimizer(OptimizerConfig(kind="muon"), tiny_gpt())
    before = list(optimizer.rules)
    monkeypatch.setattr(optimizers, "orthogonalize", lambda x: x)
    accelerate_rules(optimizer)
    assert optimizer.rules == before
