"""Conversations: the answers are learned, all of them, and nothing else."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import folio
from folio.config import merge, read_toml
from folio.errors import UserError
from folio.evaluation.passages import Passages, read_passages
from folio.evaluation.score import exact_windows
from folio.recall import heart
from folio.recall.config import RecallConfig
from folio.recall.measure import measure_recall, times_read
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.start import started
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run import look_back
from folio.run.directory import Run, runs_folder
from folio.run.model import Model
from folio.tokens.loss_mask import loss_mask
from folio.tokens.mixture import Mixture
from folio.tokens.token_file import open_token_file
from tests.conftest import copied, turn_kernels
from tests.recipe.test_resume import recipe_of, stop_at, weights_of
from tests.recipe.test_start import (
    DEVICE,
    SAVED,
    STEPS,
    Listener,
    assert_a_killed_one_is_made_whole,
    goes_on,
)

CHAT_IDS = ("<|user|>", "<|assistant|>", "<|end|>")


def write_chats(folder: Path) -> Path:
    """Of characters that the book has; the answers are other words than the questions."""
    records: list[dict[str, Any]] = []
    for i in range(120):
        asked = f"The line {i % 10}{i // 10 % 10} of {i % 7}?"
        answer = f"winds of verse {i % 9}."
        if i % 3:
            records.append({"prompt": asked, "completion": answer})
        else:
            talk = [("user", asked), ("assistant", answer), ("user", "The"), ("assistant", "no.")]
            records.append({"messages": [{"role": r, "content": t} for r, t in talk]})
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return write_chats(tmp_path)


def table_of(chats: Path, **changes: Any):
    table = {
        "start": {"run": "base"},
        "corpus": {"sources": [str(chats)], "duplicates": {"threshold": 1.0}},
        "training": {"max_steps": STEPS, "evaluation_interval": 10, "keep_checkpoints": 50},
        "device": DEVICE,
    }
    return started(merge(table, changes))


def tuned(chats: Path, name: str, watcher: Watcher | None = None, **changes: Any) -> Run:
    recipe = make_recipe(table_of(chats, **changes))
    return train_recipe(recipe, name, watcher or Watcher()).run


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of the run `tuned`, which began with `base` and learned conversations, and what
    was told of it.
    """
    folder, watcher = tmp_path_factory.mktemp("talks"), Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(trained))
        table = table_of(write_chats(folder))
    recipe = make_recipe(table)
    return train_recipe(recipe, "tuned", watcher, folder=folder).run.path, watcher.told


@pytest.fixture
def tuned_one(base: Run, made: tuple[Path, list[str]]) -> Run:
    """A copy of the run `tuned` beside `base`."""
    return copied(made[0])


def counted(model: Model, tokens: Any) -> np.ndarray:
    """(N,) which tokens are of an answer or end one, token by token."""
    user, assistant, end = (model.tokenizer.special_tokens[name] for name in CHAT_IDS)
    found, speaks = [], None
    for token in np.asarray(tokens).tolist():
        found.append(speaks == assistant and token not in (user, assistant))
        if token in (user, assistant):
            speaks = token
        elif token == end:
            speaks = None
    return np.array(found)


def slow_loss(model: Model, tokens: Any) -> float:
    """Mean nats of the answers, window by window, by torch alone."""
    total, n = 0.0, 0
    counts, ids = counted(model, tokens), torch.from_numpy(np.asarray(tokens).astype(np.int64))
    for window in exact_windows(len(ids), model.model.config.context_length):
        here = ids[window.start : window.start + window.length + 1]
        log_p = model.model(here[None, :-1])[0].log_softmax(1)
        for place, token in enumerate(here[1:].tolist()):
            if counts[window.start + place + 1]:
                total, n = total - float(log_p[place, token]), n + 1
    return total / n


# ---- what is learned ------------------------------------------------------------------------


def test_an_epoch_has_as_many_tokens_as_count(tuned_one: Run):
    model = folio.load("tuned", STEPS)
    n_read = model.checkpoint.state["tokens"]
    kept = open_token_file(tuned_one.tokens_file("kept"))  # of a text, of which all counts
    n_targets = int(counted(model, model.training())[1:].sum()) + len(kept) - 1
    assert times_read(model) == n_read / n_targets
    assert f"| tokens read | {n_read:,} that count (" in tuned_one.card_file.read_text()


def test_the_losses_of_a_run_are_those_of_its_answers(tuned_one: Run, made: tuple[Path, list[str]]):
    run, (_, told) = tuned_one, made
    model, last = folio.load("tuned"), folio.load("tuned", STEPS)
    for name, tokens in (("train", model.training()), ("validation", model.validation())):
        mask = np.fromfile(run.tokens_file(f"{name}.mask"), np.uint8)[64:]
        assert np.array_equal(mask == 1, counted(model, tokens)), name
    (loss,) = [e["validation_loss"] for e in run.events("evaluation") if e["step"] == STEPS]
    assert loss == pytest.approx(slow_loss(last, last.validation()), abs=1e-4)
    texts = {t["name"]: t for t in json.loads(run.held_out_file.read_text())}
    best = slow_loss(model, model.validation())
    assert texts["validation"]["nats_per_token"] == pytest.approx(best, abs=1e-4)
    n = int(counted(model, model.validation()).sum())
    assert texts["validation"]["targets"] == texts["validation, before"]["targets"] == n
    assert texts["validation"]["nats_per_token"] < texts["validation, before"]["nats_per_token"]
    # The answers are learned, and what is asked is not.
    (example,) = [line for line in told if line.startswith("conversations: ")]
    assert "\u27e6" in example and "<|end|>\u27e7" in example and "\n" not in example
    answers = [c for c in example.split("\u27e6")[1:] if "<|end|>\u27e7" in c]
    assert answers and all(text.startswith(("winds of verse", "no.")) for text in answers)


def test_what_is_asked_is_no_passage_that_could_be_known_by_heart(
    tuned_one: Run, monkeypatch: pytest.MonkeyPatch
):
    model, given = folio.load("tuned"), list[Any]()

    def read(*of: Any, counted: Any, **how: Any) -> Passages:
        given.append((of[1], counted))
        return read_passages(*of, counted=counted, **how)

    for module in (heart, look_back):
        monkeypatch.setattr(module, "read_passages", read)
    measure_recall(model, RecallConfig(samples=2, length=8))
    look_back.look_for_passages(model)
    assert len(given) >= 3
    for tokens, counted in given:
        mask = np.concatenate([*loss_mask(tokens, model.tokenizer)])
        assert (counted == (mask[1:] == 1)).all() and not counted.all()


def test_what_is_asked_has_no_part_in_the_gradient(base: Run, chats: Path):
    from folio.device import Device, DeviceConfig
    from folio.recipe.build import build
    from folio.recipe.prepare import prepare

    recipe = make_recipe(table_of(chats))
    prepared = prepare(recipe, lambda line: None)
    device = Device(DeviceConfig(**DEVICE, fast="off"), "a test")  # type: ignore[arg-type]
    model = merge({}, {"vocab_size": prepared.tokenizer.vocab_size})
    recipe = make_recipe(merge(table_of(chats), {"model": model}))
    texts = prepared.training(), prepared.validation()
    training = build(recipe, device, *texts, masks=prepared.loss_masks())
    stream = training.stream
    batch = (stream.new if isinstance(stream, Mixture) else stream).next_batch(8)
    answer_letters = set(prepared.tokenizer.encode("winds of verse no.0123456789").tolist())
    answer_letters.add(prepared.tokenizer.special_tokens["<|end|>"])
    assert set(batch.targets[batch.targets >= 0].tolist()) <= answer_letters
    assert 0 < batch.n_targets < batch.targets.size / 1.5


def test_new_tokens_begin_as_the_mean_of_all_and_the_old_rows_stay(
    base: Run, tuned_one: Run, made: tuple[Path, list[str]], chats: Path
):
    run, (_, told) = tuned_one, made
    before = base.checkpoint("best")[0].model_tensors()["token_embedding.weight"]
    after = run.checkpoint("0")[0].model_tensors()["token_embedding.weight"]
    n = len(before)
    assert len(after) == n + 3 and torch.equal(after[:n], before)
    torch.testing.assert_close(after[n:], before.mean(0).expand(3, -1))
    assert any("3 tokens are new to the vocabulary" in line for line in told)
    # A second fine-tuning finds them there.
    table = merge(table_of(chats), {"start": {"run": "tuned"}})
    del table["start"]["checkpoint"], table["start"]["sha256"], table["tokenizer"], table["model"]
    again = train_recipe(make_recipe(started(table)), "again", Watcher()).run
    assert folio.load("again").tokenizer.fingerprint == folio.load("tuned").tokenizer.fingerprint
    assert again.tokens_file("kept.mask").exists()
    old = {t["name"]: t["targets"] for t in json.loads(again.held_out_file.read_text())}
    model = folio.load("tuned")
    assert old["old text"] == old["old text, before"] == counted(model, model.validation()).sum()


def test_rows_that_only_padded_become_rows_of_the_new_tokens(book: Path, chats: Path):
    recipe = recipe_of(book, training={"max_steps": 2}, model={"vocab_size": 70})
    base = train_recipe(recipe, "base", Watcher()).run
    n = folio.load("base").tokenizer.vocab_size
    run = tuned(chats, "tuned")
    before = base.checkpoint("best")[0].model_tensors()["token_embedding.weight"]
    after = run.checkpoint("0")[0].model_tensors()["token_embedding.weight"]
    assert len(after) == 70 and torch.equal(after[:n], before[:n])
    torch.testing.assert_close(after[n : n + 3], before[:n].mean(0).expand(3, -1))


def test_from_scratch_too_beside_other_text(book: Path, chats: Path):
    recipe = recipe_of(book, corpus={"sources": [str(book), str(chats)]})
    run = train_recipe(recipe, "scratch", Watcher()).run
    model = folio.load("scratch")
    assert model.tokenizer.has_chat and read_toml(run.recipe_file)["tokenizer"]["kind"] != "file"
    characters = [piece.decode() for piece in model.tokenizer.pieces]
    assert not {"\ufdd0", "\ufdd1", "\ufdd2"} & set(characters)
    mask = np.fromfile(run.tokens_file("train.mask"), np.uint8)[64:]
    text = model.tokenizer.encode("line of verse 4 sings of the 4 winds.\n").tolist()
    ids = np.asarray(model.training()).tolist()
    at = next(i for i in range(len(ids)) if ids[i : i + len(text)] == text)
    assert mask[at : at + len(text)].all()  # of the book all counts
    assert 0 < mask.mean() < 1
    assert math.isfinite(run.events("evaluation")[-1]["validation_loss"])


def test_a_bpe_vocabulary_from_scratch_has_as_many_ids_as_asked(chats: Path):
    recipe = make_recipe(
        {
            "corpus": {"sources": [str(chats)]},
            "tokenizer": {"kind": "bpe", "vocab_size": 280},
            "model": {"n_layers": 1, "n_heads": 1, "d_model": 16, "context_length": 16},
            "training": {"max_steps": 2, "batch_size": 2},
            "device": DEVICE,
        }
    )
    run = train_recipe(recipe, "bpe", Watcher()).run
    tokenizer = folio.load("bpe").tokenizer
    assert tokenizer.vocab_size == 280 and tokenizer.has_chat
    again = make_recipe(read_toml(run.recipe_file))
    assert weights_of(train_recipe(again, "again", Watcher()).run, 2) == weights_of(run, 2)


@pytest.mark.parametrize(
    ("kind", "given", "smallest"), [("bpe", 258, 260), ("word", 3, 6), ("word", 2, 3)]
)
def test_what_is_said_of_a_small_vocabulary_names_the_size_that_was_given(
    kind: str, given: int, smallest: int, chats: Path
):
    table: dict[str, Any] = {"tokenizer": {"kind": kind, "vocab_size": given}, "device": DEVICE}
    with pytest.raises(UserError, match=f"at least {smallest}, .*, got {given}\\."):
        folio.train(str(chats), **table)


# ---- old text beside it ---------------------------------------------------------------------


def test_old_text_beside_conversations_counts_whole(base: Run, chats: Path):
    run = tuned(chats, "tuned", start={"keep": 0.5})
    model, old = folio.load("tuned"), folio.load("base")
    kept = run.tokens_file("kept").read_bytes()[64:]
    assert kept == base.tokens_file("train").read_bytes()[64:]
    assert not run.tokens_file("kept.mask").exists()
    texts = {t["name"]: t for t in json.loads(run.held_out_file.read_text())}
    assert texts["old text"]["targets"] == len(old.validation()) - 1
    tokens = np.asarray(old.validation())
    found = model.score(tokens)[0].nats_per_token  # the same ids in the larger vocabulary
    assert texts["old text"]["nats_per_token"] == pytest.approx(found, abs=1e-5)
    assert texts["old text, before"]["nats_per_token"] == pytest.approx(
        old.score(old.validation())[0].nats_per_token, abs=1e-5
    )


def test_lora_cannot_learn_new_tokens_and_says_so(tuned_one: Run, chats: Path):
    with pytest.raises(UserError, match="Leave --lora out"):
        tuned(chats, "lora", start={"lora": 2})
    assert not (runs_folder() / "lora").exists()
    table = {"start": {"run": "tuned", "lora": 2}, "corpus": {"sources": [str(chats)]}}
    settings = {"training": {"max_steps": 4}, "device": {"kind": "cpu", "precision": "float32"}}
    run = train_recipe(make_recipe(started(merge(table, settings))), "lora", Watcher()).run
    assert folio.load("lora").tokenizer.has_chat and run.events("end")


# ---- going on, and doing it again -----------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_resumed_conversations_match_uninterrupted_ones(
    base: Run, chats: Path, threads: int, monkeypatch: pytest.MonkeyPatch
):
    if threads > 1:
        turn_kernels(monkeypatch, on=True)
    changes: Any = {"start": {"keep": 0.3}, "device": {"threads": threads}}
    whole = tuned(chats, "whole", **changes)
    recipe = make_recipe(table_of(chats, **changes))
    run = train_recipe(recipe, "parts", *stop_at(17)).run
    assert goes_on(run) == "finished"
    assert weights_of(run, STEPS) == weights_of(whole, STEPS)
    for kind, value in (("step", "loss"), ("evaluation", "validation_loss")):
        curves = [[(e["step"], e[value]) for e in r.events(kind)] for r in (run, whole)]
        assert curves[0] == curves[1]
    table = started(read_toml(whole.recipe_file))
    again = train_recipe(make_recipe(table), "again", Watcher(), given=table).run
    assert weights_of(again, STEPS) == weights_of(whole, STEPS)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
@pytest.mark.xdist_group("forked")
def test_one_that_is_killed_ends_with_the_same_bytes(base: Run, chats: Path):
    assert_a_killed_one_is_made_whole(__name__, chats, tuned(chats, "whole", **SAVED))


def test_the_fast_step_of_two_workers_computes_what_the_plain_one_does(
    base: Run, chats: Path, monkeypatch: pytest.MonkeyPatch
):
    turn_kernels(monkeypatch, on=True)
    dropout = {"residual_dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    changes: Any = {"model": dropout, "start": {"keep": 0.3}}
    plain = tuned(chats, "plain", **changes, device={"fast": "off"})
    fast = tuned(chats, "fast", **changes, device={"fast": "on", "threads": 2})
    losses = [[e["loss"] for e in run.events("step")] for run in (plain, fast)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    at_end = [run.events("evaluation")[-1] for run in (plain, fast)]
    for name in ("validation_loss", "training_loss", "standard_error"):
        assert at_end[0][name] == pytest.approx(at_end[1][name], rel=1e-3)


# ---- what is refused or told ----------------------------------------------------------------


def test_canaries_cannot_stand_in_conversations(base: Run, chats: Path):
    with pytest.raises(UserError, match="conversations have none"):
        tuned(chats, "canaries", corpus={"canaries": 4})


def test_nothing_that_counts_stops_before_anything_is_written(
    base: Run, chats: Path, monkeypatch: pytest.MonkeyPatch
):
    def nothing(tokens: Any, tokenizer: Any):
        yield np.zeros(len(tokens), np.uint8)

    monkeypatch.setattr("folio.tokens.loss_mask.loss_mask", nothing)
    with pytest.raises(UserError, match="Nothing in the train text counts") as error:
        tuned(chats, "nothing")
    assert "\n" not in str(error.value) and not (runs_folder() / "nothing").exists()


def test_an_evaluation_of_a_file_counts_its_answers(
    tuned_one: Run, chats: Path, capsys: pytest.CaptureFixture[str]
):
    from folio.cli.main import main

    main(["evaluate", "tuned", str(chats), "--json"])
    out, err = capsys.readouterr()
    exact, strided, in_windows = json.loads(out)
    assert "the answers count" in err
    model = folio.load("tuned")
    n_answers = 120 + 40  # each with its end
    letters = sum(len(f"winds of verse {i % 9}.") for i in range(120)) + 40 * len("no.")
    assert {s["targets"] for s in (exact, strided, in_windows)} == {letters + n_answers}
    assert exact["nats_per_character"] == pytest.approx(
        exact["nats_per_token"] * (letters + n_answers) / letters
    )
    main(["evaluate", "tuned", "--json"])
    validation, *_ = json.loads(capsys.readouterr().out)
    assert validation["targets"] == counted(model, model.validation()).sum()
    assert validation["nats_per_token"] == pytest.approx(
        slow_loss(model, model.validation()), abs=1e-4
    )
    # A run that never learned conversations reads the same file as text.
    main(["evaluate", "base", str(chats), "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["targets"] > 2 * (letters + n_answers) and "answers" not in err


def test_resuming_without_the_mask_is_not_needed_by_a_run_of_text(base: Run):
    assert resume_run(base, {}, Watcher()) is None
    assert not base.tokens_file("train.mask").exists()
