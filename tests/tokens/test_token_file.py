from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from folio.errors import UserError
from folio.tokens.token_file import open_token_file, write_token_file

PRINT = "ab" * 32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_tokens_come_back_in_their_type(tmp_path: Path, dtype: type):
    path = tmp_path / "a.bin"
    chunks = [np.array([1, 2, 200], dtype), np.array([], dtype), np.array([3], dtype)]
    assert write_token_file(path, chunks, np.dtype(dtype), PRINT) == 4
    tokens = open_token_file(path, PRINT)
    assert tokens.tolist() == [1, 2, 200, 3] and tokens.dtype == dtype
    assert isinstance(tokens, np.memmap)


def test_no_tokens_are_a_file_too(tmp_path: Path):
    write_token_file(tmp_path / "a.bin", [], np.dtype(np.uint8), PRINT)
    assert len(open_token_file(tmp_path / "a.bin")) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data + b"x", "damaged"),
        (lambda data: data[:20], "not a token file"),
        (lambda data: b"x" + data[1:], "not a token file"),
        (lambda data: data[:8] + b"\7" + data[9:], "another version"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str):
    path = tmp_path / "a.bin"
    write_token_file(path, [np.arange(9, dtype=np.uint8)], np.dtype(np.uint8), PRINT)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        open_token_file(path)


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path):
    write_token_file(tmp_path / "a.bin", [], np.dtype(np.uint8), PRINT)
    with pytest.raises(UserError, match="another tokenizer"):
        open_token_file(tmp_path / "a.bin", "cd" * 32)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no token file"):
        open_token_file(tmp_path / "a.bin")
