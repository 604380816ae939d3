"""Three runs with random weights for all tests of the server."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from folio.run.directory import Run
from folio.run.model import Model
from folio.run.opening import open_run
from folio.run.parts import Parts, write_parts
from folio.serving.limits import Limits
from folio.serving.served import Served
from folio.storage import read_json, write_json
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokens.token_file import write_token_file
from tests.export.making import MODERN, random_run
from tests.recall.making import prose
from tests.serving.running import LONG, Running, serving

COPIED_SEED = 77
LETTERS = string.ascii_letters + string.digits + " .,;:!?'\n"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of them: `tiny` has a training text; `bytes` has tokens that are not characters;
    `endless` has no end of a document.
    """
    folder = tmp_path_factory.mktemp("served")
    random_run(folder, "bpe-gpt2", "bytes", **MODERN)
    endless = BPETokenizer.train([LETTERS], 257, special_tokens=[])
    assert endless.end_of_document is None
    random_run(folder, endless, "endless", **MODERN)
    tokenizer = CharacterTokenizer.train([LETTERS])
    opened = random_run(folder, tokenizer, "tiny", **MODERN | {"context_length": 64})
    # What it writes from itself stands there too, so that it copies.
    own = opened.generate("The ", seed=COPIED_SEED, max_tokens=300, temperature=1.0, compiled=False)
    text = LETTERS + prose(1000, seed=1) + own
    run = opened.run
    for part, token_ids in [
        ("train", tokenizer.encode(text)),
        ("validation", tokenizer.encode(own)),
    ]:
        write_token_file(run.tokens_file(part), [token_ids], tokenizer.dtype, tokenizer.fingerprint)
    record = read_json(run.corpus_file)
    del record["imported"]
    write_json(run.corpus_file, record | {"sources": [{"source": "/home/alice/book.txt"}]})
    one = np.zeros(1, np.int64)
    write_parts(run, Parts(one, one, one + len(text), one))
    return folder


@pytest.fixture(scope="session")
def tiny(runs: Path) -> Model:
    return open_run(Run(runs / "tiny"))


@pytest.fixture(scope="session")
def lasting(tiny: Model) -> int:
    """A seed with which "The " goes on for 60 characters, before a document ends."""
    settings = {"max_tokens": 60, "temperature": 1.0, "compiled": False}
    seeds = range(1, 1000)
    return next(seed for seed in seeds if len(tiny.generate("The ", seed=seed, **settings)) == 60)


@pytest.fixture(scope="session")
def served(runs: Path, tiny: Model) -> dict[str, Served]:
    others = {name: Served(name, open_run(Run(runs / name))) for name in ("bytes", "endless")}
    return {"tiny": Served("tiny", tiny)} | others


@pytest.fixture(scope="session")
def server(served: dict[str, Served]) -> Iterator[Running]:
    """One for all tests that leave it as it is."""
    with serving(served, Limits(max_tokens=LONG)) as running:
        yield running
