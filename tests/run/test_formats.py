"""Files of other versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from folio.errors import UserError
from folio.run import formats
from folio.run.checkpoint import newest_checkpoint, open_checkpoint
from folio.run.directory import Run
from folio.run.formats import FORMATS, require_readable
from tests.run.test_checkpoint import save


@pytest.mark.parametrize("kind", FORMATS)
def test_older_files_are_read_and_newer_or_too_old_ones_get_a_line(
    kind: formats.Kind, monkeypatch: pytest.MonkeyPatch
):
    path = Path("runs/x/file")
    if not FORMATS[kind].oldest:
        require_readable(kind, {}, path)  # of a version that wrote none
    require_readable(kind, {"format": FORMATS[kind].written}, path)
    with pytest.raises(UserError, match=r"runs/x/file was made by a newer version .*git pull"):
        require_readable(kind, {"format": FORMATS[kind].written + 1}, path)
    for damaged in ("1", None, 1.5, True, [1]):
        with pytest.raises(UserError, match="runs/x/file is damaged: its format must be"):
            require_readable(kind, {"format": damaged}, path)
    monkeypatch.setitem(FORMATS, kind, replace(FORMATS[kind], oldest=1))
    with pytest.raises(UserError, match=r"made by an older version .* Start anew with: folio"):
        require_readable(kind, {}, path)


def stamp(path: Path, version: int | None) -> None:
    table = json.loads(path.read_text())
    if version is None:
        del table["format"]
    else:
        table["format"] = version
    path.write_text(json.dumps(table))


def test_a_checkpoint_says_its_format(tmp_path: Path):
    path = save(tmp_path, 1)
    stamp(path / "manifest.json", None)
    assert open_checkpoint(path).step == 1
    stamp(path / "manifest.json", 99)
    with pytest.raises(UserError, match="newer version"):
        open_checkpoint(path)
    found, complaints = newest_checkpoint(tmp_path)
    assert found is None and "newer version" in complaints[0]


def test_a_pointer_of_a_newer_format_is_told_and_the_newest_checkpoint_taken(tmp_path: Path):
    run = Run(tmp_path)
    save(run.checkpoints_folder, 1)
    save(run.checkpoints_folder, 2)
    run.point("best", 1, 3.0)
    assert run.checkpoint()[0].step == 1
    stamp(tmp_path / "best.json", 99)
    checkpoint, complaints = run.checkpoint()
    assert checkpoint.step == 2 and "newer version" in complaints[0]
