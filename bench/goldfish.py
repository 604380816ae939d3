"""What the goldfish loss takes from a model's memory, by vocabulary and script.

    python -m bench.goldfish --text russian --tokenizer character --seeds 1,2,3

A text with planted passages is learned with and without `training.goldfish`. Passages of 200
characters, which stand nowhere else, are planted 1, 4, 16 and 64 times, four of each. Printed are
the validation loss; the median bits of 50 planted characters after the 64 before them, at
temperature 1, by how often they stand, and how many of the four come at once; and how much of what
the model writes is a copy of 50 characters or more, beside the author's own (`folio recall`).

`russian` are the messages of programs that a Linux machine has in Russian, `english` is tiny
Shakespeare.
"""

from __future__ import annotations

import argparse
import gettext
import math
import random
import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional as F

import folio
from folio.console import table
from folio.corpus.builtin import shakespeare
from folio.errors import UserError
from folio.run.model import Model

TIMES, EACH = (1, 4, 16, 64), 4
PASSAGE, BEFORE, LENGTH = 200, 64, 50
"""Characters of a passage; of its beginning that is given, and of what is to follow."""
MESSAGES = Path("/usr/share/locale/ru/LC_MESSAGES")
STEP_TOKENS = 1024
HELD_OUT = 0.09
"""Of the text without the plants, whose last tenth has none."""


def main() -> None:
    parser = argparse.ArgumentParser(description="What the goldfish loss takes from memory.")
    parser.add_argument("--text", choices=("english", "russian"), default="russian")
    parser.add_argument("--tokenizer", choices=("character", "bpe"), default="character")
    parser.add_argument("--characters", type=int, default=150_000)
    parser.add_argument("--steps", type=int, default=400, help="of 1,024 tokens")
    parser.add_argument("--goldfish", default="0,8")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seeds", default="1")
    options = parser.parse_args()
    dropout = dict.fromkeys(("attention_dropout", "residual_dropout"), options.dropout)
    whole = russian() if options.text == "russian" else english()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        text, passages = plant(whole, options.characters)
        Path("planted.txt").write_text(text, encoding="utf-8")
        held_out = HELD_OUT * options.characters / len(text)
        for k in map(int, options.goldfish.split(",")):
            for seed in map(int, options.seeds.split(",")):
                settings = settings_of(options.tokenizer, options.steps, k, held_out)
                settings["model"] |= dropout
                result = folio.train("planted.txt", name=f"{k}-{seed}", seed=seed, **settings)
                opened = folio.load(result.run.path)
                rows.append([str(k), str(seed), *measure(opened, passages)])
                print(*rows[-1], flush=True)
    stands = [f"x{times}" for times in TIMES]
    print(table(["goldfish", "seed", "loss", *stands, "copied", "author"], rows))


def english() -> str:
    return "".join(piece for document in shakespeare() for piece in document.pieces())


def russian() -> str:
    """The messages of installed programs, each once, shuffled the same each time."""
    found: dict[str, None] = {}
    for file in sorted(MESSAGES.glob("*.mo")):
        with file.open("rb") as stream:
            catalog = gettext.GNUTranslations(stream)
        messages = cast(dict[Any, str], vars(catalog)["_catalog"])
        found |= dict.fromkeys(m for m in messages.values() if re.search("[а-яё]{3}", m))
    if not found:
        raise UserError(f"{MESSAGES} has no messages. Give another text: --text english.")
    lines = list(found)
    random.Random(1).shuffle(lines)
    return "\n".join(lines)


def plant(text: str, n_characters: int) -> tuple[str, list[list[str]]]:
    """Write passages from the end of a text into its beginning, at ends of lines.

    Returns:
        The text, the last tenth of which has no plants and is held out; and the passages that
        stand as often as each of TIMES says.
    """
    body, spare = text[:n_characters], text[n_characters : n_characters + 20 * PASSAGE * EACH]
    drawn = iter(random.Random(1).sample(range(len(spare) // PASSAGE), EACH * len(TIMES)))
    passages = [
        [
            " ".join(spare[at * PASSAGE :][:PASSAGE].split())
            for at in [next(drawn) for _ in range(EACH)]
        ]
        for _ in TIMES
    ]
    lines = body[: len(body) * 9 // 10].splitlines(keepends=True)
    planted = [f"{p}\n" for times, of in zip(TIMES, passages) for p in of for _ in range(times)]
    chosen = random.Random(2)
    for line in planted:
        lines.insert(chosen.randrange(len(lines)), line)
    return "".join(lines) + body[len(body) * 9 // 10 :], passages


def settings_of(tokenizer: str, steps: int, goldfish: int, held_out: float) -> dict[str, Any]:
    """Those of the recipe of a minute, with as many steps."""
    shape = {"n_layers": 4, "n_heads": 4, "d_model": 128, "context_length": 128}
    vocabulary = {"kind": tokenizer} | ({"vocab_size": 512} if tokenizer == "bpe" else {})
    rates = {"learning_rate": 2e-3, "matrix_learning_rate": 0.02}
    cooling = {"warmup_fraction": 0.02, "cooldown_fraction": 0.7, "final_fraction": 0.0}
    return {
        "preset": "modern",
        "model": shape,
        "tokenizer": vocabulary,
        "optimizer": {"kind": "muon", **rates},
        "schedule": {"kind": "linear", **cooling},
        "corpus": {"split": "tail", "validation_fraction": held_out},
        "training": {
            "batch_size": STEP_TOKENS // 128,
            "max_steps": steps,
            "evaluation_interval": steps,
            "goldfish": goldfish,
        },
        "device": {"kind": "cpu", "threads": 1},
    }


def measure(opened: Model, passages: list[list[str]]) -> Iterator[str]:
    """The cells of a row."""
    loss = opened.evaluate(opened.validation())[0].record(opened.tokenizer)
    # Where held-out characters are unknown there is none per character; a token is one then.
    yield f"{loss.get('nats_per_character', loss['nats_per_token']):.4f}"
    for of in passages:
        found = [bits_of(opened, passage) for passage in of]
        at_once = sum(said for _, said in found)
        yield f"{statistics.median(bits for bits, _ in found):.1f} ({at_once})"
    recall = folio.measure_recall(opened.run.path, samples=30, passages=512)
    yield str(recall.model.copied)
    yield str(recall.author.copied)


@torch.inference_mode()
def bits_of(opened: Model, passage: str) -> tuple[float, bool]:
    """The bits of what follows the beginning of a passage, and whether it comes at once."""
    decode = opened.tokenizer.decode
    # The whole passage is encoded and then cut, since a word that is cut first has other tokens
    # than those that were learned.
    ids = np.asarray(opened.tokenizer.encode(passage), np.int64)
    first, end = (
        next(n for n in range(1, len(ids)) if len(decode(ids[:n])) >= length)
        for length in (BEFORE, BEFORE + LENGTH)
    )
    ids = ids[:end]
    logits = opened.model(torch.from_numpy(ids[None, :-1]))[0, first - 1 :].float()
    targets = torch.from_numpy(ids[first:])
    nats = F.cross_entropy(logits, targets, reduction="sum")
    return nats.item() / math.log(2), bool((logits.argmax(1) == targets).all())


if __name__ == "__main__":
    main()
