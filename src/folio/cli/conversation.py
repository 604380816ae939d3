"""folio sample --chat: talk to a model in the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from folio.console import say, show
from folio.errors import UserError

if TYPE_CHECKING:
    from folio.generation.chat import Message
    from folio.generation.sampling import SamplingConfig
    from folio.run.writer import Writer


BESIDE_CHAT = (
    "--chat gives one answer after the other. Leave --samples, --forever, --novel, --no-stop and "
    "--json out."
)


def converse(opened: Writer, config: SamplingConfig, max_tokens: int, prompt: str) -> None:
    """Answer a prompt, or line after line until there are no more.

    Args:
        opened: the run.
        config: how tokens are drawn.
        max_tokens: of an answer.
        prompt: the only message; empty reads messages from the terminal.

    Raises:
        UserError: the run never learned conversations, or cannot answer the prompt.
    """
    from folio.tokenizers.chat import require_chat

    require_chat(opened.tokenizer, opened.run.word)
    if prompt:
        answer_to(opened, [{"role": "user", "content": prompt}], config, max_tokens)
        return
    say(f"{opened.run.path}: write a line and Enter; an empty line begins anew, Ctrl-D ends.")
    history: list[Message] = []
    for line in _lines():
        if not line.strip():
            say("a new conversation")
            history = []
            continue
        asked: list[Message] = [*history, {"role": "user", "content": line}]
        try:
            answer = answer_to(opened, asked, config, max_tokens)
        except UserError as error:  # the conversation goes on without that line
            say(str(error))
            continue
        history = [*asked, {"role": "assistant", "content": answer}]


def answer_to(
    opened: Writer, messages: list[Message], config: SamplingConfig, max_tokens: int
) -> str:
    """Show an answer as it is written; what the context has no room for any more is reported."""
    from folio.generation.chat import answer, make_prompt

    length = opened.config.context_length
    prompt = make_prompt(opened.tokenizer, messages, length, max_tokens)
    if prompt.n_left_out:
        say(
            f"the model reads {length:,} tokens at once: the first {prompt.n_left_out} messages "
            f"are left out"
        )
    pieces = answer(opened.batch(1), opened.tokenizer, prompt.token_ids, config, max_tokens)
    said = ""
    try:
        for text in pieces:
            said += text
            show(text, end="", flush=True)
    except KeyboardInterrupt:  # ends the answer, not the conversation
        pass
    show(flush=True)
    return said


def _lines() -> Iterator[str]:
    """Lines that the user types, or those of a pipe, whatever their bytes."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\r\n")
