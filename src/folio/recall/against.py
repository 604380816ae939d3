"""Compares a model's writing with another text than its training text: one that the user suspects
it knows, or also with the texts of the runs before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from folio.config import read_toml
from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.duplicates import find_families
from folio.corpus.ledger import describe_sources
from folio.corpus.split import whole
from folio.corpus.turns import content_of, spoken
from folio.errors import UserError
from folio.run.directory import Run
from folio.run.formats import stamped
from folio.run.model import Model
from folio.run.old_texts import old_texts
from folio.run.parts import Parts, make_parts, read_parts, write_parts
from folio.storage import link_or_copy, write_json
from folio.tokenizers.sequences import encode_documents
from folio.tokens.loss_mask import write_loss_mask
from folio.tokens.text import TokenText
from folio.tokens.token_file import open_token_file, write_token_file


@contextmanager
def against(
    opened: Model, sources: Sequence[str], tell: Callable[[str], None] = lambda line: None
) -> Iterator[Model]:
    """Give the model with all of another text in place of its own, and without any new text.

    The end of that text is not new: who read the rest may have read it, too. Nor is the text that
    the run held out: it is another author's, who may be easier or harder to predict.

    Args:
        opened: the model.
        sources: of the text, as for `folio train`.
        tell: takes a line about what is lost of it.

    Raises:
        UserError: there is no such text, or it has no token that the model knows.
    """
    tokenizer = opened.tokenizer
    talks = "turns" if tokenizer.has_chat else "text"
    config = CorpusConfig(sources=tuple(sources), conversations=talks)
    documents = read_documents(sources, config).documents
    texts = [whole(document) for document in documents]
    lost, of = tokenizer.lost_bytes(piece for pieces in spoken(texts) for piece in pieces)
    if lost:
        tell(f"{lost:,} of {of:,} bytes of this text are not in the vocabulary and are left out")
    form = read_toml(opened.run.recipe_file)["tokenizer"].get("sequence", "none")
    families = np.unique(find_families(documents, config.duplicates).of, return_inverse=True)[1]
    with tempfile.TemporaryDirectory(prefix="folio-") as folder:
        run = Run(Path(folder))
        chunks = encode_documents(tokenizer, map(content_of, texts), form)
        for name, of_text in (("train", chunks), ("validation", ())):
            path = run.tokens_file(name)
            write_token_file(path, of_text, tokenizer.dtype, tokenizer.fingerprint)
        if not len(open_token_file(run.tokens_file("train"))):
            raise UserError(f"{opened.run.path} knows no character of {', '.join(sources)}.")
        write_parts(run, make_parts(documents, texts, families.tolist()))
        record = {"sources": describe_sources(documents), "ledger": {}, "tokens": {}}
        write_json(run.corpus_file, stamped("corpus", record))
        yield replace(opened, run=run)


@contextmanager
def with_old_texts(opened: Model) -> Iterator[Model]:
    """Give the model with the old texts of `Model.learned` behind the new one, as one text; as it
    is where there are none.
    """
    new, *old = opened.learned()
    if not old:
        yield opened
        return
    run, tokenizer = opened.run, opened.tokenizer
    end = () if tokenizer.end_of_document is None else (tokenizer.end_of_document,)
    with tempfile.TemporaryDirectory(prefix="folio-") as folder:
        joined = Run(Path(folder))
        chunks = [new, *(chunk for text in old for chunk in (np.array(end, new.dtype), text))]
        write_token_file(joined.tokens_file("train"), chunks, new.dtype, tokenizer.fingerprint)
        if tokenizer.has_chat:
            write_loss_mask(
                joined.tokens_file("train"), joined.tokens_file("train.mask"), tokenizer
            )
        for name in (
            "tokens/validation.bin",
            "tokens/validation.mask.bin",
            run.canaries_file.name,
            run.metrics_file.name,
        ):
            if (run.path / name).exists():
                link_or_copy(run.path / name, joined.path / name)
        record = run.corpus()
        if (parts := read_parts(run)) is not None:
            for number, text in enumerate(old, len(record["sources"])):
                parts = _with_parts(parts, TokenText(text, tokenizer), number)
            write_parts(joined, parts)
        names = [{"source": f"the text of {name}"} for name in old_texts(run).files]
        record["sources"] = [*record["sources"], *names]
        write_json(joined.corpus_file, record)
        yield replace(opened, run=joined)


def _with_parts(parts: Parts, text: TokenText, number: int) -> Parts:
    """Some parts, and behind them one for each document of an old text, of one source."""
    starts = text.document_starts
    at = np.array([text.characters_before(int(start)) for start in starts], np.int64)
    families = parts.families.max(initial=-1) + 1 + np.arange(len(starts))
    return Parts(
        np.append(parts.source, np.full(len(starts), number)),
        np.append(parts.start, at),
        np.append(parts.stop, [*at[1:], text.n_characters]),
        np.append(parts.families, families),
    )
