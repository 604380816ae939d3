"""The text of a row while it is written."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.generation.batch import Batch
from folio.generation.engine import write
from folio.generation.readers import PlainReader
from folio.generation.row import Drawn, Request
from folio.generation.sampling import SamplingConfig
from folio.testing import tiny_gpt
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.word import WordTokenizer

TEXT = "Straße, naïve 日本 😀 end of it. To be or not to be, that is. " * 3


def make_tokenizer(kind: str) -> Tokenizer:
    if kind == "character":
        return CharacterTokenizer.train(iter([TEXT]))
    if kind == "word":
        return WordTokenizer.train(iter([TEXT]), vocab_size=30)
    return BPETokenizer.train(iter([TEXT]), vocab_size=270)


TOKENIZERS = {kind: make_tokenizer(kind) for kind in ("bpe", "character", "word")}
READERS = {
    kind: PlainReader(tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=64))
    for kind, tokenizer in TOKENIZERS.items()
}


def split_at(token_ids: list[int], end: int | None) -> list[list[int]]:
    """The tokens before, between and behind those that end a document."""
    parts: list[list[int]] = [[]]
    for token_id in token_ids:
        parts += [[]] if token_id == end else []
        parts[-1] += [token_id] if token_id != end else []
    return parts


@cache
def drawn_of(
    kind: str, after: str = "To", n: int = 60, seed: int = 1, **more: object
) -> list[Drawn]:
    tokenizer = TOKENIZERS[kind]
    batch, drawn = Batch(READERS[kind], 1, tokenizer=tokenizer), []
    config = SamplingConfig(temperature=3.0, seed=seed, **more)  # type: ignore[arg-type]
    batch.add(Request(prompt=[1], config=config, max_tokens=n, after=after))
    while batch.rows:
        drawn += [token for _, token in batch.step()]
    return drawn


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("after", ["", "To be"])
def test_the_pieces_of_a_text_are_the_text(kind: str, after: str):
    tokenizer, drawn = TOKENIZERS[kind], drawn_of(kind, after)
    documents = split_at([d.token_id for d in drawn], tokenizer.end_of_document)
    whole = "\n\n".join(tokenizer.decode(ids, skip_special=True) for ids in documents)
    between = tokenizer.separator.decode() if after else ""
    assert "".join(d.text for d in drawn) == between + whole
    assert len(whole) > 30 and (kind == "bpe" or "\ufffd" not in whole)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_behind_the_end_of_a_document_is_an_empty_line(kind: str):
    tokenizer = TOKENIZERS[kind]
    (end,) = tokenizer.ends
    first, second = tokenizer.encode("To be").tolist(), tokenizer.encode("or not").tolist()

    def text_of(token_ids: list[int], stop_tokens: Collection[int] = ()) -> str:
        given = iter(token_ids)
        batch = Batch(READERS[kind], 1, tokenizer=tokenizer)
        request = Request(
            prompt=[1],
            draw=lambda *_: next(given),
            max_tokens=len(token_ids),
            stop_tokens=stop_tokens,
        )
        return "".join(drawn.text for _, drawn in write(batch, [request]))

    assert text_of([*first, end, *second]) == "To be\n\nor not"
    assert text_of([*first, end, *second], stop_tokens=(end,)) == "To be"
    if kind == "bpe":  # half a character is not mixed with what comes after it
        assert text_of([*tokenizer.encode("é").tolist()[:-1], end, *second]) == "\ufffd\n\nor not"


@given(
    kind=st.sampled_from([*TOKENIZERS]), seed=st.integers(1, 8), data=st.data(),
    length=st.integers(1, 4),
)  # fmt: skip
def test_a_text_ends_before_the_first_stop_string_and_the_tokens_before_are_the_same(
    kind: str, seed: int, data: st.DataObject, length: int
):
    whole = drawn_of(kind, seed=seed, n=20)
    text = "".join(d.text for d in whole)
    start = data.draw(st.integers(0, max(0, len(text) - length)))
    stops = (text[start : start + length] or "?", "never there")
    stopped = drawn_of(kind, seed=seed, n=20, stop_strings=stops)
    assert [d.token_id for d in stopped] == [d.token_id for d in whole[: len(stopped)]]
    shown = "".join(d.text for d in stopped)
    if stops[0] in text:
        assert shown == text[: text.find(stops[0])] and stopped[-1].ended == "stop"
    else:
        assert shown == text and len(stopped) == 20


def test_what_a_stop_string_may_begin_with_is_held_back_and_comes_at_the_end():
    tokenizer = TOKENIZERS["character"]
    whole = drawn_of("character", n=30)
    text = "".join(d.text for d in whole)
    held = drawn_of("character", n=30, stop_strings=(text[-3:] + "more",))
    assert [d.text for d in held[-3:]] == ["", "", text[-3:]]
    assert "".join(d.text for d in held) == text and held[-1].ended == "length"
    assert tokenizer.decode([d.token_id for d in held], skip_special=True) == text


def test_a_character_that_is_not_whole_at_the_end_is_told_as_such():
    tokenizer = TOKENIZERS["bpe"]
    for seed in range(1, 400):
        drawn = drawn_of("bpe", n=1, seed=seed)
        if tokenizer.pieces[drawn[0].token_id] in np.arange(0xC2, 0xF5, dtype=np.uint8).tobytes():
            assert drawn[0].text == "\ufffd"
            return
    raise AssertionError("no such token was drawn")
