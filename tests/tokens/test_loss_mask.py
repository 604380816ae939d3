from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.corpus.turns import Conversation, Turn
from folio.errors import UserError
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokens import loss_mask as module
from folio.tokens.ignored import IGNORED
from folio.tokens.loss_mask import example, loss_mask, open_loss_masks, write_loss_mask
from folio.tokens.stream import StreamConfig, TokenStream
from folio.tokens.token_file import write_token_file

CHAT = CharacterTokenizer("abc \n").with_chat()
TURNS = st.builds(Turn, st.sampled_from(["user", "assistant"]), st.text("abc", max_size=4))
TALK = st.lists(TURNS, min_size=1, max_size=4).map(Conversation)
TEXT = st.text("abc", max_size=9).map(lambda text: [text])


def expected(documents: list[Conversation | list[str]]) -> list[int]:
    """The mask of documents, counted turn by turn."""
    mask: list[int] = []
    for number, document in enumerate(documents):
        if number:  # the end of a text is learned with it
            mask.append(0 if isinstance(documents[number - 1], Conversation) else 1)
        if isinstance(document, Conversation):
            for role, text in document:
                counts = int(role == "assistant")
                mask += [0] + [counts] * (len(text) + 1)
        else:
            mask += [1] * sum(map(len, document))
    return mask


@given(st.lists(st.one_of(TALK, TEXT), max_size=6), st.integers(1, 9))
def test_answers_and_their_ends_count_and_all_other_text(
    documents: list[Conversation | list[str]], chunk: int
):
    ids = np.concatenate([np.zeros(0, np.uint8), *encode_documents(CHAT, documents)])
    before, module.CHUNK_TOKENS = module.CHUNK_TOKENS, chunk
    try:
        found = [n for part in loss_mask(ids, CHAT) for n in part.tolist()]
    finally:
        module.CHUNK_TOKENS = before
    assert found == expected(documents)


def a_conversation() -> np.ndarray:
    talk = Conversation([Turn("user", "a\nb"), Turn("assistant", "c"), Turn("user", "a")])
    return np.concatenate(list(encode_documents(CHAT, [["abc"], talk, ["c"]])))


def test_an_example_shows_what_counts_in_one_line():
    ids = a_conversation()
    (mask,) = loss_mask(ids, CHAT)
    shown = "<|user|>a\\nb<|end|><|assistant|>\u27e6c<|end|>\u27e7<|user|>a<|end|>"
    assert example(ids, mask, CHAT) == shown
    long = np.concatenate([ids[4:], *[ids[5:7]] * 300])
    assert len(example(long, next(loss_mask(long, CHAT)), CHAT)) < 450


def test_a_mask_lies_beside_its_tokens_and_belongs_to_their_tokenizer(tmp_path: Path):
    ids = a_conversation()
    files = [tmp_path / name for name in ("train.bin", "train.mask.bin")]
    write_token_file(files[0], [ids], CHAT.dtype, CHAT.fingerprint)
    write_loss_mask(files[0], files[1], CHAT)
    names = {"train": files[1], "validation": tmp_path / "none"}
    masks = open_loss_masks(names, CHAT.fingerprint)
    assert list(masks) == ["train"]
    assert masks["train"].tolist() == next(loss_mask(ids, CHAT)).tolist()
    with pytest.raises(UserError, match="another tokenizer"):
        open_loss_masks(names, CharacterTokenizer("ab").fingerprint)


@pytest.mark.parametrize("goldfish", [0, 3])
def test_a_stream_ignores_what_does_not_count_and_nothing_else(goldfish: int):
    tokens = np.arange(300, dtype=np.uint16)
    mask = (np.random.default_rng(0).random(300) < 0.4).astype(np.uint8)
    settings = {"window": 7, "seed": 1, "config": StreamConfig(), "goldfish": (goldfish, 2)}
    whole, masked = (TokenStream(tokens, **settings, loss_mask=m) for m in (None, mask))
    for _ in range(20):
        one, other = whole.next_batch(5), masked.next_batch(5)
        assert np.array_equal(one.inputs, other.inputs) and whole.place == masked.place
        counts = one.targets != IGNORED
        counts[counts] = mask[one.targets[counts]] == 1
        assert np.array_equal(other.targets, np.where(counts, one.targets, IGNORED))
        assert other.n_targets == counts.sum()
