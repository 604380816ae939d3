"""folio export: a model for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from folio.cli.complaints import say_complaints
from folio.cli.guides import say_next
from folio.console import say, show
from folio.storage import json_text


def export(
    run: str | None = None,
    *,
    to: str,
    type: str = "",
    out: Path | None = None,
    checkpoint: str = "best",
    alone: bool = False,
    json: bool = False,
) -> None:
    """Export a model for other programs: folio export [RUN] --to hf|gguf|html

    hf is a folder for transformers (Qwen3, Llama, GPT-2 or GPT-NeoX where they compute this model,
    else our own class beside it), with tokenizer and card; gguf is a file for llama.cpp, with a
    Modelfile for Ollama; html is one page that writes with the model in any browser, offline. The
    result is read back and compared with the run: token ids on texts of many kinds, logits and loss
    on the run's own text. What a format cannot represent is refused. The n-grams of a run that
    counts them go along to hf and html, and with them pieces of the training text; gguf cannot have
    them, and needs --alone.

    Args:
        run: A name or a path; by default the newest run.
        to: The format: hf, gguf or html.
        type: Type of the weights: f32 (the default), f16, bf16, and for gguf q8_0. A page has int8.
        out: The folder or file to write; by default in export/ of the run.
        checkpoint: best, last or a step.
        alone: Leave out the n-grams beside the model; the loss without them is reported.
        json: Print what was written and compared as JSON.
    """
    from folio.run.directory import find_run

    found = find_run(run)

    from folio.export.targets import export_run
    from folio.run.opening import open_run

    opened = open_run(found, checkpoint)
    say_complaints(opened)
    path, exported, verified = export_run(opened, to, type, out, alone)
    for note in exported.notes:
        say(note)
    if json:
        common = {"run": str(found.path), "checkpoint": opened.checkpoint.path.name}
        written = {"path": str(path), "graph": exported.graph, "notes": exported.notes}
        show(json_text(common | written | asdict(verified), indent=2))
        return
    show(
        f"{path}: {exported.graph}, from {opened.checkpoint.path.name}\n"
        f"token ids: equal on {verified.texts} texts\n"
        f"logits: at most {verified.logit_difference:.2g} apart on {verified.tokens:,} tokens of "
        f"{verified.of_text}\n"
        f"loss there: {verified.loss:.4f} nats per token in the run, {verified.other_loss:.4f} in "
        f"what was written"
    )
    say_next("export", RUN=found.word)
