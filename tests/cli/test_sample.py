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
from tests.cli.conftest import Folio
from tests.export.making import random_run


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
    outcome = folio("sample", str(run.path), "--prompt", "The ", "--samples", "99", *flags)
    assert outcome.code == 0 and f"{AT_ONCE} of 99 texts had begun" in outcome.err
    texts = outcome.out.split(" ---\n")[1:]
    if as_json:
        record = json.loads(outcome.out)
        texts = record["texts"]
        assert [len(entries) for entries in record["tokens"]] == [3] * AT_ONCE
    assert len(texts) == AT_ONCE and all(text.startswith("The ") for text in texts)
    assert min(map(len, texts)) > len("The ")
