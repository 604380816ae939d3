"""The compiled decoder gives the logits of the model, however tokens are read."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from folio.fast import decoder as decoding
from folio.fast.decoder import MOST_TOKENS, Cache
from folio.fast.packing import Precision
from folio.fast.stand_in import applies, arrays_of, decoder_for
from folio.generation.readers import reader_for
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from tests.forked import Forked
from tests.generation.writing import write_ids

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


class Decoder(decoding.Decoder):
    """With models and tensors, as the model has them."""

    def __init__(self, model: GPT, precision: Precision = "float32", n_threads: int = 2) -> None:
        super().__init__(arrays_of(model), precision, n_threads)

    def logits(self, token_ids: Sequence[Tensor], caches: Sequence[Cache]) -> Tensor:
        return torch.from_numpy(self.read([ids.tolist() for ids in token_ids], caches))


def random_ids(config: ModelConfig, length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (length,), generator=generator)


@pytest.mark.parametrize("changes", CHANGES, ids=describe)
@torch.inference_mode()
def test_each_step_gives_the_logits_of_the_whole_text_read_at_once(changes: dict[str, Any]):
    model = random_model(replace(SMALL, **changes))
    config = model.config
    token_ids = random_ids(config, config.context_length)
    expected = model(token_ids[None])[0]  # (context, V)
    decoder = Decoder(model)
    (cache,) = decoder.caches(1)
    n_prompt = 4
    found = [decoder.logits([token_ids[:n_prompt]], [cache])]
    found += [decoder.logits([one], [cache]) for one in token_ids[n_prompt:, None]]
    assert all(logits.shape == (1, config.vocab_size) for logits in found)
    torch.testing.assert_close(torch.cat(found), expected[n_prompt - 1 :], atol=1e-4, rtol=1e-5)
    assert cache.length == config.context_length


def test_every_field_of_the_model_is_compared():
    compared = {name for changes in CHANGES for name in changes}
    assert {field.name for field in fields(ModelConfig)} == compared


LONG = replace(SMALL, context_length=70, positions="rope", qk_norm=True)
PRECISIONS: list[Precision] = ["float32", "bfloat16", "int8"]
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


@each_precision
@torch.inference_mode()
def test_a_text_is_the_same_alone_and_beside_others_and_in_any_parts_to_the_last_bit(
    precision: Precision,
):
    """Parts of one, of a few and of more than a step reads; neighbours with other lengths."""
    model = random_model(LONG)
    decoder, token_ids = Decoder(model, precision), random_ids(LONG, 60)
    (alone,) = decoder.caches(1)
    one_by_one = torch.cat([decoder.logits([one], [alone]) for one in token_ids[:, None]])
    assert one_by_one.isfinite().all()

    for sizes in ([60], [1, 59], [7, 2, 3, 4, 5, 6, 33], [MOST_TOKENS, 12], [MOST_TOKENS + 1, 11]):
        caches, mine, place = decoder.caches(31), 5, 0
        for turn, size in enumerate(sizes):
            others = [random_ids(LONG, 1 + (turn + n) % 2, seed=n) for n in range(30)]
            asked = [*others[:mine], token_ids[place : place + size], *others[mine:]]
            found = decoder.logits(asked, caches)[mine]
            place += size
            assert torch.equal(found, one_by_one[place - 1]), (sizes, place)


@each_precision
@torch.inference_mode()
def test_the_number_of_threads_does_not_change_a_bit_of_the_logits(precision: Precision):
    model = random_model(LONG)
    made = []
    for n_threads in (1, 2, 3, 5):
        decoder = Decoder(model, precision, n_threads)
        decoder.use_threads(n_threads)
        caches = decoder.caches(4)
        prompts = [random_ids(LONG, 1 + 5 * n, seed=n) for n in range(4)]
        logits = [decoder.logits(prompts, caches)]
        logits += [decoder.logits([torch.tensor([t])] * 4, caches) for t in range(5)]
        logits += [decoder.logits([torch.tensor([t])], caches[:1]) for t in range(5)]
        made.append(torch.cat(logits))
    for other in made[1:]:
        assert torch.equal(made[0], other)


def rounded(x: Tensor, precision: Precision) -> Tensor:
    """The numbers that are left of rows in a precision."""
    if precision == "bfloat16":
        return x.bfloat16().float()
    scales = x.abs().amax(dim=-1, keepdim=True) / 127
    return (x / scales).round() * scales


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize(
    "changes", [{}, {"n_heads": 5, "n_kv_heads": 1, "activation": "swiglu"}], ids=describe
)
@torch.inference_mode()
def test_weights_and_what_they_are_multiplied_with_are_rounded_and_nothing_else(
    precision: Precision, changes: dict[str, Any]
):
    model = random_model(replace(LONG, tied_head=False, **changes))
    decoder, token_ids = Decoder(model, precision), random_ids(LONG, 3)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(rounded(layer.weight, precision))
            layer.register_forward_pre_hook(lambda _, args: (rounded(args[0], precision),))
    found = decoder.logits([token_ids], decoder.caches(1))[0]
    # Of a longer text some number would be halfway between two, and go the other way.
    torch.testing.assert_close(found, model(token_ids[None])[0, -1], atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_rows_of_several_pools_are_read_together_in_any_order():
    model = random_model(SMALL)
    decoder, ids = Decoder(model), [random_ids(SMALL, n + 1, seed=n) for n in range(4)]
    a, b = decoder.caches(2), decoder.caches(3)
    found = decoder.logits(ids, [a[1], b[2], a[0], b[0]])
    assert [cache.length for cache in (a[1], b[2], a[0], b[0])] == [1, 2, 3, 4]
    for row, of_row in zip(ids, found):
        torch.testing.assert_close(of_row, model(row[None])[0, -1], atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_logits_stay_after_the_next_step():
    model = random_model(SMALL)
    decoder = Decoder(model)
    caches = decoder.caches(1)
    first = decoder.logits([torch.tensor([3])], caches)
    kept = first.clone()
    decoder.logits([torch.tensor([4])], caches)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("positions", ["learned", "rope"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_a_text_is_that_of_the_model_alone_and_beside_29_others_far_past_the_full_context(
    temperature: float, positions: str
):
    model = random_model(replace(SMALL, tied_head=False, positions=positions))
    prompts = [[i % 37 for i in range(1 + n % 15)] for n in range(30)]

    def texts(number: int, n_texts: int, compiled: bool) -> list[list[int]]:
        config = SamplingConfig(temperature=temperature, seed=2 + number)
        some, reader = prompts[number : number + n_texts], reader_for(model, compiled)
        steps = write_ids(reader, some, config, max_tokens=60)
        return np.stack(list(steps)).T.tolist()

    together = texts(0, 30, True)
    assert len({token for text in together for token in text}) > 5  # else they tell nothing apart
    for number in (0, 5, 29):
        assert [together[number]] == texts(number, 1, True) == texts(number, 1, False)


def test_nothing_is_written_beside_the_rows_and_positions_that_are_read():
    decoder = Decoder(random_model(replace(SMALL, head_dim=14)))
    cache = decoder.caches(3)[1]
    both = cache.pool.keys, cache.pool.values
    for array in both:
        array.fill(7.0)
    cache.length = 2
    decoder.read([[5, 6, 7]], [cache])
    for array in both:
        touched = (array != 7.0).any(axis=-1)  # (L, B, K, S)
        expected = np.zeros_like(touched)
        expected[:, 1, :, 2:5] = True
        assert np.array_equal(touched, expected)


def test_it_applies_to_a_plain_float32_model_only():
    class OtherGPT(GPT):
        pass

    assert applies(GPT(SMALL))
    assert not applies(GPT(SMALL).bfloat16())
    assert not applies(GPT(SMALL).to("meta"))
    assert not applies(OtherGPT(SMALL))


def test_without_numba_the_model_itself_generates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOLIO_JIT", "off")
    model = random_model(SMALL)
    assert not applies(model)
    assert decoder_for(model) is None


@torch.inference_mode()
def test_what_the_model_refuses_is_refused_and_leaves_the_caches_as_they_were():
    model = random_model(SMALL)
    decoder = Decoder(model)
    caches = decoder.caches(2)
    decoder.logits([torch.tensor([1, 2]), torch.tensor([3])], caches)
    good = torch.tensor([1])
    for bad in ([-1], [37], [5, 37], []):
        with pytest.raises(IndexError, match="token ids must be 0 to 36"):
            decoder.logits([good, torch.tensor(bad, dtype=torch.long)], caches)
    with pytest.raises(ValueError, match="12 positions were asked for"):
        decoder.logits([good, torch.arange(11)], caches)
    assert [cache.length for cache in caches] == [2, 1]


def test_numba_is_not_imported_before_a_decoder_is_made():
    code = "import sys, folio.generation.engine; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_decoder_is_made_unless_it_is_not_wanted():
    assert isinstance(decoder_for(GPT(SMALL).eval()), decoding.Decoder)
    assert isinstance(decoder_for(GPT(SMALL).eval(), True), decoding.Decoder)
    assert decoder_for(GPT(SMALL).eval(), False) is None


@torch.inference_mode()
def test_threads_end_with_their_decoder_and_a_decoder_may_rest_between_steps():
    before = set(threading.enumerate())
    model = random_model(SMALL)
    decoder = Decoder(model, n_threads=3)
    decoder.use_threads(3)
    caches = decoder.caches(1)
    found = list[Tensor]()
    for token_id in (1, 2, 3):
        found.append(decoder.logits([torch.tensor([token_id])], caches))
        decoder._threads.wait_until_asleep()
    followers = set(threading.enumerate()) - before
    assert len(followers) == 2
    torch.testing.assert_close(torch.cat(found), model(torch.tensor([[1, 2, 3]]))[0])
    del decoder
    gc.collect()
    for thread in followers:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.xdist_group("forked")
@torch.inference_mode()
def test_a_forked_process_decodes_with_threads_of_its_own():
    code = """if True:
        import os, sys, torch
        from tests.fast.test_decoder import *
        torch.set_num_threads(2)
        model = random_model(SMALL)
        decoder = Decoder(model, n_threads=2)
        caches = decoder.caches(2)
        decoder.use_threads(2)
        with torch.inference_mode():
            decoder.logits([torch.tensor([1])], caches[:1])
            if child := os.fork():
                sys.exit(os.waitpid(child, 0)[1])
            found = decoder.logits([torch.tensor([2])], caches[:1])
            os._exit(0 if found.isfinite().all() else 1)
    """
    assert Forked([sys.executable, "-c", code]).wait(timeout=100) == 0


@torch.inference_mode()
def test_readers_of_several_threads_wait_for_each_other():
    model = random_model(LONG)
    decoder, expected = Decoder(model), model(random_ids(LONG, 40)[None])[0, -1]
    wrong = []

    def read() -> None:
        (cache,) = decoder.caches(1)
        with torch.inference_mode():
            for one in random_ids(LONG, 40)[:, None]:
                logits = decoder.logits([one], [cache])
        if not torch.allclose(logits[0], expected, atol=1e-4):
            wrong.append(logits)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(timeout=60)
    assert not wrong and not any(reader.is_alive() for reader in readers)


@pytest.mark.parametrize("context", [1, 2, 3])
@torch.inference_mode()
def test_a_window_of_few_tokens_slides(context: int):
    shape = {"n_layers": 1, "n_heads": 1, "d_model": 32, "positions": "rope"}
    model = GPT(ModelConfig(vocab_size=11, context_length=context, **shape)).eval()
    greedy = SamplingConfig(temperature=0.0)
    written = [
        [*write_ids(reader_for(model, compiled), [[1]], greedy, max_tokens=8)]
        for compiled in (True, False)
    ]
    assert written[0] == written[1]
