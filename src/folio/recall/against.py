"""A model beside another text than its own: one that it was not trained on here, or that the user
suspects it knows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from folio.recipe.prepare import prepare
from folio.recipe.recipe import make_recipe
from folio.run.directory import Run
from folio.run.formats import stamped
from folio.run.opening import Model
from folio.run.parts import write_parts
from folio.storage import link_or_copy, write_json


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
        write_parts(run, prepared.parts)
        write_json(run.corpus_file, stamped("corpus", prepared.record))
        yield replace(opened, run=run)
