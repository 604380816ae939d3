"""folio sample: what is printed of several texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from folio.generation.row import Drawn
from folio.run.writer import AT_ONCE, Writer
from folio.tokenizers.base import token_text
from tests.cli.conftest import Folio
from tests.export.making import random_run


def test_tokens_that_are_no_text_have_names_of_their_own(folio: Folio, tmp_path: Path):
    opened = random_run(tmp_path, "bytes")
    flags = ["--json", "--logprobs", "20", "--max-tokens", "20", "--temperature", "2", "--no-stop"]
    (entries,) = json.loads(folio("sample", str(opened.run.path), *flags).out)["tokens"]
    told = [one for entry in entries for one in (entry, *entry["alternatives"])]
    assert any(one["text"].startswith("bytes:") for one in told)
    assert all(one["text"] == token_text(opened.tokenizer, one["id"]) for one in told)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_keeps_what_was_written_of_several_texts(
    folio: Folio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
):
    run = random_run(tmp_path).run
    write = Writer.write

    def interrupted(*given: Any, **more: Any) -> Iterator[tuple[int, Drawn]]:
        yield from islice(write(*given, **more), 3 * AT_ONCE)
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "write", interrupted)
    flags = ["--json", "--logprobs", "1"] if as_json else []
    flags += ["--prompt", "The ", "--samples", "99", "--no-stop"]
    outcome = folio("sample", str(run.path), *flags)
    assert outcome.code == 0 and f"{AT_ONCE} of 99 texts had begun" in outcome.err
    texts = outcome.out.split(" ---\n")[1:]
    if as_json:
        record = json.loads(outcome.out)
        texts = record["texts"]
        assert [len(entries) for entries in record["tokens"]] == [3] * AT_ONCE
    assert len(texts) == AT_ONCE and all(text.startswith("The ") for text in texts)
    assert min(map(len, texts)) > len("The ")
