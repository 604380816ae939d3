"""Runs without a training: any shape, every number random, any tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from folio.config import merge
from folio.export.foreign import Foreign
from folio.export.importing import write_run
from folio.export.ngrams import Counted
from folio.export.targets import export_run
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.ngrams.table import count_ngrams
from folio.ngrams.weights import Weights
from folio.run.model import Model
from folio.run.opening import open_run
from folio.storage import write_json
from folio.tokenizers import Tokenizer, from_table
from folio.tokenizers.bpe.patterns import PATTERNS
from folio.tokenizers.bpe.standard_json import written
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.word import WordTokenizer

TEXT = "The cat sat on the mat; the cat's 1234 mats aren't THE mats.\n\n  漢字 ёлка 😀😀\n" * 5


def with_end(tokenizer: BPETokenizer, name: str) -> Tokenizer:
    """Whose documents end with a special token of another name."""
    table = tokenizer.to_json()
    return from_table(table | {"model": table["model"] | {"roles": {"end": name}}}, "a test")


def with_token_in_text(tokenizer: BPETokenizer, name: str) -> Tokenizer:
    """With an added token that is text, and found there."""
    table = tokenizer.to_json()
    added = {**table["added_tokens"][0], "content": name, "id": tokenizer.vocab_size}
    table["added_tokens"].append(added | {"special": False})
    return from_table(table, "a test")


def without_byte(tokenizer: BPETokenizer, value: int) -> Tokenizer:
    """That lacks a byte."""
    table = tokenizer.to_json()
    del table["model"]["vocab"][written(bytes([value]))]
    return from_table(table, "a test")


END = ("<|endoftext|>",)
TOKENIZERS: dict[str, Tokenizer] = {
    "character": CharacterTokenizer.train([TEXT]),
    "word": WordTokenizer.train([TEXT], 30),
    "lines": BPETokenizer.train([TEXT], 290),
    "found": with_token_in_text(BPETokenizer.train([TEXT], 290, special_tokens=END), "<think>"),
    "lacking": without_byte(BPETokenizer.train([TEXT], 290, special_tokens=END), 0x07),
    "bytes": BPETokenizer.from_merges([], special_tokens=END),
    "renamed": with_end(BPETokenizer.train([TEXT], 290, special_tokens=["<|stop|>"]), "<|stop|>"),
    "chat": BPETokenizer.train([TEXT], 290).with_chat(),
    "chat-character": CharacterTokenizer.train([TEXT]).with_chat(),
    **{
        f"bpe-{p}": BPETokenizer.train([TEXT], 300, pattern=p, special_tokens=END) for p in PATTERNS
    },
}
SHAPE: dict[str, Any] = {"context_length": 40, "n_layers": 2, "n_heads": 4, "d_model": 32}
MODERN: dict[str, Any] = SHAPE | {
    "positions": "rope",
    "normalization": "rmsnorm",
    "normalization_epsilon": 1e-6,
    "activation": "swiglu",
    "bias": False,
    "qk_norm": True,
}
LLAMA = MODERN | {"qk_norm": False}
NEOX = SHAPE | {"positions": "rope"}


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """With gains of 1 and biases of 0 their places could be swapped. Matrices as wide as a trained
    model's are as small.
    """
    draw = torch.Generator().manual_seed(seed)
    return {
        name: (p.dim() == 1 and name.endswith("weight"))
        + (0.15 if p.dim() == 1 else 0.85 * p.shape[-1] ** -0.5)
        * torch.randn(p.shape, generator=draw)
        for name, p in GPT(config).named_parameters()
    }


def random_run(
    folder: Path,
    tokenizer: Tokenizer | str = "character",
    name: str = "made",
    **settings: Any,
) -> Model:
    if isinstance(tokenizer, str):
        tokenizer = TOKENIZERS[tokenizer]
    config = ModelConfig(**merge(SHAPE, {"vocab_size": tokenizer.vocab_size}, settings))
    foreign = Foreign("a test", config, random_tensors(config), tokenizer)
    return open_run(write_run(foreign, name, folder, {"name": "a test", "sha256": ""}))


def text_of(n_ids: int) -> NDArray[np.int64]:
    """A random text in which many tokens follow the first one, and a passage of 20 comes 300 times,
    at its end, so that n-grams have numbers beyond a byte.
    """
    text: NDArray[np.int64] = np.random.default_rng(0).integers(0, n_ids, 4000)
    text[::2] = 0
    return np.concatenate([text, np.tile(text[100:120], 300)])


def counted(n_ids: int, vocab_size: int) -> Counted:
    """N-grams of that text."""
    ngrams = count_ngrams(text_of(n_ids).astype(np.uint32), 5, vocab_size)
    weights, losses = Weights(0.7, 0.6), {"targets": 4096, "without": 2.5, "with": 1.75}
    record = {"order": 5, "ngrams": len(ngrams), "step": 0, "weights": weights._asdict(), **losses}
    return Counted(ngrams, weights, record)


def random_run_beside_ngrams(
    folder: Path, tokenizer: Tokenizer | str = "character", name: str = "made", **settings: Any
) -> Model:
    opened = random_run(folder, tokenizer, name, **settings)
    beside = counted(opened.tokenizer.vocab_size, opened.config.vocab_size)
    beside.ngrams.save(opened.run.ngrams_file)
    write_json(opened.run.ngram_weights_file, beside.record)
    return open_run(opened.run)


def export_both(folder: Path, kind: str, **settings: Any) -> Path:
    """Write a random run to `m.gguf`, in a type of weights, and to the folder `hf`."""
    opened = random_run(folder, "bpe-gpt2", **settings)
    export_run(opened, "gguf", kind, folder / "m.gguf")
    export_run(opened, "hf", out=folder / "hf")
    return folder
