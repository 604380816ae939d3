from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from folio.errors import UserError
from folio.run.directory import Run, check_name, find_run, list_runs, runs_folder
from folio.run.metrics import append_event, read_events, set_aside_events_after


def make_run(name: str, written: float) -> Run:
    run = Run(runs_folder() / name)
    run.path.mkdir(parents=True)
    run.recipe_file.touch()
    append_event(run.metrics_file, {"event": "step", "step": 1})
    os.utime(run.metrics_file, (written, written))
    return run


def test_a_run_is_found_by_name_by_path_or_as_the_newest():
    old, new = make_run("old", 1), make_run("new", 2)
    assert find_run("old") == old
    assert find_run(str(old.path)) == old
    assert find_run(None) == new
    assert list_runs() == [old, new]


def test_a_run_that_is_not_there_gets_the_nearest(tmp_path: Path):
    with pytest.raises(UserError, match="folio train"):
        find_run(None)
    make_run("shakespeare-gpt2-1", 1)
    with pytest.raises(UserError, match=r"Did you mean 'shakespeare-gpt2-1'\?"):
        find_run("shakespeare-gpt-1")
    with pytest.raises(UserError, match="is not a run"):
        find_run(str(tmp_path))


def test_events_after_a_step_are_set_aside_not_lost(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    events = [{"event": "step", "step": n} for n in (1, 2, 3)] + [{"event": "end", "step": 2}]
    events += [{"event": "evaluation", "step": n} for n in (1, 2)]
    for event in events:
        append_event(path, event)
    set_aside_events_after(path, 2, evaluated_step=1)
    assert read_events(path) == [*events[:2], events[4]]
    aside = read_events(tmp_path / "metrics.set-aside.jsonl")
    assert aside == [*events[2:4], events[5]]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    append_event(path, {"event": "step", "step": 1})
    with path.open("a") as file:
        file.write('{"event": "st')
    assert len(read_events(path)) == 1


def test_a_line_that_was_cut_off_does_not_take_the_next_one_with_it(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        append_event(path, {"event": "step", "step": step})
        with path.open("a") as file:  # a process is killed while it writes
            file.write('{"event": "st')
    assert [event["step"] for event in read_events(path)] == [1, 2]
    path.write_bytes(path.read_bytes() + b'\n3\n{"step": 4}\n\xff\n\0\0\0\n')
    append_event(path, {"event": "step", "step": 5})
    assert [event["step"] for event in read_events(path)] == [1, 2, 5]


def test_checkpoints_are_asked_for_by_name():
    run = make_run("a", 1)
    with pytest.raises(UserError, match="no usable checkpoint"):
        run.checkpoint("best")
    with pytest.raises(UserError, match="Give best, last or one of no steps yet"):
        run.checkpoint("17")


NO_NAMES = [
    "..",
    ".",
    "",
    " ",
    "-x",
    "~",
    "a\nb",
    "a\x1b",
    "a/b",
    "a\\b",
    "x" * 300,
    "é" * 120,
    "a.",
    "a ",
    "con",
    "NUL.txt",
    "com1",
    "a:b",
    "a?b",
    "a|b",
    "a\u202eb",
    ".hidden",
    "\udce9",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_a_command_or_a_system_cannot_take_is_refused(name: str):
    with pytest.raises(UserError, match="not a plain name") as caught:
        check_name(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "my run", "naïve-2", "日本", "a.b", "it's", "console"])
def test_any_other_name_is_taken_and_quoted(name: str, tmp_path: Path):
    check_name(name)
    assert shlex.split(Run(runs_folder() / name).word) == [name]
    assert shlex.split(Run(tmp_path / "else" / name).word) == [str(tmp_path / "else" / name)]
