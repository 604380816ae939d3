"""Whatever Python state changes while a run goes on either counts, or is found at an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.model.attention import Attention
from folio.recipe.build import build
from folio.recipe.recipe import make_recipe
from folio.training.batches import peek
from folio.training.loop import train
from folio.training.parallel.step import ParallelStep
from folio.training.parts import Training
from folio.training.state import TrainingState

pytest.importorskip("numba")
pytestmark = pytest.mark.usefixtures("small_ones_too")

TEXT = np.random.default_rng(0).integers(0, 11, 600).astype(np.uint8)


def training_of(threads: int, fast: str = "on") -> Training:
    recipe = make_recipe(
        {
            "preset": "modern",
            "model": {"vocab_size": 11, "n_layers": 2, "n_heads": 2, "d_model": 16}
            | {"context_length": 8, "initialization_std": 0.3},
            "training": {"batch_size": 4, "max_steps": 9, "evaluation_interval": 3}
            | {"log_interval": 1},
        }
    )
    config = DeviceConfig(kind="cpu", precision="float32", threads=threads, fast=fast)  # type: ignore[arg-type]
    return build(recipe, Device(config, "test"), TEXT[:-60], TEXT[-60:])


class Scaled(Attention):
    """An attention of somebody's own, which reads a number from Python."""

    factor = 1.0

    def forward(self, x: Tensor, cache: object = None) -> Tensor:
        return self.factor * super().forward(x, cache)  # type: ignore[arg-type]


def halve(layer: nn.Module, args: object, y: Tensor) -> Tensor:
    return 0.5 * y


class During:
    """An observer that does something after the fourth step."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.losses = act, []

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        self.losses.append(loss)
        if state.step == 4:
            self.act()

    def evaluated(self, state: Any, evaluation: Any) -> None: ...

    def paced(self, plan: Any) -> None: ...

    def save(self, state: Any) -> None: ...

    def ended(self, state: Any, ending: Any) -> None: ...


def replica_of(training: Training) -> nn.Module:
    assert isinstance(training.step, ParallelStep)
    return training.step.parallel.replicas[0].model


def run(training: Training, act: Callable[[], object]) -> tuple[str, int]:
    """Train while something happens; returns what was said of it, and after how many steps."""
    state = TrainingState()
    try:
        return train(training, state, During(act)), state.step
    except UserError as error:
        return str(error), state.step


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_nobody_touches_is_what_it_says(threads: int):
    assert run(training_of(threads), lambda: None) == ("finished", 9)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_hook_that_comes_later_on_the_model_is_found(threads: int):
    training = training_of(threads)
    block = training.model.get_submodule("blocks.0")
    said, step = run(training, lambda: block.register_forward_hook(halve))
    assert (
        "hooks of blocks.0 is 1 in the model" in said and "--device.fast off" in said and step == 6
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_an_attribute_of_the_model_that_changes_is_found(threads: int):
    training = training_of(threads)
    norm = training.model.get_submodule("blocks.1.attention_norm")
    said, step = run(training, lambda: setattr(norm, "eps", 0.5))
    assert "blocks.1.attention_norm.eps is 0.5 in the model" in said and "1e-06" in said
    assert step == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_a_layer_that_is_put_in_later_is_found(threads: int):
    training = training_of(threads)
    block = training.model.get_submodule("blocks.0")
    said, step = run(training, lambda: setattr(block, "feed_forward", nn.Identity()))
    assert "--device.fast off" in said and step == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_a_class_that_is_edited_later_is_found(threads: int, monkeypatch: pytest.MonkeyPatch):
    original = Attention.forward
    edited = lambda layer, x, cache=None: 0.5 * original(layer, x, cache)  # noqa: E731
    training = training_of(threads)
    said, step = run(training, lambda: monkeypatch.setattr(Attention, "forward", edited))
    assert "code of the model was changed" in said and "--device.fast off" in said and step == 6


def test_an_attribute_that_a_captured_step_does_not_see_is_found_with_both_numbers():
    training = training_of(1)
    norm = replica_of(training).get_submodule("blocks.1.attention_norm")
    said, step = run(training, lambda: setattr(norm, "eps", 0.5))
    assert "as it was captured" in said and "--device.fast off" in said and step == 6
    numbers = [word.strip(",") for word in said.split() if word[0].isdigit()]
    assert len(numbers) == 4 and numbers[0] != numbers[2] and numbers[1] != numbers[3]


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Training]:
    """A training whose attention is a subclass, put in before the replicas are made."""
    import folio.model.block as block

    monkeypatch.setattr(block, "Attention", Scaled)
    monkeypatch.setattr(Scaled, "factor", 1.0)
    return training_of


def test_a_number_of_a_layer_of_ones_own_counts_at_once_in_one_process(
    scaled: Callable[[int], Training],
):
    training, observer = scaled(1), During(lambda: setattr(Scaled, "factor", 0.0))
    other = During(lambda: None)
    assert train(training, TrainingState(), observer) == "finished"
    Scaled.factor = 1.0
    assert train(scaled(1), TrainingState(), other) == "finished"
    assert observer.losses[:4] == other.losses[:4] and observer.losses[4] != other.losses[4]


def test_a_number_of_a_layer_of_ones_own_that_other_processes_do_not_see_is_found(
    scaled: Callable[[int], Training],
):
    said, step = run(scaled(2), lambda: setattr(Scaled, "factor", 0.0))
    assert "in worker 1" in said and "--device.fast off" in said and step == 6


def test_a_hook_that_comes_later_on_a_replica_counts_at_once():
    training = training_of(1)
    step, batch = training.step, peek(training)
    before = [step.backward(batch, 0) for _ in range(2)]
    handle = replica_of(training).get_submodule("blocks.0").register_forward_hook(halve)
    hooked = step.backward(batch, 0)
    handle.remove()
    assert before[0] == before[1] == step.backward(batch, 0)
    assert abs(hooked.loss - before[0].loss) > 1e-3
    parameter = replica_of(training).get_parameter("blocks.0.attention.out_proj.weight")
    parameter.register_hook(torch.zeros_like)
    assert step.backward(batch, 0).norm < 0.999 * before[0].norm


@pytest.mark.parametrize("fast", ["on", "off"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_hook_that_is_there_from_the_start_is_trained(
    threads: int, fast: str, monkeypatch: pytest.MonkeyPatch
):
    import folio.recipe.build as rooms

    class Hooked(rooms.GPT):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.blocks[0].register_forward_hook(halve)

    plain = training_of(1, "off").step.backward(peek(training_of(1)), 0)
    monkeypatch.setattr(rooms, "GPT", Hooked)
    reference = training_of(1, "off")
    expected = reference.step.backward(peek(reference), 0)
    training = training_of(threads, fast)
    with training.step.running():
        for _ in range(3):
            found = training.step.backward(peek(training), 0)
        training.step.verify(peek(training))
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(found.loss - plain.loss) > 1e-3


def test_of_a_step_too_large_to_capture_one_window_is_compared():
    training, seen = training_of(1), list[int]()
    step, batch = training.step, peek(training)
    assert isinstance(step, ParallelStep) and len(batch.inputs) > 1
    captured = step.parallel.replicas[0].backward
    function = captured.function

    def counted(*inputs: Tensor) -> Tensor:
        seen.append(len(inputs[0]))
        return function(*inputs)

    captured.function, captured.max_bytes = counted, 0
    step.backward(batch, 0)
    step.verify(batch)
    assert seen == [len(batch.inputs), 1]
