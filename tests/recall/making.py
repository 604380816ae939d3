"""Runs whose answers are known."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import folio
from folio.recipe.recipe import make_recipe
from folio.recipe.start import started
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.model import Model

_SENTENCE = (
    "river stone window garden letter morning candle shadow bridge summer harbor willow "
    "thunder marble whisper feather lantern meadow copper velvet anchor basket cradle dagger"
)
WORDS = _SENTENCE.split()


def prose(n_words: int, seed: int) -> str:
    """Words at random, in sentences: nothing repeats but the words."""
    chosen = random.Random(seed)
    words = [chosen.choice(WORDS) + chosen.choice(("", "s", ",", ".\n")) for _ in range(n_words)]
    return " ".join(words)


def with_names(text: str) -> str:
    """A text in which each few words repeat a name that stands nowhere else."""
    words, draw = text.split(), random.Random(1)
    for i in range(0, len(words), 8):
        name = "".join(draw.choices("abcdefgh", k=8))
        words[i : i + 8 : 3] = [name] * len(words[i : i + 8 : 3])
    return " ".join(words)


def write_documents(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"doc{number:02}.txt").write_text(text, encoding="utf-8")
    return folder


def train_on(source: Path, name: str, steps: int, **settings: Any) -> Model:
    """A run of a tiny model."""
    shape = {"n_layers": 1, "n_heads": 2, "d_model": 32, "context_length": 64}
    table: dict[str, Any] = {
        "model": shape,
        "tokenizer": {"kind": "character"},
        "optimizer": {"learning_rate": 1e-2},
        "training": {"batch_size": 8, "max_steps": steps, "evaluation_interval": steps},
        "device": {"kind": "cpu", "precision": "float32", "threads": 1},
    }
    for key, value in settings.items():
        table[key] = table.get(key, {}) | value if isinstance(value, dict) else value
    result = folio.train(str(source), name=name, preset="gpt2", **table)
    return folio.load(str(result.run.path))


def go_on(from_run: Model, source: Path, name: str, keep: float = 0.0) -> Model:
    """A run from the weights of another one, with a text of its own."""
    table: dict[str, Any] = {"start": {"run": str(from_run.run.path), "keep": keep}}
    table |= {"corpus": {"sources": [str(source)]}, "training": {"max_steps": 2}}
    table |= {"device": {"precision": "float32", "threads": 1}}
    return folio.load(train_recipe(make_recipe(started(table)), name, Watcher()).run.path)
