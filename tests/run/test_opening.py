"""A run is opened while its training goes on, and reads a text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from folio.errors import UserError
from folio.evaluation.score import exact_windows, places_of, score, strided_windows
from folio.evaluation.uncertainty import standard_error, text_blocks
from folio.run import directory
from folio.run.checkpoint import Checkpoint
from folio.run.directory import Run
from folio.run.opening import open_run
from tests.export.making import MODERN, random_run

DATA = Path(__file__).parents[1] / "data" / "format-0" / "muon-character"


@pytest.mark.parametrize(
    ("which", "moment"), [("best", "reading"), ("last", "reading"), ("best", "checking")]
)
def test_a_checkpoint_that_a_training_drops_is_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, moment: str
):
    run = Run(Path(shutil.copytree(DATA, tmp_path / "run")))
    shutil.rmtree(run.checkpoints_folder / "step-00000005")
    dropped = 0

    def drop() -> None:
        """As an evaluation does that finds a better loss: a new one, the pointers, then delete."""
        nonlocal dropped
        dropped += 1
        old, new = (run.checkpoints_folder / f"step-{9 + dropped + i:08d}" for i in (0, 1))
        shutil.copytree(old, new)
        run.point("best", 10 + dropped, 2.0)
        shutil.rmtree(old)

    name, owner = ("model_tensors", Checkpoint) if moment == "reading" else ("read_json", directory)
    real = getattr(owner, name)

    def in_between(*given: Any) -> Any:
        found = real(*given) if moment == "checking" else None
        if dropped < 3:
            drop()
        return found if moment == "checking" else real(*given)

    monkeypatch.setattr(owner, name, in_between)
    opened = open_run(run, which)
    assert opened.checkpoint.step == 10 + dropped and not opened.complaints


def test_a_checkpoint_that_is_gone_for_good_is_an_error(tmp_path: Path):
    run = Run(Path(shutil.copytree(DATA, tmp_path / "run")))
    shutil.rmtree(run.checkpoints_folder)
    with pytest.raises(UserError, match="no usable checkpoint"):
        open_run(run)
    with pytest.raises(UserError, match="no checkpoint '7'"):
        open_run(run, "7")


def test_both_protocols_are_those_that_are_read_one_by_one(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    tokens = np.random.default_rng(0).integers(0, opened.tokenizer.vocab_size, 210, np.uint16)
    scores, nll = opened.scores(tokens)
    blocks = text_blocks(tokens, opened.tokenizer.end_of_document)
    for found, windows_of in zip(scores, (exact_windows, strided_windows)):
        windows, each = windows_of(len(tokens), 40), list[NDArray[np.float32]]()
        expected = score(opened.model, tokens, windows, found.protocol, nll=each)
        error = standard_error(np.concatenate(each), blocks[places_of(windows)])
        assert found.targets == expected.targets
        assert found.nats == pytest.approx(expected.nats, rel=1e-6)
        assert found.squares == pytest.approx(expected.squares, rel=1e-5)
        assert found.standard_error == pytest.approx(error, rel=1e-4)
        assert (found.counts == expected.counts).all()
    assert nll.sum() == pytest.approx(scores[0].nats, rel=1e-5) and len(nll) == 209


def test_a_sample_of_a_text_has_the_same_targets_in_both_protocols_and_their_losses(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    tokens = np.random.default_rng(0).integers(0, opened.tokenizer.vocab_size, 1000, np.uint16)
    _, nll = opened.scores(tokens)
    exact, strided = opened.evaluate(tokens, most=240)
    # Windows of 40, the first, one in the middle and the last one, which has 39 targets.
    places = [*range(40), *range(480, 520), *range(960, 999)]
    assert exact.nats == pytest.approx(nll[places].sum(), rel=1e-5)
    assert exact.targets == strided.targets == len(places)
    assert (exact.counts == strided.counts).all() and strided.nats != exact.nats
    assert 0 < exact.standard_error < np.inf
    assert opened.evaluate(tokens, most=2000)[0].targets == 999, "no more than may be read"
    mask = np.zeros(1000, np.uint8)
    mask[490:] = 1
    (masked, _) = opened.evaluate(tokens, loss_mask=mask, most=240)
    assert masked.nats == pytest.approx(nll[[i for i in places if i >= 489]].sum(), rel=1e-5)
