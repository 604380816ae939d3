"""Which runs are compiled."""

from __future__ import annotations

from typing import Any

import pytest

from folio.device import Device, DeviceConfig
from folio.recipe import speed
from folio.recipe.compiling import choose_compile
from folio.recipe.recipe import make_recipe


def chosen(
    size: str, max_steps: int, kind: Any = "cuda", seconds: float | None = None, **device: Any
) -> str:
    table = {"size": size, "preset": "gpt2", "model": {"vocab_size": 50_257}}
    recipe = make_recipe(table, {"training": {"max_steps": max_steps}}, {"device": device})
    config = DeviceConfig(kind=kind, precision="bfloat16", threads=1, fast=device.get("fast", "on"))
    return choose_compile(recipe, Device(config, "test"), seconds).device.compile


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "matrix_rate", lambda *given: 600_000.0)  # GFLOP/s


def test_a_run_that_is_long_enough_is_compiled():
    assert chosen("baby", 5_000) == "off"  # 4 ms a step, however small
    assert chosen("baby", 100_000) == "on"
    # 124 M parameters, 16,384 tokens: 14 TFLOP, 0.047 s.
    assert (chosen("small", 5_000), chosen("small", 8_000)) == ("off", "on")
    assert (chosen("nano", 10, seconds=299), chosen("nano", 10, seconds=301)) == ("off", "on")


def test_what_is_asked_for_stays():
    assert chosen("baby", 10, compile="on") == "on"
    assert chosen("baby", 10**6, compile="off") == "off"


def test_only_fast_steps_on_cuda_are_compiled():
    assert chosen("baby", 10**6, fast="off") == "off"
    assert chosen("baby", 10**6, kind="cpu") == "auto"
    assert chosen("baby", 10**6, kind="mps") == "auto"
