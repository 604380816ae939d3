"""folio explain: what a model makes of a text."""

from __future__ import annotations

from pathlib import Path

from folio.cli.complaints import say_complaints
from folio.cli.guides import say_next
from folio.cli.outputs import check_output
from folio.cli.overrides import Text
from folio.console import say, show
from folio.corpus.own import has_page
from folio.device import Kind, device_of
from folio.records import read_plain_text


def explain(
    run: str | None = None,
    *,
    text: Text,
    out: Path | None = None,
    tensors: bool = False,
    checkpoint: str = "best",
    device: Kind = "cpu",
) -> None:
    """See what a model makes of a text: folio explain [RUN] --text "To be, or not"

    Writes one HTML file that opens in any browser, without a network: how surprising each piece
    is and what the model expected instead, attention by layer and head before the mask, after it
    and after the softmax, the training examples, the embeddings as a map, and the positions.

    Args:
        run: A name or a path; by default the newest run.
        text: The text itself, or a file with it.
        out: The page to write; by default explain.html in the run.
        tensors: Print the small matrices here, and write no page.
        checkpoint: best, last or a step.
        device: Where it computes: cpu, or cuda or mps for a GPU, or auto.
    """
    from folio.run.directory import find_run

    found = find_run(run)
    check_output(out, "--out", has_page)
    words = _read(text)

    from folio.explain.look import look_at
    from folio.explain.page import write_page
    from folio.explain.tensors import print_tensors
    from folio.run.opening import open_run

    opened = open_run(found, checkpoint, device_of(device))
    say_complaints(opened)
    if tensors:
        look = look_at(opened, words)
        show(print_tensors(look))
    else:
        path = out or found.path / "explain.html"
        look = write_page(opened, words, path)
        show(path)
    if look.left_out:
        say(
            f"the model reads {len(look.token_ids)} tokens at once; the {look.left_out} after "
            f"them are left out"
        )
    say_next("explain", RUN=found.word)


def _read(text: str) -> str:
    path = Path(text)
    try:
        # A pipe as of <(...), too; a word may be the name of a folder.
        is_file = path.exists() and not path.is_dir()
    except OSError:  # longer than a name may be
        is_file = False
    return read_plain_text(path) if is_file else text
