"""In a kernel a training is seen as it goes, and can be stopped; the notebooks run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from folio.curves import DARK, LIGHT, variables
from folio.notebook import html_cell, html_frame, in_notebook
from folio.recipe.live_cell import Thinned
from tests.conftest import write_book
from tests.test_report import Reader

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))
TINY = """
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 20, "evaluations": 4},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
"""
SMALLER = {
    "1_own_text": f"TEXT = BOOK\nSETTINGS = {{{TINY}}}\nSENTENCE = 'The 3th line'",
    "2_ladder": "TEXT = BOOK\nSTEPS = 20",
    "3_change_the_model": f"TEXT = BOOK\nSETTINGS = {{{TINY}}}\nCAP = 2.0",
}
"""Notebook -> what the test puts in place of its cell of parameters."""

SHORT_ENDS = """
from tests.forked import shorten_ends
shorten_ends(lambda of, name, value: name == "sample_tokens" or setattr(of, name, value))
"""

pytestmark = pytest.mark.xdist_group("kernel")


class Kernel:
    """A kernel for all tests here, since it takes seconds to load torch."""

    def __init__(self, book: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.messages: list[Any] = []
        self.run(f"BOOK = {str(book)!r}\nTINY = {{{TINY}}}\nimport folio", SHORT_ENDS)

    def run(self, *cells: str) -> list[list[Any]]:
        """The outputs of some cells."""
        return self.execute(new_notebook(cells=[new_code_cell(cell) for cell in cells]))

    def execute(self, notebook: Any) -> list[list[Any]]:
        """The outputs of the cells of a notebook; what they sent is in `messages`."""
        client = Listening(notebook, km=self.manager, timeout=120)
        client.execute()
        if client.kc is not None:
            client.kc.stop_channels()
        self.messages = client.messages
        return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


class Listening(NotebookClient):
    """Keeps what a kernel sends."""

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        self.messages = [*getattr(self, "messages", []), msg]
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder / "runs"))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("IPYTHONDIR", str(folder))
        kernel = Kernel(write_book(folder))
        yield kernel
        kernel.manager.shutdown_kernel(now=True)


def displayed(outputs: list[Any]) -> list[str]:
    """The HTML of outputs; nothing in any of them is for a terminal."""
    assert "\x1b" not in str(outputs) and "\\x1b" not in str(outputs)
    return [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]


@pytest.fixture(scope="module")
def trained(kernel: Kernel) -> tuple[list[list[Any]], list[Any]]:
    """The outputs of a training and of its result, and what the kernel sent."""
    outputs = kernel.run("result = folio.train(BOOK, name='live', **TINY)", "result")
    return outputs, kernel.messages


def test_a_training_is_drawn_in_place_as_it_goes(trained: tuple[list[list[Any]], list[Any]]):
    (outputs, _), messages = trained
    (cell,) = displayed(outputs)  # one, however often it was drawn
    updates = [m["content"] for m in messages if m["msg_type"] == "update_display_data"]
    plain = [content["data"]["text/plain"] for content in updates]
    assert len({content["transient"]["display_id"] for content in updates}) == 1
    assert any("training, step 10 of 20, loss " in words for words in plain)  # at an evaluation
    ended = r"live: finished, step 20 of 20, .*best validation \d\.\d+ at step 20"
    assert re.search(ended, plain[-1])
    read = Reader(cell)
    assert not read.open
    bar = next(a for tag, a in read.attributes if tag == "progress")
    assert bar == {"value": "20", "max": "20", "aria-label": "steps"}
    assert read.text["li"] == ["training, each batch", "training", "validation"]
    assert any(a.get("role") == "img" and a.get("aria-label") for _, a in read.attributes)


def test_a_result_is_shown_as_a_card(trained: tuple[list[list[Any]], list[Any]]):
    (_, outputs), _ = trained
    (card,) = displayed(outputs)
    assert outputs[0]["data"]["text/plain"].startswith("Result(")
    read = Reader(card)
    assert not read.open and read.text["b"] == ["live"]
    cells = dict(zip(read.text["td"][::2], read.text["td"][1::2]))
    assert cells["steps"] == "20 of 20, finished" and "nats per token" in cells["validation"]
    assert read.text["code"][0].startswith("folio ") and len(read.text["pre"][0]) > 100


INTERRUPTED = """
import os, signal
class Interrupts(folio.Observer):
    def stepped(self, state, loss, learning_rate):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
before = signal.getsignal(signal.SIGINT)
result = folio.train(BOOK, name="stopped", observer=Interrupts(), **TINY)
assert signal.getsignal(signal.SIGINT) == before
print(result.ending, result.state.step, result.run.newest()[0].step)
"""


def test_an_interrupt_of_the_kernel_saves_and_ends_the_training(kernel: Kernel):
    (outputs,) = kernel.run(INTERRUPTED)
    assert "interrupted; everything is saved" in displayed(outputs)[0]
    assert any(output.get("text") == "interrupted 3 3\n" for output in outputs)


IN_A_THREAD = """
import threading
asked, results = threading.Event(), []
class Asks(folio.Observer):
    def stepped(self, state, loss, learning_rate):
        if state.step == 3:
            asked.set()
settings = TINY | {"name": "thread", "observer": Asks(), "should_stop": asked.is_set}
thread = threading.Thread(target=lambda: results.append(folio.train(BOOK, **settings)))
thread.start()
thread.join()
print(results[0].ending, results[0].state.step)
"""


def test_a_training_in_another_thread_is_drawn_and_stopped_from_this_one(kernel: Kernel):
    (outputs,) = kernel.run(IN_A_THREAD)
    assert "interrupted; everything is saved" in displayed(outputs)[0]
    assert any(output.get("text") == "interrupted 3\n" for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, kernel: Kernel):
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source = SMALLER[path.stem]
    outputs = kernel.execute(notebook)
    shown = [html for of_cell in outputs for html in displayed(of_cell)]
    frames = [html for html in shown if "<iframe" in html]
    if path.stem == "1_own_text":  # live, the card, what explain and recall found
        assert len(shown) == 4 and len(frames) == 2
        pages = [
            next(a["srcdoc"] for _, a in Reader(f).attributes if "srcdoc" in a) for f in frames
        ]
        assert ["What the model makes" in str(pages[0]), "learn, or copy?" in str(pages[1])] == [
            True,
            True,
        ]
    elif path.stem == "2_ladder":
        assert len(shown) == 1 and "validation: from " in shown[0]
    else:
        printed = "".join(o.get("text", "") for of_cell in outputs for o in of_cell)
        losses = re.findall(r"^(?:plain|capped) +(\d\.\d+) ±", printed, re.MULTILINE)
        assert "SoftCappedAttention" in printed and len(set(losses)) == 2  # another model


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path):
    cells = nbformat.read(path, as_version=4).cells
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def test_a_cell_is_dark_where_its_notebook_is():
    cell = html_cell("<p>x</p>")
    for theme, colors in (("true", LIGHT), ("false", DARK)):
        rule = re.search(rf'\[data-jp-theme-light="{theme}"\] \.folio[^{{]*{{([^}}]*)}}', cell)
        assert rule and variables(colors) in rule[1]
    assert "prefers-color-scheme: dark) { .folio { color-scheme: dark" in cell
    used, defined = (set(re.findall(pattern, cell)) for pattern in (r"var\((--\w+)", r"(--\w+):"))
    assert used <= defined


def test_a_page_in_a_cell_is_closed_off_and_named():
    read = Reader(html_frame('<p title="x">&amp;</p>', "A <page>"))
    (frame,) = [attributes for tag, attributes in read.attributes if tag == "iframe"]
    assert frame["srcdoc"] == '<p title="x">&amp;</p>' and frame["title"] == "A <page>"
    assert frame["sandbox"] == "allow-scripts"


def test_a_script_is_no_notebook(monkeypatch: pytest.MonkeyPatch):
    assert not in_notebook()
    terminal = type("IPython", (), {"get_ipython": staticmethod(lambda: object())})
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert not in_notebook()


def test_a_long_curve_keeps_its_mean_in_few_points():
    series = Thinned(most=10)
    for step in range(1000):
        series.add(step, step % 2)
    assert 5 <= len(series.x) <= 10
    assert series.y == pytest.approx([0.5] * len(series.y))
    assert series.x[0] == pytest.approx((series.x[1] - series.x[0] - 1) / 2)
