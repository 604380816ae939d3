"""What the worker of a page says of a text, against Folio's own model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from folio.export.page_copies import filter_of
from folio.tokenizers.base import token_text
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from tests.export.browsers import in_node
from tests.export.making import MODERN, SHAPE, TEXT, random_run
from tests.export.test_page import exported

LOOK = """
const engine = makeWorker();
alive.add(1);
const looks = [];
for (const text of given.texts) looks.push(await engine.look(text, 1));
return looks;
"""
COMPLETE = """
const engine = makeWorker(), texts = Array.from({ length: given.settings.n }, () => "");
alive.add(1);
await engine.complete(given.text, given.settings, 1, ({ index, text }) => (texts[index] += text));
return texts;
"""
GREEDY = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 1}


def looked_at(path: Path, *texts: str) -> list[dict[str, Any]]:
    return in_node(path, LOOK, texts=list(texts))


@pytest.mark.parametrize("name", ["character", "bpe-gpt2", "word", "begun"])
def test_each_token_has_the_log_probability_that_folio_gives(name: str, tmp_path: Path):
    begun = BPETokenizer.train([TEXT], 290, special_tokens=("<bos>", "<|endoftext|>"))
    opened = random_run(tmp_path, begun if name == "begun" else name, **MODERN)
    path, model = exported(opened)
    text = "The cat sat on the mats."
    (look,) = looked_at(path, text)
    ids = opened.prompt_ids(text)
    logits = model(torch.tensor([ids]))[0]
    if (unknown := opened.tokenizer.unknown) is not None:
        logits[:, unknown] = -math.inf
    expected = logits.log_softmax(1)
    tokens = look["tokens"]
    if name != "begun":  # nothing comes before the first one, as for the server
        first = tokens.pop(0)
        assert first["logprob"] is None and first["top"] == []
    assert len(tokens) == len(ids) - 1
    for i, token in enumerate(tokens):
        assert token["logprob"] == pytest.approx(float(expected[i, ids[i + 1]]), abs=1e-4)
        likeliest = expected[i].topk(8)
        shares = [p for _, p in token["top"]]
        assert shares == pytest.approx(likeliest.values.exp().tolist(), abs=1e-4)
    following = [p for _, p in look["next"]]
    assert following == pytest.approx(expected[-1].topk(8).values.exp().tolist(), abs=1e-4)


@pytest.mark.parametrize("name", ["character", "bpe-gpt2", "bpe-qwen2", "word", "bytes"])
def test_tokens_are_the_text_from_their_starts_on(name: str, tmp_path: Path):
    path, _ = exported(random_run(tmp_path, name, **MODERN))
    text = "The cat sat  on the mat." if name == "word" else "漢字 mat 😀; ёлка\n\n e\u0301 "
    text = "The 漢字 mat 😀 ёлка\n\n " if name == "character" else text
    (look,) = looked_at(path, text)
    starts = [token["start"] for token in look["tokens"]]
    utf16 = text.encode("utf-16-le")
    assert starts == sorted(set(starts)) and starts[0] == 0
    for token in look["tokens"]:
        here = token["text"].encode("utf-16-le")
        assert utf16[2 * token["start"] :].startswith(here) and here
    assert [i for i, token in enumerate(look["tokens"]) if token["logprob"] is None] == [0]
    texts = [token["text"] for token in look["tokens"]]
    if name == "word":
        assert texts == ["The", " cat", " sat", "  on", " the", " mat", "."]
    else:
        assert "".join(texts) == text


def test_a_choice_that_is_a_part_of_a_character_is_named_by_its_bytes(tmp_path: Path):
    opened = random_run(tmp_path, "bytes", **MODERN)
    script = "const engine = makeWorker(); return given.ids.map((id) => engine.name(id, false));"
    names = in_node(exported(opened)[0], script, ids=list(range(256)))
    assert names == [token_text(opened.tokenizer, i) for i in range(256)]
    assert names[0xE2] == "bytes:\\xe2" and names[0x41] == "A"


def test_what_was_read_before_changes_nothing(tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **SHAPE))
    long = TEXT[:150].replace("\n", " ")
    texts = ["The", "The cat", "The cat", "The mat", long, long[:60] + "s" + long[60:], long[:90]]
    apart = [look for text in texts for look in looked_at(path, text)]
    assert looked_at(path, *texts) == apart


def test_what_was_written_before_changes_nothing(tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **MODERN))
    script = """
    const engine = makeWorker(), texts = [];
    alive.add(1);
    for (const [i, text] of given.texts.entries()) {
      texts.push("");
      await engine.complete(text, given.settings, 1, (token) => (texts[i] += token.text));
    }
    return texts;
    """
    settings = GREEDY | {"n": 1, "max_tokens": 12}
    texts = ["The cat sat", "The mat sat", "sat", "The cat sat"]
    apart = [in_node(path, script, texts=[text], settings=settings)[0] for text in texts]
    assert in_node(path, script, texts=texts, settings=settings) == apart


def test_an_empty_text_has_what_a_document_begins_with(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    path, model = exported(opened)
    (look,) = looked_at(path, "")
    logits = model(torch.tensor([[opened.start_token]]))[0, 0]
    logits[opened.tokenizer.unknown] = -math.inf
    assert look["tokens"] == []
    assert look["next"][0][1] == pytest.approx(float(logits.softmax(0).max()), abs=1e-4)


def test_continuations_are_those_of_folio_and_of_their_seeds(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    path, _ = exported(opened)
    greedy = in_node(path, COMPLETE, text="The", settings=GREEDY | {"n": 2, "max_tokens": 30})
    assert greedy[0] == greedy[1] and len(greedy[0]) > 10
    drawn = GREEDY | {"temperature": 1, "n": 3, "max_tokens": 30, "seed": 5}
    texts = in_node(path, COMPLETE, text="The", settings=drawn)
    assert len(set(texts)) == 3
    assert in_node(path, COMPLETE, text="The", settings=drawn) == texts
    assert in_node(path, COMPLETE, text="The", settings=drawn | {"seed": 6, "n": 1}) == texts[1:2]


def test_words_are_parted_from_the_text_before_them(tmp_path: Path):
    path, _ = exported(random_run(tmp_path, "word", **MODERN))
    for text, parted in (("cat", True), ("", False)):
        settings = GREEDY | {"n": 1, "max_tokens": 1, "temperature": 1}
        (more,) = in_node(path, COMPLETE, text=text, settings=settings)
        assert more.startswith(" ") is parted


def test_copied_spans_count_as_javascript_does(tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **MODERN))
    copied = "sings of the winds that blow over the sea"
    bits = filter_of([copied], 4000).tolist()
    script = (
        "const engine = makeWorker();"
        "engine.copies = { window: 24, run: 30, source: 'a.txt', bits: given.bits };"
        "return engine.copied(given.text);"
    )
    (span,) = in_node(path, script, text=f"\U0001f600 #### {copied} ####", bits=bits)
    assert span == {"start": 8, "end": 8 + len(copied), "source": "a.txt"}


def test_a_job_that_was_left_ends(tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **MODERN))
    script = (
        "const engine = makeWorker(); let n = 0; alive.add(1);"
        "const hear = () => ++n === 3 && alive.delete(1);"
        "return [await engine.complete('The', given.settings, 1, hear), n];"
    )
    settings = GREEDY | {"n": 1, "max_tokens": 10_000}
    assert in_node(path, script, settings=settings) == [None, 3]
