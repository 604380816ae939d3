import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from folio.fast.decoder import (
    TRY_AGAIN_SECONDS,
    FasterThreads,
    SingleRowDecoder,
    decoder_for,
    single_row_applies,
)
from folio.generation.engine import generate
from folio.generation.readers import reader_for
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache

# V, context, H, C, F all different, and no power of two among those that loops run over.
SMALL = ModelConfig(vocab_size=37, context_length=11, n_layers=2, n_heads=3, d_model=30, d_ff=52)

CHANGES = [
    {},
    {"positions": "none"},
    {"positions": "sinusoidal"},
    {"positions": "rope"},
    {"positions": "rope", "rope_base": 7.0},
    {"normalization": "rmsnorm"},
    {"normalization_epsilon": 0.5},
    {"normalization": "rmsnorm", "normalization_epsilon": 0.5},
    {"bias": False},
    {"norm_placement": "post"},
    {"norm_placement": "both"},
    {"norm_placement": "none"},
    {"qk_norm": True},
    {"qk_norm": True, "normalization": "rmsnorm", "positions": "rope"},
    {"n_kv_heads": 1},
    {"n_heads": 6, "n_kv_heads": 2},
    {"activation": "relu"},
    {"activation": "relu2"},
    {"activation": "gelu_tanh"},
    {"head_dim": 14},
    {"head_dim": 6, "n_kv_heads": 1, "positions": "rope", "qk_norm": True, "bias": False},
    {"activation": "swiglu"},
    {"d_ff": 0, "activation": "swiglu", "bias": False},
    {"tied_head": False},
    {"scale_embeddings": True},
    {"n_layers": 3, "n_heads": 5, "context_length": 6, "d_model": 20, "vocab_size": 3},
    {"embedding_dropout": 0.5, "attention_dropout": 0.5, "residual_dropout": 0.5},
    {"initialization_std": 0.3},
    {
        "positions": "rope",
        "normalization": "rmsnorm",
        "norm_placement": "both",
        "qk_norm": True,
        "n_heads": 6,
        "n_kv_heads": 3,
        "d_model": 60,
        "activation": "swiglu",
        "bias": False,
        "tied_head": False,
        "scale_embeddings": True,
    },
]


def random_model(config: ModelConfig) -> GPT:
    """Every parameter random: with gains of 1 and biases of 0 their places could be swapped."""
    model = GPT(config).eval()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(gain + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def describe(changes: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in changes.items()) or "textbook"


@pytest.mark.parametrize("changes", CHANGES, ids=describe)
@torch.inference_mode()
def test_each_step_gives_the_logits_of_the_whole_text_read_at_once(changes: dict[str, Any]):
    model = random_model(replace(SMALL, **changes))
    config = model.config
    token_ids = torch.randint(
        config.vocab_size, (1, config.context_length), generator=torch.Generator().manual_seed(1)
    )
    expected = model(token_ids)  # (1, context, V)
    decoder, cache = SingleRowDecoder(model), KVCache(config, 1, like=model.lm_head.weight)
    n_prompt = 4
    assert decoder(token_ids[:, :n_prompt], cache).shape == (1, n_prompt, config.vocab_size)
    for t in range(n_prompt, config.context_length):
        logits = decoder(token_ids[:, t : t + 1], cache)
        assert logits.shape == (1, 1, config.vocab_size)
        torch.testing.assert_close(logits[0, 0], expected[0, t], atol=1e-4, rtol=1e-5)
    assert cache.length == config.context_length


def test_every_field_of_the_model_is_compared():
    compared = {name for changes in CHANGES for name in changes}
    assert {field.name for field in fields(ModelConfig)} == compared


@torch.inference_mode()
def test_the_cache_passes_between_the_step_and_the_model():
    model = random_model(replace(SMALL, n_kv_heads=1, positions="rope"))
    token_ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    decoder, cache = SingleRowDecoder(model), KVCache(model.config, 1, like=model.lm_head.weight)
    readers = [decoder, model, decoder, decoder, model, model, decoder, model]
    logits = [read(token_ids[:, t : t + 1], cache) for t, read in enumerate(readers)]
    torch.testing.assert_close(torch.cat(logits, dim=1), model(token_ids), atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_logits_stay_after_the_next_step():
    model = random_model(SMALL)
    decoder, cache = SingleRowDecoder(model), KVCache(model.config, 1, like=model.lm_head.weight)
    first = decoder(torch.tensor([[3]]), cache)
    kept = first.clone()
    decoder(torch.tensor([[4]]), cache)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize("n_prompt", [1, 5, 11, 15])
def test_text_is_the_same_with_and_without_the_step_far_past_the_full_context(
    temperature: float, n_prompt: int
):
    model = random_model(replace(SMALL, tied_head=False))
    prompt = [[i % 37 for i in range(n_prompt)]]

    def text(compiled: bool) -> list[int]:
        config = SamplingConfig(temperature=temperature, seed=2)
        reader = reader_for(model, 1, compiled)
        tokens = generate(model, prompt, config, max_tokens=60, reader=reader)
        return [int(token) for token in tokens]

    with_step = text(True)
    assert with_step == text(False)
    assert len(set(with_step)) > 5  # else the text could not tell the two apart


def test_it_applies_to_one_sequence_of_a_plain_float32_model_only():
    class OtherGPT(GPT):
        pass

    assert single_row_applies(GPT(SMALL), 1)
    assert not single_row_applies(GPT(SMALL), 2)
    assert not single_row_applies(GPT(SMALL).bfloat16(), 1)
    assert not single_row_applies(GPT(SMALL).to("meta"), 1)
    assert not single_row_applies(OtherGPT(SMALL), 1)


def test_without_numba_the_model_itself_generates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOLIO_JIT", "off")
    model = random_model(SMALL)
    assert not single_row_applies(model, 1)
    assert decoder_for(model, 1, None) is None


@torch.inference_mode()
def test_what_the_model_refuses_is_refused_in_its_words():
    model = random_model(SMALL)
    decoder, cache = SingleRowDecoder(model), KVCache(model.config, 1, like=model.lm_head.weight)
    for bad in (-1, 37):
        with pytest.raises(IndexError):
            decoder(torch.tensor([[bad]]), cache)
    cache.length = 0
    decoder(torch.zeros(1, 11, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="12 positions were asked for"):
        decoder(torch.tensor([[1]]), cache)


@torch.inference_mode()
def test_all_shapes_share_one_compiled_step():
    from folio.fast.kernels.decoder import step

    for changes in CHANGES:
        model = random_model(replace(SMALL, **changes))
        cache = KVCache(model.config, 1, like=model.lm_head.weight)
        SingleRowDecoder(model)(torch.tensor([[1]]), cache)
    compiled: Any = step  # as numba makes it
    assert len(compiled.signatures) == 1


def test_numba_is_not_imported_before_a_decoder_is_made():
    code = "import sys, folio.generation.engine; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("max_tokens", "wanted", "made"),
    [
        (199, None, False),
        (200, None, True),
        (None, None, True),
        (1, True, True),
        (300, False, False),
    ],
)
def test_a_decoder_is_made_where_the_text_pays_for_it(
    max_tokens: int | None, wanted: bool | None, made: bool
):
    decoder = decoder_for(GPT(SMALL).eval(), 1, max_tokens, wanted)
    assert isinstance(decoder, SingleRowDecoder) == made
    assert decoder_for(GPT(SMALL).eval(), 2, max_tokens, wanted) is None


def test_one_thread_is_taken_while_all_are_slower_and_all_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
):
    clock, taken, slow = [0.0], [], {1: 0.003, 2: 0.25}
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    threads = FasterThreads(2)

    def steps(n: int) -> list[int]:
        taken.clear()
        for _ in range(n):
            with threads.timed() as n_threads:
                taken.append(n_threads)
                clock[0] += slow[n_threads]
        return taken[2:]  # after one trial of each

    assert steps(50) == [1] * 48
    slow[2] = 0.001
    clock[0] += TRY_AGAIN_SECONDS
    assert steps(50)[1:] == [2] * 47


@torch.inference_mode()
def test_the_number_of_threads_does_not_change_a_bit_of_the_logits():
    model = random_model(SMALL)
    decoder, made = SingleRowDecoder(model), []
    for n_threads in (1, max(decoder.threads.seconds)):
        cache = KVCache(model.config, 1, like=model.lm_head.weight)
        decoder.threads.seconds = {n_threads: 0.0}
        decoder.threads.try_again_at = float("inf")
        made.append([decoder(torch.tensor([[t]]), cache) for t in range(9)])
    assert all(torch.equal(one, all_) for one, all_ in zip(*made))


@torch.inference_mode()
def test_a_step_leaves_numba_its_number_of_threads():
    import numba

    decoder = SingleRowDecoder(random_model(SMALL))
    decoder.threads.seconds = {1: 0.0}
    before = numba.get_num_threads()
    decoder(torch.tensor([[1]]), KVCache(SMALL, 1, like=torch.empty(0)))
    assert numba.get_num_threads() == before
