"""Layers that a user puts into the model are trained as the plain step trains them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from folio.device import Device, DeviceConfig
from folio.model.gpt import GPT
from folio.recipe.build import build
from folio.recipe.recipe import make_recipe
from folio.training.batches import next_batch, peek
from folio.training.loop import update_weights
from folio.training.parts import Training

pytest.importorskip("numba")

TEXT = np.random.default_rng(0).integers(0, 11, 2000).astype(np.uint8)
TINY = {
    "preset": "modern",
    "model": {"vocab_size": 11, "n_layers": 2, "n_heads": 2, "d_model": 32, "context_length": 16},
    "training": {"batch_size": 8, "max_steps": 20},
}


class Filtered(nn.Module):
    """A sublayer beside a filter over time, a scalar and a temperature of one number."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.filter = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        near = self.filter(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        return self.inner(x) + self.scale * near


def filtered(model: Any) -> None:
    for block in model.blocks:
        block.feed_forward = Filtered(block.feed_forward, 32)


class Warm(nn.Module):
    """A head with a temperature."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.temperature = inner, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) / self.temperature


def warmed(model: Any) -> None:
    """The only vector of the model has a single number."""
    for block in model.blocks:
        for name in ("attention_norm", "feed_forward_norm"):
            setattr(block, name, nn.Identity())
        block.attention.q_norm = block.attention.k_norm = nn.Identity()
    model.final_norm = Warm(nn.Identity())


def dropped(model: Any) -> None:
    for block in model.blocks:
        block.dropout = nn.Dropout(0.2)


MakeTraining = Callable[..., Training]


@pytest.fixture
def training_of(monkeypatch: pytest.MonkeyPatch) -> MakeTraining:
    def make(edit: Callable[[Any], None], fast: Literal["on", "off"], threads: int) -> Training:
        class Edited(GPT):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    edit(self)

        monkeypatch.setattr("folio.recipe.build.GPT", Edited)
        config = DeviceConfig(kind="cpu", precision="float32", threads=threads, fast=fast)
        return build(make_recipe(TINY), Device(config, "test"), TEXT[:-200], TEXT[-200:])

    return make


def weights_after(training: Training, n_steps: int) -> dict[str, Tensor]:
    with training.step.running():
        training.step.refresh()
        for step in range(n_steps):
            gradient = training.step.backward(next_batch(training, step), step)
            update_weights(training, step, gradient)
    return {name: p.detach().clone() for name, p in training.model.named_parameters()}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("edit", [filtered, warmed])
def test_filters_scalars_and_single_numbers_learn_as_in_the_plain_step(
    training_of: MakeTraining, edit: Callable[[Any], None], threads: int
):
    plain = weights_after(training_of(edit, "off", 1), 3)
    begin = dict(training_of(edit, "off", 1).model.named_parameters())
    fast = weights_after(training_of(edit, "on", threads), 3)
    for name, expected in plain.items():
        assert not torch.equal(expected, begin[name]), name
        torch.testing.assert_close(fast[name], expected, rtol=0.02, atol=1e-4)


def test_dropout_of_torchs_own_gives_a_batch_the_same_masks_in_every_process(
    training_of: MakeTraining,
):
    training = training_of(dropped, "on", 2)
    with training.step.running():
        training.step.refresh()
        batch = peek(training)
        losses = [training.step.backward(batch, 0).loss for _ in range(3)]
        assert losses[0] == losses[1] == losses[2] != training.step.backward(batch, 1).loss
        training.step.verify(batch)
