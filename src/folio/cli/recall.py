"""folio recall: did it learn, or copy?"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from folio.cli.complaints import say_complaints
from folio.cli.guides import say_next
from folio.console import say, show
from folio.device import Kind
from folio.errors import UserError
from folio.records import read_plain_text
from folio.storage import json_text


def recall(
    run: str | None = None,
    *,
    text: list[str] | None = None,
    json: bool = False,
    checkpoint: str = "best",
    device: Kind = "cpu",
    samples: int = 75,
    temperature: float = 0.8,
    passages: int = 4096,
    length: int = 0,
    secrets: Path | None = None,
    show_secrets: bool = False,
    twin: bool = False,
    novel: int = 0,
    seconds: float = 60.0,
    seed: int = 1,
) -> None:
    """Find out whether a model learned or copies: folio recall [RUN]

    Looks up what the model writes in its training text, and tests which passages of that text it
    continues by heart; both are compared with the author, whose documents repeat each other, too.
    The texts of the runs that a run began with (--from) are part of its training text. Writes
    recall.json and the page recall.html into the run.

    Args:
        run: A name or a path; by default the newest run.
        text: A file or folder to look in instead of its training text, as for a model that was
            imported; repeatable. Whether the model read it stays unknown. Writes recall-text.json
            and recall-text.html.
        json: Print recall.json.
        checkpoint: best, last or a step.
        device: Device to compute on: cpu, or cuda or mps for a GPU, or auto.
        samples: Number of texts of 500 characters that the model writes.
        temperature: Temperature at which it writes, and at which passages are tried.
        passages: Most passages of the training text to test, and as many of new text.
        length: Characters in a passage and in a copy; 0 means 50, or 20 for Chinese and Japanese.
        secrets: A file with strings that must not come out, one per line; e-mail addresses,
            telephone and account numbers, cards and keys are found without it.
        show_secrets: Print secrets that come out as they are. They never go into a file.
        twin: Also train two models of the same recipe, on one half of the documents each, to see
            what reading a document changes. Takes as long as the run did.
        novel: Let it write as much once more, as `folio sample --novel N` does, to see what that
            leaves of copies.
        seconds: Time for each of writing, reading passages and trying secrets. A large model does
            less of each in that time, and the report says how much.
        seed: Seed of the writing, and of the halves.
    """
    from folio.run.directory import find_run

    found = find_run(run)

    from folio.device import DeviceConfig, choose_device
    from folio.recall.against import against
    from folio.recall.config import RecallConfig
    from folio.recall.measure import measure_recall
    from folio.recall.page import write_report
    from folio.recall.record import record_of
    from folio.recall.words import lines_of
    from folio.run.opening import open_run

    config = RecallConfig(
        samples=samples,
        temperature=temperature,
        passages=passages,
        length=length,
        secrets=_lines(secrets) if secrets is not None else (),
        show_secrets=show_secrets,
        twin=twin,
        novel=novel,
        seconds=seconds,
        seed=seed,
    )
    if twin and text:
        raise UserError("--twin trains on the text of the run, and --text is another. Give one.")
    if novel and text:
        raise UserError("--novel guards the text of the run, and --text is another. Give one.")
    chosen = choose_device(DeviceConfig(kind=device, precision="float32"))
    opened = open_run(found, checkpoint, chosen)
    say_complaints(opened)
    with against(opened, text, say) if text else nullcontext(opened) as beside:
        outcome = replace(measure_recall(beside, config, say), run=str(found.path))
        outcome = replace(outcome, text=", ".join(Path(word).name or word for word in text or []))
    # Shown first: what took minutes is seen also where nothing can be written.
    show(json_text(record_of(outcome), indent=2) if json else "\n".join(lines_of(outcome)))
    page = write_report(opened.run, outcome)
    if json:
        return
    show(f"page: {page}")
    say_next("recall", RUN=found.word)


def _lines(path: Path) -> tuple[str, ...]:
    lines = read_plain_text(path).splitlines()
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if short := [line for line in found if len(line) < 4]:
        raise UserError(
            f"--secrets {path} has a line of {len(short[0])} characters; such a string stands "
            f"everywhere. Give 4 or more."
        )
    return found
