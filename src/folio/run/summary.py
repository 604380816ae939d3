"""What a run is, in a few facts; free of torch, since `folio runs` lists many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from folio.config import from_table, read_toml
from folio.model.config import ModelConfig
from folio.run.directory import Run
from folio.run.metrics import Event, best_evaluation, of_kind
from folio.run.ngrams import read_ngram_weights, told_loss


def text_of(run: Run) -> dict[str, Any]:
    """What two runs must have in common for their losses to be of one text: the contents of its
    sources, whatever they are called, how it was divided, and its tokens.
    """
    corpus = run.corpus()
    hashes = ("sha256", "file_sha256", "source")  # rows of a table and shards have no sha256
    sources = [
        (next((entry[name] for name in hashes if entry.get(name)), None), entry["characters"])
        for entry in corpus.get("sources", ())
    ]
    # Other counts of tokens were added from version to version.
    tokens = {name: corpus["tokens"].get(name) for name in ("training", "validation", "tokenizer")}
    return {"sources": sources, "split": corpus.get("split"), "tokens": tokens}


def facts_of(run: Run, events: Sequence[Event]) -> dict[str, Any]:
    """Collect what a run was made of, how far it came and how well.

    Args:
        run: whose other files are read.
        events: all of its events, from metrics.jsonl.
    """
    recipe = read_toml(run.recipe_file)
    last = events[-1] if events else {"step": 0, "seconds": 0.0, "event": "none"}
    best = best_evaluation(of_kind(events, "evaluation"))
    corpus = run.corpus()
    imported = corpus.get("imported")
    text = ", ".join(Path(source).name for source in recipe["corpus"]["sources"])
    ended = "imported" if imported else "not ended"
    return {
        "run": run.name,
        "from": recipe.get("start", {}).get("run") or None,
        "text": f"({imported['name']})" if imported else text,
        "characters": corpus["ledger"]["training"],
        "model": f"{recipe['preset']} {recipe['size']}",
        "parameters": from_table(ModelConfig, recipe["model"]).n_parameters,
        "step": last["step"],
        # The clock of a budget in minutes writes the recipe at the end.
        "max_steps": last.get("max_steps", recipe["training"]["max_steps"]),
        "seconds": last["seconds"],
        "best_validation_loss": best and best["validation_loss"],
        "best_step": best and best["step"],
        "standard_error": best and best.get("standard_error"),
        "loss_with_ngrams": told_loss(record) if (record := read_ngram_weights(run)) else None,
        "state": last["reason"] if last["event"] == "end" else ended,
    }
