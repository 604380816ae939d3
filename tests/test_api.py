"""Folio from Python."""

from __future__ import annotations

from pathlib import Path

import folio

TINY = {
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 20},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


def test_train_load_generate(book: Path):
    result = folio.train(str(book), name="mine", **TINY)
    model = folio.load(str(result.run.path))
    text = model.generate("The ", max_tokens=30, seed=1)
    assert isinstance(text, str) and 0 < len(text) <= 30
    assert text == folio.load().generate("The ", max_tokens=30, seed=1)
    texts = model.generate("The ", max_tokens=30, seed=1, n_samples=3)
    assert isinstance(texts, list) and len(set(texts)) == 3


def test_unknown_and_padded_ids_are_never_made(book: Path):
    wide = {
        "model": {
            "n_layers": 1,
            "n_heads": 2,
            "d_model": 16,
            "context_length": 16,
            "vocab_size": 512,
        }
    }
    folio.train(str(book), **(TINY | wide))
    opened = folio.load()
    n_ids = opened.tokenizer.vocab_size
    assert opened.model.config.vocab_size == 512 > n_ids
    text = opened.generate(max_tokens=400, temperature=50.0, seed=1, stop=False)
    assert "<unk>" not in text and len(text) > 300


def test_an_empty_prompt_begins_a_document(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"Letter {i}\nDear friend, all is well.\n" * 5)
    folio.train(str(tmp_path), **(TINY | {"training": {"batch_size": 8, "max_steps": 150}}))
    opened = folio.load()
    assert opened._start() == opened.tokenizer.end_of_document
