"""Imports files of another program as a run at step 0, for every verb that needs no
training text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from folio.config import Table
from folio.errors import UserError
from folio.export.foreign import Foreign
from folio.export.gguf_reading import read_gguf_model
from folio.export.hf_reading import read_folder
from folio.recipe.presets import SIZES
from folio.recipe.recipe import Recipe, make_recipe, save_recipe
from folio.recipe.reserve import new_run
from folio.recipe.start import foreign_files
from folio.run.checkpoint import save_checkpoint
from folio.run.directory import Run, runs_folder
from folio.run.formats import stamped
from folio.storage import cache_folder, sha256_of, write_json

LONGEST_ERROR = 500
"""Length of the sample in characters."""
MOST_CONTEXT = 1024
"""Positions by default: each reserves room for keys and values in all layers."""
READ = (".json", ".jinja", ".txt", ".safetensors", ".gguf")
"""Suffixes of the files that an import may read."""


def read_foreign(path: Path) -> Foreign:
    """Read a folder of transformers, or a GGUF file.

    Raises:
        UserError: neither, damaged, or not what Folio computes.
    """
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"There is no {path}. Name a folder of transformers, or a GGUF file.")
        if path.suffix != ".gguf":
            raise UserError(
                f"{path} is neither a folder of transformers nor a .gguf file. Give the folder "
                f"that has config.json in it."
            )
    try:
        return read_folder(path) if path.is_dir() else read_gguf_model(path)
    except UserError as error:
        if len(said := str(error)) <= LONGEST_ERROR:
            raise
        raise UserError(f"{said[:LONGEST_ERROR]} ...") from None  # a file may name what it likes


def import_run(
    path: Path,
    name: str | None = None,
    context: int = 0,
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Run:
    """Make a run of a model that was trained elsewhere.

    Args:
        path: a folder of transformers, or a GGUF file.
        name: of the run; by the path where none is given.
        context: positions; 0 takes the model's own, or MOST_CONTEXT where those are more.
        folder: of the runs.
        tell: takes a line about what was decided.

    Raises:
        UserError: as `read_foreign`; or a context that the model does not have.
    """
    foreign = read_foreign(path)
    own = foreign.config.context_length
    if not 0 <= context <= own:
        raise UserError(f"--context must be 1 to {own:,}, the positions that {path} knows, or 0.")
    if not context and own > MOST_CONTEXT:
        tell(f"context: {MOST_CONTEXT:,} of {own:,} positions; folio import --context takes more")
    foreign = foreign.with_context(context or MOST_CONTEXT)
    config, tokenizer = foreign.config, foreign.tokenizer
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{path} has a tokenizer of {tokenizer.vocab_size:,} ids, but the model has "
            f"{config.vocab_size:,} rows. They do not belong together."
        )
    for tensor_name, tensor in foreign.tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path} has weights that are not finite numbers, in {tensor_name}.")
    if (beside := foreign.counted) is not None:
        tell(f"n-grams: {len(beside.ngrams):,} beside the model come with it")
    folder = folder or runs_folder()
    weights = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    origin = {
        "name": _own_name(path),
        "sha256": " ".join(map(sha256_of, weights)),
    }
    return write_run(foreign, name or _free_name(path, folder), folder, origin)


def run_in_cache(path: Path, tell: Callable[[str], None] = lambda line: None) -> Run:
    """Make a run of files of another program, once, for a training that begins with them.

    Args:
        path, tell: as in `import_run`.
    """
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix in READ and file.is_file():
            digest.update(f"{file.name} {sha256_of(file)}".encode("utf-8", "replace"))
    folder = cache_folder() / "imported"
    run = Run(folder / digest.hexdigest()[:32])
    if not run.exists():
        import_run(path, run.name, folder=folder, tell=tell)
    return run


def with_run(table: Table, tell: Callable[[str], None] = lambda line: None) -> Table:
    """Have `start.run` name a run: files of another program become one in the cache."""
    start = table.get("start", {})
    path = foreign_files(str(start["run"])) if start.get("run") else None
    if path is None:
        return table
    run = run_in_cache(path, tell)
    return table | {"start": start | {"run": str(run.path)}}


def write_run(foreign: Foreign, name: str, folder: Path, origin: dict[str, str]) -> Run:
    """Make a run at step 0.

    Args:
        foreign: config, weights, tokenizer, and n-grams where there are some.
        name: of the run.
        folder: of the runs.
        origin: for corpus.json.
    """
    config, tokenizer, recipe = foreign.config, foreign.tokenizer, _recipe(foreign)
    with new_run(recipe, name, folder) as run:
        tokenizer.save(run.tokenizer_file)
        recipe = replace(
            recipe, tokenizer=replace(recipe.tokenizer, path=str(run.tokenizer_file.resolve()))
        )
        save_checkpoint(run.checkpoints_folder, 0, asdict(config), {"step": 0}, foreign.tensors, {})
        if (beside := foreign.counted) is not None:
            beside.ngrams.save(run.ngrams_file)
            write_json(run.ngram_weights_file, beside.record)
        record = {
            "documents": 0,
            "sources": [],
            "imported": origin,
            "ledger": {"characters_in": 0, "training": 0, "validation": 0, "dropped": {}},
            "families": {},
            "tokens": {
                "training": 0,
                "validation": 0,
                "unknown_in_validation": 0,
                "vocab_size": tokenizer.vocab_size,
                "tokenizer": tokenizer.fingerprint,
            },
        }
        write_json(run.corpus_file, stamped("corpus", record))
        save_recipe(run.recipe_file, recipe)  # last: from here on this is a run
    return run


def _recipe(foreign: Foreign) -> Recipe:
    """Write down shape and tokenizer, and the tokens of a step that a fine-tuning begins with."""
    preset = "modern" if foreign.config.positions == "rope" else "gpt2"
    batch = max(1, SIZES[Recipe.size].step_tokens // foreign.config.context_length)
    return make_recipe(
        {
            "preset": preset,
            "training": {"batch_size": batch},
            "corpus": {"sources": ["imported"]},  # no file: such a recipe repeats nothing
            "tokenizer": {"kind": "file", "path": "tokenizer.json"},
            "model": asdict(foreign.config),
            "device": {"precision": "float32"},
        }
    )


def _own_name(path: Path) -> str:
    """Name of a folder, or of a file as the user names it: what a link leads to may be a number."""
    return path.name if path.is_file() else path.resolve().name


def _free_name(path: Path, folder: Path) -> str:
    """Name a run as its files; with a number where a run has that name already."""
    stem = _own_name(path).removesuffix(".gguf")
    base = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:100] or "imported"
    names = (base if number == 1 else f"{base}-{number}" for number in range(1, 10_000))
    return next(name for name in names if not Run(folder / name).exists())
