"""A vocabulary that was loaded: what it lacks is told, and what it is made of is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folio.cli.main import main
from folio.config import read_toml
from folio.recipe.build import make_stream
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.start import started
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, runs_folder
from folio.tokens.goldfish import dropped
from folio.tokens.ignored import IGNORED
from tests.export.making import MODERN, TOKENIZERS, random_run
from tests.recipe.test_resume import recipe_of
from tests.recipe.test_start import DEVICE, Listener


@pytest.mark.parametrize(("kind", "before"), [("character", 50), ("bpe", 13)])
def test_a_loaded_vocabulary_is_asked_what_it_is_made_of(kind: str, before: int, book: Path):
    settings: Any = {"tokenizer": {"kind": kind}, "training": {"max_steps": 2}}
    train_recipe(recipe_of(book, **settings), "base", Watcher())
    training = {"max_steps": 2, "goldfish": 4}
    table = {"start": {"run": "base", "keep": 0.0}, "corpus": {"sources": [str(book)]}}
    recipe = make_recipe(started(table | {"training": training, "device": DEVICE}))
    assert recipe.tokenizer.kind == "file"
    run = train_recipe(recipe, "tuned", Watcher()).run
    written = make_recipe(read_toml(run.recipe_file))
    assert written.training.goldfish_before == before
    tokens = np.random.default_rng(0).integers(0, 9, 400).astype(np.uint8)
    batch = make_stream(written, tokens).next_batch(5)
    places = np.flatnonzero(dropped(tokens, np.arange(400), 4, before))
    found = 0
    for row, targets in zip(batch.inputs, batch.targets):
        start = next(s for s in range(385) if np.array_equal(tokens[s : s + len(row)], row))
        ignored = start + 1 + np.flatnonzero(targets == IGNORED)
        assert set(ignored) == set(places) & set(range(start + 1, start + 1 + len(row)))
        found += len(ignored)
    assert found


@pytest.mark.parametrize(("kind", "before"), [("character", 50), ("bpe", 13)])
def test_a_run_that_begins_to_leave_targets_out_asks_its_vocabulary_too(
    kind: str, before: int, book: Path
):
    recipe = recipe_of(book, tokenizer={"kind": kind}, training={"max_steps": 1})
    run = train_recipe(recipe, "plain", Watcher()).run
    resume_run(run, {"training": {"max_steps": 2, "goldfish": 4}}, Watcher())
    assert make_recipe(read_toml(run.recipe_file)).training.goldfish_before == before


def test_bytes_that_a_vocabulary_lacks_are_told_and_give_no_bits_per_byte(
    capfd: pytest.CaptureFixture[str],
):
    opened = random_run(runs_folder(), "lacking", **MODERN)
    assert opened.tokenizer.lost_bytes(["a\x07b", "\x07"]) == (2, 4)
    main(["evaluate", "made", "--text", "The cat\x07 sat\x07.", "--json"])
    out, err = capfd.readouterr()
    record = json.loads(out)[0]
    assert "lacks 2 of the 14 bytes of this text" in err
    assert record["unknown_share"] == pytest.approx(2 / 14)
    assert not {"bits_per_byte", "bits_per_character", "nats_per_character"} & record.keys()
    main(["evaluate", "made", "--text", "The cat sat.", "--json"])
    out, err = capfd.readouterr()
    assert "bits_per_byte" in json.loads(out)[0] and "lacks" not in err
    main(["evaluate", "made", "--text", "The cat sat. " * 1700 + "\x07"])
    assert "<0.01%" in capfd.readouterr().out, "the share for which there are no bits per byte"
    assert TOKENIZERS["bytes"].lost_bytes(["\x07"]) == (0, 0)


def test_a_training_tells_the_bytes_that_it_never_reads(book: Path):
    random_run(runs_folder(), "lacking", **MODERN)
    book.write_text(book.read_text().replace("winds", "winds\x07"))
    n = book.read_text()[: int(len(book.read_text()) * 0.9)].count("\x07")
    table = {"start": {"run": "made"}, "corpus": {"sources": [str(book)]}}
    watcher = Listener()
    settings = {"training": {"max_steps": 1}, "device": DEVICE}
    train_recipe(make_recipe(started(table | settings)), "tuned", watcher)
    (line,) = [line for line in watcher.told if "are not in the vocabulary of" in line]
    assert f"{n:,} of " in line


def test_a_recipe_that_may_begin_with_a_run_is_of_format_2(book: Path):
    run = train_recipe(recipe_of(book, training={"max_steps": 1}), "base", Watcher()).run
    assert read_toml(Run(run.path).recipe_file)["format"] == 2


def test_a_plan_begins_with_the_run_that_is_named(
    book: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from folio.recipe.speed import Throughput

    train_recipe(recipe_of(book, training={"max_steps": 2}), "base", Watcher())
    monkeypatch.setattr("folio.recipe.sizing.measure", lambda *_: Throughput(0.1, 0.1))
    for flag in ("--from", "--start.run"):
        main(["plan", str(book), flag, "base", "--minutes", "1", "--json"])
        out, _ = capfd.readouterr()
        record = json.loads(out)
        (size,) = record["sizes"]
        n = read_toml(runs_folder() / "base" / "recipe.toml")["model"]["d_model"]
        assert n == 16 and size["parameters"] < 20_000 and size["loss"] is None
        assert record["verdict"].startswith("it goes on with ")
    main(["plan", str(book), "--from", "base", "--minutes", "1"])
    assert "--from base" in capfd.readouterr().out
