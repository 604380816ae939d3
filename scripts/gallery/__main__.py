"""Train the models of the gallery, and write docs/gallery from their run directories.

No number of the pages is typed: they come from the cards and the metrics of the runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
from pathlib import Path
from typing import Any

import folio
from folio.run.baselines import read_baselines
from folio.run.card import diagnose_run
from folio.run.directory import Run, runs_folder
from scripts.docs.markdown import fenced
from scripts.gallery.texts import TEXTS, Text

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SEED = 1
SHOWN_LINES = 5
SHOWN_CHARACTERS = 400
SAMPLE_TOKENS = 600


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.gallery", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3, help="for each text")
    parser.add_argument("--only", choices=[text.name for text in TEXTS], action="append")
    given = parser.parse_args()
    for text in TEXTS:
        if not given.only or text.name in given.only:
            train(text, minutes=given.minutes)
    write_pages(GALLERY)


def run_of(text: Text) -> Run:
    """The run of a text, whether or not it was trained."""
    return Run(runs_folder() / f"gallery-{text.name}")


def text_file(text: Text) -> Path:
    """The file that a text is read from."""
    return runs_folder() / "gallery-texts" / f"{text.name}{text.suffix}"


def train(text: Text, **settings: Any) -> None:
    """Make a text, and train a model on it, in place of an earlier one."""
    path = text_file(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.make(random.Random(SEED)), encoding="utf-8")
    shutil.rmtree(run_of(text).path, ignore_errors=True)
    print(f"== {text.title}: {path}", flush=True)
    folio.train(path, name=run_of(text).name, **settings)


def write_pages(folder: Path) -> None:
    """Write a page for each text that was trained, and the page that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = [text for text in TEXTS if run_of(text).card_file.exists()]
    for text in trained:
        (folder / f"{text.name}.md").write_text(page(text), encoding="utf-8")
        if run_of(text).picture_file.exists():
            shutil.copy(run_of(text).picture_file, folder / f"{text.name}.svg")
    (folder / "index.md").write_text(index(trained), encoding="utf-8")


def page(text: Text) -> str:
    """The page of one text: what it looks like, what the model writes, and the card."""
    content = text_file(text).read_text(encoding="utf-8")
    model = folio.load(run_of(text).path)
    sample = text.prompt + model.generate(
        text.prompt, max_tokens=SAMPLE_TOKENS, temperature=0.8, seed=SEED, stop=False
    )
    counted = f"\n\n{text.counted(sample, content)}." if text.counted else ""
    beginning = "\n".join(content[:SHOWN_CHARACTERS].splitlines()[:SHOWN_LINES])
    return (
        f"# {text.title}\n\n{text.about} {len(content):,} characters, which begin like this:\n\n"
        f"{fenced(beginning)}\n\n## What the model writes\n\n{fenced(sample)}{counted}\n\n"
        f"## Its card\n\n{card(text)}\n"
    )


def card(text: Text) -> str:
    """The card of its run without heading and sample, which the page has."""
    run = run_of(text)
    whole = run.card_file.read_text(encoding="utf-8")
    body = whole.partition("\n")[2].partition("\n## A sample")[0].strip()
    body = body.replace(f"{text_file(text).resolve().parent}/", "")
    body = body.replace(f"({run.picture_file.name})", f"({text.name}.svg)")
    return body.replace("![loss curves]", f"![The losses of the run on {text.name}]")


def cores() -> str:
    """What the texts were trained on, in words."""
    return f"{os.cpu_count()} cores of a processor ({platform.machine()})"


def index(trained: list[Text]) -> str:
    """The page that lists the texts."""
    rows = []
    for text in trained:
        run = run_of(text)
        evaluations = run.events("evaluation")
        best = min(event["validation_loss"] for event in evaluations)
        ngrams = [
            b.nats_per_token
            for b in read_baselines(run)
            if b.name.startswith("n-grams") and b.kind == "static"
        ]
        rows.append(
            f"| [{text.title}]({text.name}.md) | {run.corpus()['ledger']['training']:,} "
            f"| {run.events()[-1]['seconds'] / 60:.1f} | {run.corpus()['frequency_loss']:.3f} "
            f"| {f'{min(ngrams):.3f}' if ngrams else ''} | {best:.3f} "
            f"| {diagnose_run(run).verdict} |"
        )
    table = "\n".join(
        [
            "| text | characters to learn from | minutes | letters alone | n-grams | model "
            "| verdict |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )
    return (
        "# Gallery\n\n"
        "What models of a few minutes write. The texts are made by a script or are part of Python, "
        "so you can train the same, and with more minutes better ones:\n\n"
        "```sh\npython -m scripts.gallery --minutes 3\n```\n\n"
        f"These were trained with seed {SEED} on {cores()}, for the minutes in the table.\n\n"
        f"{table}\n\n"
        "Losses are in nats per character of held-out text; lower is better. *Letters alone* is a "
        "model that only knows how often each character occurs, *n-grams* one that looks up what "
        "followed the last characters ([what they are](../guides/recall.md#what-is-"
        "its-loss-worth)). This page and those of the texts are written by "
        "[the script](../../scripts/gallery/__main__.py) from the files of the runs.\n"
    )


if __name__ == "__main__":
    main()
