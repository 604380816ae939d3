"""The gallery: its texts are what they claim to be, and its pages say what its runs say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from scripts.gallery import __main__ as gallery
from scripts.gallery import texts
from scripts.gallery.chess import (
    Position,
    after,
    game,
    in_check,
    legal_moves,
    share_of_legal,
    written,
)

SMALL: dict[str, Any] = {
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 2},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1, "fast": "off"},
}


def position(board: str, side: str, rights: str) -> Position:
    """Of the first three words of FEN."""
    ranks = "".join("." * int(c) if c.isdigit() else c for c in board).split("/")
    return Position("".join(reversed(ranks)), side == "w", rights.replace("-", ""))


def played(words: str, at: Position | None = None) -> Position:
    """The position behind some moves."""
    at = at or Position()
    for word in words.split():
        at = after(at, next(move for move in legal_moves(at) if written(move) == word))
    return at


def count(at: Position, depth: int) -> int:
    """How many sequences of so many moves there are."""
    return sum(count(after(at, move), depth - 1) for move in legal_moves(at)) if depth else 1


# Counts that chess programs agree on: https://www.chessprogramming.org/Perft_Results
@pytest.mark.parametrize(
    ("fen", "counts"),
    [
        ("rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq", (20, 400)),
        ("r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq", (48, 2039)),
        ("8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w -", (14, 191)),
        ("r3k2r/Pppp1ppp/1b3nbN/nP6/BBP1P3/q4N2/Pp1P2PP/R2Q1RK1 w kq", (6, 264)),
    ],
)
def test_there_are_as_many_moves_as_chess_has(fen: str, counts: tuple[int, int]):
    at = position(*fen.split())
    assert (count(at, 1), count(at, 2)) == counts


def test_a_pawn_is_taken_in_passing_only_at_once():
    at = played("e2e4 a7a6 e4e5 d7d5")
    assert "e5d6" in map(written, legal_moves(at))
    assert "e5d6" not in map(written, legal_moves(played("h2h3 h7h6", at)))


def test_a_game_is_legal_and_counting_ends_at_the_first_move_that_is_not():
    assert share_of_legal(game(random.Random(3), longest=12)) == (12, 12)
    assert share_of_legal("e2e4 e7e5 e1e3 g8f6\nd2d5") == (2, 4)
    mate = "f2f3 e7e5 g2g4 d8h4"
    assert share_of_legal(mate) == (4, 4)
    assert legal_moves(played(mate)) == [] and in_check(played(mate))


def test_a_text_is_the_same_again():
    for make in (texts.diary, texts.lighthouse, texts.genome, texts.mails):
        assert make(random.Random(1), 20) == make(random.Random(1), 20)
        assert make(random.Random(1), 20) != make(random.Random(2), 20)


def test_of_the_mails_only_what_their_writers_wrote_is_learned(tmp_path: Path):
    box = tmp_path / "mails.mbox"
    box.write_text(texts.mails(random.Random(1), 30))
    read = [d.text for d in read_documents([str(box)], CorpusConfig()).documents]
    assert "\n> Dear " in box.read_text() and "example.org" in box.read_text()
    assert len(read) == 30 and "Could you bring" in "".join(read)
    assert not any("> " in text or "canal" in text or "example" in text for text in read)


def test_the_genome_has_genes_from_atg_to_a_stop():
    genome = texts.genome(random.Random(1), 3).replace("\n", "")
    assert set(genome) == set("ACGT")
    stops = [start for start in range(len(genome)) if genome[start : start + 3] == "ATG"]
    longest = max(
        next((i for i in range(s, len(genome) - 2, 3) if genome[i : i + 3] in texts.STOPS), s) - s
        for s in stops
    )
    assert longest >= 40 * 3


def test_names_that_the_text_has_are_not_new():
    assert texts.new_names("LATIN A\nLATIN Q\nLAT", "LATIN A\nLATIN B\n").startswith("1 of 2 ")


def test_a_page_shows_the_sample_and_the_card_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counted = lambda sample, text: f"{len(sample.split())} words"  # noqa: E731
    made = lambda draw: texts.diary(draw, 60)  # noqa: E731
    one = texts.Text("short", "A short one", "About it.", made, "Mon", counted)
    monkeypatch.setattr(gallery, "TEXTS", (one,))
    gallery.train(one, **SMALL)
    gallery.write_pages(tmp_path / "gallery")
    page = (tmp_path / "gallery" / "short.md").read_text(encoding="utf-8")
    run = gallery.run_of(one)
    best = run.events("evaluation")[-1]["best_validation_loss"]
    assert f"| best validation loss | {best:.4f} at step 2 |" in page
    assert page.count("\n```text\n") == 2 and "\nMon" in page and " words." in page
    assert str(gallery.text_file(one).parent) not in page
    assert f"| [A short one](short.md) | {run.corpus()['ledger']['training']:,} |" in (
        tmp_path / "gallery" / "index.md"
    ).read_text(encoding="utf-8")
