"""lm-evaluation-harness against the server: what it reads there is what Folio says itself."""

# pyright: reportMissingImports=false
# (The harness is in the extra `bench` alone.)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from folio.export.targets import export_run
from folio.run.model import Model
from tests.serving.running import Running

pytest.importorskip("lm_eval", reason="in the extra `bench`: 40 packages")
pytestmark = pytest.mark.filterwarnings("ignore")  # of others

PAIRS = [
    ("The river", " stone garden"),
    ("A window of the morning", "s letters, the bridge"),
    ("candle", "."),
]


@pytest.fixture(scope="module")
def harness(server: Running, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    folder, _, _ = export_run(tiny, "hf", "", tmp_path_factory.mktemp("hf") / "tiny")
    made: Any = LocalCompletionsAPI  # whose arguments are those of a class above it
    return made(
        model="tiny",
        base_url=f"{server.url}/v1/completions",
        tokenizer=str(folder),
        tokenizer_backend="huggingface",
        max_length=tiny.model.config.context_length,
        batch_size=2,
    )


def test_the_harness_finds_the_log_likelihoods_of_folio(harness: Any, tiny: Model):
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood", {}, pair, number, ("made", number, 1))
        for number, pair in enumerate(PAIRS)
    ]
    for (begin, rest), (found, greedy) in zip(PAIRS, harness.loglikelihood(requests)):
        assert found == pytest.approx(log_likelihood(tiny, begin, rest), abs=1e-3)
        text = tiny.generate(begin, max_tokens=len(rest), temperature=0)
        assert greedy == (text == rest)


def test_a_task_of_the_harness_gives_the_accuracy_of_folio(
    harness: Any, tiny: Model, tmp_path: Path
):
    """Multiple choice: the end that the model finds likeliest beside another one."""
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask

    right = 0
    documents = tmp_path / "made.jsonl"
    with documents.open("w", encoding="utf-8") as file:
        for begin, gold in [("The river", 0), ("A stone", 1), ("candle", 0)]:
            likely = tiny.generate(begin, max_tokens=8, temperature=0)
            ends = [likely, likely[::-1] if likely != likely[::-1] else likely[1:]]
            scores = [log_likelihood(tiny, begin, end) for end in ends]
            right += (scores[0] >= scores[1]) == (gold == 0)
            file.write(json.dumps({"begin": begin, "ends": ends, "gold": gold}) + "\n")
    task = ConfigurableTask(
        config={
            "task": "made",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(documents)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{begin}}",
            "doc_to_choice": "{{ends}}",
            "doc_to_target": "{{gold}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        }
    )
    evaluate: Any = simple_evaluate
    results = evaluate(model=harness, tasks=[task], bootstrap_iters=0)
    assert results["results"]["made"]["acc,none"] == pytest.approx(right / 3)


def test_the_harness_gets_texts_until_a_string(harness: Any, tiny: Model):
    from lm_eval.api.instance import Instance

    whole = tiny.generate("The river", max_tokens=12, temperature=0)
    until = {"until": [whole[8]], "max_gen_toks": 12, "temperature": 0}
    (text,) = harness.generate_until(
        [Instance("generate_until", {}, ("The river", until), 0, ("made", 0, 1))]
    )
    assert text == whole[: whole.index(whole[8])]


def log_likelihood(opened: Model, begin: str, end: str) -> float:
    """As `folio evaluate` has it."""
    _, nats = opened.score(opened.tokenizer.encode(begin + end))
    return -float(nats[len(begin) - 1 :].sum())
