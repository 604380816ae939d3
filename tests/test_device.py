from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from folio import device
from folio.device import DeviceConfig, choose_device
from folio.errors import UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}
"""Each with the type of the weights that compute."""


def test_a_choice_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch):
    chosen = choose_device(DeviceConfig())
    assert "auto" not in (chosen.config.kind, chosen.config.precision)
    assert chosen.config.threads == torch.get_num_threads() >= 1
    assert choose_device(chosen.config).config == chosen.config


@pytest.mark.parametrize(
    ("bfloat16", "expected"), [(400.0, "bfloat16"), (110.0, "float32"), (0.5, "float32")]
)
def test_bfloat16_is_taken_where_it_is_measured_to_be_worthwhile(
    monkeypatch: pytest.MonkeyPatch, bfloat16: float, expected: str
):
    rates = {"float32": 100.0, "bfloat16": bfloat16}
    monkeypatch.setattr(device, "matrix_rate", lambda kind, precision, *shape: rates[precision])
    chosen = choose_device(DeviceConfig(kind="cpu"))
    assert chosen.config.precision == expected
    assert f"{bfloat16:.3g} GFLOP/s" in str(chosen)


def test_the_fastest_device_is_taken(monkeypatch: pytest.MonkeyPatch):
    rates = {"cpu": 100.0, "cuda": 5000.0, "mps": 50.0}
    monkeypatch.setattr(device, "_available", lambda kind: True)
    monkeypatch.setattr(device, "matrix_rate", lambda kind, *shape: rates[kind])
    assert choose_device(DeviceConfig(precision="float32")).config.kind == "cuda"


def test_float32_is_not_measured_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "matrix_rate", None)
    asked = DeviceConfig(kind="cpu", precision="float32", threads=1, fast="on")
    assert choose_device(asked).config == asked


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (400.0, "as asked"),
        (80.0, "as asked"),
        (2.0, "as asked, but float32 is 50 times as fast here"),
    ],
)
def test_what_is_asked_for_is_taken_and_said_to_be_slow_where_it_is(
    monkeypatch: pytest.MonkeyPatch, precision: Any, rate: float, reason: str
):
    rates = {"float32": 100.0, precision: rate}
    monkeypatch.setattr(device, "matrix_rate", lambda kind, precision, *shape: rates[precision])
    asked = DeviceConfig(kind="cpu", precision=precision, threads=1, fast="on")
    chosen = choose_device(asked)
    assert chosen.config == asked and chosen.reason == reason


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_product_is_measured(precision: str):
    assert device.matrix_rate("cpu", precision, 256, 64) > 0.01


@pytest.mark.parametrize(("pause", "largest"), [(0.0, (512, 96)), (0.005, (64, 64))])
def test_a_large_product_is_not_tried_where_a_small_one_is_slow(
    monkeypatch: pytest.MonkeyPatch, pause: float, largest: tuple[int, int]
):
    tried = []

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        tried.append(tuple(a.shape))
        time.sleep(pause)
        return a[:1, :1]

    monkeypatch.setattr(torch, "matmul", multiply)
    device.matrix_rate("cpu", "float32", 512, 96)
    assert max(tried) == largest


def test_layers_are_fast_on_a_processor_that_has_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "_available", lambda kind: True)

    def fast(kind: Any, fast: Any) -> str:
        config = DeviceConfig(kind=kind, precision="float32", fast=fast)
        return choose_device(config).config.fast

    assert [fast("cpu", given) for given in ("auto", "on", "off")] == ["on", "on", "off"]
    assert fast("cuda", "auto") == "off"
    monkeypatch.setenv("FOLIO_JIT", "off")
    assert fast("cpu", "auto") == "off"
    with pytest.raises(UserError, match=r"device\.fast is 'on', but .* --device\.fast off"):
        fast("cpu", "on")


def test_int8_takes_the_fast_layers():
    with pytest.raises(UserError, match=r"--device\.fast on"):
        choose_device(DeviceConfig(kind="cpu", precision="int8", fast="off"))


def test_bytes_are_for_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "_available", lambda kind: True)
    assert choose_device(DeviceConfig(precision="int8")).config.kind == "cpu"
    with pytest.raises(UserError, match=r"'int8', which takes a processor, and .* 'cuda'"):
        choose_device(DeviceConfig(kind="cuda", precision="int8"))


def test_negative_threads_are_refused():
    with pytest.raises(UserError, match=r"device\.threads is -1"):
        DeviceConfig(threads=-1)


def test_the_precision_is_a_type_of_torch():
    for precision, dtype in PRECISIONS.items():
        config = DeviceConfig(kind="cpu", precision=precision, threads=1)  # type: ignore[arg-type]
        assert choose_device(config).dtype == dtype
