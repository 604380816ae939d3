"""Passages in tokens that end inside characters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from folio.evaluation.passages import Passages, read_passages
from folio.recall import heart as heart_module
from folio.recall.config import RecallConfig
from folio.recall.heart import learn_by_heart
from folio.testing import tiny_gpt
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokens.text import TokenText

WORDS = ["река", "камень", "окно", "сад", "письмо", "🌊🌊", "窗户花园", "早晨蜡烛", "river", "стон"]


def test_a_passage_is_told_in_whole_characters_and_by_how_often_its_text_stands(
    monkeypatch: pytest.MonkeyPatch,
):
    words = np.random.default_rng(1).choice(WORDS, 300)
    once, often = " ".join(words), " ".join(words[:20])
    text = " ".join([once, *[often] * 4])
    tokenizer = BPETokenizer.train([text], vocab_size=264)
    tokens = tokenizer.encode(text)

    def all_known(*given: Any, **how: Any) -> Passages:
        read = read_passages(*given, **how)
        return replace(read, bits=np.zeros(len(read)))

    monkeypatch.setattr(heart_module, "read_passages", all_known)
    monkeypatch.setattr(heart_module, "WORST", 500)
    opened: Any = SimpleNamespace(
        model=tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=64, positions="rope"),
        tokenizer=tokenizer,
        training=lambda: tokens,
        validation=lambda: tokens[:0],
        run=SimpleNamespace(families=lambda _: (), tokens_file=Path),
    )
    sources: Any = SimpleNamespace(families=(), documents_at=np.zeros_like)
    learned = TokenText(tokens, tokenizer)
    found = learn_by_heart(opened, learned, sources, RecallConfig(), 10, lambda _: None)
    assert len(found.worst) > 50
    assert sum(known.prefix.startswith("\ufffd") for known in found.worst) > 5, "half characters"
    for known in found.worst:
        assert f"{known.prefix}{known.suffix}".strip("\ufffd") in text
        begin = known.suffix[:10].rstrip("\ufffd")
        assert text.startswith(begin, learned.characters_before(known.place))
        stands = sum(text.startswith(begin, at) for at in range(len(text)))
        assert 1 <= known.repeats <= stands and (known.repeats == stands or len(begin) < 10)
    assert {1, 5} <= {known.repeats for known in found.worst}
