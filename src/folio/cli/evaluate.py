"""folio evaluate: how surprised a model is by a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folio.config import Table, read_toml
from folio.console import say, show, table
from folio.device import DeviceConfig, Kind
from folio.errors import UserError
from folio.storage import json_text

if TYPE_CHECKING:
    from folio.device import Device
    from folio.run.baselines import Baseline
    from folio.run.model import Model

COLUMNS = (
    "text",
    "protocol",
    "targets",
    "nats_per_token",
    "standard_error",
    "perplexity",
    "bits_per_character",
    "bits_per_byte",
    "unknown_share",
)
"""Of the table, where a record has them."""


def evaluate(
    run: str | None = None,
    *files: str,
    text: str = "",
    json: bool = False,
    checkpoint: str = "best",
    device: Kind = "cpu",
    encoding: str = "auto",
    baselines: bool = False,
    adaptive: bool = False,
) -> None:
    """Loss, perplexity and bits per byte: folio evaluate [RUN] [FILE ...]

    Without files it is the validation text of the run, then the part of it that is new to the
    training text, and text from elsewhere, where the run has them. `exact` reads the text once in
    windows side by side; `strided` gives each token at least half a context, which is closer to
    what the model can do on a long text.

    Args:
        run: A name or a path; the newest run where none is given.
        files: Texts to evaluate on instead.
        text: One more, as it stands here.
        json: Print JSON, exact first.
        checkpoint: best, last or a step.
        device: Where it computes: cpu, or cuda or mps for a GPU, or auto.
        encoding: Of the files.
        baselines: What simpler things make of the validation text: character frequencies,
            n-grams, xz, PPMd.
        adaptive: Read the validation text once more, with a step of learning after each window, as
            compressors do: by a mixture of copies, each at a rate of its own. Never to be compared
            with an exact loss.
    """
    from folio.run.directory import find_run

    # `folio evaluate book.txt` means the newest run and a file.
    if run is not None and Path(run).is_file():
        files, run = (run, *files), None
    found = find_run(run)

    from folio.device import choose_device
    from folio.run.opening import open_run

    opened = open_run(found, checkpoint)
    chosen = choose_device(_as_trained(read_toml(found.recipe_file)["device"], device))
    for complaint in opened.complaints:
        say(f"warning: {complaint} Using {opened.checkpoint.path}.")
    if files or text:
        records = _evaluate_texts(opened, chosen, files, text, encoding)
    else:
        records = _evaluate_held_out(opened, chosen)
    if adaptive:
        from folio.run.adaptive import evaluate_adaptive

        records += [
            {"text": "validation", **score.record(opened.tokenizer)}
            for score in evaluate_adaptive(opened, device.config.threads, say)
        ]
    others: list[Baseline] = []
    sentence = ""
    if baselines:
        others, sentence = _measure_baselines(opened)
    common = {"run": str(found.path), "checkpoint": opened.checkpoint.path.name}
    records = [common | record for record in records]
    if json:
        records += [
            common | {"text": "validation", "protocol": b.kind, **b.record()} for b in others
        ]
        show(json_text(records, indent=2))
        return
    given = [*files, *([repr(text[:40])] if text else [])]
    what = ", ".join(given) or "validation text"
    show(f"{found.path}, {opened.checkpoint.path.name}, {what}\n")
    names = [name for name in COLUMNS if name in records[0] and not (given and name == "text")]
    rows = [[_cell(record.get(name, "-")) for name in names] for record in records]
    show(table([name.replace("_", " ") for name in names], rows))
    if others:
        head = ["baseline, validation text", "kind", "nats per character", "bits per byte"]
        cells = [
            [b.name, b.kind, f"{b.nats_per_character:.4f}", f"{b.bits_per_byte:.4f}"]
            for b in others
        ]
        show(f"\n{table(head, cells)}\n\n{sentence}")


def _evaluate_texts(
    opened: Model, device: Device, files: Sequence[str], text: str, encoding: str
) -> list[Table]:
    """What the model makes of other texts, which are encoded as those that it learned from."""
    import numpy as np

    from folio.corpus.corpus import CorpusConfig, read_documents
    from folio.corpus.split import whole
    from folio.corpus.turns import content_of, have_conversations, spoken
    from folio.tokenizers.sequences import encode_documents
    from folio.tokens.loss_mask import loss_mask

    tokenizer = opened.tokenizer
    talks = "turns" if tokenizer.has_chat else "text"
    config = CorpusConfig(encoding=encoding, conversations=talks)
    documents = read_documents(files, config).documents if files else ()
    parts = [whole(document) for document in documents]
    given: list[Any] = [[text]] if text else []
    sequence = read_toml(opened.run.recipe_file)["tokenizer"].get("sequence", "none")
    texts = [*map(content_of, parts), *given]
    tokens = np.concatenate(list(encode_documents(tokenizer, texts, sequence)))
    if len(tokens) < 2:
        raise UserError(
            f"The text has {len(tokens)} tokens; a second one is needed to be predicted."
        )
    mask = None
    if have_conversations(parts):
        mask = np.concatenate(list(loss_mask(tokens, tokenizer)))
        say(f"of the conversations the answers count: {mask[1:].sum():,} of {len(tokens):,} tokens")
    names = [*files, *([text] if text else [])]
    records = [
        {"text": names, **score.record(tokenizer)}
        for score in opened.evaluate(tokens, device=device, loss_mask=mask)
    ]
    spelled = (piece for pieces in (*spoken(parts), *given) for piece in pieces)
    lost, of = tokenizer.lost_bytes(spelled)
    if lost:
        say(
            f"warning: the vocabulary of {opened.run.path} lacks {lost:,} of the {of:,} bytes of "
            f"this text, which the loss leaves out; so there are no bits per byte"
        )
    return [without_lost_bytes(record, lost / max(of, 1)) for record in records]


def without_lost_bytes(record: Table, share: float) -> Table:
    """What a loss says of a text of which a share of the bytes was never read."""
    if not share:
        return record
    per_text = ("nats_per_character", "bits_per_character", "bits_per_byte")
    kept = {name: value for name, value in record.items() if name not in per_text}
    return kept | {"unknown_share": share}


def _evaluate_held_out(opened: Model, device: Device) -> list[Table]:
    """What it makes of the validation text by both protocols, and of what else was held out."""
    from folio.run.held_out import evaluate_held_out, score_validation

    scores, nll = score_validation(opened, device)
    records = [{"text": "validation", **score.record(opened.tokenizer)} for score in scores]
    held_out = evaluate_held_out(opened, device, nll)[1:]
    return records + [{"text": text.name, **text.record()} for text in held_out]


def _as_trained(recorded: Table, kind: Kind) -> DeviceConfig:
    """A device in the precision of the run, so that the loss is that of its curve; where it is not
    float32, what is fast here.
    """
    precision = "float32" if recorded["precision"] == "float32" else "auto"
    return DeviceConfig(kind=kind, precision=precision)


def _measure_baselines(opened: Model) -> tuple[list[Baseline], str]:
    """What simpler things make of the validation text, and what that says of the model."""
    from folio.run.baselines import compare, measure_baselines, write_baselines

    found = measure_baselines(opened, say)
    write_baselines(opened.run, found)
    return found, compare(opened.evaluate(opened.validation())[0], found) if found else ""


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value}"
