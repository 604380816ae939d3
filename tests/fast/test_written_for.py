"""Whoever edits the model trains and samples what they wrote: no fast twin stands in for it."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MethodType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import folio
from folio.device import Device, DeviceConfig
from folio.fast.accelerate import FAST, accelerate, is_known
from folio.fast.attention import FastAttention
from folio.fast.stand_in import decoder_for
from folio.fast.written_for import DIGESTS
from folio.model import attention
from folio.model.attention import Attention
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.tokens.stream import Batch
from folio.training.parallel.data_parallel import DataParallel
from tests.conftest import turn_kernels

pytest.importorskip("numba")
pytestmark = pytest.mark.usefixtures("small_ones_too")

SMALL = ModelConfig(vocab_size=11, context_length=8, n_layers=2, n_heads=2, d_model=12)


def test_the_fast_layers_were_written_for_the_model_as_it_is():
    found = {}
    for name in DIGESTS:
        source = Path(str(importlib.import_module(name).__file__)).read_bytes()
        found[name] = hashlib.sha256(source.replace(b"\r\n", b"\n")).hexdigest()
    assert found == DIGESTS, (
        "The model was edited. See whether folio/fast still computes the same, then put these into "
        f"fast/written_for.py: {found}"
    )


def test_every_layer_with_a_fast_twin_is_replaced():
    for config in (SMALL, replace(SMALL, positions="rope", qk_norm=True)):
        model = GPT(config)
        assert is_known(model)
        kinds = {type(layer) for layer in accelerate(model).modules()}
        assert not kinds & FAST.keys()


def test_the_twin_shares_parameters_under_the_same_names_and_the_model_stays():
    model = GPT(SMALL)
    kinds = [type(layer) for layer in model.modules()]
    twin = accelerate(model)
    assert [type(layer) for layer in model.modules()] == kinds
    ours, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)
    assert twin.lm_head.weight is twin.token_embedding.weight


def halved(layer: Attention, x: Tensor, cache: object = None) -> Tensor:
    """An attention of somebody's own."""
    return 0.5 * ORIGINAL(layer, x, cache)  # type: ignore[arg-type]


ORIGINAL = Attention.forward


class Halved(Attention):
    forward = halved  # type: ignore[assignment]


def attentions(model: GPT) -> list[Attention]:
    return [layer for layer in model.modules() if isinstance(layer, Attention)]


def by_subclass(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in attentions(model):
        layer.__class__ = Halved


def by_class(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attention, "forward", halved)


def by_instance(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in attentions(model):
        layer.forward = MethodType(halved, layer)


def by_function(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = attention.merge_heads
    # out_proj has no bias here, so that half of its input gives half of its output.
    monkeypatch.setattr(attention, "merge_heads", lambda x: 0.5 * merge(x))


def by_hook(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in attentions(model):
        layer.register_forward_hook(halve)


def halve(layer: nn.Module, args: object, y: Tensor) -> Tensor:
    return 0.5 * y


EDITS = [by_subclass, by_class, by_instance, by_function, by_hook]
Edit = Callable[[GPT, pytest.MonkeyPatch], None]
every_edit = pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)


def plain_model() -> GPT:
    config = replace(SMALL, bias=False, initialization_std=0.3)
    return GPT(config, torch.Generator().manual_seed(0))


def batch() -> Batch:
    rows = np.arange(36).reshape(4, 9) * 7 % 11
    return Batch(rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64))


def edited_gradients(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> tuple[GPT, Tensor]:
    """A model with an edit, and its gradients as torch alone finds them."""
    model = plain_model()
    edit(model, monkeypatch)
    inputs, targets = (torch.from_numpy(rows) for rows in batch())
    logits = model(inputs).flatten(0, 1)
    loss = nn.functional.cross_entropy(logits, targets.flatten())
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return model, torch.cat([x.flatten() for x in gradients])


@every_edit
@pytest.mark.parametrize("threads", [1, 2])
def test_an_edited_attention_is_what_learns(
    edit: Edit, threads: int, monkeypatch: pytest.MonkeyPatch
):
    model, expected = edited_gradients(edit, monkeypatch)
    device = Device(DeviceConfig(kind="cpu", precision="float32", threads=threads), "")
    parallel = DataParallel(model, device, 4, seed=1)
    assert not any(
        isinstance(layer, FastAttention) for c in parallel.replicas for layer in c.model.modules()
    )
    with parallel.running():
        for _ in range(3):  # the steps after the first one too
            parallel.backward(batch(), 0, step=0)
            found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@every_edit
def test_an_edited_attention_is_what_samples_and_is_evaluated(
    edit: Edit, monkeypatch: pytest.MonkeyPatch
):
    model = plain_model().eval()
    assert decoder_for(model) is not None
    before = model(torch.arange(8)[None])
    edit(model, monkeypatch)
    assert decoder_for(model) is None
    after = accelerate(model)(torch.arange(8)[None])
    torch.testing.assert_close(after, model(torch.arange(8)[None]))
    assert not torch.allclose(after, before, atol=1e-3)


def test_a_number_that_a_step_reads_from_python_counts_in_a_layer_of_ones_own():
    class Scaled(Attention):
        factor = 1.0

        def forward(self, x: Tensor, cache: object = None) -> Tensor:
            return self.factor * super().forward(x, cache)  # type: ignore[arg-type]

    model = plain_model()
    for layer in attentions(model):
        layer.__class__ = Scaled
    device = Device(DeviceConfig(kind="cpu", precision="float32", threads=1), "")
    parallel = DataParallel(model, device, 4, seed=1)
    losses = []
    for factor in (1.0, 1.0, 0.0):
        Scaled.factor = factor
        losses.append(parallel.backward(batch(), 0, step=0).loss)
    assert losses[0] == losses[1] != losses[2]


def test_an_attention_edited_on_the_disk_is_what_learns_and_samples(tmp_path: Path):
    shutil.copytree(Path(folio.__file__).parent, tmp_path / "src" / "folio")
    file = tmp_path / "src" / "folio" / "model" / "attention.py"
    source = file.read_text(encoding="utf-8")
    line = "        return self.out_proj(merge_heads(y))"
    assert line in source
    file.write_text(source.replace(line, f"{line} * 0.5"), encoding="utf-8")
    code = """if True:
        from tests.fast.test_written_for import *
        model = plain_model()
        kinds = {type(layer).__name__ for layer in accelerate(model).modules()}
        assert "Attention" in kinds and "FastAttention" not in kinds, kinds
        assert {"FastLinear", "FastBlock", "FastFeedForward"} <= kinds, kinds
        assert decoder_for(model.eval()) is None
        for threads in (1, 2):
            device = Device(DeviceConfig(kind="cpu", precision="float32", threads=threads), "")
            parallel = DataParallel(plain_model(), device, 4, seed=1)
            with parallel.running():
                for _ in range(3):
                    loss = parallel.backward(batch(), 0, step=0).loss
            print(loss)
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{root}"},
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    inputs, targets = (torch.from_numpy(rows) for rows in batch())
    model = plain_model()
    for layer in attentions(model):
        layer.register_forward_hook(halve)
    expected = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    losses = [float(line) for line in done.stdout.split()]
    assert losses == pytest.approx([expected.item()] * 2, rel=1e-5)


def test_without_kernels_the_twin_computes_with_torch(monkeypatch: pytest.MonkeyPatch):
    turn_kernels(monkeypatch, on=False)
    model = plain_model()
    inputs = torch.arange(8)[None]
    torch.testing.assert_close(accelerate(model)(inputs), model(inputs))
