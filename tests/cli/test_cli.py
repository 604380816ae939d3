"""The command line as a user meets it. Most verbs run in this process, for speed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from folio.cli.main import VERBS, main
from folio.config import from_table, overrides_table, settings, to_table
from folio.console import show
from folio.recipe.recipe import Recipe, make_recipe
from folio.run.directory import Run, runs_folder
from tests.cli.conftest import Folio, Outcome
from tests.conftest import copied, write_book
from tests.forked import Forked

FLAGS = (
    "--preset gpt2 --model.n-layers 1 --model.d-model 16 --model.n-heads 2",
    "--model.context-length 16 --training.batch-size 4 --training.max-steps 30",
    "--training.evaluation-interval 10 --optimizer.learning-rate 1e-2",
    "--device.kind cpu --device.threads 1 --device.precision float32",
)
TRAIN = " ".join(FLAGS).split()
pytestmark = pytest.mark.xdist_group("forked")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder / "runs"))
        main(["train", str(write_book(folder)), "--name", "trained", *TRAIN])
    return folder / "runs" / "trained"


@pytest.fixture
def trained(made: Path) -> Run:
    """A copy of a run that is trained once for all tests here."""
    return copied(made)


def test_help_lists_every_verb_and_each_has_help(folio: Folio):
    overview = folio("--help")
    assert overview.code == 0
    for verb in VERBS:
        assert verb in overview.out
        assert f"folio {verb}" in folio(verb, "--help").out


@pytest.mark.usefixtures("whole_end")
def test_training_leaves_a_run_and_says_what_to_do_next(folio: Folio, book: Path):
    outcome = folio("train", str(book), *TRAIN)
    assert outcome.code == 0
    run = Run(runs_folder() / "book-gpt2-1")
    for word in ("validation", "diagnosis", f"folio sample {run.path}"):
        assert word in outcome.out
    assert [line[:5] for line in outcome.out.splitlines() if "folio " in line][-1] == "next "
    assert outcome.out.count("\nnext  ") == 1 and outcome.out.count(f"folio sample {run.path}") == 1
    assert "step 10: train loss" in outcome.err and "device: cpu, float32" in outcome.err
    there = {path.name for path in run.path.iterdir()}
    assert there >= {
        "recipe.toml", "tokenizer.json", "tokens", "corpus.json", "metrics.jsonl",
        "loss.svg", "README.md", "checkpoints", "best.json", "last.json",
    }  # fmt: skip
    card = run.card_file.read_text()
    assert "![loss curves](loss.svg)" in card and "20,000 in = 18,000 training" in card
    assert run.picture_file.read_text().lstrip().startswith("<?xml")


def test_sampling_continues_a_prompt_and_repeats_with_a_seed(folio: Folio, trained: Run):
    flags = ("--prompt", "The ", "--seed", "3", "--max-tokens", "40", "--no-stop")
    one, two = folio("sample", "trained", *flags), folio("sample", *flags)
    assert one.code == 0 and one.out == two.out and one.out.startswith("The ")
    assert len(one.out.rstrip("\n")) == 44
    several = folio("sample", "--samples", "3", "--max-tokens", "5")
    assert [line for line in several.out.splitlines() if line.startswith("---")] == [
        "--- 1 ---",
        "--- 2 ---",
        "--- 3 ---",
    ]
    second = folio("sample", "--seed", "4", "--max-tokens", "5").out.strip("\n")
    pair = folio("sample", "--seed", "3", "--samples", "2", "--max-tokens", "5").out
    assert pair.rstrip("\n").endswith(second)
    greedy = [folio("sample", "--temperature", "0", "--max-tokens", "20").out for _ in range(2)]
    assert greedy[0] == greedy[1]


def test_sampling_tells_probabilities_and_ends_at_a_string(folio: Folio, trained: Run):
    flags = ("--json", "--seed", "3", "--max-tokens", "40", "--min-p", "0.01", "--no-stop")
    told = json.loads(folio("sample", *flags, "--logprobs", "2", "--samples", "2").out)
    assert [len(tokens) for tokens in told["tokens"]] == [40, 40]
    spelled = ["".join(token["text"] for token in tokens) for tokens in told["tokens"]]
    assert [text.replace("<|endoftext|>", "\n\n") for text in spelled] == told["texts"]
    for token in (token for tokens in told["tokens"] for token in tokens):
        likeliest, other = (alternative["log_probability"] for alternative in token["alternatives"])
        assert 0 >= likeliest >= max(other, token["log_probability"])
    assert told["min_p"] == 0.01 and told["repetition_penalty"] == 1.0
    first, second = told["texts"][0][10:12], told["texts"][0][20:23]
    ends = "--stop-string", first, "--stop-string", second, "--stop-string", "--- x"
    stopped = json.loads(folio("sample", *flags, *ends).out)
    expected = min(told["texts"][0].partition(end)[0] for end in (first, second))
    assert stopped["texts"] == [expected] and stopped["stop_strings"] == [first, second, "--- x"]
    assert "tokens" not in stopped


def test_evaluation_gives_exact_first_and_agrees_with_the_run(folio: Folio, trained: Run):
    records = json.loads(folio("evaluate", "--json").out)
    assert [r["protocol"] for r in records] == ["exact", "strided", "exact, with the window"]
    best = json.loads((trained.path / "best.json").read_text())
    assert records[0]["checkpoint"] == best["checkpoint"]
    assert records[0]["nats_per_token"] == pytest.approx(best["validation_loss"], rel=1e-5)
    assert {record["targets"] for record in records} == {1999}
    assert max(map(len, folio("evaluate").out.split("\n\n")[1].splitlines())) <= 80


def test_evaluation_takes_other_texts(folio: Folio, trained: Run, tmp_path: Path):
    other = tmp_path / "other.txt"
    other.write_text("The 1th line!")
    (record, _) = json.loads(folio("evaluate", "trained", str(other), "--json").out)
    assert record["targets"] == 12 and record["unknown_share"] == pytest.approx(1 / 12)
    assert json.loads(folio("evaluate", str(other), "--json").out)[0] == record


@pytest.mark.parametrize("text", ["file", "validation"])
def test_a_large_model_reads_a_sample_of_a_long_text(
    text: str, folio: Folio, trained: Run, book: Path, monkeypatch: pytest.MonkeyPatch
):
    ask = ("evaluate", "trained", *([str(book)] if text == "file" else []), "--json")
    everything = folio(*ask)
    monkeypatch.setattr("folio.run.model.MOST_WORK", 1e6)
    sample = folio(*ask)
    assert "% of the" in sample.err and "--whole" in sample.err and not everything.err
    some, of = (json.loads(said.out)[0]["targets"] for said in (sample, everything))
    assert 0 < some < of / 2
    assert folio(*ask, "--whole").out == everything.out


def test_a_model_goes_on_with_another_text(folio: Folio, trained: Run, book: Path, tmp_path: Path):
    new = tmp_path / "letters.txt"
    new.write_text("The winds sing of the line. " * 200, encoding="utf-8")
    flags = ["--name", "tuned", "--training.max-steps", "4", "--device.threads", "1"]
    assert folio("train", str(new), "--from", "trained", "--keep", "0.5", *flags).code == 0
    facts = {fact["run"]: fact["from"] for fact in json.loads(folio("runs", "--json").out)}
    assert facts == {"trained": None, "tuned": str(trained.path)}
    assert "letters.txt (from trained)" in folio("runs").out
    texts = [row["text"] for row in json.loads(folio("evaluate", "tuned", "--json").out)]
    assert "old text" in texts
    recipe = str(runs_folder() / "tuned" / "recipe.toml")
    assert folio("train", recipe, "--name", "again").code == 0
    assert "--from RUN" in folio("train", str(new), "--keep", "0.5").err


def test_runs_are_listed_and_compared(folio: Folio, trained: Run, book: Path):
    folio("train", str(book), "--name", "second", "--page", *TRAIN)
    assert "finished: step 30 of 30" in (runs_folder() / "second" / "page.html").read_text("utf-8")
    listing = folio("runs").out
    assert "trained" in listing and "30/30" in listing and "finished" in listing
    facts = json.loads(folio("runs", "--json").out)
    assert [fact["run"] for fact in facts] == ["trained", "second"]
    assert facts[0]["parameters"] > 3000 and facts[0]["best_validation_loss"] < 3
    outcome = folio("runs", "--compare", "trained", "second", "--page")
    assert outcome.code == 0 and (runs_folder() / "compare.svg").stat().st_size > 1000
    assert "trained and second cannot be told apart: 0.0000 ± 0.0000 nats per token" in outcome.out
    assert "█ trained\n" in outcome.out and str(runs_folder() / "compare.html") in outcome.out
    assert "cannot be told apart" in (runs_folder() / "compare.html").read_text(encoding="utf-8")
    facts = json.loads(folio("runs", "--compare", "trained", "second", "--json").out)
    assert "difference" not in facts[0] and facts[1]["difference"]["texts"] >= 16
    assert "to compare: --compare A B" in folio("runs", "--page").err


def test_resuming_a_complete_run_says_how_to_go_on(folio: Folio, trained: Run):
    assert "--minutes 5" in folio("resume").err
    outcome = folio("resume", "trained", "--training.max-steps", "40")
    assert outcome.code == 0 and "going on from" in outcome.err
    assert json.loads((trained.path / "last.json").read_text())["step"] == 40


@pytest.mark.parametrize("given", [{}, {"preset": "gpt2", "size": "micro"}, {"size": "baby"}])
def test_settings_are_listed_with_the_values_of_their_preset_and_size(
    folio: Folio, given: dict[str, str]
):
    flags = [f"--{name}={value}" for name, value in given.items()]
    lines = folio("train", "--settings", *flags).out.splitlines()
    listed = [line.removeprefix("--").partition(" ") for line in lines if line.startswith("--")]
    table = overrides_table(Recipe, [(name, value) for name, _, value in listed])
    recipe = make_recipe(given)
    assert to_table(from_table(Recipe, table)) == to_table(recipe)
    assert len(listed) == len(list(settings(Recipe)))


def test_a_new_verb_is_a_file_and_a_line_in_the_table(
    folio: Folio, monkeypatch: pytest.MonkeyPatch
):
    def greet(name: str, twice: bool = False) -> None:
        """Say hello."""
        show(f"hello {name}" * (1 + twice))

    module = types.ModuleType("folio.cli.greet")
    module.greet = greet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(VERBS, "greet", "Say hello.")
    assert folio("greet", "you").out == "hello you\n"
    assert folio("greet", "you", "--twice").out == "hello youhello you\n"
    assert "greet" in folio("--help").out


def test_settings_without_flags_are_those_of_the_preset_modern(folio: Folio):
    lines = folio("train", "--settings").out.splitlines()
    rates = [
        "--optimizer.learning-rate 0.0039",
        "--optimizer.matrix-learning-rate 0.014",
    ]  # 0.5/128
    assert {"--model.positions rope", "--model.bias false", "--optimizer.kind muon"} <= set(lines)
    assert {*rates, "--training.batch-size 8", "--model.context-length 128"} <= set(lines)


def test_a_recipe_file_is_trained(folio: Folio, trained: Run, tmp_path: Path):
    outcome = folio("train", str(trained.recipe_file), "--training.max-steps", "10")
    assert outcome.code == 0
    assert "10 of 10" in Run(runs_folder() / "book-gpt2-1").card_file.read_text()


MISTAKES = {
    "missing file": ("train nothing.txt", "There is no file, folder or built-in corpus"),
    "empty corpus": ("train EMPTY", "it has no text"),
    "shorter than a window": ("train SHORT", "fewer than one window"),
    "binary file": ("train BINARY", "binary file"),
    "wrong encoding": ("train LATIN --corpus.encoding utf-8", "byte 0xfc at offset 2"),
    "unknown setting": ("train BOOK --model.n-layer 3", "Did you mean 'model.n_layers'?"),
    "a flag of no verb": ("train BOOK --minuets 3", "'minuets'. folio train --settings lists all."),
    "impossible shape": ("train BOOK --model.d-model 10 --model.n-heads 4", "divisible"),
    "wrong type of a flag": ("train BOOK --model.n-layers many", "must be a whole number"),
    "wrong type of minutes": ("train BOOK --minutes soon", "minutes"),
    "endless minutes": ("train BOOK --training.max-steps 9 --minutes 1e308", "at most 5000000"),
    "wrong type in TOML": ("train TOML", "model.n_layers must be a whole number, got 'four'"),
    "missing recipe": ("train nothing.toml", "There is no file nothing.toml"),
    "unknown preset": ("train BOOK --preset gpt3", "Did you mean 'gpt2'?"),
    "unknown size": ("train BOOK --size tiny", "Unknown size 'tiny'"),
    "unknown device": ("train BOOK --device.kind tpu", "one of auto, cpu, cuda, mps"),
    "device that is not there": ("train BOOK --device.kind mps", "Available: cpu"),
    "name with a slash": ("train BOOK --name a/b", "not a plain name"),
    "recipe among files": ("train BOOK TOML", "A recipe stands alone"),
    "flag without a value": ("train BOOK --training.page", "--training.page VALUE"),
    "no run": ("sample", "There is no run"),
    "resume of nothing": ("resume nothing", "There is no run 'nothing'"),
    "folder that is not a run": ("evaluate FOLDER", "is not a run"),
    "unknown verb": ("trian BOOK", "trian"),
}


@pytest.fixture
def inputs(tmp_path: Path, book: Path) -> dict[str, str]:
    folder = tmp_path / "inputs"
    folder.mkdir()
    contents = {
        "EMPTY": b"",
        "SHORT": b"a text that is short.",
        "BINARY": b"\x89PNG\0\0",
        "LATIN": "grün".encode("latin-1"),
        "TOML": b'[model]\nn_layers = "four"\n',
    }
    paths = {"BOOK": str(book), "FOLDER": str(folder)}
    for name, data in contents.items():
        path = folder / f"{name.lower()}.{'toml' if name == 'TOML' else 'txt'}"
        path.write_bytes(data)
        paths[name] = str(path)
    return paths


def assert_one_line(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2
    lines = outcome.err.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("error: ")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_nothing_is_written(
    folio: Folio, inputs: dict[str, str], mistake: str
):
    command, message = MISTAKES[mistake]
    outcome = folio(*(inputs.get(word, word) for word in command.split()))
    assert_one_line(outcome, message)
    assert not runs_folder().exists()


SAMPLE_MISTAKES = {
    "--top-p 0": "give temperature 0",
    "--temperature -1": "0 (greedy) or more",
    "--top-k -2": "top_k must be 0",
    **dict.fromkeys(("--samples 0", "--samples 1000001"), "must be 1 to 1,000,000, got"),
    "--max-tokens -1": "0 or more",
    "--checkpoint 17": "Give best, last or one of",
    "--prompt Ωmega": "'Ω' (U+03A9)",
    "--forever --samples 2": "writes one text",
    "--min-p 2": "min_p must be a share, 0 to 1",
    "--repetition-penalty 0": "above 0",
    "--logprobs 3": "--logprobs needs --json",
    "--json --logprobs -3": "0 or more, or None",
    "traind": "Did you mean 'trained'?",
}


@pytest.mark.parametrize("flags", SAMPLE_MISTAKES)
def test_a_mistake_in_sampling_gets_one_line(folio: Folio, trained: Run, flags: str):
    assert_one_line(folio("sample", *flags.split()), SAMPLE_MISTAKES[flags])


def test_a_name_that_exists_is_refused_and_the_run_stays(folio: Folio, trained: Run, book: Path):
    before = trained.recipe_file.read_bytes()
    outcome = folio("train", str(book), "--name", "trained", "--seed", "9", *TRAIN)
    assert_one_line(outcome, "exists already")
    assert trained.recipe_file.read_bytes() == before


def test_a_damaged_checkpoint_is_named_and_the_newest_whole_one_is_used(folio: Folio, trained: Run):
    best = json.loads((trained.path / "best.json").read_text())["checkpoint"]
    (trained.checkpoints_folder / best / "model.safetensors").write_bytes(b"")
    outcome = folio("sample", "--max-tokens", "5")
    assert outcome.code == 0
    assert f"{best} is damaged" in outcome.err and "Using" in outcome.err
    assert_one_line(folio("sample", "--checkpoint", str(int(best[5:]))), "damaged")


def test_a_tokenizer_of_another_run_is_refused(folio: Folio, trained: Run, tmp_path: Path):
    (tmp_path / "other.txt").write_text("abcabcdefg " * 300)
    assert folio("train", str(tmp_path / "other.txt"), "--name", "other", *TRAIN).code == 0
    other = Run(runs_folder() / "other").tokenizer_file.read_bytes()
    trained.tokenizer_file.write_bytes(other)
    assert_one_line(folio("sample", "trained"), "is not the tokenizer")


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(
    folio: Folio, book: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FOLIO_RUNS", str(tmp_path / "file"))
    assert_one_line(folio("train", str(book), *TRAIN), "cannot be written")


# ---- real processes ----------------------------------------------------------------------


Process = subprocess.Popen[str]


def start(*arguments: str, **more: Any) -> Process:
    return Forked(
        [sys.executable, "-m", "folio", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.fixture
def long_training(book: Path) -> Iterator[Process]:
    flags = [*TRAIN, "--training.max-steps", "100000", "--training.evaluation-interval", "20"]
    flags += ["--training.log-interval", "1"]
    process = start("train", str(book), "--name", "long", *flags)
    yield process
    process.kill()
    process.communicate()


def wait_for(process: Process, words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"the process ended without saying {words!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_exits_0(
    folio: Folio, long_training: Process, number: int
):
    wait_for(long_training, "step 20:")
    long_training.send_signal(number)
    out, err = long_training.communicate(timeout=60)
    assert long_training.returncode == 0, err
    run = Run(runs_folder() / "long")
    assert "interrupted; everything is saved" in err and out.count("folio") == 1
    assert out.endswith(f"next        folio resume {run.path}\n")
    assert ("loss.svg" in out) == run.picture_file.is_file()  # it may end before an evaluation
    last = json.loads((runs_folder() / "long" / "last.json").read_text())["step"]
    steps = run.events("step")
    assert steps[-1]["step"] <= last
    resumed = folio("resume", "long", "--training.max-steps", str(last + 5))
    assert resumed.code == 0 and f"step-{last:08d}" in resumed.err


def test_two_processes_cannot_write_one_run_and_one_that_is_killed_goes_on(
    folio: Folio, long_training: Process
):
    wait_for(long_training, "step 40:")
    assert_one_line(folio("resume", "long"), f"process {long_training.pid}")
    long_training.kill()
    long_training.communicate()
    steps = Run(runs_folder() / "long").newest()[0].step + 20
    resumed = folio("resume", "long", "--training.max-steps", str(steps))
    assert resumed.code == 0 and "going on from" in resumed.err
    assert json.loads((runs_folder() / "long" / "last.json").read_text())["step"] == steps


def test_forever_writes_until_ctrl_c_and_exits_0(trained: Run):
    process = start("sample", "--forever")
    assert process.stdout is not None
    text = process.stdout.read(400)  # many times the context of 16
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert len(text) == 400 and process.returncode == 0


def test_a_closed_pipe_is_no_error(trained: Run):
    process = start("sample", "--max-tokens", "100000")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_standard_input_is_a_corpus(folio: Folio, book: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(book.read_bytes())))
    outcome = folio("train", "-", *TRAIN)
    assert outcome.code == 0, outcome.err
    assert "stdin-gpt2-1" in outcome.out


def test_validation_files_are_held_out(folio: Folio, book: Path, tmp_path: Path):
    story = tmp_path / "story.txt"
    story.write_text("The 3th line of verse sings. " * 30)
    outcome = folio("train", str(book), "--validation", str(story), "--name", "held", *TRAIN)
    assert outcome.code == 0, outcome.err
    ledger = Run(runs_folder() / "held").corpus()["ledger"]
    assert (ledger["training"], ledger["validation"], ledger["elsewhere"]) == (18_000, 2_000, 870)
