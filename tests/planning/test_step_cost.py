"""The time of a step on GPUs follows from its shape, the cards and the wires."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.planning.gpus import GPUS, gpu_of
from folio.planning.step_cost import (
    COMPILED,
    all_reduce_seconds,
    block_matrices,
    computing,
    muon_flops,
)

GPT2 = ModelConfig(n_layers=12, d_model=768, n_heads=12, vocab_size=50_304, context_length=1024)
A100, H100 = GPUS["a100"], GPUS["h100"]


def test_an_a100_computes_gpt2_as_fast_as_llm_c_did():
    # https://github.com/karpathy/llm.c/blob/master/scripts/run_gpt2_124M.sh: about 300 ms.
    assert computing(GPT2, A100, 64 * 1024, 1, COMPILED).seconds == pytest.approx(0.3, rel=0.05)


def test_matrices_of_a_block_are_counted_as_they_are():
    assert block_matrices(GPT2) == 12 * 768**2
    grouped = replace(GPT2, n_kv_heads=3, activation="swiglu", d_ff=2048)
    assert block_matrices(grouped) == 2 * 768 * 768 + 2 * 768 * 192 + 3 * 768 * 2048


def test_parts_grow_with_what_they_depend_on():
    once = computing(GPT2, A100, 1024, 1)
    twice = computing(GPT2, A100, 2048, 1)
    assert twice.products == pytest.approx(2 * once.products)
    assert twice.update == once.update
    longer = computing(replace(GPT2, context_length=2048), A100, 1024, 1)
    assert longer.attention == pytest.approx(2 * once.attention)
    assert computing(GPT2, A100, 2048, 2).update > twice.update


def test_few_tokens_take_as_long_as_python_needs_to_start_them():
    few, fewer = (computing(GPT2, H100, n, 1) for n in (64, 32))
    assert few.seconds == fewer.seconds == few.launching
    many = computing(GPT2, H100, 64 * 1024, 1)
    assert many.seconds == pytest.approx(many.products + many.attention + many.memory + many.update)


def test_muon_multiplies_as_its_polynomials_say():
    d = 64
    square = ModelConfig(n_layers=1, d_model=d, n_heads=1, d_ff=d, vocab_size=8)
    # orthogonalize: twice x x^T, five products with its square, and one with x; one square more.
    assert muon_flops(square) == 6 * (2 * (2 + 5 * 2 + 2) + 2) * d**3
    assert computing(GPT2, A100, 1024, 1, optimizer="muon").update > 0.05


def test_an_all_reduce_sends_nothing_alone_and_twice_the_bytes_among_many():
    assert all_reduce_seconds(1e9, 1, 1, 1e9, 1e9) == 0
    assert all_reduce_seconds(1e9, 2, 1, 1e9, 1e9) == pytest.approx(1, rel=0.01)
    assert all_reduce_seconds(1e9, 1000, 1, 1e9, 1e9) == pytest.approx(2, rel=0.01)


def test_the_slower_wire_decides():
    fast = all_reduce_seconds(1e9, 16, 2, 100e9, 400e9)
    assert fast == pytest.approx(all_reduce_seconds(1e9, 16, 1, 100e9, 0), rel=0.02)
    slow = all_reduce_seconds(1e9, 16, 2, 100e9, 1.25e9)
    assert slow == pytest.approx(2 * 15 / 16 / (0.85 * 1.25), rel=0.01)
    # With a GPU in each machine nothing goes over a link.
    assert all_reduce_seconds(1e9, 16, 16, 1, 1.25e9) == pytest.approx(slow)


def test_an_unknown_card_gets_the_nearest_as_an_answer():
    assert gpu_of("H100") is GPUS["h100"]
    with pytest.raises(UserError, match="Did you mean 'h100'"):
        gpu_of("h10")
