from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.document import Part, document_from_text, make_document
from folio.corpus.split import split_by_files, split_documents
from folio.errors import UserError

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8
)


def documents_of(texts: list[str]):
    return [document_from_text(f"d{i}", text) for i, text in enumerate(texts)]


def text_of(parts: list[Part]) -> list[str]:
    return ["".join(part.pieces()) for part in parts]


@given(TEXTS, st.sampled_from(["auto", "tail"]), st.floats(0.01, 0.99))
def test_every_character_is_on_one_side_or_dropped(texts, kind, fraction):
    documents = documents_of(texts)
    corpus = Corpus(documents, split_documents(documents, kind, fraction))
    ledger = corpus.record()["ledger"]
    assert ledger["characters_in"] == sum(map(len, texts))
    kept = ledger["training"] + ledger["validation"]
    assert kept + sum(ledger["dropped"].values()) == ledger["characters_in"]


@given(TEXTS, st.floats(0.01, 0.99))
def test_whole_documents_do_not_depend_on_order_and_copies_stay_together(texts, fraction):
    documents = documents_of([*texts, texts[0]])
    one = split_documents(documents, "auto", fraction)
    other = split_documents(documents[::-1], "auto", fraction)
    assert sorted(text_of(one.training)) == sorted(text_of(other.training))
    if one.kind == "documents":
        assert not set(text_of(one.training)) & set(text_of(one.validation))


def test_the_tail_of_one_document_is_held_out():
    split = split_documents(documents_of(["abcdefghij" * 10]), "auto", 0.1)
    assert split.kind == "tail"
    assert text_of(split.training) == ["abcdefghij" * 9]
    assert text_of(split.validation) == ["abcdefghij"]


def test_tiny_shakespeare_splits_as_the_field_splits_it(shakespeare: Path):
    record = read_corpus(CorpusConfig(sources=("shakespeare",))).record()
    assert record["ledger"]["training"] == 1_003_854
    assert record["ledger"]["validation"] == 111_540


def test_many_documents_are_held_out_whole_near_the_fraction():
    documents = documents_of([f"{i:04d} " * 20 for i in range(50)])
    split = split_documents(documents, "auto", 0.1)
    assert split.kind == "documents"
    assert len(split.validation) == 5
    assert all(part.start == 0 and len(part) == 100 for part in split.validation)


def test_two_documents_of_one_size_are_split_at_their_tails():
    split = split_documents(documents_of(["a" * 100, "b" * 100]), "auto", 0.1)
    assert text_of(split.validation) == ["a" * 10, "b" * 10]


def test_a_copy_does_not_teach_the_tail_of_its_twin():
    split = split_documents(documents_of(["abcdefghij", "abcdefghij"]), "tail", 0.5)
    assert text_of(split.training) == ["abcde"]
    assert split.dropped == {"copy of another document": 10}


def test_named_validation_is_dropped_from_training():
    documents = documents_of(["one", "two"])
    split = split_by_files(documents, documents_of(["two"]))
    assert text_of(split.training) == ["one"]
    assert split.dropped == {"also in validation": 3}
    with pytest.raises(UserError, match="nothing is left"):
        split_by_files(documents, documents)


def test_one_document_cannot_be_split_by_documents():
    with pytest.raises(UserError, match="one document"):
        split_documents(documents_of(["text"]), "documents", 0.1)


def test_a_file_that_shrinks_while_it_is_read_is_noticed():
    texts = ["abcdef", "abc"]
    document = make_document("a.txt", lambda: iter((texts.pop(0),)))
    with pytest.raises(UserError, match="changed while it was read"):
        list(Part(document, 0, 6).pieces())


def test_python_docs_hold_no_topic_twice():
    corpus = read_corpus(CorpusConfig())
    paragraphs = [p for d in corpus.documents for p in set(d.text.split("\n\n")) if len(p) > 200]
    assert len(corpus.documents) > 20
    assert len(set(paragraphs)) > 0.97 * len(paragraphs)
