"""Compares a model's writing with another text than its training text: one that the user suspects
it knows, or the old text that its run kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from folio.recipe.prepare import prepare
from folio.recipe.recipe import make_recipe
from folio.run.directory import Run
from folio.run.formats import stamped
from folio.run.model import Model
from folio.run.parts import Parts, read_parts, write_parts
from folio.storage import link_or_copy, read_json, write_json
from folio.tokens.text import TokenText
from folio.tokens.token_file import write_token_file


@contextmanager
def against(
    opened: Model, sources: Sequence[str], tell: Callable[[str], None] = lambda line: None
) -> Iterator[Model]:
    """Give the model with a text in place of its own, split and encoded as for a training.

    Args:
        opened: the model.
        sources: of the text, as for `folio train`.
        tell: takes a line about what is being done.

    Raises:
        UserError: as `prepare`.
    """
    tokenizer = {"kind": "file", "path": str(opened.run.tokenizer_file)}
    recipe = make_recipe({"corpus": {"sources": list(sources)}, "tokenizer": tokenizer})
    prepared = prepare(recipe, tell)
    with tempfile.TemporaryDirectory(prefix="folio-") as folder:
        run = Run(Path(folder))
        for name, path in prepared.files.items():
            link_or_copy(path, run.tokens_file(name))
        if prepared.parts is not None:
            write_parts(run, prepared.parts)
        write_json(run.corpus_file, stamped("corpus", prepared.record))
        yield replace(opened, run=run)


@contextmanager
def with_kept_text(opened: Model) -> Iterator[Model]:
    """Give the model with the old text that its run kept behind the new one, as one text; as it is
    where its run kept none.
    """
    new, *kept = opened.learned()
    if not kept:
        yield opened
        return
    run, tokenizer = opened.run, opened.tokenizer
    end = () if tokenizer.end_of_document is None else (tokenizer.end_of_document,)
    with tempfile.TemporaryDirectory(prefix="folio-") as folder:
        both = Run(Path(folder))
        chunks = (new, np.array(end, new.dtype), *kept)
        write_token_file(both.tokens_file("train"), chunks, new.dtype, tokenizer.fingerprint)
        for name in ("tokens/validation.bin", run.canaries_file.name, run.metrics_file.name):
            if (run.path / name).exists():
                link_or_copy(run.path / name, both.path / name)
        record = run.corpus()
        if (parts := read_parts(run)) is not None:
            old = _kept_parts(TokenText(kept[0], tokenizer), parts, len(record["sources"]))
            write_parts(both, old)
        name = read_json(run.start_file, dict)["run"]
        record["sources"] = [*record["sources"], {"source": f"the text of {name}"}]
        write_json(both.corpus_file, record)
        yield replace(opened, run=both)


def _kept_parts(text: TokenText, parts: Parts, number: int) -> Parts:
    """The parts of a run, and behind them one for each document of the old text, of one source."""
    starts = text.document_starts
    at = np.array([text.characters_before(int(start)) for start in starts], np.int64)
    families = parts.families.max(initial=-1) + 1 + np.arange(len(starts))
    return Parts(
        np.append(parts.source, np.full(len(starts), number)),
        np.append(parts.start, at),
        np.append(parts.stop, [*at[1:], text.n_characters]),
        np.append(parts.families, families),
    )
