"""folio export on the command line: what it says, and to whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.cli.main import main
from folio.run.directory import runs_folder
from tests.export.making import SHAPE, random_run


def test_what_was_written_and_compared_is_told_in_four_lines(capfd: pytest.CaptureFixture[str]):
    random_run(runs_folder(), "bpe-gpt2", **SHAPE)
    main(["export", "made", "--to", "gguf", "--type", "f16"])
    out, err = capfd.readouterr()
    path, ids, logits, loss = out.splitlines()
    assert path.endswith("made/export/made-f16.gguf: gpt2, from step-00000000")
    assert ids == "token ids: equal on 24 texts"
    assert logits.startswith("logits: at most 0.0") and "tokens of texts of many kinds" in logits
    assert loss.startswith("loss there: ")
    assert "llama.cpp computes GELU by tanh" in err and "256 positions" in err


def test_the_same_as_json(capfd: pytest.CaptureFixture[str], tmp_path: Path):
    random_run(runs_folder(), "word", **SHAPE)
    main(["export", "--to", "hf", "--out", str(tmp_path / "there"), "--json"])
    record = json.loads(capfd.readouterr().out)
    assert record["path"] == str(tmp_path / "there") and record["graph"] == "gpt2"
    assert record["logit_difference"] < 1e-4 and record["texts"] == 24


def test_what_cannot_be_said_is_one_line(capfd: pytest.CaptureFixture[str]):
    random_run(runs_folder(), "word", **SHAPE)
    with pytest.raises(SystemExit) as caught:
        main(["export", "--to", "gguf"])
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "no tokenizer that cuts text into whole words" in line
