"""folio write on the command line: a page, opened where there is a browser with windows."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from folio.cli.main import main
from folio.corpus.own import is_page
from folio.export import page
from folio.run.directory import runs_folder
from tests.export.making import SHAPE, random_run


def test_the_page_is_written_and_named(capfd: pytest.CaptureFixture[str], tmp_path: Path):
    random_run(runs_folder(), **SHAPE)
    main(["write", "made", "--no-open"])
    path = Path(capfd.readouterr().out.strip())
    assert path == runs_folder() / "made" / "export" / "made.html"
    main(["write", "--no-open", "--out", str(tmp_path / "there.html")])
    assert (tmp_path / "there.html").read_bytes() == path.read_bytes()
    assert is_page(path)  # so that it is never read as a text to learn from


@pytest.mark.parametrize("windows", [True, False])
def test_it_is_opened_where_there_are_windows(
    windows: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    random_run(runs_folder(), **SHAPE)
    opened: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0" if windows else "")
    main(["write"])
    out, err = capfd.readouterr()
    assert opened == ([Path(out.strip()).as_uri()] if windows else [])
    assert ("no browser was found" in err) is not windows


def test_a_model_too_large_for_a_page_is_sent_to_the_server(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    random_run(runs_folder(), **SHAPE)
    monkeypatch.setattr(page, "MOST_PARAMETERS", 1000)
    with pytest.raises(SystemExit) as caught:
        main(["write"])
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "folio serve made" in line
