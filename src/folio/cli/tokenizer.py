"""folio tokenizer: learn a vocabulary, use it, compare several on a text."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter

from folio.cli.guides import say_next
from folio.cli.outputs import check_output
from folio.cli.overrides import Repeatable, Text
from folio.config import from_table
from folio.console import Progress, percent, say, show, table
from folio.corpus.own import has_page
from folio.errors import UserError
from folio.storage import json_text

if TYPE_CHECKING:
    from folio.corpus.corpus import Corpus
    from folio.corpus.document import Part
    from folio.corpus.split import Split
    from folio.tokenizers import Tokenizer

LEARNED_KINDS = ("bpe", "word", "character", "auto")
SHOWN_CHARACTERS = 400
SHOWN_ON_PAGE = 1500
BACKGROUNDS = ("blue", "green", "magenta", "cyan", "yellow")
ALL = "all"

Encoding = Annotated[str, Parameter(name=("--encoding", "--corpus.encoding"))]

tokenizer = App(
    name="tokenizer",
    help="Learn a vocabulary from text, use it, and compare several.",
    help_format="plaintext",
    result_action="return_value",
    group_arguments=Group("Flags"),
    group_parameters=Group("Flags"),
)


@tokenizer.command
def train(
    *corpus: Text,
    vocab_size: int = 0,
    kind: str = "bpe",
    pattern: str = "gpt2",
    sequence: str = "none",
    min_count: int = 1,
    punctuation: str = "separate",
    lowercase: bool = False,
    out: Path = Path("tokenizer.json"),
    validation: Repeatable | None = None,
    encoding: Encoding = "auto",
) -> None:
    """Learn a vocabulary: folio tokenizer train CORPUS --vocab-size 8192 --out tok.json

    It is learned from the part of the text that folio train would train on. Use it with
    folio train CORPUS --tokenizer.path tok.json.

    Args:
        corpus: Files, folders, - or a built-in corpus, as for folio train.
        vocab_size: Number of ids; 0 chooses by the size of the text.
        kind: bpe, word, character, or auto, which chooses by the size of the text.
        pattern: How bpe splits text before merging: gpt2, llama3, qwen2 or smollm.
        sequence: none, document, line or sentence; all except none have <bos> and <eos>.
        min_count: For kind word: words that occur less often are left out.
        punctuation: For kind word: separate, drop or keep.
        lowercase: For kind word: treat "The" as "the".
        out: The file to write.
        validation: An out-of-domain file or folder to hold out, too; repeatable.
        encoding: Encoding of the files.
    """
    from folio.tokenizers.base import UNKNOWN
    from folio.tokenizers.config import TokenizerConfig, resolve, train_tokenizer

    given = {
        "kind": kind,
        "vocab_size": vocab_size,
        "pattern": pattern,
        "sequence": sequence,
        "min_count": min_count,
        "punctuation": punctuation,
        "lowercase": lowercase,
    }
    config = from_table(TokenizerConfig, given, "tokenizer.")
    if kind not in LEARNED_KINDS:
        raise UserError(
            f"A vocabulary of kind {kind} is not learned from text. "
            f"Give one of {', '.join(LEARNED_KINDS)}."
        )
    check_output(out, "--out", _is_tokenizer)
    split = _read(corpus, encoding, validation).split
    training = split.training
    n_characters = sum(map(len, training))
    config, choice = resolve(config, n_characters)
    if choice:
        say(choice)
    began = time.monotonic()
    with Progress(n_characters) as progress:
        meter = _Meter(progress)
        learned = train_tokenizer(config, (meter.pieces(part) for part in training))
    seconds = time.monotonic() - began
    learned.save(out)
    if learned.note:
        say(learned.note)
    show(
        f"{out}: {learned.vocab_size:,} ids, learned from {meter.n_bytes:,} bytes in "
        f"{seconds:.1f} s, {meter.n_bytes / seconds / 1e6:.1f} MB/s"
    )
    if learned.unknown is not None:
        share = learned.unknown_share(part.pieces() for part in _held_out(split))
        show(f"{UNKNOWN}: {percent(share, 2)} of the tokens of the text that is held out")
    say_next("tokenizer", CORPUS=shlex.join(corpus), **{"tok.json": shlex.quote(str(out))})


@tokenizer.command
def merges(tokenizer: str, *, skip: int = 0, limit: int = 50, json: bool = False) -> None:
    """Show the merges in the order in which they were learned: folio tokenizer merges tok.json

    The count says how often the pair occurred in the training text when it was merged; files from
    other programs do not have it.

    Args:
        tokenizer: A tokenizer.json, a run directory, or gpt2.
        skip: Number of merges to skip.
        limit: Most merges to show; 0 shows all.
        json: Print JSON.
    """
    from folio.tokenizers.bpe.tokenizer import BPETokenizer
    from folio.tokenizers.comparison import visible

    opened = _open(tokenizer)
    if not isinstance(opened, BPETokenizer):
        raise UserError(f"{tokenizer} is a vocabulary of kind {opened.kind}; it has no merges.")
    if skip < 0 or limit < 0:
        raise UserError(f"--skip and --limit must be 0 or more, got {skip} and {limit}.")
    learned = opened.merges
    shown = range(skip, min(len(learned), skip + limit if limit else len(learned)))
    if json:
        records = [{"rank": rank, **learned[rank]._asdict()} for rank in shown]
        for record in records:
            record["text"] = visible(opened.pieces[record["token"]])
        show(json_text(records, indent=1))
        return
    rows = []
    for rank in shown:
        *ids, count = learned[rank]
        names = [visible(opened.pieces[token_id]) for token_id in ids]
        rows.append([str(rank), *names, f"{ids[-1]}", "-" if count is None else f"{count:,}"])
    show(table(["merge", "left", "right", "token", "id", "count"], rows))
    if (left := len(learned) - shown.stop) > 0:
        say(f"{left:,} more: --skip {shown.stop}, or --limit 0 for all")


@tokenizer.command
def encode(
    tokenizer: str,
    *files: Text,
    text: str | None = None,
    allow_special: Repeatable | None = None,
    pieces: bool = False,
    json: bool = False,
) -> None:
    """Encode a text: folio tokenizer encode tok.json --text "Hello", or a FILE, or stdin

    Args:
        tokenizer: A tokenizer.json, a run directory, or gpt2.
        files: UTF-8 texts; standard input by default.
        text: What to encode.
        allow_special: A special token to recognize in the text, such as <|endoftext|>, or all;
            repeatable. All others are plain text.
        pieces: Show the text of each token, in colors.
        json: Print JSON.
    """
    opened = _open(tokenizer)
    if text is not None and files:
        raise UserError(f"--text and the file {files[0]} were given. Give one of them.")
    texts = [text] if text is not None else [_read_text(name) for name in _texts(files) or ["-"]]
    allowed = list(opened.special_tokens) if allow_special == [ALL] else allow_special or ()
    token_ids = [opened.encode(text, allowed_special=allowed).tolist() for text in texts]
    if json:
        show(json_text(token_ids[0] if len(texts) == 1 else token_ids))
        return
    for ids in token_ids:
        if pieces:
            _print_pieces(opened, ids)
        else:
            show(" ".join(map(str, ids)))


@tokenizer.command
def decode(tokenizer: str, *ids: int) -> None:
    """Decode token ids to text: folio tokenizer decode tok.json 15496 995, or ids from stdin

    Args:
        tokenizer: A tokenizer.json, a run directory, or gpt2.
        ids: Token ids; by default read from standard input.
    """
    opened = _open(tokenizer)
    show(opened.decode(ids or _read_ids()))


@tokenizer.command
def compare(
    *corpus: Text,
    vocab_sizes: str = "512,1024,2048,4096,8192,16384",
    pattern: str = "gpt2",
    also: str = "",
    size: str | None = None,
    characters: int = 20_000_000,
    html: Path | None = None,
    json: bool = False,
    validation: Repeatable | None = None,
    encoding: Encoding = "auto",
) -> None:
    """Compare vocabularies on your text: folio tokenizer compare CORPUS

    Each is learned from the training part. Tokens and bytes per token are measured on the held-out
    part, the used share of the vocabulary on the training part. Among lossless vocabularies whose
    tokens occur often enough to be learned, the one that makes the text shortest is recommended.

    Args:
        corpus: Files, folders, - or a built-in corpus, as for folio train.
        vocab_sizes: Sizes of byte-pair vocabularies, separated by commas.
        pattern: How text is split before merging: gpt2, llama3, qwen2 or smollm.
        also: Further vocabularies: gpt2 or tokenizer.json files, separated by commas.
        size: Size of the model to be trained, which decides the cost of its embedding: nano (as for
            folio train), micro, mini ...
        characters: Read at most this many characters of the training part.
        html: Write a page with the table, and the text as each one tokenizes it, in colors.
        json: Print JSON.
        validation: An out-of-domain file or folder to hold out, too; repeatable.
        encoding: Encoding of the files.
    """
    from folio.recipe.recipe import make_recipe

    sizes = _sizes(vocab_sizes)
    if characters < 1:
        raise UserError(f"--characters must be at least 1, got {characters}.")
    check_output(html, "--html", has_page)
    others = {name: _open(name) for name in also.split(",") if name}
    model = make_recipe({"size": size} if size else {}).model
    n_body = replace(model, vocab_size=1, tied_head=True).n_parameters - model.d_model

    from folio.tokenizers.comparison import (
        HEADER,
        candidates,
        cells,
        measure,
        page,
        recommend,
    )

    split = _read(corpus, encoding, validation).split
    training = _beginning(split.training, characters)
    held_out = _beginning(_held_out(split), characters)
    vocabularies: dict[str, Tokenizer] = {}
    for name, learned in candidates(training, sizes, pattern):
        say(f"{name}{': ' + learned.note if learned.note else ''}")
        vocabularies[name] = learned
    vocabularies |= others
    measured = [
        measure(name, vocabulary, training, held_out, model.d_model, n_body)
        for name, vocabulary in vocabularies.items()
    ]
    best, reason = recommend(measured)
    if html is not None:
        from folio.storage import atomic_write

        with atomic_write(html) as file:
            file.write(page(measured, best, reason, vocabularies, held_out[:SHOWN_ON_PAGE]))
        say(f"{html}")
    if json:
        records = [m.record() for m in measured]
        answer = {"tokenizers": records, "recommended": best.name, "reason": reason}
        show(json_text(answer, indent=2))
        return
    show(table(HEADER, cells(measured)))
    show(f"\nrecommended: {best.name}, since {reason}\n")
    chosen = vocabularies[best.name]
    _print_pieces(chosen, chosen.encode(held_out[:SHOWN_CHARACTERS]).tolist())


class _Meter:
    """Counts a text while it is read, and shows how fast that is."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.began = progress, time.monotonic()
        self.n_bytes = self.n_characters = 0

    def pieces(self, part: Part) -> Iterator[str]:
        """The pieces of a part."""
        for piece in part.pieces():
            yield piece
            self.n_characters += len(piece)
            self.n_bytes += len(piece.encode("utf-8"))
            rate = self.n_bytes / max(time.monotonic() - self.began, 1e-9) / 1e6
            self.progress.update(self.n_characters, f"{rate:.1f} MB/s")


def _read(sources: tuple[str, ...], encoding: str, validation: list[str] | None) -> Corpus:
    from folio.corpus.corpus import CorpusConfig, read_corpus

    held_out = tuple(validation or ())
    config = CorpusConfig(encoding=encoding, conversations="text", validation=held_out)
    config = replace(config, sources=_texts(sources)) if sources else config
    return read_corpus(config, only_split=True)


def _held_out(split: Split) -> list[Part]:
    return [*split.validation, *split.elsewhere]


def _texts(words: tuple[str, ...]) -> tuple[str, ...]:
    """The positional words, of which none is a flag that does not exist."""
    for word in words:
        if word.startswith("-") and word != "-":
            raise UserError(f"Unknown option '{word}'. Add --help to see which there are.")
    return words


def _beginning(parts: list[Part], n_characters: int) -> str:
    """The first characters of some parts."""
    texts, left = [], n_characters
    for part in parts:
        for piece in part.pieces():
            texts.append(piece[:left])
            left -= len(texts[-1])
            if left <= 0:
                return "".join(texts)
    return "".join(texts)


def _read_text(name: str) -> str:
    from folio.corpus.corpus import CorpusConfig, read_documents

    if name != "-" and not Path(name).exists():
        raise UserError(f"There is no file {name}.")
    documents = read_documents([name], CorpusConfig(conversations="text")).documents
    return "".join(document.text for document in documents)


def _read_ids() -> list[int]:
    """Numbers from standard input, as `encode` prints them, with or without --json."""
    words = re.split(r"[\s,\[\]]+", sys.stdin.buffer.read().decode("utf-8", errors="replace"))
    try:
        return [int(word) for word in words if word]
    except ValueError as error:
        raise UserError(f"Token ids are whole numbers: {error}.") from None


def _is_tokenizer(path: Path) -> bool:
    from folio.tokenizers import load

    try:
        load(path)
    except UserError:
        return False
    return True


def _open(name: str) -> Tokenizer:
    if Path(name).exists():
        from folio.tokenizers import load

        return load(name)
    if name == "gpt2":
        from folio.tokenizers.gpt2 import load_gpt2

        return load_gpt2()
    raise UserError(
        f"There is no file {name}. Name a tokenizer.json, a run directory, or gpt2; "
        f"make one with: folio tokenizer train"
    )


def _sizes(words: str) -> list[int]:
    try:
        return [int(word.replace("_", "")) for word in words.split(",") if word]
    except ValueError:
        raise UserError(
            f"--vocab-sizes must be whole numbers with commas, as 1024,8192, got '{words}'."
        ) from None


def _print_pieces(opened: Tokenizer, token_ids: list[int]) -> None:
    """Each token on a color of its own; with lines between them where there are no colors."""
    from folio.tokenizers.comparison import visible

    names = [visible(opened.pieces[token_id]) for token_id in token_ids]
    if not sys.stdout.isatty():
        show("|".join(names))
        return
    from rich.console import Console
    from rich.text import Text

    line = Text()
    for number, name in enumerate(names):
        line.append(name, style=f"black on {BACKGROUNDS[number % len(BACKGROUNDS)]}")
        if name.endswith("\\n"):
            line.append("\n")
    Console(highlight=False).print(line)
