"""Folio's byte-pair encoding beside rustbpe, tokenizers and tiktoken, in turn, in one process.

    python -m bench.byte_pairs [--rounds 5] [--megabytes 20] [--gigabyte]

Each round runs every contender once; a ratio is a peer's seconds divided by Folio's in the same
round, given as the median and the lowest and highest of the rounds. All are compiled and warm;
all get the same list of texts (one for each file), so that those that work in parallel can. The
text is the standard library of this Python.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rustbpe  # pyright: ignore[reportMissingImports]
import tiktoken
import tokenizers

from bench.standard_library import standard_library
from folio.tokenizers.bpe.count import count_texts
from folio.tokenizers.bpe.encode import Encoder
from folio.tokenizers.bpe.patterns import PATTERNS, safe_pieces
from folio.tokenizers.bpe.reference import token_bytes
from folio.tokenizers.bpe.rules import Rules
from folio.tokenizers.bpe.train import learn_merges

CORPORA = Path(os.environ.get("FOLIO_CORPORA", "../shared/corpora"))
Contenders = dict[str, Callable[[], Any]]


def library_texts(n_bytes: int) -> list[str]:
    """The standard library's files; what they are is printed."""
    library = standard_library(n_bytes)
    names, texts = list(library), list(library.values())
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
    print(
        f"text: {sum(len(text.encode()) for text in texts):,} bytes, {len(texts)} files of the "
        f"standard library of Python {sysconfig.get_python_version()}, {names[0]} to {names[-1]}, "
        f"sha256 {digest}"
    )
    return texts


def train_folio(texts: list[str], vocab_size: int) -> list[tuple[int, int]]:
    """The merges by Folio."""
    return learn_merges(count_texts(texts), vocab_size - 256).merges.tolist()


def train_rustbpe(texts: list[str], vocab_size: int) -> Any:
    """A tokenizer by rustbpe."""
    tokenizer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(iter(texts), vocab_size, pattern=PATTERNS["gpt2"])
    return tokenizer


def train_tokenizers(texts: list[str], vocab_size: int) -> Any:
    """A tokenizer by Hugging Face's library."""
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, initial_alphabet=byte_level.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def compare(title: str, contenders: Contenders, n_rounds: int, n_bytes: int) -> None:
    """Run the contenders in turn and print what Folio, the first of them, is compared with."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            result = run()
            seconds[name].append(time.perf_counter() - began)
            del result
    ours = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, theirs in seconds.items():
        median = statistics.median(theirs)
        ratios = [their / our for their, our in zip(theirs, ours)]
        print(
            f"  {name:<34} {median:8.3f} s {n_bytes / median / 1e6:7.1f} MB/s"
            f"   Folio is {statistics.median(ratios):5.2f} times as fast"
            f" ({min(ratios):.2f} to {max(ratios):.2f})"
        )


class Command:
    """`folio tokenizer train FILE --vocab-size 32768 --out tok.json`, from start to exit."""

    def __init__(self, text: Path, folder: Path) -> None:
        # Held out is a file of its own, so that all of the text is learned from, as by the peers.
        held_out, self.out = folder / "held_out.txt", folder / "tok.json"
        held_out.write_text("text", encoding="utf-8")
        self.words = [sys.executable, "-m", "folio", "tokenizer", "train", str(text)]
        self.words += ["--vocab-size", "32768", "--validation", str(held_out)]
        self.words += ["--out", str(self.out)]

    def run(self) -> float:
        """Peak memory in bytes."""
        process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(self.words)} failed")
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_gigabyte(texts: list[str], path: Path) -> int:
    """50 times the same text, in each copy of which the long words have an ending of their own:
    so the words of a large text, which are ever new ones, cost memory here, too.
    """
    whole = "\n".join(texts)
    n_bytes = copy = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        while n_bytes < 10**9:
            mark = chr(97 + copy // 26) + chr(97 + copy % 26)
            text = re.sub(r"\b[A-Za-z]{9,}\b", lambda match, m=mark: match[0] + m, whole)
            file.write(text)
            n_bytes += len(text.encode())
            copy += 1
    return n_bytes


def train_on_a_gigabyte(texts: list[str], folder: Path) -> None:
    """Print time and peak memory of the command."""
    path = folder / "large.txt"
    n_bytes = write_gigabyte(texts, path)
    began = time.perf_counter()
    peak = Command(path, folder).run()
    print(
        f"\nthe whole command on {n_bytes:,} bytes, the text above again and again with new words: "
        f"{time.perf_counter() - began:.1f} s, peak memory {peak / 1e9:.2f} GB"
    )


def compare_training(texts: list[str], n_rounds: int) -> None:
    """Learn vocabularies of the library and of tiny Shakespeare."""
    corpora = [("standard library", texts, 32_768)]
    shakespeare = CORPORA / "tinyshakespeare.txt"
    if shakespeare.exists():
        plays = [shakespeare.read_text(encoding="utf-8")]
        corpora += [("tiny Shakespeare", plays, 1024), ("tiny Shakespeare", plays, 20_000)]
    else:
        print("FOLIO_CORPORA has no tinyshakespeare.txt: training on it is left out")
    for name, documents, vocab_size in corpora:
        compare(
            f"training, {name}, vocabulary {vocab_size:,}",
            {
                "Folio": lambda d=documents, v=vocab_size: train_folio(d, v),
                "rustbpe": lambda d=documents, v=vocab_size: train_rustbpe(d, v),
                "tokenizers": lambda d=documents, v=vocab_size: train_tokenizers(d, v),
            },
            n_rounds,
            sum(len(text.encode()) for text in documents),
        )


def compare_command(texts: list[str], whole: str, n_rounds: int, gigabyte: bool) -> None:
    """Learn the library's by the command, from its start to its exit."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "library.txt")
        path.write_text(whole, encoding="utf-8", newline="")
        command = Command(path, Path(name))
        command.run()  # compiles, if that has not been done on this machine
        compare(
            "training, standard library, vocabulary 32,768, as a command; kernels compiled before",
            {
                "folio tokenizer train, to its exit": command.run,
                "rustbpe, its loop alone": lambda: train_rustbpe(texts, 32_768),
            },
            n_rounds,
            len(whole.encode()),
        )
        if gigabyte:
            train_on_a_gigabyte(texts, Path(name))


def compare_encoding(texts: list[str], whole: str, n_rounds: int) -> None:
    """Encode a long text, the same in pieces, and many short ones, to ids that must agree."""
    merges = train_folio(texts, 32_768)
    rules = Rules.from_merges(merges)
    ranks = {token: rank for rank, token in enumerate(token_bytes(merges))}
    theirs = tiktoken.Encoding(
        "theirs", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    fast_pattern = (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    )
    fastest = tiktoken.Encoding(
        "fastest", pat_str=fast_pattern, mergeable_ranks=ranks, special_tokens={}
    )
    warm = Encoder(rules)
    if not np.array_equal(
        warm.encode(whole), fastest.encode_to_numpy(whole, disallowed_special=())
    ):
        raise SystemExit("the ids differ from tiktoken's")
    compare(
        "encoding one long text on one thread, the same ids",
        {
            "Folio, nothing remembered": lambda: Encoder(rules).encode(whole),
            "Folio, again": lambda: warm.encode(whole),
            "tiktoken encode_to_numpy": lambda: fastest.encode_to_numpy(
                whole, disallowed_special=()
            ),
            "the same, GPT-2's own pattern": lambda: theirs.encode_to_numpy(
                whole, disallowed_special=()
            ),
        },
        n_rounds,
        len(whole.encode()),
    )
    pieces = list(safe_pieces([whole]))
    compare(
        "encoding the same text for training, piece by piece",
        {
            "Folio, two threads": lambda: list(warm.encode_stream(pieces, 2)),
            "Folio, one thread": lambda: list(warm.encode_stream(pieces, 1)),
        },
        n_rounds,
        len(whole.encode()),
    )
    short = whole[: len(whole) // 4].split("\n\n")
    if [ids.tolist() for ids in warm.encode_batch(short)] != fastest.encode_ordinary_batch(short):
        raise SystemExit("the ids differ from tiktoken's")
    compare(
        f"encoding {len(short):,} short texts on two threads",
        {
            "Folio, to arrays": lambda: Encoder(rules).encode_batch(short, 2),
            "Folio, to lists": lambda: [
                ids.tolist() for ids in Encoder(rules).encode_batch(short, 2)
            ],
            "tiktoken encode_ordinary_batch": lambda: fastest.encode_ordinary_batch(
                short, num_threads=2
            ),
        },
        n_rounds,
        len("".join(short).encode()),
    )


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--gigabyte", action="store_true", help="also train on a file of 1 GB")
    options = parser.parse_args()
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("rustbpe", "tokenizers", "tiktoken")
    ]
    print(f"{', '.join(versions)}; {os.cpu_count()} processors; {options.rounds} rounds")
    texts = library_texts(int(options.megabytes * 1e6))
    train_folio(texts, 300)  # compiles, or loads what was compiled

    compare_training(texts, options.rounds)
    whole = "\n".join(texts)
    compare_command(texts, whole, options.rounds, options.gigabyte)
    compare_encoding(texts, whole, options.rounds)


if __name__ == "__main__":
    main()
