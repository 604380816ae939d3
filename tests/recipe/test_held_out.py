from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folio
from folio.corpus.document import Part, make_document
from folio.corpus.leakage import measure_leakage
from folio.corpus.split import whole
from folio.recipe import prepare
from folio.recipe.prepare import clean_tokens
from folio.run import add_ngrams
from folio.run.held_out import HeldOut, read_held_out, too_small
from folio.tokenizers import load
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokenizers.word import WordTokenizer
from folio.tokens.token_file import open_token_file
from folio.training.parts import Evaluation
from folio.training.state import TrainingState

SHARED = "Ein Satz, der lang genug ist, um zweimal zu stehen: die Möwe flog über das Meer."
OWN = "Und ein anderer, den sonst niemand kennt — mit Ärger, 🦊 und so weiter, bis zum Schluß."
SETTINGS: dict[str, Any] = {
    "model": {"n_layers": 1, "d_model": 16, "n_heads": 2, "context_length": 16},
    "training": {"max_steps": 20, "evaluation_interval": 10, "batch_size": 4},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


def parts_of(*texts: str) -> list[Part]:
    """Documents that come in pieces."""
    pieces = ([text[i : i + 7] for i in range(0, len(text), 7)] for text in texts)
    return [whole(make_document("d", lambda cut=cut: iter(cut))) for cut in pieces]


@pytest.mark.parametrize("kind", ["character", "bpe", "character without ü"])
def test_tokens_are_clean_where_their_text_is_new(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepare, "CHUNK_TOKENS", 5)
    training, validation = parts_of(SHARED), parts_of(OWN + SHARED, SHARED, OWN)
    _, seen = measure_leakage(training, validation)
    if kind == "bpe":
        tokenizer = BPETokenizer.train([SHARED + OWN] * 5, 300)
    else:
        known = SHARED + OWN if kind == "character" else SHARED
        tokenizer = CharacterTokenizer("".join(sorted(set(known))))
    texts = [[OWN + SHARED], [SHARED], [OWN]]
    tokens = np.concatenate(list(encode_documents(tokenizer, texts)))
    clean = clean_tokens(tokenizer, tokens, validation, seen)
    assert clean is not None and len(clean) == len(tokens)
    if kind == "bpe":
        text = b"".join(tokenizer.pieces[i] for i in tokens[clean == 1]).decode()
        assert text.replace("<|endoftext|>", "|").replace("|", "") in (OWN + OWN, OWN[:-1] + OWN)
    else:
        ends = int((tokens == tokenizer.end_of_document).sum())
        assert int(clean.sum()) == 2 * len(OWN) + ends


def test_words_cannot_be_traced_to_the_text():
    tokenizer = WordTokenizer.train([SHARED, OWN], 30)
    tokens = tokenizer.encode(SHARED)
    seen = [np.zeros((0, 2), np.int64)]
    assert clean_tokens(tokenizer, tokens, parts_of(SHARED), seen) is None


def test_a_leaky_split_is_warned_of_and_its_clean_part_and_other_texts_are_scored(
    tmp_path: Path, book: Path
):
    text = book.read_text()
    for i in range(20):
        (tmp_path / "notes").mkdir(exist_ok=True)
        (tmp_path / "notes" / f"{i}.txt").write_text(
            f"{SHARED} {text[i * 900 : (i + 1) * 900]} And number {i} ends."
        )
    story = tmp_path / "story.txt"
    story.write_text("A hare, a fox and a badger went out to see the snøw fall over the moor. " * 9)
    corpus = {"split": "documents", "validation": [str(story)]}
    result = folio.train(str(tmp_path / "notes"), name="run", corpus=corpus, **SETTINGS)
    losses = {text.name: text for text in result.held_out}
    assert list(losses) == ["validation", "novel subset", "out-of-domain"]
    best = result.state.best_validation_loss
    assert losses["validation"].nats_per_token == pytest.approx(best, rel=1e-4)
    assert losses["out-of-domain"].nats_per_token > best
    assert losses["out-of-domain"].targets == len(story.read_text()) - 1
    text, known = story.read_text()[1:], load(result.run.tokenizer_file)
    share = sum(not known.pieces.count(c.encode()) for c in text) / len(text)
    assert losses["out-of-domain"].unknown_share == pytest.approx(share) and share > 0
    assert f" targets, {share:.1%} of them unknown)" in str(losses["out-of-domain"])
    assert read_held_out(result.run)[2] == losses["out-of-domain"]
    assert 0 < losses["novel subset"].targets < losses["validation"].targets
    records = result.run.held_out_file.read_text()
    assert json.loads(records)[2]["name"] == "out-of-domain"
    result.run.held_out_file.write_text(records.replace("out-of-domain", "elsewhere"))  # as before
    assert read_held_out(result.run)[2] == losses["out-of-domain"]
    card = result.run.card_file.read_text()
    assert "loss, novel subset" in card and "loss, out-of-domain" in card
    leakage = result.run.corpus()["leakage"]["after"]
    # Each held-out document begins with that sentence; some verses come again too.
    assert 2 * len(SHARED) / losses["validation"].targets <= leakage["covered"] < 0.5


def test_a_small_validation_text_is_warned_of():
    assert "±0.200" in too_small([HeldOut("validation", 100, 2.0, 0.1)])
    assert not too_small([HeldOut("validation", 100_000, 2.0, 0.004)])


def test_the_test_text_is_read_with_the_best_checkpoint_and_the_last(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("folio.training.loop.note_evaluation", first_is_best)
    corpus = {"validation_fraction": 0.1, "test_fraction": 0.2}
    result = folio.train(str(book), name="run", corpus=corpus, **SETTINGS)
    losses = {text.name: text.nats_per_token for text in result.held_out}
    assert list(losses) == ["validation", "test", "test, last step"]
    assert losses["test, last step"] < losses["test"]
    test_ids = open_token_file(result.run.tokens_file("test"))
    assert load(result.run.tokenizer_file).decode(test_ids) == book.read_text()[-len(test_ids) :]


def first_is_best(state: TrainingState, evaluation: Evaluation) -> None:
    """As if the validation loss rose from the first evaluation on."""
    state.evaluated_step = state.step
    if not state.best_step:
        state.best_step, state.best_validation_loss = state.step, evaluation.validation_loss


@pytest.mark.parametrize("ngrams", [{}, {"order": 3}])
def test_where_evaluations_read_a_sample_the_end_of_a_run_reads_no_more(
    book: Path, ngrams: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    """Else a long text would take longer at the end than all of the minutes."""
    monkeypatch.setattr(add_ngrams, "FEWEST_TARGETS", 10)
    training = SETTINGS["training"] | {"validation_sample": 64, "page": True}
    corpus = {"split": "tail", "test_fraction": 0.1}
    settings = SETTINGS | {"training": training, "corpus": corpus, "ngrams": ngrams}
    result = folio.train(str(book), name="sampled", **settings)
    targets = {text.name: text.targets for text in result.held_out}
    assert 48 < targets["validation"] <= 64 and 48 < targets["test"] <= 64
    last = result.run.events("evaluation")[-1]
    if not ngrams and result.state.best_step == last["step"]:
        assert result.held_out[0].nats_per_token == pytest.approx(last["validation_loss"], rel=1e-5)
    learned = json.loads(result.run.learned_file.read_text().splitlines()[-1])
    assert all(np.isfinite(loss) for loss, _ in learned["classes"].values())
