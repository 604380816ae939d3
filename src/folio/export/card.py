"""The card of an exported model: what it is, what it read, how good it is, what it copies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from folio.config import read_toml
from folio.console import amount
from folio.export.ngrams import left_out
from folio.model.config import ModelConfig
from folio.run.directory import Run
from folio.run.model import Model
from folio.run.ngrams import read_ngram_weights
from folio.storage import read_json

TAGS = "tags: [folio"
"""Begins a line of each card, by which it is known as one that may be replaced."""


def model_card(opened: Model, graph: str, notes: list[str]) -> str:
    """Write README.md in the form of Hugging Face's cards.

    Args:
        opened: the run.
        graph: as the other program calls it.
        notes: what the user should know.
    """
    config, tokenizer = opened.model.config, opened.tokenizer
    began_with, tags, origin = _began_with(opened.run), f"{TAGS}]", "that came from elsewhere"
    if began_with:
        origin = f"trained further with Folio, from the weights of {began_with}"
    elif "imported" not in opened.run.corpus():
        tags, origin = f"{TAGS}, from-scratch]", "trained from scratch with Folio"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        tags,
        "---",
        f"# {opened.run.name}",
        "",
        f"A language model of {config.n_parameters:,} parameters, {origin}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| graph | {graph} |",
        f"| shape | {_shape(config)} |",
        f"| context | {config.context_length} tokens |",
        f"| tokenizer | {tokenizer.kind}, {tokenizer.vocab_size:,} ids |",
        f"| checkpoint | step {opened.checkpoint.step:,} |",
        *(f"| {name} | {value} |" for name, value in (*losses(opened), *_recall(opened))),
        "",
        *_ledger(opened),
        *_use(opened, graph == "folio"),
        *(f"- {note[0].upper()}{note[1:]}." for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _began_with(run: Run) -> str:
    """Name the model with whose weights a training began; empty if they were random."""
    if not run.start_file.exists():
        return ""
    origin = Run(Path(read_json(run.start_file, dict)["run"]))
    imported = origin.corpus().get("imported") if origin.corpus_file.exists() else None
    return imported["name"] if imported else origin.path.name


def _training_text(run: Run) -> str:
    """Name what a run learned from, and before."""
    before = f", after all that {name} learned from" if (name := _began_with(run)) else ""
    return _names(run.corpus()["sources"]) + before


def _shape(config: ModelConfig) -> str:
    layers, heads = amount(config.n_layers, "layer"), amount(config.n_heads, "head")
    return f"{layers}, {heads}, width {config.d_model}"


def facts(opened: Model) -> Iterator[tuple[str, str]]:
    """Yield facts about a model for its card: names and values."""
    config, tokenizer, corpus = opened.model.config, opened.tokenizer, opened.run.corpus()
    if "imported" in corpus:
        yield "training text", f"not known; the model comes from {corpus['imported']['name']}"
    else:
        yield "training text", _training_text(opened.run)
    yield "parameters", f"{config.n_parameters:,}"
    yield "shape", _shape(config)
    context = f"{config.context_length:,} tokens; behind them it goes on from the last half"
    yield "context", context
    yield "tokenizer", f"{tokenizer.kind}, {tokenizer.vocab_size:,} ids"
    yield "checkpoint", f"step {opened.checkpoint.step:,}"
    yield from losses(opened)


def _names(sources: list[dict[str, Any]]) -> str:
    """Name the first files; where they lie is nobody's business who gets the model."""
    names = [Path(source["source"]).name for source in sources]
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if names[5:] else "")


def losses(opened: Model) -> Iterator[tuple[str, str]]:
    """List the losses of this checkpoint on held-out texts, with their protocol."""
    step, record = opened.checkpoint.step, read_ngram_weights(opened.run)
    # All other losses are of the model beside its n-grams, and what stands in the window.
    alone = left_out(opened) is not None
    if record and (alone or "window" in record):
        which = "without" if alone else "with"
        if record["step"] == step:
            said = f"{record[which]:.4f} nats per token over {record['targets']:,} targets"
            yield f"loss, validation ({which} n-grams)", said
        return
    file = opened.run.held_out_file
    for text in read_json(file, list) if file.exists() else []:
        if text.get("step", step) != step:
            continue
        yield (
            f"loss, {text['name']} ({text['protocol']})",
            f"{text['nats_per_token']:.4f} nats per token over {text['targets']:,} targets",
        )


def _recall(opened: Model) -> Iterator[tuple[str, str]]:
    """Say what this checkpoint knows by heart and copies, where somebody looked."""
    run, step = opened.run, opened.checkpoint.step
    if left_out(opened) is not None:  # this, too, was measured beside them
        return
    record: dict[str, Any] = read_json(run.recall_file, dict) if run.recall_file.exists() else {}
    if record and record["checkpoint"] == opened.checkpoint.path.name:
        yield "folio recall", record["sentence"]
        copied = (record["copies"].get("model") or {}).get("copied")
        if copied is not None:
            yield "copied text in what it writes", json.dumps(copied)
    elif run.by_heart_file.exists():
        found = read_json(run.by_heart_file, dict)
        if found.get("step", step) == step:
            known = found["known"]
            yield "passages known by heart", f"{known['count']:,} of {known['of']:,}"


def _ledger(opened: Model) -> Iterator[str]:
    """Say where the text came from, and what became of each character."""
    corpus = opened.run.corpus()
    ledger = corpus.get("ledger", {})
    yield "## Data"
    yield ""
    if imported := corpus.get("imported"):
        yield f"Imported from {imported['name']}; Folio does not know its training text."
    else:
        yield f"Trained on {_training_text(opened.run)}."
        yield ""
        dropped = "".join(f" + {n:,} dropped ({why})" for why, n in ledger["dropped"].items())
        yield (
            f"Characters: {ledger['characters_in']:,} in = {ledger['training']:,} training + "
            f"{ledger['validation']:,} validation{dropped}."
        )
    yield ""


def _use(opened: Model, own_code: bool) -> Iterator[str]:
    trust = ", trust_remote_code=True" if own_code else ""
    recipe = read_toml(opened.run.recipe_file)
    context = opened.model.config.context_length
    yield from (
        "## Use",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        f'write = pipeline("text-generation", "PATH"{trust})',
        'print(write("The ", max_new_tokens=100)[0]["generated_text"])',
        "```",
        "",
        f"- It was trained in {recipe['device']['precision']}, and read {context} tokens at once; "
        f"behind them Folio goes on from the last half of its window.",
        *(
            [
                "- It learned conversations: `tokenizer.apply_chat_template(messages, "
                "add_generation_prompt=True)` writes one as it was taught."
            ]
            if opened.tokenizer.has_chat
            else []
        ),
        "- Special tokens in a prompt are found by transformers, and are plain text for Folio: "
        "`split_special_tokens=True` gives the same ids.",
    )
