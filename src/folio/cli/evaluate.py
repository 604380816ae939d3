"""folio evaluate: how surprised a model is by a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folio.cli.complaints import say_complaints
from folio.cli.guides import say_next
from folio.cli.overrides import Text
from folio.config import Table, read_toml
from folio.console import amount, percent, say, show, table
from folio.device import DeviceConfig, Kind
from folio.errors import UserError
from folio.storage import json_text

if TYPE_CHECKING:
    from folio.device import Device
    from folio.evaluation.score import Score
    from folio.run.baselines import Baseline
    from folio.run.model import Model

ADAPTIVE_WORK = 6
"""What a token costs with --adaptive, as so many that are read: some ten minutes are allowed."""
COLUMNS = {
    "targets": "targets",
    "nats_per_token": "nats per\ntoken",
    "perplexity": "perplexity",
    "bits_per_character": "bits per\ncharacter",
    "bits_per_byte": "bits per\nbyte",
    "unknown_share": "unknown\nshare",
}
"""Columns of the table of scores, for records that have them, and their titles."""


def evaluate(
    run: str | None = None,
    *files: str,
    text: Text = "",
    json: bool = False,
    checkpoint: str = "best",
    device: Kind = "cpu",
    encoding: str = "auto",
    baselines: bool = False,
    adaptive: bool = False,
    whole: bool = False,
) -> None:
    """Measure loss, perplexity and bits per byte: folio evaluate [RUN] [FILE ...]

    Without files, evaluates the validation text of the run, the part of it that is new to the
    training text, and its out-of-domain, test and old text (of the run that it began with) if there
    is some. `exact` reads the text once in windows side by side; `strided` gives each token at
    least half a context, which is closer to what the model can do on a long text; `exact, with the
    window` mixes in what followed the same tokens earlier in the window, which shows how much of
    its context the model leaves unused.

    Args:
        run: A name or a path; by default the newest run.
        files: Texts to evaluate on instead.
        text: A text given as an argument.
        json: Print JSON, exact first.
        checkpoint: best, last or a step.
        device: Device to compute on: cpu, or cuda or mps for a GPU, or auto.
        encoding: Encoding of the files.
        baselines: Also measure simpler models on the validation text: character frequencies,
            n-grams, xz, PPMd. `exact, with the window and n-grams` also mixes in what followed the
            same tokens in the training text, which shows how much counting would add.
        adaptive: Read the validation text once more, learning after each window as compressors do,
            by a mixture of copies with different learning rates, alone and mixed with counts; and
            by PPMd. Must not be compared with an exact loss.
        whole: Read all of each text. Without it, only a sample of a long one is read: windows
            evenly spaced over it, as many as a model of its size reads in a few minutes. The
            standard error says what that leaves open. --adaptive reads the beginning.
    """
    from folio.run.directory import find_run

    # `folio evaluate book.txt` means the newest run and a file.
    if run is not None and Path(run).is_file():
        files, run = (run, *files), None
    if adaptive and (files or text):
        raise UserError("--adaptive reads the validation text of the run. Leave other texts out.")
    found = find_run(run)

    from folio.device import choose_device
    from folio.run.baselines import write_baselines
    from folio.run.ngrams import in_words, read_ngram_weights
    from folio.run.opening import open_run

    opened = open_run(found, checkpoint)
    chosen = choose_device(_as_trained(read_toml(found.recipe_file)["device"], device))
    say_complaints(opened)
    record, most = read_ngram_weights(found), math.inf if whole else opened.read_in_minutes
    if files or text:
        records, exact = _evaluate_texts(opened, chosen, files, text, encoding, most), None
    else:
        records, exact = _evaluate_held_out(opened, chosen, most)
    measured: list[Baseline] = []
    sentences: list[str] = []
    if baselines:
        measured, sentence = _measure_baselines(opened, chosen, most, exact)
        sentences.append(sentence)
        if exact:
            sentences.append(_evaluate_beside(opened, records, measured, whole))
    others = list(measured)
    if adaptive:
        learning, compressed, sentence = _evaluate_adaptive(opened, chosen, whole, measured)
        others += [baseline for baseline in compressed if baseline not in measured]
        records += learning
        sentences.append(sentence)
    common = {"run": str(found.path), "checkpoint": opened.checkpoint.path.name}
    records = [common | record for record in records]
    if json:
        records += [
            common | {"text": "validation", "protocol": b.kind, **b.record()} for b in others
        ]
        show(json_text(records, indent=2))
    else:
        given = [*files, *([repr(text[:40])] if text else [])]
        what = ", ".join(given) or "validation text"
        show(f"{found.path}, {opened.checkpoint.path.name}, {what}\n")
        _show_scores(records, with_text=not given)
        if record:
            show(f"\nn-grams: {in_words(record)}")
        if others:
            show(f"\n{_table_of(others)}\n\n{' '.join(filter(None, sentences))}")
    if baselines:  # last: what took minutes is seen also where nothing can be written
        write_baselines(found, measured)
    if not json:
        say_next("evaluate", RUN=found.word)


def _show_scores(records: list[Table], with_text: bool) -> None:
    """Show scores, those of one text one below the other."""
    names = [name for name in COLUMNS if any(name in record for record in records)]
    rows, before = list[list[str]](), None
    for record in records:
        protocol = record["protocol"].removeprefix("exact, ").removeprefix("with the window ")
        if with_text:
            is_new, before = record["text"] != before, record["text"]
            protocol = f"{before}, {protocol}" if is_new else f"  {protocol}"
        rows.append([protocol, *(_cell(name, record) for name in names)])
    show(table(["", *(COLUMNS[name] for name in names)], rows))


def _table_of(baselines: list[Baseline]) -> str:
    head = ["baseline, validation text", "kind", "nats per\ncharacter", "bits per\nbyte"]
    cells = [
        [b.name, b.kind, f"{b.nats_per_character:.4f}", f"{b.bits_per_byte:.4f}"] for b in baselines
    ]
    return table(head, cells)


def _evaluate_texts(
    opened: Model,
    device: Device,
    files: Sequence[str],
    text: str,
    encoding: str,
    most: float,
) -> list[Table]:
    """Score other texts, encoded like the training text; of long ones `most` tokens are read."""
    import numpy as np

    from folio.corpus.corpus import CorpusConfig, read_documents
    from folio.corpus.split import whole
    from folio.corpus.turns import content_of, have_conversations, spoken
    from folio.run.in_window import scores_with_window
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
            f"The text has {amount(len(tokens), 'token')}; a second one is needed to be predicted."
        )
    mask = None
    if have_conversations(parts):
        mask = np.concatenate(list(loss_mask(tokens, tokenizer)))
        say(f"of the conversations the answers count: {mask[1:].sum():,} of {len(tokens):,} tokens")
    names = [*files, *([text] if text else [])]
    _tell_of_a_sample(len(tokens), most)
    counted = None if mask is None else mask[1:] == 1
    scores, _ = scores_with_window(opened, tokens, (), device, counted, most)
    pieces = [piece for pieces in (*spoken(parts), *given) for piece in pieces]
    lost, of = tokenizer.lost_bytes(pieces)
    spelled = False
    if of and not lost:  # a vocabulary that lacks bytes, but none of these
        text_bytes = "".join(pieces).encode("utf-8", "surrogatepass")
        spelled = tokenizer.decode_bytes(tokens, skip_special=True) == text_bytes
    records = [{"text": names, **score.record(tokenizer, spelled)} for score in scores]
    if lost:
        say(
            f"warning: the vocabulary of {opened.run.path} lacks {lost:,} of the {of:,} bytes of "
            f"this text, which the loss leaves out; so there are no bits per byte"
        )
    return [without_lost_bytes(record, lost / max(of, 1)) for record in records]


def without_lost_bytes(record: Table, share: float) -> Table:
    """Adjust a record for a share of the text's bytes that was never read."""
    if not share:
        return record
    per_text = ("nats_per_character", "bits_per_character", "bits_per_byte")
    kept = {name: value for name, value in record.items() if name not in per_text}
    return kept | {"unknown_share": share}


def _tell_of_a_sample(n_tokens: int, most: float) -> None:
    """Say how much of a text is read, if that is not all of it."""
    if 2 * n_tokens > most:
        say(
            f"{most / 2 / n_tokens:.0%} of the {n_tokens:,} tokens are read, in windows that are "
            f"evenly spaced, since the text is long for such a model; --whole reads all"
        )


def _evaluate_held_out(opened: Model, device: Device, most: float) -> tuple[list[Table], Score]:
    """Score the validation text by both protocols, and the other held-out texts; also returns the
    exact score of the former.
    """
    from folio.run.held_out import evaluate_held_out, score_validation

    _tell_of_a_sample(len(opened.validation()), most)
    scores, nll = score_validation(opened, device, most)
    records = [{"text": "validation", **score.record(opened.tokenizer)} for score in scores]
    sample = 0 if math.isinf(most) else max(int(most / 2), 1)
    held_out = evaluate_held_out(opened, device, nll, sample)[1:]
    return records + [{"text": text.name, **text.record()} for text in held_out], scores[0]


def _as_trained(recorded: Table, kind: Kind) -> DeviceConfig:
    """A device in the precision of the run, so that the loss matches its curve; instead of
    bfloat16 and int8 it uses whatever is fastest here.
    """
    precision = "float32" if recorded["precision"] == "float32" else "auto"
    return DeviceConfig(kind=kind, precision=precision)


def _measure_baselines(
    opened: Model, device: Device, most: float, exact: Score | None
) -> tuple[list[Baseline], str]:
    """Measure simpler models on the validation text, and compare them with the exact score of the
    model, which reads `most` tokens of a long text if it has not read it yet.
    """
    from folio.run.baselines import compare, measure_baselines
    from folio.run.old_texts import old_texts

    found = measure_baselines(opened, say)
    if not found:
        return found, ""
    families = opened.run.families("validation")
    score = exact or opened.evaluate(opened.validation(), families, device, most=most)[0]
    return found, compare(score, found, old_texts(opened.run).missing)


def _evaluate_beside(
    opened: Model, records: list[Table], baselines: list[Baseline], whole: bool
) -> str:
    """Score the validation text with n-grams mixed in, below the other scores of it."""
    from folio.run.baselines import compare_beside
    from folio.run.beside_ngrams import ORDER, score_beside_ngrams
    from folio.run.old_texts import old_texts

    score = score_beside_ngrams(opened, 0 if whole else opened.tokens_in_minutes(ORDER), say)
    if score is None:
        return ""
    of_validation = [i for i, record in enumerate(records) if record["text"] == "validation"]
    record = {"text": "validation", **score.record(opened.tokenizer)}
    records.insert(of_validation[-1] + 1, record)
    return compare_beside(score, baselines, old_texts(opened.run).missing)


def _evaluate_adaptive(
    opened: Model, device: Device, whole: bool, known: list[Baseline]
) -> tuple[list[Table], list[Baseline], str]:
    """Score the validation text, or its beginning, learning from it, and compare with PPMd, which
    may be among what is known already.
    """
    from folio.run.adaptive import evaluate_adaptive
    from folio.run.baselines import compare_reading, measure_ppmd
    from folio.run.old_texts import old_texts

    most = math.inf if whole else max(opened.read_in_minutes // ADAPTIVE_WORK, 2)
    scores = evaluate_adaptive(opened, device.config.threads, say, most)
    records = [{"text": "validation", **score.record(opened.tokenizer)} for score in scores]
    others = measure_ppmd(opened, scores[-1].targets + 1, say, known)
    return records, others, compare_reading(scores[-1], others, old_texts(opened.run).missing)


def _cell(name: str, record: Table) -> str:
    value = record.get(name, "-")
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    if name == "unknown_share":
        return percent(value, 2)
    with_error = name == "nats_per_token" and math.isfinite(record["standard_error"])
    return f"{value:.4f}" + with_error * f" ± {record['standard_error']:.4f}"
