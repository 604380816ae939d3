"""Tokenizers that Folio does not run are named for what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.errors import UserError
from folio.tokenizers import load


def test_a_tokenizer_as_of_sentencepiece_is_named(tmp_path: Path):
    model = {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "vocab": {}, "merges": []}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": model}))
    with pytest.raises(UserError, match=r"SentencePiece .* which Folio does not run\. Use a byte"):
        load(path)
