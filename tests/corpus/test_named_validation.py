"""Text that the user holds out, beside what is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.document import Part
from folio.corpus.leakage import measure_leakage
from tests.corpus.making import write

CHAPTERS = [
    "\n".join(f"Line {i} of a story in which {i * 7} birds are seen." for i in range(n, n + 30))
    for n in range(0, 1000, 100)
]


def text_of(parts: list[Part]) -> list[str]:
    return ["".join(part.pieces()).strip() for part in parts]


def read(
    folder: Path, texts: list[str], held_out: str, fraction: float, only_split: bool
) -> Corpus:
    sources = tuple(str(write(folder, f"{i}.txt", text)) for i, text in enumerate(texts))
    validation = (str(write(folder, "held_out.txt", held_out)),)
    config = CorpusConfig(sources=sources, validation=validation, validation_fraction=fraction)
    corpus = read_corpus(config, only_split=only_split)
    assert corpus.record()["ledger"]["characters_in"] == sum(map(len, [*texts, held_out]))
    return corpus


@pytest.mark.parametrize("only_split", [False, True])
@pytest.mark.parametrize("fraction", [0, 0.1])
def test_a_book_is_trained_on_without_a_chapter_that_is_held_out(
    tmp_path: Path, fraction: float, only_split: bool
):
    chapter = CHAPTERS[3].replace("in which", "IN\nWHICH")
    split = read(tmp_path, ["\n".join(CHAPTERS)], chapter, fraction, only_split).split
    before, after = text_of(split.training)
    assert before == "\n".join(CHAPTERS[:3]) and after.startswith("\n".join(CHAPTERS[4:8]))
    held_out = split.validation if not fraction else split.elsewhere
    assert text_of(held_out) == [chapter]
    assert measure_leakage(split.training, held_out)[0].grams == 0
    assert text_of(split.dropped["also in validation"]) == [CHAPTERS[3]]


@pytest.mark.parametrize("only_split", [False, True])
def test_a_version_of_a_held_out_text_is_left_out_whole(tmp_path: Path, only_split: bool):
    held_out = "\n".join(CHAPTERS[:3])
    version = f"{held_out}\n{CHAPTERS[3]}"
    split = read(tmp_path, [version, CHAPTERS[8]], held_out, 0, only_split).split
    assert text_of(split.training) == [CHAPTERS[8]]
    assert text_of(split.dropped["near duplicate of validation"]) == [version]


def test_a_book_that_has_an_edited_version_of_what_is_held_out_is_left_out(tmp_path: Path):
    words = CHAPTERS[3].split(" ")
    words[::10] = [f"{word}x" for word in words[::10]]
    others = "A text of its own, which is about something else, and long enough to be trained on."
    split = read(tmp_path, ["\n".join(CHAPTERS), others], " ".join(words), 0.0, False).split
    assert text_of(split.training) == [others]
    assert text_of(split.dropped["near duplicate of validation"]) == ["\n".join(CHAPTERS)]
