"""What is the same for every format: where it lies, that it is compared, and how one is added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from folio.errors import UserError
from folio.export import gguf, targets
from folio.export.foreign import Foreign
from folio.export.target import Exported, Target, weights_of
from folio.export.targets import TARGETS, export_run
from folio.model import block
from folio.model.attention import Attention
from folio.run.model import Model
from folio.tokenizers import Tokenizer
from folio.tokenizers.bpe.standard_json import from_standard
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from tests.export.making import MODERN, random_run


class OwnAttention(Attention):
    """Attention that might compute anything."""


class OwnTokenizer(BPETokenizer):
    """A tokenizer that might, too."""


def write_torch(opened: Model, kind: str, out: Path) -> Exported:
    _, tensors = weights_of(opened)
    torch.save(tensors, out)
    return Exported("a dictionary")


def test_a_format_is_added_by_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = random_run(tmp_path, **MODERN)

    def read_torch(path: Path) -> Foreign:
        tensors = torch.load(path, weights_only=True)
        return Foreign(str(path), opened.model.config, tensors, opened.tokenizer)

    mine = Target("weights for torch", ("f32",), write_torch, read_torch, lambda run, kind: "m.pt")
    monkeypatch.setitem(TARGETS, "torch", mine)
    path, exported, verified = export_run(opened, "torch")
    assert path == opened.run.exports_folder / "m.pt" and path.is_file()
    assert exported.graph == "a dictionary" and verified.logit_difference == 0.0


# Where the logits of float32 are compared, a little is seen; int8 itself is off by 0.4 % of a row.
@pytest.mark.parametrize(("to", "factor"), [("hf", 1.001), ("gguf", 1.001), ("html", 1.5)])
def test_a_weight_that_is_written_wrong_is_found_and_nothing_is_left(
    to: str, factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = random_run(tmp_path, **MODERN)
    target = TARGETS[to]

    def read(path: Path) -> Foreign:
        foreign = target.read(path)
        name = "blocks.1.feed_forward.up_proj.weight"
        return replace(foreign, tensors=foreign.tensors | {name: foreign.tensors[name] * factor})

    monkeypatch.setitem(TARGETS, to, replace(target, read=read))
    with pytest.raises(UserError, match="computes something else than the run: logits differ by"):
        export_run(opened, to, out=tmp_path / "out" / f"x.{to}")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_late_position_that_is_written_wrong_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = random_run(tmp_path, context_length=512)
    target = TARGETS["hf"]

    def read(path: Path) -> Foreign:
        foreign = target.read(path)
        table = foreign.tensors["positions.weight"].clone()
        table[300:] *= 1.5
        return replace(foreign, tensors=foreign.tensors | {"positions.weight": table})

    monkeypatch.setitem(TARGETS, "hf", replace(target, read=read))
    with pytest.raises(UserError, match="computes something else than the run: logits differ by"):
        export_run(opened, "hf")


def test_a_token_that_is_written_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    right = gguf.vocabulary_settings

    def wrong(tokenizer: Tokenizer) -> dict[str, Any]:
        return right(tokenizer) | {"tokenizer.ggml.pre": "qwen2"}

    monkeypatch.setattr(gguf, "vocabulary_settings", wrong)
    with pytest.raises(UserError, match="gives other ids than"):
        export_run(opened, "gguf")


def test_names_and_types_that_do_not_exist_say_which_do(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    with pytest.raises(UserError, match="There are hf, gguf"):
        export_run(opened, "ggufs")
    with pytest.raises(UserError, match="--type must be one of f32, f16, bf16 for hf, got q8_0"):
        export_run(opened, "hf", "q8_0")


def test_a_file_goes_where_it_is_told_or_into_a_folder(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    assert export_run(opened, "gguf")[0] == opened.run.exports_folder / "made-f32.gguf"
    assert export_run(opened, "gguf", "f16", tmp_path / "a")[0] == tmp_path / "a" / "made-f16.gguf"
    assert export_run(opened, "gguf", out=tmp_path / "b.gguf")[0] == tmp_path / "b.gguf"
    assert export_run(opened, "hf", out=tmp_path / "c")[0] == tmp_path / "c"
    assert {p.name for p in tmp_path.iterdir()} == {"made", "a", "b.gguf", "b.Modelfile", "c"}


def test_each_file_in_a_folder_has_a_modelfile_of_its_own(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    for kind in ("f32", "f16"):
        export_run(opened, "gguf", kind, tmp_path / "there")
    for kind in ("f32", "f16"):
        modelfile = tmp_path / "there" / f"made-{kind}.Modelfile"
        assert modelfile.read_text(encoding="utf-8").startswith(f"FROM ./made-{kind}.gguf\n")


def test_a_file_of_others_beside_an_export_is_kept(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    for name in ("a.gguf", "b.gguf", "a.gguf"):
        export_run(opened, "gguf", out=tmp_path / name)
    (tmp_path / "mine.gguf").write_text("precious")
    with pytest.raises(UserError, match="would be replaced, and no export wrote it"):
        export_run(opened, "gguf", out=tmp_path / "mine.gguf")
    assert (tmp_path / "mine.gguf").read_text() == "precious"


@pytest.mark.parametrize("to", TARGETS)
def test_a_layer_or_a_tokenizer_of_your_own_is_refused(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    mine = replace(opened, tokenizer=OwnTokenizer(from_standard(opened.tokenizer.to_json())))
    with pytest.raises(UserError, match="has OwnTokenizer as its tokenizer"):
        export_run(mine, to, out=tmp_path / "out" / f"x.{to}")
    monkeypatch.setattr(block, "Attention", OwnAttention)
    with pytest.raises(UserError, match=r"OwnAttention as blocks\.0\.attention"):
        export_run(random_run(tmp_path, name="own", **MODERN), to, out=tmp_path / "out" / f"x.{to}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["..", "x/..", "."])
def test_a_folder_that_is_named_by_dots_is_that_folder(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened, meant = random_run(tmp_path, **MODERN), (tmp_path / "there" / "here" / out).resolve()
    (tmp_path / "there" / "here" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "there" / "here")
    export_run(opened, "hf", out=Path(out))
    assert {path.parent for path in (tmp_path / "there").rglob("config.json")} == {meant}
    (meant / "README.md").write_text("my own")
    with pytest.raises(UserError, match=r"README\.md would be replaced"):
        export_run(opened, "hf", out=Path(out))
    assert (meant / "README.md").read_text() == "my own"


@pytest.mark.parametrize(
    ("to", "out", "mine"),
    [
        ("hf", "", "README.md"),
        ("hf", "", "config.json"),
        ("gguf", "x.gguf", "x.Modelfile"),
        ("gguf", "x.gguf", "x.gguf"),
        ("html", "x.html", "x.html"),
    ],
)
def test_files_that_no_export_wrote_are_kept(tmp_path: Path, to: str, out: str, mine: str):
    opened, folder = random_run(tmp_path, **MODERN), tmp_path / "there"
    folder.mkdir()
    (folder / mine).write_text("my own")
    with pytest.raises(UserError, match=f"{mine} would be replaced.*--out"):
        export_run(opened, to, out=folder / out)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(mine, "my own")]
    (folder / mine).rename(folder / ".gitattributes")
    for _ in range(
        2
    ):  # an export takes the place of an earlier one, and no other file is in its way
        export_run(opened, to, out=folder / out)
    assert (folder / ".gitattributes").read_text() == "my own"


def test_a_disk_that_is_full_is_a_user_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = random_run(tmp_path, **MODERN)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(targets, "rename", full)
    with pytest.raises(UserError, match="disk is full"):
        export_run(opened, "hf", out=tmp_path / "x" / "hf")
    assert not (tmp_path / "x" / "hf").exists() or not list((tmp_path / "x" / "hf").iterdir())


def test_a_file_of_another_ending_is_no_folder_for_a_page(tmp_path: Path):
    mine = tmp_path / "mine.txt"
    mine.write_text("my own")
    with pytest.raises(UserError, match=r"--out must end in \.html or be a folder, and .*mine.txt"):
        export_run(random_run(tmp_path, **MODERN), "html", out=mine)
    assert mine.read_text() == "my own"
