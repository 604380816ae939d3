"""What the page asks a server for, and how it reads the answers, in node."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from folio.serving.limits import Limits
from tests.export.browsers import run_in_node

ENGINE = (files("folio.write") / "engine_server.js").read_text(encoding="utf-8")
FETCH = """
const sent = [], fail = (message) => { throw new TypeError(message); };
const getItem = () => given.blocked ? fail("It is blocked.") : given.key || null;
globalThis.sessionStorage = { getItem };
const pieces = given.pieces.map((piece) => Uint8Array.from(piece));
globalThis.fetch = async (path, { body, headers, signal }) => {
  sent.push([path, JSON.parse(body), headers]);
  if (given.status === 0) fail("Failed to fetch");
  return {
    ok: given.status === 200,
    status: given.status,
    json: async () => JSON.parse(given.answer),
    body: new ReadableStream({ start(c) {
      pieces.forEach((p) => c.enqueue(p));
      if (!given.breaks) c.close();
    }, pull() { if (given.breaks) fail("network error"); } }),
  };
};
const engine = makeEngine({ model: "a run" }), heard = [];
"""
COMPLETE = """
try { await engine.complete("A", given.settings, null, (token) => heard.push(token)); }
catch (error) { heard.push(error.message); }
return { sent, heard };
"""
SETTINGS = {"temperature": 1, "top_p": 0.5, "min_p": 0, "top_k": 0, "seed": 0, "n": 2}


def ask(script: str, stream: str = "", at: int = 1 << 20, **given: Any) -> Any:
    data = stream.encode()
    pieces = [list(data[i : i + at]) for i in range(0, len(data), at)]
    given = {"pieces": pieces, "status": 200, "answer": "{}", "settings": SETTINGS} | given
    return run_in_node(ENGINE, f"const given = {json.dumps(given)};\n{FETCH}\n{script}")


def event(*texts: str) -> str:
    choices = [{"index": i, "text": text, "logprobs": None} for i, text in enumerate(texts)]
    return f"data: {json.dumps({'choices': choices}, ensure_ascii=False)}\n\n"


@pytest.mark.parametrize("at", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stream_is_read_wherever_it_is_cut(at: int, end: str):
    stream = event("a", "\u6f22") + event("\U0001f600", "") + "data: [DONE]\n\n" + event("late")
    answer = ask(COMPLETE, stream.replace("\n", end), at)
    expected = [(0, "a"), (1, "\u6f22"), (0, "\U0001f600")]
    assert answer["heard"] == [{"index": i, "text": text} for i, text in expected]


def test_of_a_long_text_its_end_is_sent_in_whole_characters():
    long = COMPLETE.replace('"A"', '"A" + "\U0001f600".repeat(1e6) + "B"')
    prompt = ask(long, "data: [DONE]\n\n")["sent"][0][1]["prompt"]
    assert prompt == "\U0001f600" * 29_999 + "B"
    assert len(prompt.encode()) < Limits().body_bytes / 2


def test_what_says_nothing_is_not_asked_for():
    answer = ask(COMPLETE, "data: [DONE]\n\n")
    body = {"model": "a run", "prompt": "A", "stream": True, "temperature": 1, "top_p": 0.5, "n": 2}
    assert answer["sent"] == [["v1/completions", body, {"Content-Type": "application/json"}]]


def test_a_key_that_was_given_is_sent():
    ((_, _, headers),) = ask(COMPLETE, "data: [DONE]\n\n", key="sesame")["sent"]
    assert headers["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize("status", [200, 400])
def test_an_error_is_told_in_the_words_of_the_server(status: int):
    error = {"error": {"message": "No such run."}}
    stream = f"data: {json.dumps(error)}\n\n" if status == 200 else ""
    answer = ask(COMPLETE, stream, status=status, answer=json.dumps(error))
    assert answer["heard"] == ["No such run."]


@pytest.mark.parametrize("how", [{"status": 0}, {"breaks": True}])
def test_a_server_that_is_gone_is_called_so(how: dict[str, Any]):
    assert ask(COMPLETE, event("a"), **how)["heard"][-1].startswith("The server cannot be reached.")


def test_a_browser_that_keeps_nothing_asks_without_a_key():
    assert ask(COMPLETE, event("a"), blocked=True)["heard"] == [{"index": 0, "text": "a"}]


def test_a_character_that_the_last_token_only_begins_is_left_out():
    said = {"choices": [{"index": 0, "text": "a\ufffd", "finish_reason": None}]}
    last = {"choices": [{"index": 0, "text": "b\ufffd", "finish_reason": "length"}]}
    stream = "".join(f"data: {json.dumps(one)}\n\n" for one in (said, last))
    assert [one["text"] for one in ask(COMPLETE, stream)["heard"]] == ["a\ufffd", "b"]


def test_offsets_are_those_of_javascript():
    look = {
        "tokens": [
            {"text": "\U0001f600", "start": 0, "logprob": None, "top": []},
            {"text": "a", "start": 1, "logprob": -1, "top": [["a", 0.5]]},
        ],
        "next": [["b", 0.5]],
        "copied": [{"start": 1, "end": 2, "source": "x"}],
    }
    found = ask('return engine.look("\U0001f600a", null);', answer=json.dumps(look))
    assert [token["start"] for token in found["tokens"]] == [0, 2]
    assert found["copied"] == [{"start": 2, "end": 3, "source": "x"}]
    assert found["next"] == [["b", 0.5]]
