"""/v1/chat/completions as OpenAI's own client meets it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from folio.generation.chat import make_prompt
from folio.run.model import Model
from folio.serving import app
from folio.serving.chat import Conversation, chat_of
from folio.serving.fields import Fields
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError
from folio.serving.served import Served
from folio.tokenizers.character import CharacterTokenizer
from tests.export.making import MODERN, random_run
from tests.serving.conftest import LETTERS
from tests.serving.running import PATIENCE, Running, serving

SAID: Any = [{"role": "user", "content": "Why is it so?"}]
WANTED: dict[str, Any] = {"model": "talks", "messages": SAID, "seed": 5, "max_tokens": 20}


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that learned conversations, or might have."""
    tokenizer = CharacterTokenizer.train([LETTERS]).with_chat()
    folder = tmp_path_factory.mktemp("talks")
    return random_run(folder, tokenizer, "talks", **MODERN | {"context_length": 64})


@pytest.fixture(scope="module")
def running(talks: Model) -> Iterator[Running]:
    with serving({"talks": Served("talks", talks)}) as running:
        yield running


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_an_answer_is_that_of_folio_chat(client: openai.OpenAI, talks: Model):
    got = client.chat.completions.create(**WANTED, temperature=0.9)
    expected = talks.chat(SAID, seed=5, max_tokens=20, temperature=0.9, compiled=False)
    assert got.choices[0].message.content == expected
    assert got.choices[0].message.role == "assistant" and got.object == "chat.completion"
    assert got.usage is not None
    prompt = make_prompt(talks.tokenizer, SAID, 64, 20)
    assert got.usage.prompt_tokens == len(prompt.token_ids)


def test_a_streamed_answer_is_the_same_bit_by_bit(client: openai.OpenAI):
    whole = client.chat.completions.create(**WANTED, n=2, logprobs=True, top_logprobs=2)
    texts, ends, tokens = ["", ""], ["", ""], list[list[Any]]([[], []])
    for chunk in client.chat.completions.create(
        **WANTED, n=2, logprobs=True, top_logprobs=2, stream=True
    ):
        (choice,) = chunk.choices
        if not ends[choice.index] and not texts[choice.index]:
            assert choice.delta.role == "assistant"
        texts[choice.index] += choice.delta.content or ""
        ends[choice.index] = choice.finish_reason or ""
        assert choice.logprobs is not None
        tokens[choice.index] += choice.logprobs.content or []
    for index, choice in enumerate(whole.choices):
        assert texts[index] == choice.message.content and ends[index] == choice.finish_reason
        assert choice.logprobs is not None and tokens[index] == choice.logprobs.content
        assert "".join(token.token for token in tokens[index]) == texts[index]
        assert all(len(token.top_logprobs) == 2 for token in tokens[index])


def test_an_answer_can_be_sent_back_as_it_came(client: openai.OpenAI, running: Running):
    first = {"role": "user", "content": "Why?"}
    asked: Any = {"model": "talks", "messages": [first], "seed": 5, "max_tokens": 5}
    answer = running.ask("/v1/chat/completions", asked).json["choices"][0]["message"]
    parsed = client.chat.completions.create(**asked).choices[0].message
    for message in (answer, parsed):  # the client sends on what was set, null included
        second: Any = asked | {"messages": [first, message, {"role": "user", "content": "So?"}]}
        assert client.chat.completions.create(**second).choices[0].finish_reason


def test_no_one_is_made_to_speak_for_others(client: openai.OpenAI, talks: Model):
    special = set(talks.tokenizer.special_tokens)
    got = client.chat.completions.create(
        model="talks", messages=SAID, n=16, seed=1, temperature=3, logprobs=True
    )
    for choice in got.choices:
        assert choice.logprobs is not None
        assert not special & {token.token for token in choice.logprobs.content or []}


def test_what_is_left_out_of_a_long_conversation_is_told(running: Running):
    long = [
        {"role": "user", "content": "One long question, is it not?"},
        {"role": "assistant", "content": "It is."},
        *SAID,
    ]
    answer = running.ask("/v1/chat/completions", WANTED | {"messages": long})
    assert answer.status == 200 and answer.json["messages_left_out"] == 2
    assert "messages_left_out" not in running.ask("/v1/chat/completions", WANTED).json
    too_long = [{"role": "user", "content": "long " * 30}]
    refused = running.ask("/v1/chat/completions", WANTED | {"messages": too_long})
    assert refused.status == 400 and refused.error["param"] == "messages"


def test_a_model_without_conversations_says_where_to_go(server: Running):
    answer = server.ask("/v1/chat/completions", WANTED | {"model": "tiny"})
    assert answer.status == 404 and "/v1/completions" in answer.error["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", []),
        ("messages", "Why?"),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": 1}]),
        ("messages", [{"role": "user", "content": "x", "name": "y"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", 3),
        ("top_logprobs", 3),
        ("max_tokens", 0),
        ("store", True),
        ("prompt", "x"),
    ],
)
def test_a_field_that_is_wrong_or_not_supported_is_refused_by_its_name(name: str, value: Any):
    with pytest.raises(RequestError) as caught:
        chat_of(Fields({"messages": SAID} | {name: value}), Limits())
    assert caught.value.status == 400 and caught.value.param == name


def test_a_content_in_parts_is_their_text():
    parts = [{"type": "text", "text": "Why "}, {"type": "text", "text": "so?"}]
    asked = chat_of(Fields({"messages": [{"role": "user", "content": parts}]}), Limits())
    assert asked.messages == [{"role": "user", "content": "Why so?"}]


def test_others_are_answered_while_a_conversation_is_encoded(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    begun, known = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def slow(*arguments: Any) -> Conversation:
        begun.set()
        in_time.append(known.wait(10))
        return Conversation(*arguments)

    monkeypatch.setattr(app, "Conversation", slow)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(running.ask, "/v1/chat/completions", json.dumps(WANTED).encode())
        assert begun.wait(PATIENCE)
        assert running.ask("/health").json["status"] == "ok"
        known.set()
        assert asked.result().status == 200 and in_time == [True]
