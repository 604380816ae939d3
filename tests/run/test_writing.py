"""A run that only writes: without torch, and the same text as with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from folio.fast.packing import Precision
from folio.fast.written_for import DIGESTS
from folio.generation.sampling import SamplingConfig
from folio.model import attention
from folio.run.model import Model
from folio.run.opening import open_to_write
from folio.run.writer import CompiledWriter, Writer
from tests.export.making import MODERN, SHAPE, TOKENIZERS, random_run

pytest.importorskip("numba")

SINUSOIDAL = SHAPE | {"positions": "sinusoidal", "tied_head": False, "scale_embeddings": True}


def text_of(opened: Writer, prompt: str = "The cat", n: int = 70) -> str:
    """Longer than the context, so that it slides, or is read anew."""
    config = SamplingConfig(temperature=1.0, seed=5)
    return "".join(drawn.text for _, drawn in opened.write([prompt], config, n, stop=False))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [MODERN, SHAPE, SINUSOIDAL], ids=["modern", "gpt2", "sinusoidal"])
def test_a_seed_gives_the_text_that_it_gives_with_torch(
    shape: dict[str, Any], precision: Precision, tmp_path: Path
):
    opened = random_run(tmp_path, TOKENIZERS["bpe-gpt2"], **shape)
    object.__setattr__(opened, "weights", precision)
    written = open_to_write(opened.run, "best", precision)
    assert isinstance(written, CompiledWriter)
    assert len(set(text_of(opened))) > 10
    assert text_of(written) == text_of(opened)
    if precision == "float32":
        config = SamplingConfig(temperature=1.0, seed=5)
        plain = opened.write(["The cat"], config, 70, stop=False, compiled=False)
        assert text_of(written) == "".join(drawn.text for _, drawn in plain)


@pytest.mark.parametrize("tokenizer", ["character", "bpe-gpt2"])
def test_the_command_writes_without_torch_and_numba(tokenizer: str, tmp_path: Path):
    opened = random_run(tmp_path, TOKENIZERS[tokenizer], **MODERN)
    code = f"""if True:
        import atexit, sys
        from folio.cli.main import main
        atexit.register(lambda: print({{"torch", "numba"}} & {{*sys.modules}}, file=sys.stderr))
        three = ["--max-tokens", "3", "--seed", "1"]  # some seeds end the text at once
        main(["sample", {str(opened.run.path)!r}, "--prompt", "The cat", *three])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("The cat") and len(done.stdout) > len("The cat\n")
    assert done.stderr.splitlines()[-1] == "set()"


def test_torch_computes_where_the_model_is_not_what_the_decoder_was_written_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = random_run(tmp_path, TOKENIZERS["character"], **MODERN).run
    assert isinstance(open_to_write(run), CompiledWriter)
    with monkeypatch.context() as changed:  # as after an edit of the file
        changed.setitem(DIGESTS, "folio.model.normalization", "another")
        assert isinstance(open_to_write(run), Model)
    with monkeypatch.context() as changed:
        changed.setattr(attention, "merge_heads", lambda x: attention.merge_heads(x))
        assert isinstance(open_to_write(run), Model)
    with monkeypatch.context() as changed:
        changed.setenv("FOLIO_JIT", "off")
        assert isinstance(open_to_write(run), Model)


def test_weights_of_another_shape_are_left_to_torch_which_says_so(tmp_path: Path):
    run = random_run(tmp_path, TOKENIZERS["character"], **MODERN).run
    checkpoint, _ = run.checkpoint()
    config = checkpoint.config | {"n_layers": 1}
    object.__setattr__(checkpoint, "config", config)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(type(run), "checkpoint", lambda *_: (checkpoint, []))
        with pytest.raises(RuntimeError, match=r"blocks\.1"):
            open_to_write(run)


def test_the_weights_are_packed_once_and_again_where_they_changed(tmp_path: Path):
    opened = random_run(tmp_path, TOKENIZERS["character"], **MODERN)
    first = opened.reader()
    assert opened.reader() is first and opened.batch(1).reader is first
    before = text_of(opened)
    with torch.no_grad():
        opened.model.blocks[0].attention_norm.weight.mul_(-1)  # type: ignore[operator, union-attr]
    assert opened.reader() is not first
    assert text_of(opened) != before
    changed = opened.reader()
    hook = opened.model.lm_head.register_forward_hook(lambda *_: None)
    assert opened.reader() is not changed, "who listens hears the model itself"
    hook.remove()
