"""folio sample: let a trained model write."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from folio.cli.complaints import say_complaints
from folio.cli.conversation import BESIDE_CHAT, converse
from folio.cli.guides import say_next
from folio.cli.overrides import Text
from folio.config import Table, to_table
from folio.console import say, show
from folio.device import Kind, device_of
from folio.errors import UserError
from folio.storage import json_text

if TYPE_CHECKING:
    from folio.generation.row import Drawn
    from folio.tokenizers.base import Tokenizer

MOST_SAMPLES = 1_000_000
"""In one command, which keeps a record of each in memory."""
Strings = Annotated[
    list[str], Parameter(consume_multiple=False, negative=(), allow_leading_hyphen=True)
]


def sample(
    run: str | None = None,
    *,
    prompt: Text = "",
    samples: int = 1,
    max_tokens: int = 500,
    forever: bool = False,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop_string: Strings | None = None,
    logprobs: int = 0,
    seed: int = 0,
    novel: int = 0,
    stop: bool = True,
    chat: bool = False,
    checkpoint: str = "best",
    device: Kind = "cpu",
    weights: Literal["float32", "bfloat16", "int8"] = "float32",
    json: bool = False,
) -> None:
    """Let a trained model write: folio sample [RUN] --prompt "Once", or --chat

    Args:
        run: A name or a path; by default the newest run.
        prompt: What the text begins with.
        samples: Number of texts.
        max_tokens: Length of each text, in tokens.
        forever: Write until Ctrl-C.
        temperature: Below 1 is safer, above 1 is wilder, 0 always takes the likeliest token.
        top_k: Draw only among the k likeliest tokens; 0 means all.
        top_p: Draw among the likeliest tokens that together have this probability.
        min_p: Draw among tokens with at least this share of the likeliest one's probability.
        repetition_penalty: Above 1 makes tokens less likely that are in the context already.
        stop_string: End a text before this; may be given several times.
        logprobs: With --json, add the log probability of each token, and this many alternatives.
        seed: Equal seeds give equal texts, whatever their length and number; sample number 2 has
            the next seed, and so on. 0 takes a new seed each time.
        novel: Copy at most this many consecutive letters and digits from the training text, and
            from those of the runs that it began with (--from), ignoring case, spaces and
            punctuation; 40 is a good number, 0 is no limit. This holds exactly, except for what the
            prompt contains. It does not cover nearly equal text (one changed letter is enough),
            shorter copies, or paraphrases.
        stop: End a text where the model ends its document.
        chat: Talk to a model that learned conversations, line by line; with --prompt, one answer.
        checkpoint: best, last or a step.
        device: Device to compute on: cpu, or cuda or mps for a GPU, or auto.
        weights: Precision of the weights: float32, bfloat16 or int8; fewer bits are read faster.
            The loss of small models changed by less than 0.0005 nats per token, with int8 too.
        json: Print the texts and what made them as JSON.
    """
    from folio.run.directory import find_run

    if not 1 <= samples <= MOST_SAMPLES:
        raise UserError(f"--samples must be 1 to {MOST_SAMPLES:,}, got {samples}.")
    if max_tokens < 0:
        raise UserError(f"--max-tokens must be 0 or more, got {max_tokens}.")
    if forever and samples > 1:
        raise UserError(f"--forever writes one text, but --samples is {samples}. Give one of them.")
    if forever and json:
        raise UserError("--json prints a text that ends, and --forever's does not. Give one.")
    if chat and (samples > 1 or forever or novel or json or not stop):
        raise UserError(BESIDE_CHAT)
    if json and not seed:  # so that what is printed can be had again
        seed = secrets.randbelow(2**31 - 1) + 1
    if logprobs and not json:
        raise UserError("--logprobs needs --json, in which the log-probabilities stand.")
    from folio.generation.sampling import SamplingConfig
    from folio.run.opening import open_to_write

    config = SamplingConfig(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop_strings=tuple(stop_string or ()),
        logprobs=logprobs or None,
        seed=seed,
    )
    opened = open_to_write(find_run(run), checkpoint, weights, device_of(device))
    say_complaints(opened)
    if chat:
        converse(opened, config, max_tokens, prompt)
        return
    guard = opened.guard(novel) if novel else None
    limit = None if forever else max_tokens
    written = opened.write([prompt] * samples, config, limit, stop and not forever, guard=guard)
    if json:
        namer = opened.tokenizer if logprobs else None
        texts, told = _collect([prompt] * samples, written, namer)
        record = {"run": str(opened.run.path), "checkpoint": opened.checkpoint.path.name}
        record |= {"prompt": prompt, "texts": texts, "max_tokens": max_tokens, "stop": stop}
        record |= to_table(config) | {"novel": novel}
        show(json_text(record | ({"tokens": told} if logprobs else {}), indent=2))
    elif samples == 1:
        _stream(prompt, written)
    else:
        texts, _ = _collect([prompt] * samples, written)
        for number, text in enumerate(texts, 1):
            show(f"{'' if number == 1 else chr(10)}--- {number} ---\n{text}")
    if guard is not None and guard.stuck:
        say(f"nothing new could follow {guard.stuck} times; the document ended there")
    if not json:
        say_next("sample", RUN=opened.run.word)


def _stream(prompt: str, written: Iterator[tuple[int, Drawn]]) -> None:
    """Show a text as it comes."""
    try:
        show(prompt, end="", flush=True)
        for _, drawn in written:
            show(drawn.text, end="", flush=True)
    except KeyboardInterrupt:  # the way to end --forever
        pass
    show(flush=True)


def _collect(
    texts: list[str], written: Iterator[tuple[int, Drawn]], namer: Tokenizer | None = None
) -> tuple[list[str], list[list[Table]]]:
    """Gather texts until all have ended, or until Ctrl-C: what was written by then is not lost.

    Args:
        texts: what each begins with.
        written: numbers of texts, in the order in which they begin, and their next tokens.
        namer: names the tokens of --logprobs; None where they are not asked for.

    Returns:
        The texts that began, and the entries of --logprobs of each.
    """
    told = [list[Table]() for _ in texts]
    begun = 0
    try:
        for number, drawn in written:
            begun = max(begun, number + 1)
            texts[number] += drawn.text
            if namer is not None:
                told[number].append(_entry(drawn, namer))
    except KeyboardInterrupt:
        say(f"stopped: {begun} of {len(texts)} texts had begun, and stand here as far as they are")
        return texts[:begun], told[:begun]
    return texts, told


def _entry(drawn: Drawn, tokenizer: Tokenizer) -> Table:
    """The entry of --logprobs for a token."""
    from folio.tokenizers.base import token_text

    scored = [(drawn.token_id, drawn.log_probability), *drawn.alternatives]
    first, *others = [
        {"id": token_id, "text": token_text(tokenizer, token_id), "log_probability": nats}
        for token_id, nats in scored
        if token_id >= 0
    ] or [{}]
    return first | {"alternatives": others}
