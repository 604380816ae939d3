"""Before a run its step is compared with torch alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.fast.attention import FastAttention
from folio.recipe import check as module
from folio.recipe.build import build
from folio.recipe.check import LEARNED, TOLERANCE, agree, check, compare
from folio.recipe.presets import FAMILIES
from folio.recipe.recipe import Recipe, make_recipe
from folio.storage import cache_folder
from folio.training.batches import peek
from folio.training.parts import Training
from folio.training.step import Gradient
from tests.conftest import INT8

pytest.importorskip("numba")

TEXT = np.random.default_rng(0).integers(0, 11, 2000).astype(np.uint8)


@pytest.fixture(autouse=True)
def no_verdicts() -> None:
    (cache_folder() / "checks").unlink()


def recipe_of(family: str = "modern") -> Recipe:
    shape = {"vocab_size": 11, "n_layers": 1, "n_heads": 2, "d_model": 64, "context_length": 64}
    return make_recipe(
        {
            "preset": family,
            "model": {**shape, "residual_dropout": 0.2, "attention_dropout": 0.2},
            "training": {"batch_size": 4, "max_steps": 2},
        }
    )


def training_of(recipe: Recipe, precision: str = "float32", threads: int = 2) -> Training:
    config = DeviceConfig(kind="cpu", precision=precision, threads=threads, fast="on")  # type: ignore[arg-type]
    return build(recipe, Device(config, "test"), TEXT[:-100], TEXT[-100:])


def verdicts() -> list[Any]:
    return [json.loads(p.read_text()) for p in (cache_folder() / "checks").glob("*.json")]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", INT8])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_fast_step_computes_what_torch_computes(family: str, precision: str):
    recipe = recipe_of(family)
    training = training_of(recipe, precision)
    before = [p.detach().clone() for p in training.model.parameters()]
    random = torch.get_rng_state()
    found, expected = compare(training.model, training.device, recipe, peek(training))
    for ours, theirs, tolerance in zip(found, expected, TOLERANCE[precision]):
        assert ours == pytest.approx(theirs, rel=tolerance)
    assert all(torch.equal(p, b) for p, b in zip(training.model.parameters(), before))
    assert torch.equal(torch.get_rng_state(), random), "a run draws what it would have drawn"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fast_layer_that_computes_something_else_stops_the_run(
    threads: int, monkeypatch: pytest.MonkeyPatch
):
    original = FastAttention.forward
    wrong = lambda layer, x, cache=None: 0.5 * original(layer, x, cache)  # noqa: E731
    monkeypatch.setattr(FastAttention, "forward", wrong)
    recipe = recipe_of()
    with pytest.raises(UserError) as error:
        check(training_of(recipe, threads=threads), recipe)
    said = str(error.value)
    assert "--device.fast off" in said and "cannot be trusted" in said
    numbers = [float(word) for word in said.replace(":", "").split() if word[0].isdigit()]
    assert len(numbers) == 4 and numbers[1] != numbers[3]
    assert not verdicts()


def test_a_model_that_is_not_finite_by_torch_alone_is_not_blamed_on_the_device():
    recipe = recipe_of()
    training = training_of(recipe)
    with torch.no_grad():
        next(training.model.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="By torch alone, the model has a loss of nan") as error:
        check(training, recipe)
    assert "--device" not in str(error.value)


@pytest.mark.parametrize(
    ("found", "expected", "agrees"),
    [
        ((0.4840, 17.27), (0.4828, 17.31), True),  # a text of one letter, bfloat16
        ((0.4860, 17.31), (0.4828, 17.31), False),
        ((4.0070, 1.0), (4.0, 1.0), True),
        ((4.0090, 1.0), (4.0, 1.0), False),
        ((0.1, 0.0100), (0.1, 0.0102), False),
        ((float("nan"), 1.0), (4.0, 1.0), False),
    ],
)
def test_a_small_loss_may_be_off_as_one_of_a_nat(
    found: tuple[float, float], expected: tuple[float, float], agrees: bool
):
    assert agree(Gradient(*found), Gradient(*expected), "bfloat16") == agrees


def test_a_verdict_is_kept_until_the_sources_or_the_model_change(
    monkeypatch: pytest.MonkeyPatch,
):
    compared: list[str] = []

    def counting(model: nn.Module, *rest: Any) -> tuple[Gradient, Gradient]:
        compared.append(type(model).__name__)
        return compare(model, *rest)

    monkeypatch.setattr(module, "compare", counting)
    recipe = recipe_of()
    for _ in range(2):
        check(training_of(recipe), recipe)
    assert len(compared) == 1 == len(verdicts())
    check(training_of(recipe, "bfloat16"), recipe)
    assert len(compared) == 2
    hooked = training_of(recipe)
    hooked.model.register_forward_hook(lambda *_: None)
    for _ in range(2):
        check(hooked, recipe)
    assert len(compared) == 4, "of a model that somebody changed no verdict is kept"
    monkeypatch.setattr(module, "CHECKED", ("model",))  # other sources, as after an edit
    check(training_of(recipe), recipe)
    assert len(compared) == 5


def test_the_plain_steps_verdict_is_none_on_the_fast_step_nor_on_that_of_another_numba(
    monkeypatch: pytest.MonkeyPatch,
):
    recipe = recipe_of()
    plain = DeviceConfig(kind="cpu", precision="bfloat16", threads=1, fast="off")
    check(build(recipe, Device(plain, "test"), TEXT[:-100], TEXT[-100:]), recipe)
    assert len(verdicts()) == 1
    check(training_of(recipe, "bfloat16", threads=1), recipe)
    assert len(verdicts()) == 2
    monkeypatch.setattr("numba.__version__", "another")
    check(training_of(recipe, "bfloat16", threads=1), recipe)
    assert len(verdicts()) == 3


def test_a_cache_that_cannot_be_written_ends_no_run(monkeypatch: pytest.MonkeyPatch):
    def full(path: object, value: object) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(module, "write_json", full)
    recipe = recipe_of()
    check(training_of(recipe), recipe)
    assert not verdicts()


def test_an_accelerator_that_computes_something_else_is_told_of(monkeypatch: pytest.MonkeyPatch):
    recipe = recipe_of()
    config = DeviceConfig(kind="cpu", precision="float32", threads=1, fast="off")
    training = build(recipe, Device(config, "test"), TEXT[:-100], TEXT[-100:])
    check(training, recipe)  # torch alone, in float32 on the processor, is what others are held to
    accelerator = Device(DeviceConfig(kind="cuda", precision="float32", fast="off"), "test")
    monkeypatch.setattr(module, "compare", lambda *_: (Gradient(2.0, 1.0), Gradient(1.0, 1.0)))
    object.__setattr__(training, "device", accelerator)
    with pytest.raises(UserError, match=r"2\.0000 .* 1\.0000 .*trusted.* --device\.kind cpu"):
        check(training, recipe)


def test_layers_that_are_not_accelerated_are_told_of():
    recipe, said = recipe_of(), []
    check(training_of(recipe), recipe, said.append)
    assert not said
    training = training_of(recipe)

    def halve(layer: nn.Module, args: object, y: Tensor) -> Tensor:
        return 0.5 * y

    training.model.get_submodule("blocks.0.attention").register_forward_hook(halve)
    check(training, recipe, said.append)
    (line,) = said
    assert "not accelerated" in line and "Attention (blocks.0.attention)" in line


def test_weights_that_have_learned_may_be_off_by_more():
    found, expected = Gradient(4.1344, 0.8402), Gradient(4.1444, 0.8418)  # of SmolLM2-135M
    assert not agree(found, expected, "bfloat16")
    assert agree(found, expected, "bfloat16", LEARNED)
    assert not agree(found._replace(loss=4.08), expected, "bfloat16", LEARNED)
