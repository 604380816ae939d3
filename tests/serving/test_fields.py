"""What a body may say: each field is meant, or refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from folio.serving.asked import completion_of
from folio.serving.chat import messages_of
from folio.serving.fields import Fields, parse
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError


def asked(**body: Any):
    return completion_of(Fields({"prompt": "x"} | body), Limits(prompts=8))


WRONG = {
    "max_tokens": [-1, 5000, 1.5, True, "9", [1]],
    "temperature": [-0.1, 1e300, "1", True, float("inf")],
    "top_p": [-1, 1.1, 0],
    "top_k": [-1, 0.5],
    "n": [0, 17, 2.0, True],
    "seed": [-1, 2**53 + 1, 1.0],
    "logprobs": [-1, 21, True],
    "stop": ["", [""], ["a", 1], {"a": 1}, ["x"] * 17],
    "stream": [1, "true"],
    "echo": ["yes"],
    "model": [1, ["tiny"]],
    "prompt": [[], 1, True, [[]], ["a", 1], [1, "a"], [1.0], [True], {"a": 1}, [["a"]]],
    "stream_options": [{"include_usage": True}, 1],
    "best_of": [2, True],
    "suffix": ["x"],
    "logit_bias": [{"5": 1}],
    "presence_penalty": [0.5],
    "frequency_penalty": [-1],
    "user": [1],
    "messages": [[]],
    "max_completion_tokens": [4],
    "min_tokens": [0],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_field_that_is_wrong_or_not_supported_is_refused_by_its_name(name: str, value: Any):
    with pytest.raises(RequestError) as caught:
        asked(**{name: value}).config()
    assert caught.value.status == 400 and caught.value.param == name
    assert name in caught.value.message and "\n" not in caught.value.message


def test_what_is_refused_may_be_given_as_what_happens_anyway():
    neutral = {"best_of": 1, "suffix": "", "logit_bias": {}, "presence_penalty": 0.0}
    assert asked(**neutral, frequency_penalty=0, user="me") == asked()


def test_null_counts_as_missing_in_every_object():
    inside = {"stream": True, "stream_options": {"include_usage": None, "more": None}}
    nulls = json.dumps(dict.fromkeys(WRONG) | inside | {"prompt": "x"})
    assert asked(**parse(nulls.encode())) == asked(stream=True)


def test_a_prompt_is_a_text_token_ids_or_a_list_of_either():
    for given, prompts in [
        ("", [""]),
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ]:
        assert asked(prompt=given).prompts == prompts


def test_a_request_asks_for_no_more_texts_than_there_may_be():
    assert asked(prompt=["a"] * 4, n=2).n == 2
    with pytest.raises(RequestError, match="8 texts at most, got 9") as caught:
        asked(prompt=["a"] * 3, n=3)
    assert caught.value.param == "prompt"


def test_a_seed_is_that_of_folio_sample_and_0_is_one_too():
    assert asked(seed=7).config().seed == 7
    assert asked(seed=0).config() == asked(seed=0).config()
    assert asked(seed=0).config().seed != 0, "which would be a new one each time"
    assert asked().config().seed != asked().config().seed


def test_a_long_value_is_not_sent_back():
    with pytest.raises(RequestError) as caught:
        asked(temperature="x" * 10_000)
    assert len(caught.value.message) < 200
    with pytest.raises(RequestError) as caught:
        asked(**{"y" * 10_000: 1})
    assert len(caught.value.message) < 200


def test_what_was_wrong_in_a_list_is_named():
    with pytest.raises(RequestError, match="none of them empty, got an empty one"):
        asked(stop="")
    with pytest.raises(RequestError, match="nothing else, got one with role, content, name"):
        messages_of([{"role": "user", "content": "x", "name": "bob"}])
