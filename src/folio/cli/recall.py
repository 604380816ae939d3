"""folio recall: did it learn, or copy?"""

from __future__ import annotations

import json as json_format

from folio.console import say


def recall(
    run: str | None = None,
    *,
    json: bool = False,
    checkpoint: str = "best",
    samples: int = 75,
    temperature: float = 0.8,
    passages: int = 4096,
    length: int = 0,
    seed: int = 1,
) -> None:
    """Did it learn, or copy? folio recall [RUN]

    Looks for what the model wrote in its training text, and for what of its training text it goes
    on with by heart; both beside what the author does, whose documents repeat each other too.
    Writes recall.json and the page recall.html into the run.

    Args:
        run: A name or a path; the newest run where none is given.
        json: Print recall.json.
        checkpoint: best, last or a step.
        samples: Texts of 500 characters that the model writes.
        temperature: At which it writes; also that of the tries.
        passages: Of the training text, at most, and as many of new text.
        length: Characters of a passage and of a copy; 0 is 50, or 20 for Chinese and Japanese.
        seed: Of the writing.
    """
    from folio.run.directory import find_run

    found = find_run(run)

    from folio.device import DeviceConfig, choose_device
    from folio.recall.measure import RecallConfig, measure_recall
    from folio.recall.page import write_report
    from folio.recall.words import lines_of, record_of
    from folio.run.opening import open_run

    config = RecallConfig(
        samples=samples, temperature=temperature, passages=passages, length=length, seed=seed
    )
    choose_device(DeviceConfig(kind="cpu", precision="float32"))
    opened = open_run(found, checkpoint)
    for complaint in opened.complaints:
        say(f"warning: {complaint} Using {opened.checkpoint.path}.")
    outcome = measure_recall(opened, config, say)
    write_report(opened.run, outcome)
    if json:
        print(json_format.dumps(record_of(outcome), indent=2))
        return
    for line in lines_of(outcome):
        print(line)
    print(f"page: {opened.run.recall_page}")
