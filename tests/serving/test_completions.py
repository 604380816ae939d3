"""/v1/completions as OpenAI's own client meets it."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from folio.run.model import Model
from folio.serving.served import Served
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.word import WordTokenizer
from tests.export.making import MODERN, random_run
from tests.serving.conftest import COPIED_SEED
from tests.serving.running import LONG, Running, post, serving, wait_for


@pytest.fixture(scope="module")
def client(server: Running):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def log_probabilities(opened: Model, token_ids: list[int]) -> torch.Tensor:
    """(T, V) of every token as the next one."""
    with torch.no_grad():
        return opened.model(torch.tensor([token_ids]))[0].log_softmax(dim=1)


def test_a_seed_gives_the_text_of_folio_generate(client: openai.OpenAI, tiny: Model):
    got = client.completions.create(
        model="tiny", prompt="The river", max_tokens=30, seed=7, temperature=0.8, top_p=0.9
    )
    assert got.choices[0].text == tiny.generate(
        "The river", max_tokens=30, seed=7, temperature=0.8, top_p=0.9, compiled=False
    )
    assert got.object == "text_completion" and got.model == "tiny"
    assert got.usage is not None
    n_drawn = len(got.choices[0].text) + (got.choices[0].finish_reason == "stop")
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (9, n_drawn)


def test_a_stream_is_the_same_text_bit_by_bit(client: openai.OpenAI, lasting: int):
    wanted: dict[str, Any] = {"model": "tiny", "prompt": "The ", "max_tokens": 20, "seed": lasting}
    whole = client.completions.create(**wanted, logprobs=2)
    chunks = list(client.completions.create(**wanted, logprobs=2, stream=True))
    choices = [chunk.choices[0] for chunk in chunks]
    assert len(chunks) == 20 and all(chunk.usage is None for chunk in chunks)
    assert "".join(choice.text for choice in choices) == whole.choices[0].text
    assert [choice.finish_reason for choice in choices] == [None] * 19 + ["length"]
    assert whole.choices[0].logprobs is not None
    for name, expected in whole.choices[0].logprobs:
        told = [getattr(choice.logprobs, name) for choice in choices]
        assert [value for values in told for value in values] == expected, name


def test_usage_comes_last_in_a_stream_that_asks_for_it(client: openai.OpenAI, lasting: int):
    *chunks, last = client.completions.create(
        model="tiny",
        prompt="The ",
        max_tokens=5,
        seed=lasting,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.choices == [] and last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (4, 5)
    assert len(chunks) == 5 and all(chunk.usage is None for chunk in chunks)


def test_n_gives_that_many_texts_each_with_a_seed_of_its_own(client: openai.OpenAI):
    wanted: dict[str, Any] = {"model": "tiny", "prompt": "The ", "max_tokens": 15, "seed": 5}
    alone = client.completions.create(**wanted)
    several = client.completions.create(**wanted, n=4)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == alone.choices[0].text
    assert len({choice.text for choice in several.choices}) == 4
    assert several.usage is not None
    assert several.usage.prompt_tokens == 4
    assert several.usage.completion_tokens == sum(
        len(c.text) + (c.finish_reason == "stop") for c in several.choices
    ), "the token at which a text ends was drawn, too"
    streamed = ["", "", "", ""]
    for chunk in client.completions.create(**wanted, n=4, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in several.choices]


def test_without_a_seed_equal_prompts_get_texts_of_their_own(client: openai.OpenAI):
    wanted: dict[str, Any] = {"model": "tiny", "prompt": ["The "] * 4, "max_tokens": 30}
    found = client.completions.create(**wanted, best_of=1)
    assert len({choice.text for choice in found.choices}) > 1, "two may end at once"
    seeded = client.completions.create(**wanted, seed=5)
    assert len({choice.text for choice in seeded.choices}) == 1
    assert client.completions.create(**wanted, n=2, best_of=2).choices[7].index == 7


def test_thirty_at_once_with_one_seed_write_what_one_alone_writes(
    client: openai.OpenAI, lasting: int
):
    def ask(number: int) -> str:
        wanted: dict[str, Any] = {"max_tokens": 20 + number % 3 * 5, "seed": lasting}
        if number % 2:
            chunks = client.completions.create(model="tiny", prompt="The ", **wanted, stream=True)
            return "".join(chunk.choices[0].text for chunk in chunks)
        return client.completions.create(model="tiny", prompt="The ", **wanted).choices[0].text

    alone = ask(2)
    with ThreadPoolExecutor(30) as pool:
        texts = list(pool.map(ask, range(30)))
    assert len(alone) == 30
    assert texts == [alone[: 20 + number % 3 * 5] for number in range(30)]


def test_a_text_ends_before_its_stop_string(client: openai.OpenAI, lasting: int):
    wanted: dict[str, Any] = {"model": "tiny", "prompt": "The ", "max_tokens": 40, "seed": lasting}
    whole = client.completions.create(**wanted).choices[0].text
    stop = whole[20:22]
    cut = client.completions.create(**wanted, stop=["no such thing", stop])
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == whole.index(stop) + 2, "what was cut off was drawn"
    chunks = client.completions.create(**wanted, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == cut.choices[0].text


def test_logprobs_are_those_of_the_model_whatever_the_temperature(
    client: openai.OpenAI, tiny: Model
):
    got = client.completions.create(
        model="tiny", prompt="The ", max_tokens=6, temperature=0, logprobs=3
    ).choices[0]
    token_ids = tiny.tokenizer.encode("The " + got.text).tolist()
    scores = log_probabilities(tiny, token_ids)
    assert got.logprobs is not None and got.logprobs.tokens == list(got.text)
    assert got.logprobs.text_offset == list(range(6))
    assert got.logprobs.token_logprobs == pytest.approx(
        [float(scores[i - 1, token_ids[i]]) for i in range(4, 10)], abs=1e-4
    )
    for i, top in enumerate(got.logprobs.top_logprobs or (), 4):
        best = scores[i - 1].topk(3)
        expected = {
            tiny.tokenizer.decode([j]): s
            for j, s in zip(best.indices.tolist(), best.values.tolist())
        }
        expected |= {got.text[i - 4]: float(scores[i - 1, token_ids[i]])}
        assert top == pytest.approx(expected, abs=1e-4)


def test_echo_tells_the_log_probabilities_of_the_prompt(client: openai.OpenAI, tiny: Model):
    prompt = "The river sings."
    got = client.completions.create(
        model="tiny", prompt=prompt, echo=True, logprobs=0, max_tokens=0
    )
    (choice,) = got.choices
    assert choice.text == prompt and choice.finish_reason == "length"
    assert got.usage is not None and got.usage.completion_tokens == 0
    token_ids = tiny.tokenizer.encode(prompt).tolist()
    scores = log_probabilities(tiny, token_ids)
    expected = [float(scores[i - 1, token_ids[i]]) for i in range(1, len(prompt))]
    assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-5)
    assert choice.logprobs.tokens == list(prompt)


def test_an_echo_comes_before_its_text_streamed_or_not(client: openai.OpenAI):
    wanted: dict[str, Any] = {
        "model": "tiny",
        "prompt": ["The river ", "A stone "],
        "n": 2,
        "max_tokens": 4,
        "seed": 4,
    }
    plain = client.completions.create(**wanted)
    options: list[dict[str, Any]] = [{}, {"logprobs": 1}]
    for more in options:
        whole = client.completions.create(**wanted, echo=True, **more)
        streamed = ["", "", "", ""]
        offsets: list[list[int]] = [[], [], [], []]
        for chunk in client.completions.create(**wanted, echo=True, stream=True, **more):
            (choice,) = chunk.choices
            streamed[choice.index] += choice.text
            offsets[choice.index] += (choice.logprobs and choice.logprobs.text_offset) or []
        assert streamed == [choice.text for choice in whole.choices]
        for index, choice in enumerate(plain.choices):
            assert streamed[index] == wanted["prompt"][index // 2] + choice.text
        if more:
            assert offsets == [list(range(len(text))) for text in streamed]


def test_token_ids_are_a_prompt_as_their_text_is(client: openai.OpenAI, tiny: Model):
    token_ids = tiny.tokenizer.encode("The river").tolist()
    wanted: dict[str, Any] = {"model": "tiny", "max_tokens": 10, "seed": 6, "echo": True}
    by_text = client.completions.create(prompt="The river", **wanted)
    by_ids = client.completions.create(prompt=token_ids, **wanted)
    both = client.completions.create(prompt=[token_ids, token_ids], **wanted)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert [choice.text for choice in both.choices] == [by_text.choices[0].text] * 2


def test_characters_of_several_tokens_are_streamed_whole(client: openai.OpenAI):
    wanted: dict[str, Any] = {"model": "bytes", "prompt": "漢", "max_tokens": 60, "seed": 1}
    whole = client.completions.create(**wanted, logprobs=0).choices[0]
    pieces = [c.choices[0].text for c in client.completions.create(**wanted, stream=True)]
    assert "".join(pieces) == whole.text
    assert whole.logprobs is not None and whole.logprobs.tokens is not None
    assert any(token.startswith("bytes:\\x") for token in whole.logprobs.tokens)


def test_model_chooses_among_the_runs(client: openai.OpenAI, server: Running):
    assert [model.id for model in client.models.list()] == ["tiny", "bytes", "endless"]
    assert client.models.retrieve("bytes").id == "bytes"
    with pytest.raises(
        openai.NotFoundError, match="no model 'tny' here; there is tiny, bytes, endless"
    ):
        client.completions.create(model="tny", prompt="x")
    missing = server.ask("/v1/completions", {"prompt": "x"})
    assert missing.status == 400 and missing.error["param"] == "model"


def test_errors_are_the_exceptions_of_the_client(client: openai.OpenAI):
    wanted: dict[str, Any] = {"model": "tiny", "prompt": "The "}
    with pytest.raises(openai.BadRequestError, match="temperature must be") as caught:
        client.completions.create(**wanted, temperature=-1)
    assert caught.value.param == "temperature" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="best_of is not supported"):
        client.completions.create(**wanted, best_of=3)
    with pytest.raises(openai.BadRequestError, match="漢") as caught:
        client.completions.create(model="tiny", prompt="漢")
    assert caught.value.param == "prompt"
    with pytest.raises(openai.NotFoundError, match="/v1/completions"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])


def test_token_ids_that_do_not_exist_are_refused(server: Running):
    for token_ids in ([0, 10_000], [-1]):
        answer = server.ask("/v1/completions", {"model": "tiny", "prompt": token_ids})
        assert answer.status == 400 and answer.error["param"] == "prompt"


def test_a_prompt_may_be_longer_than_the_context_but_not_where_it_is_scored(
    server: Running, tiny: Model
):
    prompt = "The river sings. " * 10
    assert len(prompt) > tiny.model.config.context_length
    text = server.complete(prompt, seed=1, max_tokens=10)["choices"][0]["text"]
    assert text == tiny.generate(prompt, seed=1, max_tokens=10, temperature=1.0, compiled=False)
    wanted = {"model": "tiny", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0}
    answer = server.ask("/v1/completions", wanted)
    assert answer.status == 400 and answer.error["code"] == "context_length_exceeded"


def test_an_empty_prompt_begins_a_document(server: Running, tiny: Model):
    got = server.complete("", seed=8, max_tokens=10, echo=True)
    assert got["choices"][0]["text"] == tiny.generate(
        "", seed=8, max_tokens=10, temperature=1.0, compiled=False
    )


def test_no_tokens_are_a_text_too(server: Running):
    got = server.complete(["a", "b"], max_tokens=0)
    assert [choice["text"] for choice in got["choices"]] == ["", ""]
    assert got["usage"]["completion_tokens"] == 0


def test_a_server_with_a_guard_writes_nothing_that_stands_in_the_text(tiny: Model):
    novel = 12
    wanted: dict[str, Any] = {"seed": COPIED_SEED, "max_tokens": 100}
    training = letters(tiny.tokenizer.decode(tiny.training()))
    free = tiny.generate("The ", **wanted, temperature=1.0, compiled=False)
    assert longest_common(letters(free), training) > novel
    with serving({"tiny": Served("tiny", tiny, tiny.guard(novel))}) as running:
        alone = running.complete(**wanted)["choices"][0]["text"]
        several = [choice["text"] for choice in running.complete(**wanted, n=3)["choices"]]
    assert several[0] == alone
    for text in several:
        assert longest_common(letters(text), training) <= novel


def letters(text: str) -> str:
    return "".join(c.lower() for c in text if c.isalnum())


def longest_common(text: str, other: str) -> int:
    n = 0
    for start in range(len(text)):
        while text[start : start + n + 1] in other and start + n < len(text):
            n += 1
    return n


def test_a_client_that_leaves_a_stream_stops_the_work(
    server: Running, client: openai.OpenAI, lasting: int
):
    cancelled = server.metric("cancelled_total")
    stream = client.completions.create(
        model="endless", prompt="The ", max_tokens=LONG, n=2, stream=True
    )
    next(iter(stream))
    stream.close()
    wait_for(lambda: server.metric("cancelled_total") >= cancelled + 2)
    server.until_quiet()
    made = server.metric("tokens_total")
    server.complete(max_tokens=3, seed=lasting)
    assert server.metric("tokens_total") == made + 3, "nothing else is written any more"


def test_a_client_that_leaves_without_a_stream_stops_the_work_too(server: Running):
    cancelled = server.metric("cancelled_total")
    connection = server.send(
        post({"model": "endless", "prompt": "The ", "max_tokens": LONG, "n": 3})
    )
    wait_for(lambda: server.ask("/health").json["active"] == 3)
    connection.close()
    wait_for(lambda: server.metric("cancelled_total") >= cancelled + 3)
    server.until_quiet()


def test_the_text_of_a_seed_is_the_same_after_others_left(server: Running):
    alone = server.complete(seed=21, max_tokens=60)
    leaving = [
        server.send(post({"model": "endless", "prompt": "A", "max_tokens": LONG})) for _ in range(5)
    ]
    wait_for(lambda: server.ask("/health").json["active"] >= 5)
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(server.complete, seed=21, max_tokens=60)
        for connection in leaving:
            connection.close()
        assert beside.result()["choices"] == alone["choices"]
    server.until_quiet()


def test_probabilities_of_alternatives_are_those_of_a_distribution(server: Running, tiny: Model):
    got = server.complete(max_tokens=4, seed=3, logprobs=20, temperature=0)
    for top in got["choices"][0]["logprobs"]["top_logprobs"]:
        assert sum(map(math.exp, top.values())) <= 1 + 1e-5
        assert list(top.values()) == sorted(top.values(), reverse=True)


def test_places_in_an_echo_are_those_in_the_prompt_as_it_was_sent(tmp_path: Path):
    tokenizer = WordTokenizer.train(["hello , world"], 5)
    with serving({"tiny": Served("tiny", random_run(tmp_path, tokenizer, **MODERN))}) as words:
        got = words.complete("hello,  world", echo=True, logprobs=0, max_tokens=0)["choices"][0]
    assert got["text"] == "hello,  world" and got["logprobs"]["text_offset"] == [0, 5, 6]


def test_a_prompt_is_encoded_once_for_all_of_its_texts(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[str] = []
    ordinary = CharacterTokenizer.encode_ordinary

    def encode(self: CharacterTokenizer, text: str) -> Any:
        encoded.append(text)
        return ordinary(self, text)

    monkeypatch.setattr(CharacterTokenizer, "encode_ordinary", encode)
    client.completions.create(model="tiny", prompt="The river", max_tokens=3, n=4, seed=1)
    assert encoded == ["The river"]


@pytest.mark.parametrize("prompt", [" ", "\n\u00a0", ["the river", " "]])
def test_a_prompt_without_a_token_is_refused(tmp_path: Path, prompt: Any):
    tokenizer = WordTokenizer.train(["the river and the sea"], 40)
    opened = random_run(tmp_path, tokenizer, "words", **MODERN)
    with serving({"words": Served("words", opened)}) as running:
        body = json.dumps({"prompt": prompt, "max_tokens": 3}).encode()
        answer = running.ask("/v1/completions", body)
    assert answer.status == 400 and answer.error["param"] == "prompt"
