"""Public doubles, and the contract of every tokenizer. For tests, ours and yours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from folio import tokenizers
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.tokenizers.base import Tokenizer


def tiny_gpt(seed: int = 0, **settings: object) -> GPT:
    """Build a real GPT of two layers that computes in milliseconds, in evaluation mode."""
    shape: dict[str, object] = {
        "vocab_size": 11,
        "context_length": 8,
        "n_layers": 2,
        "n_heads": 2,
        "d_model": 12,
    }
    config = ModelConfig(**(shape | settings))  # type: ignore[arg-type]
    return GPT(config, torch.Generator().manual_seed(seed)).eval()


def check_tokenizer(tokenizer: Tokenizer, text: str, folder: Path) -> None:
    """Assert what a Tokenizer promises, on a text whose characters it knows.

    Args:
        tokenizer: to check.
        text: a text that is not empty and has no unknown characters.
        folder: where it can be saved.
    """
    token_ids = tokenizer.encode(text)
    assert token_ids.ndim == 1 and token_ids.dtype == tokenizer.dtype
    assert token_ids.size == 0 or int(token_ids.max()) < tokenizer.vocab_size
    assert tokenizer.vocab_size - 1 <= np.iinfo(tokenizer.dtype).max
    if tokenizer.lossless:
        assert tokenizer.decode(token_ids) == text
        assert tokenizer.bytes_per_token[token_ids].sum() == len(text.encode("utf-8"))
        assert tokenizer.characters_per_token[token_ids].sum() == len(text)
    for size in (1, 7, 1000):
        pieces = (text[i : i + size] for i in range(0, len(text), size))
        streamed = np.concatenate(list(tokenizer.encode_stream(pieces)))
        assert streamed.tolist() == token_ids.tolist(), f"in pieces of {size}"
    batch = tokenizer.encode_batch([text, "", text])
    assert [ids.tolist() for ids in batch] == [token_ids.tolist(), [], token_ids.tolist()]
    one_by_one = "".join(tokenizer.decode_stream([i] for i in token_ids))
    assert one_by_one == tokenizer.decode(token_ids, skip_special=True)

    for name, token_id in tokenizer.special_tokens.items():
        if token_id != tokenizer.unknown:  # it stands for any unknown text
            assert token_id not in tokenizer.encode(name), f"{name} in user text is plain text"
        allowed = tokenizer.encode(name + name, allowed_special=[name])
        assert allowed.tolist() == [token_id, token_id], f"{name} was allowed"
        assert tokenizer.decode([token_id]) == name
        assert tokenizer.decode([token_id], skip_special=True) == ""
        assert tokenizer.bytes_per_token[token_id] == 0

    path = folder / "tokenizer.json"
    tokenizer.save(path)
    loaded = tokenizers.load(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.encode(text).tolist() == token_ids.tolist()
