"""An answer: what of a conversation is read, and where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from folio.errors import UserError
from folio.generation.chat import answer, make_prompt
from folio.generation.sampling import SamplingConfig
from folio.run.model import Model
from folio.tokenizers.character import CharacterTokenizer
from tests.export.making import MODERN, random_run

CHAT = CharacterTokenizer("abcdefgh \n<>|").with_chat()
GREEDY = SamplingConfig(temperature=0.0)


def said(*texts: str) -> list[dict[str, str]]:
    """The user and the assistant in turns."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def shown(messages: list[dict[str, str]], context: int = 40, most: int = 8) -> tuple[str, int]:
    prompt = make_prompt(CHAT, messages, context, most)
    return CHAT.decode(prompt.token_ids), prompt.n_left_out


def test_a_short_conversation_is_read_whole():
    text = "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>"
    assert shown(said("a", "b", "c")) == (text, 0)


def test_a_long_one_loses_its_oldest_turns_and_keeps_what_the_system_said():
    long = said("aaaaaaaa", "bbbbbbbb", "cccc", "dddd", "e")
    # All have 25 letters, and 2 tokens around each turn, and 8 tokens are for the answer.
    assert shown(long, 44) == (
        "<|user|>aaaaaaaa<|end|><|assistant|>bbbbbbbb<|end|><|user|>cccc<|end|><|assistant|>dddd"
        "<|end|><|user|>e<|end|><|assistant|>",
        0,
    )
    assert shown(long, 43) == (
        "<|user|>cccc<|end|><|assistant|>dddd<|end|><|user|>e<|end|><|assistant|>",
        2,
    )
    system = {"role": "system", "content": "hh"}
    assert shown([system, *long], 36) == (
        "<|user|>hh\n\ncccc<|end|><|assistant|>dddd<|end|><|user|>e<|end|><|assistant|>",
        2,
    )
    assert shown(long, 16, 4) == ("<|user|>e<|end|><|assistant|>", 4)


def test_what_cannot_be_left_out_is_refused_where_it_is_too_long_with_all_that_counts():
    counted = r"The last turn, with any system message .* has 43 tokens, .* reads 40 .* 8 of them"
    long_system = {"role": "system", "content": "h" * 37}  # and two line ends
    for messages in (said("a", "b", "c" * 40), [long_system, *said("a", "b", "c")]):
        with pytest.raises(UserError, match=counted):
            shown(messages)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        said("a", "b"),
        [{"role": "tool", "content": "a"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        ["a"],
    ],
)
def test_what_is_no_question_is_refused_in_one_line(messages: Any):
    with pytest.raises(UserError, match="message") as error:
        shown(messages)
    assert "\n" not in str(error.value)


def test_what_the_vocabulary_lacks_is_refused():
    with pytest.raises(UserError, match="'z'"):
        shown(said("z"))


@pytest.fixture
def opened(tmp_path: Path) -> Model:
    return random_run(tmp_path, CHAT, **MODERN)


def test_of_a_very_long_one_little_more_than_all_is_encoded(monkeypatch: pytest.MonkeyPatch):
    long = said(*("abcd" for _ in range(2001)))
    encoded: list[int] = []
    ordinary = CharacterTokenizer.encode_ordinary

    def encode(self: CharacterTokenizer, text: str) -> Any:
        encoded.append(len(text))
        return ordinary(self, text)

    monkeypatch.setattr(CharacterTokenizer, "encode_ordinary", encode)
    assert shown(long)[1] == 1996
    assert sum(encoded) < 2 * sum(len(each["content"]) for each in long)


def with_head(opened: Model, order: list[str]) -> None:
    """Make some tokens the likeliest everywhere, in this order."""
    with torch.no_grad():
        opened.model.get_parameter("final_norm.weight").zero_()
        opened.model.lm_head.weight.zero_()
    bias = torch.zeros(opened.model.config.vocab_size)
    for number, name in enumerate(reversed(order), 1):
        bias[CHAT.special_tokens.get(name, CHAT.characters.find(name))] = number

    def add_bias(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + bias

    opened.model.lm_head.register_forward_hook(add_bias)


def test_an_answer_ends_with_its_turn_which_is_no_part_of_it(opened: Model):
    with_head(opened, ["<|end|>", "a"])
    prompt = make_prompt(CHAT, said("a"), 40, 8)
    assert list(answer(opened.batch(1), CHAT, prompt.token_ids, GREEDY, 8)) == [""]
    assert opened.chat(said("a"), temperature=0.0, compiled=False) == ""


def test_nothing_is_drawn_behind_the_end_of_a_turn(opened: Model):
    drawn: list[int] = []

    def first_ends(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        token = "a" if drawn else "<|end|>"
        drawn.append(1)
        id_of = CHAT.special_tokens.get(token, CHAT.characters.find(token))
        return torch.nn.functional.one_hot(torch.tensor(id_of), logits.shape[-1]) + 0.0 * logits

    opened.model.lm_head.register_forward_hook(first_ends)
    assert opened.chat(said("a"), temperature=0.0, compiled=False) == "" and len(drawn) == 1


def test_no_other_special_token_is_ever_written(opened: Model):
    with_head(opened, ["<|user|>", "<|endoftext|>", "<unk>", "<|assistant|>", "b", "<|end|>"])
    assert opened.chat(said("a"), max_tokens=5, temperature=0.0, compiled=False) == "bbbbb"


def test_an_answer_ends_where_the_context_does(opened: Model):
    with_head(opened, ["b"])
    prompt = make_prompt(CHAT, said("a"), 40, 500)
    assert len(prompt.token_ids) == 4
    assert opened.chat(said("a"), temperature=0.0, compiled=False) == "b" * 36


def test_the_same_seed_gives_the_same_answer(opened: Model):
    one, two, other = (opened.chat(said("abc"), seed=seed, max_tokens=20) for seed in (1, 1, 2))
    assert one == two != other


def test_a_run_that_never_learned_conversations_says_how_it_would(tmp_path: Path):
    plain = random_run(tmp_path, "character", **MODERN)
    with pytest.raises(
        UserError, match=r"no template .*folio train CHATS.jsonl --from \S*made"
    ) as e:
        plain.chat(said("a"))
    assert "\n" not in str(e.value)
