from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.document import Document, Part, document_from_text, make_document
from folio.corpus.duplicates import DuplicatesConfig, find_families
from folio.corpus.leakage import measure_leakage
from folio.corpus.ledger import account
from folio.corpus.reading import Reading
from folio.corpus.split import (
    MOST_RESTS,
    SHORTEST_REST,
    Split,
    SplitKind,
    set_test_aside,
    split_by_files,
    split_documents,
    whole,
    without_held_out,
)
from folio.errors import UserError

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8
)


def documents_of(texts: list[str]) -> list[Document]:
    return [document_from_text(f"d{i}", text) for i, text in enumerate(texts)]


def accounted(split: Split, documents: list[Document]) -> dict[str, Any]:
    """The ledger, in characters."""
    reading = Reading()
    reading.add(documents)
    return account(reading, split)["ledger"]


def contents(documents: list[Document]) -> list[str]:
    """Families of one each."""
    return [document.sha256 for document in documents]


def text_of(parts: list[Part]) -> list[str]:
    return ["".join(part.pieces()) for part in parts]


@given(TEXTS, st.sampled_from(["auto", "tail"]), st.floats(0.01, 0.99))
def test_every_character_is_on_one_side_or_dropped(
    texts: list[str], kind: SplitKind, fraction: float
):
    documents = documents_of(texts)
    ledger = accounted(split_documents(documents, kind, fraction), documents)
    assert ledger["characters_in"] == sum(map(len, texts))
    kept = ledger["training"] + ledger["validation"]
    assert kept + sum(ledger["dropped"].values()) == ledger["characters_in"]


@given(TEXTS, st.floats(0.01, 0.99))
def test_whole_documents_do_not_depend_on_order_and_copies_stay_together(
    texts: list[str], fraction: float
):
    documents = documents_of([*texts, texts[0]])
    one = split_documents(documents, "auto", fraction)
    other = split_documents(documents[::-1], "auto", fraction)
    assert sorted(text_of(one.training)) == sorted(text_of(other.training))
    if one.kind == "clusters":
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
    assert split.kind == "clusters"
    assert len(split.validation) == 5
    assert all(part.start == 0 and len(part) == 100 for part in split.validation)


def test_two_documents_of_one_size_are_split_at_their_tails():
    split = split_documents(documents_of(["a" * 100, "b" * 100]), "auto", 0.1)
    assert text_of(split.validation) == ["a" * 10, "b" * 10]


def test_a_copy_does_not_teach_the_tail_of_its_twin():
    split = split_documents(documents_of(["abcdefghij", "abcdefghij"]), "tail", 0.5)
    assert text_of(split.training) == ["abcde"]
    assert {why: text_of(parts) for why, parts in split.dropped.items()} == {
        "copy of another document": ["abcdefghij"]
    }


def test_named_validation_is_dropped_from_training():
    documents = documents_of(["one", "two"])
    held_out = documents_of(["two"])
    split = split_by_files(documents, held_out, contents([*documents, *held_out]))
    assert text_of(split.training) == ["one"]
    assert text_of(split.dropped["also in validation"]) == ["two"]
    with pytest.raises(UserError, match="nothing is left"):
        split_by_files(documents, documents, contents([*documents, *documents]))


def test_one_document_cannot_be_split_by_documents():
    with pytest.raises(UserError, match="for a single document, got 'documents'"):
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


@given(
    st.lists(st.tuples(st.text("abc \n", min_size=1, max_size=60), st.integers(0, 5)), max_size=25),
    st.floats(0.02, 0.9),
    st.randoms(use_true_random=False),
)
def test_families_part_the_documents_disjointly_completely_and_whatever_their_order(
    given_texts: list[tuple[str, int]], fraction: float, random: Random
):
    documents = documents_of([text for text, _ in given_texts])
    families = [f"family {number}" for _, number in given_texts]
    if len(set(families)) < 2:
        return
    split = split_documents(documents, "clusters", fraction, families)
    sides = [{part.document.source for part in side} for side in (split.training, split.validation)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {document.source for document in documents}
    assert all(len(part) == part.document.n_characters for part in split.training)
    family_of = dict(zip((document.source for document in documents), families))
    assert not {family_of[s] for s in sides[0]} & {family_of[s] for s in sides[1]}

    order = list(range(len(documents)))
    random.shuffle(order)
    again = split_documents(
        [documents[i] for i in order], "clusters", fraction, [families[i] for i in order]
    )
    assert {part.document.source for part in again.validation} == sides[1]


def test_a_family_larger_than_the_validation_part_is_trained_on():
    documents = documents_of([f"{i:03d} " * 25 for i in range(20)])
    families = ["0 the large one"] * 8 + [f"{i}" for i in range(12)]
    split = split_documents(documents, "clusters", 0.1, families)
    assert {f"d{i}" for i in range(8)} <= {part.document.source for part in split.training}
    assert len(split.validation) == 2


@pytest.mark.parametrize(
    ("families", "kind", "share"),
    [
        ("aaaabbbb", "clusters", 0.5),  # none fits, so the smaller one
        ("aaaabcde", "tail", 0.04),  # of the four that are alone
        ("aaaaaaab", "tail", 0.04),
        ("aaaaaaaa", "tail", 0.04),  # one family: the end of its longest, as tests below look at
    ],
)
def test_where_families_are_large_none_stands_on_both_sides(
    families: str, kind: SplitKind, share: float
):
    documents = documents_of([f"{i:03d} " * (250 if i < 7 else 251) for i in range(8)])
    split = split_documents(documents, "auto", 0.04, list(families))
    held_out, total = sum(map(len, split.validation)), sum(d.n_characters for d in documents)
    assert split.kind == kind
    assert held_out / total == pytest.approx(share, abs=0.005)
    of = {document.sha256: family for document, family in zip(documents, families)}
    both = {of[p.document.sha256] for p in split.training}
    both &= {of[p.document.sha256] for p in split.validation}
    assert len(set(families)) == 1 or not both & {f for f in families if families.count(f) > 1}


def test_of_a_large_family_the_end_is_held_out_even_beside_a_scrap():
    documents = documents_of([*(f"{i:03d} " * 250 for i in range(6)), "scrap"])
    split = split_documents(documents, "auto", 0.1, [*"aaaaaa", "b"])
    assert split.kind == "tail" and 600 <= sum(map(len, split.validation)) <= 602
    assert "scrap" in text_of(split.training)


def test_documents_of_one_family_cannot_be_split_by_families():
    with pytest.raises(UserError, match="for a single cluster, got 'clusters'"):
        split_documents(documents_of(["one", "two"]), "clusters", 0.1, ["f", "f"])


def story(start: int) -> str:
    return "\n".join(
        f"Line {i} of a story in which {i * 7} birds are seen." for i in range(start, start + 30)
    )


def test_validation_of_another_kind_stands_beside_that_of_the_same(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"{story(100 * i)} Notes, number {i}.")
    foreign = tmp_path / "foreign.md"
    foreign.write_text(story(100_000))
    (tmp_path / "leak.txt").write_text(foreign.read_text())
    (tmp_path / "near.txt").write_text(foreign.read_text() + "\nAnd a line more.")
    config = CorpusConfig(sources=(str(tmp_path / "*.txt"),), validation=(str(foreign),))
    corpus = read_corpus(config)
    assert text_of(corpus.split.elsewhere) == [foreign.read_text()]
    dropped = {why: [p.document.source for p in ps] for why, ps in corpus.split.dropped.items()}
    assert dropped == {
        "also in validation": [str(tmp_path / "leak.txt")],
        "near duplicate of validation": [str(tmp_path / "near.txt")],
    }
    assert len(corpus.split.training) == 27 and len(corpus.split.validation) == 3
    ledger = corpus.record()["ledger"]
    assert ledger["elsewhere"] == len(story(100_000))


def read_folder(tmp_path: Path, texts: dict[str, str], **settings: Any) -> Corpus:
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    corpus = read_corpus(CorpusConfig(sources=(str(tmp_path),), **settings))
    assert corpus.record()["ledger"]["characters_in"] == sum(map(len, texts.values()))
    return corpus


def dropped_of(corpus: Corpus) -> dict[str, list[str]]:
    return {why: text_of(parts) for why, parts in corpus.split.dropped.items()}


DRAFTS = {"january": story(0) + story(200), "june": story(0) + story(200) + story(400)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"test_fraction": 0.1},
        {"split": "tail"},
        {"duplicates": DuplicatesConfig(remove="near")},
    ],
)
def test_of_drafts_of_one_text_nothing_is_read_that_is_held_out(
    tmp_path: Path, settings: dict[str, Any]
):
    corpus = read_folder(tmp_path, DRAFTS, **settings)
    assert corpus.split.kind == "tail" and len(set(corpus.families.of)) == 1
    for held_out in (corpus.split.validation, corpus.split.test):
        assert measure_leakage(corpus.split.training, held_out)[0].grams == 0


def test_of_one_family_the_end_of_the_longest_document_is_held_out_and_the_others_stay(
    tmp_path: Path,
):
    corpus = read_folder(tmp_path, DRAFTS)
    (tail,) = text_of(corpus.split.validation)
    june = DRAFTS["june"]
    assert len(tail) == pytest.approx(0.1 * sum(map(len, DRAFTS.values())), abs=1)
    assert text_of(corpus.split.training) == [DRAFTS["january"], june.removesuffix(tail)]
    assert june.endswith(tail) and not dropped_of(corpus)


def test_chapters_lose_what_the_held_out_end_of_their_book_says_and_no_more(tmp_path: Path):
    chapters = {f"chapter {i}": f"{story(100 * i)}\n" for i in range(10)}
    book = "".join(chapters.values())
    corpus = read_folder(tmp_path, {"book": book, **chapters})
    (tail,) = text_of(corpus.split.validation)
    left_out = "".join(dropped_of(corpus)["also in validation"])
    assert left_out.endswith(tail) and len(left_out) < len(tail) + SHORTEST_REST
    assert book.removesuffix(tail) in text_of(corpus.split.training)
    assert measure_leakage(corpus.split.training, corpus.split.validation)[0].grams == 0


def test_a_relative_keeps_what_stands_around_held_out_text_unless_it_is_a_scrap():
    one, two = story(0), story(100).replace("in which", "IN\nWHICH")
    documents = documents_of([f"{story(200)}\n{story(0)}\n{story(100)}", story(300), "the other"])
    documents += documents_of([f"A scrap. {one}\nAnother scrap.\n{two}\n{story(400)}"])
    cut = len(story(200)) + 1
    held_out = Part(documents[0], cut, documents[0].n_characters)
    parts = [Part(documents[0], 0, cut), *map(whole, documents[1:])]
    family_of = {document.sha256: "alike" for document in documents}
    split = without_held_out(Split("tail", parts, [held_out]), family_of)
    assert text_of(split.training) == [story(200) + "\n", story(300), "the other", story(400)]
    assert {why: text_of(gone) for why, gone in split.dropped.items()} == {
        "also in validation": [f"A scrap. {one}\nAnother scrap.\n{two}\n"]
    }
    strangers = {document.sha256: document.sha256 for document in documents}
    assert without_held_out(Split("tail", parts, [held_out]), strangers).training == parts


def test_a_relative_is_divided_into_few_parts_of_which_the_longest_stay():
    revised = "\n".join(f"{story(i)}\n{story(1000 + i) * (1 + i % 3)}" for i in range(40))
    tail, other = map(whole, documents_of(["\n".join(map(story, range(40))), revised]))
    alike = dict.fromkeys((part.document.sha256 for part in (tail, other)), "alike")
    split = without_held_out(Split("tail", [other], [tail]), alike)
    assert len(split.training) == MOST_RESTS and min(map(len, split.training)) > 2 * len(story(1))


def test_what_a_text_repeats_of_itself_stays_and_if_two_repeat_each_other_all_over_it_is_said(
    tmp_path: Path,
):
    texts = {"a": "to be or not to be " * 50, "b": "to be or not to be " * 60}
    corpus = read_folder(tmp_path, texts)
    (head,), (tail,) = text_of(corpus.split.training), text_of(corpus.split.validation)
    assert head + tail == texts["b"] and dropped_of(corpus) == {"also in validation": [texts["a"]]}
    with pytest.raises(UserError, match="nothing is left to train on"):
        read_folder(tmp_path, texts, split="tail")


def test_the_test_text_of_tiny_shakespeare_is_what_others_validate_on(shakespeare: Path):
    usual = CorpusConfig(sources=(str(shakespeare),))
    split = read_corpus(replace(usual, validation_fraction=0.02, test_fraction=0.1)).split
    assert text_of(split.test) == text_of(read_corpus(usual).split.validation)
    parts = split.training + split.validation + split.test
    assert [(p.start, p.stop) for p in parts] == [
        (22308, 1003854),
        (0, 22308),
        (1003854, 1115394),
    ]


def test_a_document_that_is_not_cut_is_trained_on_as_a_whole_beside_a_test_part(tmp_path: Path):
    (tmp_path / "a.txt").write_text(story(0))
    (tmp_path / "b.txt").write_text(story(500))
    documents = read_corpus(CorpusConfig(sources=(str(tmp_path),))).documents
    cut, whole_one = documents
    n = cut.n_characters
    parts = [Part(cut, 0, n - 100), whole(whole_one)], [Part(cut, n - 100, n)]
    split = set_test_aside(Split("tail", *parts), 0.75, {})
    assert split.training == [Part(cut, 25, n - 75), whole(whole_one)]
    assert (split.validation, split.test) == ([Part(cut, 0, 25)], [Part(cut, n - 75, n)])


def test_no_family_stands_in_two_of_training_validation_and_test(tmp_path: Path):
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(story(100 * i))
        (tmp_path / f"{i} again.txt").write_text(story(100 * i) + "\nAnd more.")
    corpus = read_corpus(
        CorpusConfig(sources=(str(tmp_path),), validation_fraction=0.2, test_fraction=0.1)
    )
    sides = [corpus.split.training, corpus.split.validation, corpus.split.test]
    names = {d.sha256: f for d, f in zip(corpus.documents, corpus.families.of)}
    families = [{names[part.document.sha256] for part in parts} for parts in sides]
    assert [len(side) for side in families] == [28, 8, 4]
    assert len(set.union(*families)) == 40
    ledger = corpus.record()["ledger"]
    assert ledger["test"] == sum(map(len, corpus.split.test)) > 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"test_fraction": 0.95}, r"test_fraction must be 0 to below 0\.9, got 0\.95"),
        ({"validation_tokens": 0}, "validation_tokens must be 1 or more, got 0"),
        ({"test_fraction": -0.1}, r"test_fraction must be 0 to below 0\.9, got -0\.1"),
        ({"test_fraction": 0.1, "validation_fraction": 0, "validation": ("x",)}, "Give both"),
        ({"validation_fraction": 0}, "validation_fraction must be above 0 and below 1, got 0; .*"),
        ({"canaries": -1}, r"canaries must be 0 \(none\) or more, got -1"),
        ({"time_limit_seconds": 0}, "time_limit_seconds must be above 0, got 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused(settings: dict[str, Any], complaint: str):
    with pytest.raises(UserError, match=complaint):
        CorpusConfig(**settings)


@pytest.mark.parametrize("test_fraction", [0.0, 0.2])
def test_at_most_so_many_characters_are_held_out_for_validation(
    tmp_path: Path, test_fraction: float
):
    text = "".join(f"{number:06} is a number of its own.\n" for number in range(400))
    (tmp_path / "one.txt").write_text(text)
    usual = CorpusConfig(sources=(str(tmp_path),), validation_fraction=0.2)
    usual = replace(usual, test_fraction=test_fraction)
    split = read_corpus(replace(usual, validation_tokens=300)).split
    n_test, n_validation = (sum(map(len, parts)) for parts in (split.test, split.validation))
    assert abs(n_validation - 300) <= 1 and abs(n_test - test_fraction * len(text)) <= 1
    assert sum(map(len, split.training)) == len(text) - n_test - n_validation


def test_too_little_text_for_three_parts_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("To be")
    with pytest.raises(UserError, match="too little held-out text"):
        read_corpus(CorpusConfig(sources=(str(tmp_path),), test_fraction=0.1))


def test_duplicates_can_be_left_out_of_training(tmp_path: Path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text(story(100 * i))
    (tmp_path / "copy.txt").write_text(story(300))
    (tmp_path / "near.txt").write_text(story(300) + "\nAnd more.")
    counts = {}
    for remove in ("none", "exact", "near"):
        config = CorpusConfig(sources=(str(tmp_path),), duplicates=DuplicatesConfig(remove=remove))
        corpus = read_corpus(config)
        counts[remove] = len(corpus.split.training)
        reasons = {
            why: [p.document.n_characters for p in ps] for why, ps in corpus.split.dropped.items()
        }
        if remove == "near":  # the longest is kept
            assert reasons == {"near duplicate of another document": [len(story(300))] * 2}
        corpus.record()
    assert counts["none"] - counts["exact"] == 1 and counts["none"] - counts["near"] == 2


def test_a_split_alone_is_the_same_split_and_compares_no_lone_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for i in range(12):
        (tmp_path / f"{i}.txt").write_text(f"text {i // 2} " + f"word{i // 2} and so on " * 40)
    lone, folder, other = str(tmp_path / "0.txt"), str(tmp_path), str(tmp_path / "2.txt")
    configs = [
        CorpusConfig(sources=(lone,)),
        CorpusConfig(sources=(folder,), split="clusters"),
        CorpusConfig(sources=(lone,), validation=(other,), validation_fraction=0.0),
    ]

    def texts(config: CorpusConfig, only_split: bool) -> list[str]:
        split = read_corpus(config, only_split=only_split).split
        return ["".join(part.pieces()) for part in (*split.training, *split.validation)]

    for config in configs:
        assert texts(config, True) == texts(config, False)
    compared = []
    monkeypatch.setattr(
        "folio.corpus.corpus.find_families",
        lambda documents, config: compared.append(len(documents)) or find_families([], config),
    )
    texts(configs[0], True)
    assert compared == [0]
