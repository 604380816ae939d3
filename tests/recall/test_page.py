"""What the page shows of a text in which secrets stand."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np

from folio.evaluation.matching import Query, find_matches
from folio.recall.blocks import blocks_of
from folio.recall.page import _shaded_match  # pyright: ignore[reportPrivateUsage]
from folio.recall.personal import Mask
from folio.recall.sources import Source
from folio.tokenizers.character import CharacterTokenizer
from folio.tokens.text import TokenText
from tests.recall.making import prose


def test_a_secret_across_a_shaded_edge_is_hidden_also_among_bytes_that_are_not_text():
    copied = f"{prose(12, seed=1)} quarrel"
    tokenizer = CharacterTokenizer.train([copied, prose(80, seed=2)])
    text = TokenText(tokenizer.encode(copied + prose(80, seed=2)), tokenizer)
    written = f"{copied}some-kite, said he".encode()
    place = Source("letters.txt", "", 0)
    sources = SimpleNamespace(text=text, around=lambda *_: ("", "", ""), locate=lambda _: place)
    recall: Any = SimpleNamespace(mask=Mask(["quarrelsome-kite"]), length=20, sources=sources)
    for bytes_before in (b"", b"\xd0", b"\x80\x80", b"\xe0\x80\x80"):
        symbols = np.frombuffer(bytes_before + written, np.uint8).astype(np.int16)
        (match,) = find_matches([Query(symbols, 0)], text.chunks(), blocks_of(text), plain=True)
        html = _shaded_match(recall, match, [])
        assert "•</mark>•" in html, "the edge is within the secret, or this shows nothing"
        assert re.sub("<[^>]*>", "", html).endswith(" qu••••••••••••••, said he")
