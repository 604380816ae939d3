"""Folio from Python: what is exported, and that it does what a script expects."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

import folio
from folio.generation.sampling import SamplingConfig, SamplingSettings
from folio.training.parts import Ending, Evaluation
from folio.training.state import TrainingState
from tests.conftest import copied, write_book

TINY: dict[str, Any] = {
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 20},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}
EXPORTED = {
    "Model": ["chat", "evaluate", "generate", "generate_batch", "generate_ids", "score"],
    "Observer": ["ended", "evaluated", "paced", "save", "stepped"],
    "Recipe": ["of"],
    "Result": [],
    "Tokenizer": ["decode", "encode", "save"],
    "UserError": [],
    "explain_text": [],
    "load": [],
    "measure_recall": [],
    "train": [],
}
"""Name -> methods that others rely on."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder))
        return folio.train(write_book(folder), **TINY).run.path


@pytest.fixture
def model(made: Path) -> folio.Model:
    """Of a copy of a run that is trained once for all tests here."""
    return folio.load(copied(made).path)


def test_these_names_are_exported_and_no_others():
    assert folio.__all__ == sorted(EXPORTED)
    assert set(folio.__all__) <= set(dir(folio))
    with pytest.raises(AttributeError, match="'folio' has no attribute 'lod'"):
        _ = folio.lod  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXPORTED)
def test_each_exported_name_is_explained_in_sentences(name: str):
    exported = getattr(folio, name)
    assert exported.__name__ == name
    documented = [exported, *(getattr(exported, method) for method in EXPORTED[name])]
    for thing in documented:
        text = inspect.getdoc(thing)
        assert text and len(text.split()) > 1 and text.splitlines()[0][-1] in ".:", thing
        if inspect.isfunction(thing) and "Args:" in text:
            for parameter in set(inspect.signature(thing).parameters) - {"self"}:
                assert parameter in text, f"{thing} does not explain {parameter}"


def test_train_load_generate(book: Path):
    result = folio.train(book, name=Path("mine"), **TINY)
    model = folio.load(result.run.path)
    text = model.generate("The ", max_tokens=30, seed=1)
    assert isinstance(text, str) and 0 < len(text) <= 30
    assert text == folio.load("mine", "best").generate("The ", max_tokens=30, seed=1)
    assert text == folio.load(checkpoint=20).generate("The ", max_tokens=30, seed=1)
    n_parameters = sum(parameter.numel() for parameter in model.model.parameters())
    assert repr(result).startswith(f"Result('{result.run.path}', finished at step 20, best val")
    assert repr(model) == f"Model('{result.run.path}', step 20, {n_parameters:,} parameters)"


def test_a_batch_gives_a_text_for_each_prompt_in_their_order(model: folio.Model):
    settings: dict[str, Any] = {"max_tokens": 30, "seed": 1}
    prompts = ["The ", "verse ", "The "]
    texts = model.generate_batch(prompts, **settings)
    assert len(texts) == 3 and texts[0] != texts[2]
    assert texts == [
        model.generate(prompt, max_tokens=30, seed=1 + number, compiled=False)
        for number, prompt in enumerate(prompts)
    ]
    assert model.generate_batch([]) == [] and model.generate_batch([""], max_tokens=0) == [""]
    with pytest.raises(folio.UserError, match="must be a list of texts, got the text 'The '"):
        model.generate_batch("The ")


def test_a_text_is_the_same_in_whichever_way_it_is_asked_for(model: folio.Model):
    config = SamplingConfig(temperature=1.0, top_p=0.9, seed=7)
    settings = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "stop": False}
    text = model.generate("The ", max_tokens=60, **settings)  # far beyond the context
    assert len(text) == 60
    assert text == model.generate("The ", max_tokens=60, compiled=False, **settings)
    assert text == model.generate_batch(["The "] * 3, max_tokens=60, **settings)[0]
    assert text == model.generate("The ", max_tokens=300, **settings)[:60]
    streamed = [d.text for _, d in model.write(["The "], config, 60, stop=False)]
    assert text == "".join(streamed) and len(streamed) == 60
    ids = [int(step[0]) for step in model.generate_ids("The ", config, 1, 60, stop=False)]
    assert text == model.tokenizer.decode(ids, skip_special=True)
    stopped = model.generate("The ", max_tokens=60, stop_strings=(text[20:24],), **settings)
    assert stopped == text.partition(text[20:24])[0]


def test_the_tokens_of_a_text_are_scored_as_evaluation_reads_it(model: folio.Model):
    tokens = model.validation()[:200]
    scored = model.score_tokens(tokens.tolist(), n_alternatives=1)
    nats = -sum(s.log_probability or 0.0 for s in scored)
    assert nats == pytest.approx(model.evaluate(tokens)[1].nats, rel=1e-5)
    assert all(s.alternatives[0][1] >= (s.log_probability or 0.0) for s in scored[1:])
    with pytest.raises(folio.UserError, match="Token id 999 does not exist"):
        model.score_tokens([1, 999])


def test_keyword_arguments_of_generate_are_the_fields_of_its_config():
    assert get_type_hints(SamplingSettings) == get_type_hints(SamplingConfig)
    assert SamplingSettings.__optional_keys__ == {field.name for field in fields(SamplingConfig)}


class Counting(folio.Observer):
    """Hears of steps and evaluations alone, as an observer of a user would."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.evaluations: list[Evaluation] = []
        self.ending: Ending | None = None

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        assert state.step == len(self.losses) + 1
        self.losses.append(loss)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self.ending = ending


@pytest.mark.parametrize("fast", ["auto", "off"])
def test_torch_is_left_as_it_was(book: Path, fast: str):
    def state() -> tuple[int, float, float]:
        halved = float(torch.tensor(1e-40) * 0.5)
        return torch.get_num_threads(), halved, float(torch.rand(1, generator=None))

    threads, device = torch.get_num_threads(), {"threads": 1, "fast": fast}
    try:
        for flushes in (False, True):
            torch.set_num_threads(2)
            torch.set_flush_denormal(flushes)
            torch.manual_seed(5)
            before = state()
            torch.manual_seed(5)
            folio.train(book, **(TINY | {"device": TINY.get("device", {}) | device}))
            assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_an_observer_hears_each_step(book: Path):
    observer = Counting()
    result = folio.train(book, observer=observer, **TINY)
    assert len(observer.losses) == 20 and observer.losses[-1] < observer.losses[0]
    losses = [evaluation.validation_loss for evaluation in observer.evaluations]
    assert min(losses) == result.state.best_validation_loss
    assert observer.ending == result.ending == "finished"


def test_what_is_wrong_with_a_text_is_logged(book: Path, caplog: pytest.LogCaptureFixture):
    (book.parent / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    with caplog.at_level(logging.INFO, logger="folio"):
        folio.train(book, book.parent / "broken.pdf", **TINY)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert any("broken.pdf is left out" in line for line in warned)
    assert any(line.startswith("device: ") for line in told)


def test_a_recipe_is_trained_as_a_file_and_as_an_object(book: Path):
    recipe = folio.Recipe.of(corpus={"sources": [str(book)]}, **TINY)
    runs = [folio.train(recipe).run, folio.train(recipe, seed=2).run]
    runs.append(folio.train(runs[0].recipe_file).run)
    weights = [
        next(run.path.glob("checkpoints/*20/model.safetensors")).read_bytes() for run in runs
    ]
    assert weights[0] == weights[2] != weights[1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: folio.load("no-such-run"), "There is no run 'no-such-run'"),
        (lambda: folio.load(Path("no/such/run")), "There is no run 'no/such/run'"),
        (lambda: folio.train("no-such-file.txt"), "no file, folder or built-in corpus"),
        (lambda: folio.train("To be, or not to be\n" * 500), "...'. If that is the text itself"),
        (lambda: folio.train("To be. " * 100), "...'. If that is the text itself"),
        (lambda: folio.train(modle={"n_layers": 2}), "Did you mean 'model'?"),
        (lambda: folio.train(model={"n_layers": "2"}), "model.n_layers"),
        (lambda: folio.train(model=3), "model"),
        (lambda: folio.train(minutes=-1), "minutes"),
        (lambda: folio.train(folio.Recipe(), minutes=0), "minutes must be above 0, got 0."),
        (lambda: folio.train(minutes="5"), "minutes must be a number"),  # type: ignore[arg-type]
        (lambda: folio.train(name=5), "name must be text, got 5."),  # type: ignore[arg-type]
        (lambda: folio.train("a.txt", folio.Recipe()), "A recipe stands alone"),
        (lambda: folio.train(name="a/b"), "is not a plain name"),
        (lambda: folio.Recipe.of(size="tiny"), "Unknown size 'tiny'"),
        (lambda: folio.measure_recall("x", sample=3), "There is no run 'x'"),
    ],
)
def test_a_mistake_is_a_user_error_of_one_line(call: Callable[[], object], words: str):
    with pytest.raises(folio.UserError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_setting_of_generate_names_the_nearest(model: folio.Model):
    with pytest.raises(folio.UserError, match="Did you mean 'temperature'"):
        model.generate(temprature=0.5)  # type: ignore[call-arg]
    with pytest.raises(folio.UserError, match="temperature must be a number, got 'hot'"):
        model.generate(temperature="hot")  # type: ignore[arg-type]
    with pytest.raises(folio.UserError, match="max_tokens must be 0 or more, got -1"):
        model.generate(max_tokens=-1)
    with pytest.raises(folio.UserError, match="lacks 'ß'"):
        model.generate("ß")


def test_unknown_and_padded_ids_are_never_made(book: Path):
    wide: dict[str, Any] = {
        "model": {
            "n_layers": 1,
            "n_heads": 2,
            "d_model": 16,
            "context_length": 16,
            "vocab_size": 512,
        }
    }
    folio.train(str(book), **(TINY | wide))
    opened = folio.load()
    n_ids = opened.tokenizer.vocab_size
    assert opened.model.config.vocab_size == 512 > n_ids
    text = opened.generate(max_tokens=400, temperature=50.0, seed=1, stop=False)
    assert "<unk>" not in text and len(text) > 300


def test_an_empty_prompt_begins_a_document(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"Letter {i}\nDear friend, all is well.\n" * 5)
    longer: dict[str, Any] = {"training": {"batch_size": 8, "max_steps": 150}}
    folio.train(str(tmp_path), **(TINY | longer))
    opened = folio.load()
    assert opened.start_token == opened.tokenizer.end_of_document
