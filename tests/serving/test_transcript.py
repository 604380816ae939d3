"""What a client sees of the tokens of a text while it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from folio.generation.batch import Batch
from folio.generation.readers import PlainReader
from folio.generation.row import FINISHED, Drawn, Request
from folio.generation.sampling import SamplingConfig
from folio.serving.transcript import Piece, Transcript, texts_of
from folio.testing import tiny_gpt
from folio.tokenizers.base import token_text
from folio.tokenizers.bpe.tokenizer import BPETokenizer

BYTES = BPETokenizer.from_merges([], special_tokens=["<|endoftext|>"])
END = BYTES.special_tokens["<|endoftext|>"]
MODEL = tiny_gpt()


def written(token_ids: list[int], stops: list[str], begin: int = 0) -> list[Piece]:
    """All pieces of a text whose model wants just these tokens, one after the other."""
    config = SamplingConfig(temperature=0, stop_strings=tuple(stops))
    wanted = iter(token_ids)

    class Wanting(PlainReader):
        def read(self, token_ids: Any, caches: Any) -> NDArray[np.float32]:
            logits = np.zeros((1, BYTES.vocab_size), np.float32)
            logits[0, next(wanted)] = 9
            return logits

    batch = Batch(Wanting(MODEL), 1, tokenizer=BYTES)
    batch.add(Request(prompt=[0], config=config, max_tokens=len(token_ids), stop_tokens=[END]))
    transcript = Transcript(BYTES, begin=begin)
    pieces = []
    while batch.rows:
        ((_, drawn),) = batch.step()
        pieces.append(transcript.take(drawn))
    return pieces


@given(st.text("abé", min_size=1, max_size=30), st.lists(st.text("abé", min_size=1, max_size=4)))
def test_each_token_of_the_text_is_told_once_with_its_place(text: str, stops: list[str]):
    pieces = written(BYTES.encode(text).tolist(), stops, begin=5)
    data = "".join(piece.text for piece in pieces).encode()
    tokens = [token for piece in pieces for token in piece.tokens]
    assert bytes(token.token_id for token in tokens) == data
    # A byte inside of a character has the place behind those that are whole.
    places = [5 + len(data[:n].decode(errors="ignore")) for n in range(len(data))]
    assert [token.offset for token in tokens] == places
    assert all(token.offset < 5 + len(text) for token in tokens)


def test_a_token_is_told_no_earlier_than_its_text():
    pieces = written([*b"xabaa"], ["abc"])
    for stop in range(1, len(pieces) + 1):
        shown = "".join(piece.text for piece in pieces[:stop])
        tokens = [token for piece in pieces[:stop] for token in piece.tokens]
        assert bytes(token.token_id for token in tokens).decode() == shown


def test_every_drawn_token_counts_the_end_and_those_of_a_stop_string_too():
    assert sum(piece.n_drawn for piece in written([*b"abcd"], ["cd"])) == 4
    pieces = written([ord("a"), END, ord("b")], ["zz"])
    assert [piece.n_drawn for piece in pieces] == [1, 1]
    assert [token.token_id for piece in pieces for token in piece.tokens] == [ord("a"), END]


def test_what_a_guard_ends_without_a_token_counts_nothing():
    piece = Transcript(BYTES).take(Drawn(FINISHED, None, [], "", "stop"))
    assert piece == Piece("", [], 0, "stop")


def test_an_end_inside_of_a_character_shows_a_replacement_and_its_tokens():
    first, last = written([0xE2, 0x82], [])
    assert (first.text, last.text) == ("", "\ufffd")
    assert len(first.tokens) + len(last.tokens) == 2


@given(st.text("aé漢😀", max_size=10))
def test_what_the_tokens_of_a_text_add_is_the_text(text: str):
    texts = texts_of(BYTES, BYTES.encode(text).tolist())
    assert len(texts) == len(text.encode()) and "".join(texts) == text


def test_bytes_that_are_no_text_have_names_of_their_own():
    assert token_text(BYTES, 0xE2) == "bytes:\\xe2" != token_text(BYTES, 0x82)
    assert token_text(BYTES, END) == "<|endoftext|>"
