"""Files that lie: one line, nothing run, and no memory beyond what the file has."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folio.config import merge
from folio.errors import UserError
from folio.export.gguf_file import read_gguf, write_gguf
from folio.export.importing import import_run, read_foreign
from folio.storage import read_json, write_json
from tests.export.making import MODERN, export_both

TINY = merge(MODERN, {"n_layers": 1, "n_heads": 2, "d_model": 8, "d_ff": 16})
MOST_MEMORY = 4_000_000
"""Bytes that reading a hostile file may take; the files have some 50,000."""


def refused(path: Path, words: str = ".") -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=words) as caught:
            read_foreign(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def complaint_of(path: Path) -> str:
    """Of what cannot be read; empty where it can."""
    try:
        read_foreign(path)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_both(tmp_path_factory.mktemp("exported"), "f16", **TINY)


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(exported / "m.gguf", tmp_path))


# ---- GGUF --------------------------------------------------------------------------------


def test_a_gguf_that_is_cut_anywhere_is_refused(file: Path):
    whole = file.read_bytes()
    for size in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 40), len(whole) - 33]:
        file.write_bytes(whole[:size])
        refused(file)


HEADERS = {
    "counts of tensors": (8, struct.pack("<Q", 1 << 62), "promises 4,611,686,018,427,387,904"),
    "counts of settings": (16, struct.pack("<Q", (1 << 64) - 1), "more than fit into it"),
    "a long name": (24, struct.pack("<Q", 1 << 40), "more than fit"),
    "another magic": (0, b"GGML", "does not begin with GGUF"),
    "another version": (4, struct.pack("<I", 7), "its version is 7"),
}


@pytest.mark.parametrize(("place", "data", "words"), HEADERS.values(), ids=HEADERS)
def test_a_gguf_that_promises_more_than_it_has_is_refused(
    place: int, data: bytes, words: str, file: Path
):
    whole = bytearray(file.read_bytes())
    whole[place : place + len(data)] = data
    file.write_bytes(whole)
    refused(file, words)


def gguf_of(kind: int, value: bytes, tensor: bytes = b"") -> bytes:
    """A file of one setting, and one tensor where it is given."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1 if tensor else 0, 1)
    return head + struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value + tensor


def tensor_of(n_dimensions: int, sizes: list[int], kind: int, offset: int = 0) -> bytes:
    name = struct.pack("<Q", 1) + b"t"
    numbers = struct.pack(f"<I{len(sizes)}QIQ", n_dimensions, *sizes, kind, offset)
    return name + numbers + bytes(100)


TEXT = struct.pack("<Q", 1) + b"v"
SMALL = {
    "a huge list": gguf_of(9, struct.pack("<IQ", 4, 1 << 60)),
    "a huge list of texts": gguf_of(9, struct.pack("<IQ", 8, 1 << 60)),
    "a list of lists": gguf_of(9, struct.pack("<IQIQ", 9, 1, 9, 1)),
    "a type that does not exist": gguf_of(77, TEXT),
    "many dimensions": gguf_of(8, TEXT, tensor_of(9, [1] * 9, 0)),
    "a shape beyond the file": gguf_of(8, TEXT, tensor_of(2, [1 << 40, 1 << 40], 0)),
    "a shape that overflows": gguf_of(8, TEXT, tensor_of(3, [1 << 63, 2, 1], 0)),
    "a size of nothing": gguf_of(8, TEXT, tensor_of(2, [0, 4], 0)),
    "an offset beyond the file": gguf_of(8, TEXT, tensor_of(1, [4], 0, 1 << 62)),
    "a quantized type": gguf_of(8, TEXT, tensor_of(1, [32], 12)),
    "half a block": gguf_of(8, TEXT, tensor_of(1, [33], 8)),
    "nothing": b"",
}


@pytest.mark.parametrize("data", SMALL.values(), ids=SMALL)
def test_small_files_that_lie_are_refused(data: bytes, tmp_path: Path):
    path = tmp_path / "small.gguf"
    path.write_bytes(data)
    refused(path)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_changed_are_an_error_of_one_line_or_a_model(data: Any, file: Path):
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, 12_000))
        whole[place] = data.draw(st.integers(0, 255))
    path = file.with_name("changed.gguf")
    path.write_bytes(whole)
    assert "\n" not in complaint_of(path)


STRANGE: tuple[Any, ...] = (
    *("a\nb", "", 7, -1, 1 << 40, 1.5, True),
    *(["a"], [1], [[1]], {"a": 1}, None),
)
"""What stands where something else should."""


def test_any_setting_of_a_gguf_may_be_of_any_type(file: Path):
    said, packed = read_gguf(file)
    tensors = {name: (tensor.shape, tensor.kind) for name, tensor in packed.items()}
    path = file.with_name("strange.gguf")
    for key in said:
        for value in STRANGE:
            nested = isinstance(value, list) and value and isinstance(value[0], list)
            if isinstance(value, dict | None) or nested or value in (-1, 1 << 40):
                continue  # GGUF has none of these, or our writer does not
            write_gguf(path, said | {key: value}, tensors, lambda name: packed[name].data)
            assert "\n" not in complaint_of(path), (key, value)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
)
def test_any_setting_of_a_folder_may_be_of_any_type(name: str, folder: Path):
    said = read_json(folder / name)
    for key in [*said, "rope_scaling", "eos_token", "eos_token_id", "post_processor"]:
        for value in STRANGE:
            (folder / name).write_text(json.dumps(said | {key: value}), encoding="utf-8")
            assert "\n" not in complaint_of(folder), (key, value)


@pytest.mark.parametrize("part", ["vocab", "merges", "roles", "type", "merge_counts", "unk_token"])
def test_any_part_of_a_vocabulary_may_be_of_any_type(part: str, folder: Path):
    said = read_json(folder / "tokenizer.json")
    for value in STRANGE:
        table = said | {"model": said["model"] | {part: value}}
        (folder / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
        assert "\n" not in complaint_of(folder), value


@pytest.mark.parametrize(("name", "offset"), [(b"t", 32), (b"u", 0)], ids=["name", "place"])
def test_a_tensor_that_comes_twice_or_lies_over_another_is_refused(
    name: bytes, offset: int, tmp_path: Path
):
    one, other = tensor_of(1, [1], 0)[:-100], tensor_of(1, [1], 0, offset)[:-100]
    other = other.replace(b"t", name, 1)
    data = bytearray(gguf_of(8, TEXT, one + other + bytes(100)))
    data[8] = 2
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(UserError, match="lies over another, or comes twice"):
        read_gguf(tmp_path / "x.gguf")


def test_a_long_setting_makes_no_long_line(folder: Path):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"model_type": "a\n" * 100_000})
    refused(folder, "is a model of type")


COUNTS = {"10^12": 10**12, "2^63": 1 << 63, "10^400": 10**400, "10^4000": 10**4000}


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("key", ["max_position_embeddings", "hidden_size", "num_attention_heads"])
def test_counts_of_any_size_are_refused_in_a_line(key: str, count: int, folder: Path):
    write_json(folder / "config.json", read_json(folder / "config.json") | {key: count})
    if (key, count) != ("max_position_embeddings", 10**12):  # rotary positions cost nothing
        refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, folder: Path, tmp_path: Path):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + struct.pack("<f", value))
    with pytest.raises(UserError, match="not finite numbers, in "):
        import_run(folder, "strange", folder=tmp_path)


# ---- files that are none -----------------------------------------------------------------

FILES = ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes and devices in folders")
@pytest.mark.parametrize("name", FILES)
def test_pipes_devices_folders_and_links_in_circles_are_no_files(name: str, folder: Path):
    path = folder / name
    makers: list[Callable[[], Any]] = [
        lambda: os.mkfifo(path),  # whoever opens it waits for ever
        lambda: path.symlink_to("/dev/zero"),  # has no end
        lambda: path.symlink_to(path),
        lambda: path.mkdir(),
    ]
    for make in makers:
        path.unlink()
        make()
        if not (name == "generation_config.json" and not path.exists()):
            refused(folder, f"There is no .*{name}")
        if path.is_dir():
            path.rmdir()


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes in folders")
def test_a_pipe_is_no_gguf(tmp_path: Path):
    os.mkfifo(tmp_path / "x.gguf")
    refused(tmp_path / "x.gguf", "There is no ")


# ---- safetensors -------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of the weights."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])


def beyond(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["data_offsets"][1] += 1 << 40


def huge(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["shape"] = [1 << 40]


def without(header: dict[str, Any]) -> None:
    header.pop("model.norm.weight")


def integers(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["dtype"] = "I32"


@pytest.mark.parametrize("change", [beyond, huge, without, integers])
def test_a_safetensors_header_that_lies_is_refused(change: Any, folder: Path):
    rewrite(folder, change)
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("size", [0, 4, 8, 100, 5000])
def test_a_safetensors_file_that_is_cut_is_refused(size: int, folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(folder, "not a complete safetensors file")


def test_a_header_of_many_bytes_is_refused(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])
    refused(folder, "not a complete safetensors file")


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": ["x"]}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../b"}}]
)
def test_an_index_that_lies_is_refused(index: dict[str, Any], folder: Path):
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", index)
    refused(folder, "model.safetensors.index.json")


# ---- JSON --------------------------------------------------------------------------------


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["", "[]", "null", "{", deep(100_000), '{"a": ' * 50_000])
def test_settings_that_are_no_table_are_refused(name: str, text: str, folder: Path):
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=name) as caught:
        read_foreign(folder)
    assert "\n" not in str(caught.value)


TOKENIZERS: dict[str, dict[str, Any]] = {
    "a token that merges into its own part": {"model": {"vocab": {"th": 116}}},
    "ids that are huge": {"model": {"vocab": {"th": 1 << 40}}},
    "ids that are negative": {"model": {"vocab": {"th": -1}}},
    "merges of itself": {"model": {"merges": [["t", "t"]]}},
    "merges of numbers": {"model": {"merges": [[1, 2]]}},
    "a processor that is none": {"post_processor": {"type": "Sequence", "processors": [7]}},
    "processors in processors": {"post_processor": {"type": "Sequence", "processors": 7}},
    "added tokens of nothing": {"added_tokens": [{}]},
    "added tokens as text": {"added_tokens": "<bos>"},
    "a splitter of splitters": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [[]]}},
    "roles of numbers": {"model": {"roles": {"end": 7}}},
}


@pytest.mark.parametrize("changes", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_lies_is_refused_or_ends(changes: dict[str, Any], folder: Path):
    table = read_json(folder / "tokenizer.json")
    model = table["model"]
    for key, value in changes.pop("model", {}).items():
        model[key] = model.get(key, {}) | value if isinstance(value, dict) else value
    write_json(folder / "tokenizer.json", table | changes)
    if complaint := complaint_of(folder):
        assert "tokenizer.json" in complaint and "\n" not in complaint
    else:
        assert len(read_foreign(folder).tokenizer.encode("that the cat" * 100)) <= 1200


def test_a_settings_file_of_gigabytes_is_not_read(folder: Path):
    with (folder / "config.json").open("ab") as file:
        file.truncate(1 << 33)  # a hole, which takes no room
    refused(folder, "too many for settings")
