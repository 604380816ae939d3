"""Text -> tokenizer and token files, in a content-addressed cache."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio import accelerator
from folio.corpus.canaries import Canary, make_canaries, plant
from folio.corpus.corpus import Corpus, CorpusConfig, read_corpus
from folio.corpus.document import Part
from folio.corpus.turns import END, content_of, have_conversations, spoken
from folio.errors import UserError
from folio.evaluation.frequencies import count_tokens, frequency_loss
from folio.recipe.recipe import Recipe
from folio.run.parts import Parts, make_parts
from folio.storage import cache_folder, write_json
from folio.store.directory import store_of
from folio.store.opening import open_store
from folio.tokenizers.base import CHAT_TOKENS, TokenIds, Tokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.config import TokenizerConfig, resolve, train_tokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokens.lacking import lacking, unknown_in
from folio.tokens.loss_mask import LossMask, example, open_loss_masks, write_loss_mask
from folio.tokens.token_file import VERSION, open_token_file, write_token_file
from folio.training.config import minutes_of

LEAKS = 0.01
"""Share of the validation text that occurs in the training text above which the user is warned."""
CHUNK_TOKENS = 1 << 20
"""Tokens that are processed together."""


@dataclass(frozen=True)
class Prepared:
    """The tokens of a text and everything known about it."""

    tokenizer: Tokenizer
    tokenizer_config: TokenizerConfig
    """The config of its tokenizer, with every choice resolved."""
    files: dict[str, Path]
    """Token files by part, as in `Run.tokens_file`."""
    record: dict[str, Any]
    """The content of corpus.json."""
    warnings: list[str]
    parts: Parts | None
    """The documents in the training text; None if they were too many to be noted."""
    canaries: list[Canary]
    """The canaries planted in the training text."""

    def training(self) -> TokenIds:
        """(N,) token ids, mapped from the file."""
        return open_token_file(self.files["train"], self.tokenizer.fingerprint)

    def validation(self) -> TokenIds:
        """(N,) token ids, mapped from the file."""
        return open_token_file(self.files["validation"], self.tokenizer.fingerprint)

    def loss_masks(self) -> dict[str, LossMask]:
        """(N,) masks with 1 for each token that counts, by part of the text; a text of which all
        tokens count has none.
        """
        masks = {n.removesuffix(".mask"): p for n, p in self.files.items() if n.endswith(".mask")}
        return open_loss_masks(masks, self.tokenizer.fingerprint)


def prepare(recipe: Recipe, tell: Callable[[str], None]) -> Prepared:
    """Read the corpus, train the tokenizer on its training part, and encode all parts; or take
    them from a store of tokens, if that is the only source.

    Args:
        recipe: names the corpus and the tokenizer.
        tell: receives a line about what is being done.

    Raises:
        UserError: as in read_corpus; or a part is too short to have targets.
    """
    if (store := store_of(recipe.corpus.sources)) is not None:
        opened = open_store(store, recipe.corpus, recipe.tokenizer)
        return Prepared(*opened, list(lacking(opened.record["tokens"], store.path)), None, [])
    corpus = read_corpus(recipe.corpus)
    training, validation = corpus.split.training, corpus.split.validation
    config, choice = resolve(recipe.tokenizer, sum(map(len, training)), _minutes(recipe))
    if choice:
        tell(choice)
    tokenizer = _make_tokenizer(config, corpus, tell)
    canaries = _canaries(recipe, tokenizer, training)
    form = config.sequence
    if canaries:  # as they are written in the text
        form += f" {recipe.seed} {[(canary.line, canary.times) for canary in canaries]}"
    folder = cache_folder() / "tokens" / _address(corpus, tokenizer, form)
    texts_of = {"train": training, "validation": validation}
    others = {"elsewhere": corpus.split.elsewhere, "test": corpus.split.test}
    texts_of |= {name: parts for name, parts in others.items() if parts}
    files = _encode_parts(recipe, texts_of, canaries, tokenizer, folder, tell)
    record, warnings = corpus.record(), corpus.reading.warnings()
    record["leakage"], seen = corpus.leakage
    record["families"] = {
        name: corpus.family_numbers(parts) for name, parts in texts_of.items() if name != "train"
    }
    validation_ids = open_token_file(files["validation"], tokenizer.fingerprint)
    clean = clean_tokens(tokenizer, validation_ids, validation, seen)
    if clean is not None:
        files["clean"] = folder / "clean.bin"
        write_token_file(files["clean"], [clean], clean.dtype, tokenizer.fingerprint)
    prepared = Prepared(
        tokenizer,
        config,
        files,
        record,
        warnings,
        make_parts(corpus.documents, training, corpus.family_numbers(training)),
        canaries,
    )
    is_masked = "train.mask" in files or "validation.mask" in files
    counted = {"counted": _counted(prepared, tell)} if is_masked else {}
    record |= _token_counts(prepared)
    record["tokens"] |= counted
    warnings += _lacking(prepared, training, recipe.start.run or recipe.tokenizer.path)
    if canaries:
        record["ledger"]["planted"] = sum(len(c.line) * c.times for c in canaries)
    warnings += _warnings(record, recipe.corpus, len(canaries))
    write_json(folder / "corpus.json", record)  # for people who look into the cache
    return prepared


def _encode_parts(
    recipe: Recipe,
    texts_of: dict[str, list[Part]],
    canaries: Sequence[Canary],
    tokenizer: Tokenizer,
    folder: Path,
    tell: Callable[[str], None],
) -> dict[str, Path]:
    """Write the token files of some parts of a text, and the loss masks of those with
    conversations, unless they are there. The canaries are planted in the training text.

    Returns:
        The files by name, as in `Prepared.files`.
    """
    files = {name: folder / f"{name}.bin" for name in texts_of}
    for name, parts in texts_of.items():
        if not files[name].exists():
            tell(f"encoding the {name} text")
            texts: Iterable[Any] = map(content_of, parts)
            if name == "train" and canaries:
                texts = plant(parts, canaries, recipe.seed)
            chunks = encode_documents(tokenizer, texts, recipe.tokenizer.sequence)
            write_token_file(files[name], chunks, tokenizer.dtype, tokenizer.fingerprint)
        if have_conversations(parts):
            mask_file = files[f"{name}.mask"] = folder / f"{name}.mask.bin"
            if not mask_file.exists():
                write_loss_mask(files[name], mask_file, tokenizer)
    return files


def _make_tokenizer(
    config: TokenizerConfig, corpus: Corpus, tell: Callable[[str], None]
) -> Tokenizer:
    """Train or load a tokenizer; with CHAT_TOKENS if there are conversations."""
    split = corpus.split
    everything = [*split.training, *split.validation, *split.elsewhere, *split.test]
    converses = have_conversations(everything)
    learned = config.with_room_for(CHAT_TOKENS) if converses else config
    tokenizer = train_tokenizer(learned, spoken(split.training))
    if tokenizer.note:
        tell(tokenizer.note)
    if not converses:
        return tokenizer
    if tokenizer.end_of_document is None and not all(
        part.document.is_conversation for part in everything
    ):
        raise UserError(
            "This vocabulary has no token between documents, so nothing would tell where a "
            "conversation ends and other text begins. Give one of the two."
        )
    return tokenizer if tokenizer.has_chat else tokenizer.with_chat()


def _counted(prepared: Prepared, tell: Callable[[str], None]) -> dict[str, int]:
    """Count the targets of training and validation text that the masks let count, and show an
    example.

    Raises:
        UserError: no target of a text counts.
    """
    masks, counts = prepared.loss_masks(), dict[str, int]()
    for name, tokens in (("train", prepared.training()), ("validation", prepared.validation())):
        counts[name] = int(np.count_nonzero(masks[name][1:])) if name in masks else len(tokens) - 1
        if counts[name] < 1:
            raise UserError(
                f"Nothing in the {name} text counts: it has no answer. Give conversations with "
                f"messages of the role assistant."
            )
    if "train" in masks:
        tell(
            f"conversations: {counts['train']:,} of {len(prepared.training()):,} training tokens "
            f"count, those of answers and of other text. An example: "
            f"{example(prepared.training(), masks['train'], prepared.tokenizer)}"
        )
    return {"training": counts["train"], "validation": counts["validation"]}


def _token_counts(prepared: Prepared) -> dict[str, Any]:
    """The entries of corpus.json that depend on the tokenizer."""
    tokenizer, masks = prepared.tokenizer, prepared.loss_masks()
    training, validation = prepared.training(), prepared.validation()
    n_unknown = 0
    if tokenizer.unknown is not None:
        n_unknown = int(np.count_nonzero(validation == tokenizer.unknown))
    counts: dict[str, Any] = {
        "tokens": {
            "training": len(training),
            "validation": len(validation),
            "unknown_in_validation": n_unknown,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": tokenizer.fingerprint,
        }
    }
    if len(validation) > 1:
        counts["frequency_loss"] = frequency_loss(
            count_tokens(_counting(training, masks.get("train")), tokenizer.vocab_size),
            _counting(validation, masks.get("validation")),
        )
    return counts


def _counting(tokens: TokenIds, mask: LossMask | None) -> TokenIds:
    """The tokens that count, except the first one, which is not a target."""
    if mask is None:
        return tokens
    return np.concatenate([tokens[:1], tokens[1:][mask[1:] == 1]])


def _lacking(prepared: Prepared, parts: Sequence[Part], named: str) -> Iterator[str]:
    """Lines about what is lost of a text; for a loaded vocabulary the record notes it, too.

    Raises:
        UserError: every token is unknown to the vocabulary.
    """
    tokenizer, counts, kinds = prepared.tokenizer, prepared.record["tokens"], ""
    if prepared.tokenizer_config.kind == "file":
        lost = tokenizer.lost_bytes(piece for pieces in spoken(parts) for piece in pieces)
        occurrences = count_tokens(prepared.training(), tokenizer.vocab_size)
        n_unknown = unknown_in(occurrences, tokenizer, named)
        counts |= {"lost_bytes": list(lost), "unknown_in_training": n_unknown}
        if n_unknown and isinstance(tokenizer, CharacterTokenizer):
            found = tokenizer.lacking(piece for pieces in spoken(parts) for piece in pieces)
            each = [f"{c!r} (U+{ord(c):04X}) {n:,}" for c, n in found.items()]
            shown = f"{', '.join(each[:8])}{', ...' if each[8:] else ''}"
            kinds = f", {len(each):,} kinds: {shown}"
    return lacking(counts, named, kinds)


def _canaries(recipe: Recipe, tokenizer: Tokenizer, training: Sequence[Part]) -> list[Canary]:
    """Draw canaries of characters that the vocabulary has.

    Raises:
        UserError: the text consists of conversations, which have no lines.
    """
    if not recipe.corpus.canaries:
        return []
    if have_conversations(training):
        raise UserError(
            "corpus.canaries are lines between other lines, and conversations have none. Leave "
            "canaries out, or give --corpus.conversations text."
        )
    known = {chr(code) for code in range(256)}
    if tokenizer.unknown is not None:
        known = {piece.decode("utf-8", errors="replace") for piece in tokenizer.pieces}
    return make_canaries(recipe.corpus.canaries, known, recipe.seed)


def _warnings(record: dict[str, Any], text: CorpusConfig, n_canaries: int) -> Iterator[str]:
    """What a user should know about a text, from its entry in corpus.json."""
    if (leaked := record["leakage"]["after"]["grams"]) > LEAKS:
        held_out = (word for path in text.validation for word in ("--validation", path))
        yield (
            f"{leaked:.1%} of the validation text, in runs of 13 words, stands in the "
            f"training text too, so its loss flatters; see the loss on its novel subset, and "
            f"{shlex.join(['folio', 'corpus', *text.sources, *held_out])}"
        )
    ledger = record["ledger"]
    if ledger["dropped"]:
        reasons = ", ".join(f"{n} ({why})" for why, n in ledger["dropped"].items())
        yield f"characters left out: {reasons}"
    if n_canaries:
        yield (
            f"{n_canaries} canaries stand in the training text, {ledger['planted']:,} characters; "
            f"canaries.json has them, and folio recall says how soon they come out. Do not pass on "
            f"such a model as if it had none."
        )


def _minutes(recipe: Recipe) -> float:
    """Minutes that a processor has for the training; 0 if they are unlimited, or a GPU trains."""
    minutes = minutes_of(recipe.training)
    kinds = ("cuda", "mps") if recipe.device.kind == "auto" else (recipe.device.kind,)
    if minutes and any(kind != "cpu" and accelerator.available(kind) for kind in kinds):
        return 0.0
    return minutes


def clean_tokens(
    tokenizer: Tokenizer,
    token_ids: TokenIds,
    parts: Sequence[Part],
    seen: Sequence[NDArray[np.int64]],
) -> NDArray[np.uint8] | None:
    """Find the tokens of a text that are new to the training text.

    Args:
        tokenizer: the tokenizer that made the tokens.
        token_ids: (N,) tokens of the parts, one after the other.
        parts: the text.
        seen: for each part, (k, 2) stretches of characters that occur in the training text.

    Returns:
        (N,) 1 or 0; None if tokens cannot be traced back to the text, as with words.
    """
    if tokenizer.unknown is None:  # a token may begin inside a character
        size_of = tokenizer.bytes_per_token
        places = [_in_bytes(part, stretches) for part, stretches in zip(parts, seen)]
        sizes = [part.n_bytes for part in parts]
    else:
        size_of = tokenizer.characters_per_token.copy()
        size_of[tokenizer.unknown] = 1  # in a vocabulary of characters
        places, sizes = seen, [len(part) for part in parts]
    if tokenizer.has_chat:  # each chat token is one mark in the text
        size_of = size_of.copy()
        mark = len(END.encode("utf-8")) if tokenizer.unknown is None else 1
        size_of[[tokenizer.special_tokens[name] for name in CHAT_TOKENS]] = mark
    begins = np.cumsum([0, *sizes])
    stretches = np.concatenate(
        [np.zeros((0, 2), np.int64), *(s + b for s, b in zip(places, begins))]
    )
    clean = np.zeros(len(token_ids), np.uint8)
    position = 0
    for first in range(0, len(token_ids), CHUNK_TOKENS):
        lengths = size_of[token_ids[first : first + CHUNK_TOKENS]].astype(np.int64)
        stops = position + np.cumsum(lengths)
        begun = np.searchsorted(stretches[:, 0], stops, "left")
        ended = np.searchsorted(stretches[:, 1], stops - lengths, "right")
        clean[first : first + CHUNK_TOKENS] = begun == ended
        position = int(stops[-1])
    return clean if position == begins[-1] else None


def _in_bytes(part: Part, stretches: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k, 2) stretches of a text converted from characters to UTF-8 bytes."""
    places = stretches.ravel()
    found = np.zeros_like(places)
    characters = n_bytes = first = 0
    for piece in part.pieces():
        data = np.frombuffer(piece.encode("utf-8"), np.uint8)
        begins = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))
        last = int(np.searchsorted(places, characters + len(piece), "right"))
        found[first:last] = n_bytes + begins[places[first:last] - characters]
        first, characters, n_bytes = last, characters + len(piece), n_bytes + len(data)
    return found.reshape(-1, 2)


def _address(corpus: Corpus, tokenizer: Tokenizer, sequence: str) -> str:
    made_of = {
        "format": VERSION,
        "sequence": sequence,
        "tokenizer": tokenizer.fingerprint,
        "training": [(p.document.sha256, p.start, p.stop) for p in corpus.split.training],
        "validation": [(p.document.sha256, p.start, p.stop) for p in corpus.split.validation],
    }
    if corpus.split.elsewhere:
        made_of["elsewhere"] = [part.document.sha256 for part in corpus.split.elsewhere]
    if corpus.split.test:
        made_of["test"] = [(p.document.sha256, p.start, p.stop) for p in corpus.split.test]
    if talks := sorted({d.sha256 for d in corpus.documents if d.is_conversation}):
        made_of["conversations"] = talks
    return hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()
