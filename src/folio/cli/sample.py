"""folio sample: let a trained model write."""

from __future__ import annotations

import secrets

from folio.cli.conversation import BESIDE_CHAT, converse
from folio.console import say, show
from folio.errors import UserError
from folio.storage import json_text


def sample(
    run: str | None = None,
    *,
    prompt: str = "",
    samples: int = 1,
    max_tokens: int = 500,
    forever: bool = False,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    novel: int = 0,
    stop: bool = True,
    chat: bool = False,
    checkpoint: str = "best",
    json: bool = False,
) -> None:
    """Let a trained model write: folio sample [RUN] --prompt "Once", or --chat

    Args:
        run: A name or a path; the newest run where none is given.
        prompt: What the text begins with.
        samples: How many texts.
        max_tokens: Length of each, in tokens.
        forever: Go on until Ctrl-C.
        temperature: Below 1 is safer, above 1 is wilder, 0 always takes the likeliest token.
        top_k: Draw among the k likeliest tokens only; 0 means all.
        top_p: Draw among the likeliest tokens that together have this probability.
        seed: The same seed gives the same text; 0 takes a new one each time.
        novel: Write no more than so many letters and digits in a row as they stand in the training
            text, whatever case, spaces and punctuation between; 40 is a good number, 0 is no
            limit. That is kept exactly, but for what the prompt brings. It says nothing of nearly
            equal text (one changed letter in so many passes), of what is shorter, or of what is
            said in other words.
        stop: End a text where the model ends its document.
        chat: Talk to a model that learned conversations, line by line; with --prompt, one answer.
        checkpoint: best, last or a step.
        json: Print the texts and what made them as JSON.
    """
    from folio.run.directory import find_run

    if samples < 1:
        raise UserError(f"--samples must be at least 1, got {samples}.")
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
    found = find_run(run)

    from folio.generation.engine import FINISHED
    from folio.generation.sampling import SamplingConfig, draw
    from folio.run.opening import open_run

    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    opened = open_run(found, checkpoint)
    for complaint in opened.complaints:
        say(f"warning: {complaint} Using {opened.checkpoint.path}.")
    if chat:
        converse(opened, config, max_tokens, prompt)
        return
    stop = stop and not forever
    limit = None if forever else max_tokens
    guard = opened.guard(novel) if novel else None
    choose = guard.draw if guard is not None else draw
    steps = opened.generate_ids(prompt, config, samples, limit, stop, draw=choose)
    try:
        if json:
            columns = zip(*(step.tolist() for step in steps)) if max_tokens else [()] * samples
            made = [[i for i in column if i != FINISHED] for column in columns]
            texts = ["".join(opened.tokenizer.decode_stream([ids], prompt)) for ids in made]
            settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "stop": stop}
            settings["novel"] = novel
            record = (
                {"run": str(found.path), "checkpoint": opened.checkpoint.path.name}
                | {"prompt": prompt, "texts": texts, "seed": seed, "max_tokens": max_tokens}
                | settings
            )
            show(json_text(record, indent=2))
        elif samples == 1:
            for text in opened.tokenizer.decode_stream((s.tolist() for s in steps), prompt):
                show(text, end="", flush=True)
            show(flush=True)
        else:
            columns = zip(*(step.tolist() for step in steps)) if max_tokens else [()] * samples
            for number, column in enumerate(columns, 1):
                token_ids = [i for i in column if i != FINISHED]
                text = "".join(opened.tokenizer.decode_stream([token_ids], prompt))
                show(f"{'' if number == 1 else chr(10)}--- {number} ---\n{text}")
    except KeyboardInterrupt:  # the way to end --forever
        show(flush=True)
    if guard is not None and guard.stuck:
        say(f"nothing new could follow {guard.stuck} times; the document ended there")
