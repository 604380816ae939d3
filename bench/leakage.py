"""A validation loss that flatters: notes in several drafts, split by documents and by families.

    python -m bench.leakage --seeds 1,2,3

The notes are stretches of tiny Shakespeare, each saved in three drafts that differ in some words,
as notes are. Other stretches of the same plays are never trained on: truly unseen text of the same
kind. A story of today, bench/foreign_story.txt, is text of another kind. Each model is trained on
the notes, once with whole documents held out, once with whole families, and then reads all of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

N_NOTES, NOTE_CHARACTERS, N_DRAFTS, CHANGED = 160, 400, 3, 0.02
N_UNSEEN = 100
STEPS = 1000
STORY = Path(__file__).with_name("foreign_story.txt")


def stretches(text: str) -> list[str]:
    """Consecutive lines, about NOTE_CHARACTERS together."""
    made, lines, size = [], [], 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= NOTE_CHARACTERS:
            made.append("".join(lines))
            lines, size = [], 0
    return made


def draft(text: str, vocabulary: list[str], random_: random.Random) -> str:
    """The text with some words replaced by others of the same author."""
    words = text.split(" ")
    return " ".join(
        random_.choice(vocabulary) if random_.random() < CHANGED else word for word in words
    )


def make_notes(folder: Path, text: str) -> Path:
    """Write the notes into a folder; the unseen stretches into a file beside it."""
    random_ = random.Random(7)
    chosen = stretches(text)
    random_.shuffle(chosen)
    vocabulary = [word for word in text.split() if word.isalpha()]
    notes = folder / "notes"
    notes.mkdir()
    for number, note in enumerate(chosen[:N_NOTES]):
        for version in range(N_DRAFTS):
            path = notes / f"{number:03d}-{version}.txt"
            path.write_text(draft(note, vocabulary, random_), encoding="utf-8")
    unseen = folder / "unseen"
    unseen.mkdir()
    for number, note in enumerate(chosen[N_NOTES : N_NOTES + N_UNSEEN]):
        (unseen / f"{number:03d}.txt").write_text(note, encoding="utf-8")
    return notes


def loss_of(name: str, path: Path) -> tuple[float, float]:
    """Exact loss of a run on a text, in nats per character, and its standard error."""
    import numpy as np
    from numpy.typing import NDArray

    import folio
    from folio.corpus.corpus import CorpusConfig, read_documents
    from folio.evaluation.score import exact_windows, score
    from folio.evaluation.uncertainty import standard_error, text_blocks
    from folio.tokenizers.sequences import encode_documents

    opened = folio.load(name)
    documents = read_documents([str(path)], CorpusConfig()).documents
    texts = (document.pieces() for document in documents)
    tokens = np.concatenate(list(encode_documents(opened.tokenizer, texts)))
    windows = exact_windows(len(tokens), opened.model.config.context_length)
    nats = list[NDArray[np.float32]]()
    score(opened.model, tokens, windows, "exact", nats)
    nll = np.concatenate(nats).astype(np.float64)
    blocks = text_blocks(tokens, opened.tokenizer.end_of_document)[1:]
    return float(nll.mean()), standard_error(nll, blocks)


def measure(folder: Path, notes: Path, split: str, seed: int) -> dict[str, Any]:
    """Train on the notes and read everything."""
    import folio

    result = folio.train(
        str(notes),
        name=f"{split}-{seed}",
        seed=seed,
        corpus={"split": split},
        training={"max_steps": STEPS, "evaluation_interval": STEPS // 5},
    )
    validation = result.held_out[0]
    unseen, foreign = (loss_of(str(result.run.path), p) for p in (folder / "unseen", STORY))
    error = math.hypot(validation.standard_error, unseen[1])
    return {
        "split": split,
        "seed": seed,
        "validation": validation.nats_per_token,
        "validation_error": validation.standard_error,
        "unseen": unseen[0],
        "unseen_error": unseen[1],
        "foreign": foreign[0],
        "errors_apart": (unseen[0] - validation.nats_per_token) / error,
        "training": result.run.events("evaluation")[-1]["training_loss"],
        "best_step": result.state.best_step,
        "leaked_grams": result.run.corpus()["leakage"]["after"]["grams"],
        "seconds": result.state.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--splits", default="documents,clusters")
    options = parser.parse_args()
    from folio.corpus.corpus import CorpusConfig, read_documents

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FOLIO_RUNS"] = str(folder / "runs")
        text = read_documents(["shakespeare"], CorpusConfig()).documents[0].text
        notes = make_notes(folder, text)
        found = []
        for split in options.splits.split(","):
            for seed in map(int, options.seeds.split(",")):
                found.append(measure(folder, notes, split, seed))
                print(json.dumps(found[-1]), flush=True)
            of_split = [row for row in found if row["split"] == split]
            means = {
                key: round(statistics.mean(row[key] for row in of_split), 3)
                for key in ("validation", "unseen", "foreign", "training", "errors_apart")
            }
            print(f"{split}, mean of {len(of_split)} seeds: {means}", flush=True)


if __name__ == "__main__":
    main()
