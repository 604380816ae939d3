"""The examples run, and do what they say."""

from __future__ import annotations

import runpy
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

import folio
from folio import tokenizers
from folio.corpus.builtin import BUILTIN
from folio.model import block
from folio.model.attention import Attention
from folio.recipe.resume import resume_run
from folio.recipe.watcher import Watcher
from folio.testing import check_tokenizer
from folio.tokenizers.config import KINDS
from folio.training.config import OptimizerConfig
from folio.training.groups import Members
from folio.training.optimizers import OPTIMIZERS

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL: dict[str, Any] = {
    "preset": "gpt2",
    "model": {"n_layers": 2, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 20},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


@pytest.fixture(autouse=True)
def tables_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (BUILTIN, KINDS, OPTIMIZERS, tokenizers.TYPES):
        for name in ("bytes", "Bytes", "docstrings", "lion"):
            monkeypatch.setitem(table, name, None)  # type: ignore[arg-type]
            del table[name]
    monkeypatch.setattr(block, "Attention", block.Attention)


def names_in(example: str) -> dict[str, Any]:
    (path,) = EXAMPLES.glob(f"{example}_*.py")
    return runpy.run_path(str(path))


def test_a_model_is_trained_and_sampled(book: Path, capsys: pytest.CaptureFixture[str]):
    result = names_in("01")["main"](str(book), minutes=None, **SMALL)
    assert result.ending == "finished"
    assert f"validation loss {result.state.best_validation_loss:.3f}" in capsys.readouterr().out
    texts = names_in("02")["main"](max_tokens=20)
    assert len(texts) == 3 and all(texts)
    assert "exact: " in capsys.readouterr().out


def test_a_tokenizer_of_ones_own_keeps_the_contract_and_is_trained(book: Path, tmp_path: Path):
    example = names_in("03")
    assert len(example["main"](str(book), minutes=None, **SMALL).encode("utf-8")) > 0
    assert folio.load().model.config.vocab_size == 257
    check_tokenizer(example["ByteTokenizer"](), "Äpfel und Öl\n" * 3, tmp_path)


def test_without_its_table_such_a_run_is_refused_by_name(book: Path):
    names_in("03")["main"](str(book), minutes=None, **SMALL)
    del tokenizers.TYPES["Bytes"]
    with pytest.raises(folio.UserError, match="a tokenizer of type 'Bytes', which"):
        folio.load()
    del KINDS["bytes"]
    with pytest.raises(folio.UserError, match=r"tokenizer\.kind must be one of .* got 'bytes'"):
        folio.Recipe.of(tokenizer={"kind": "bytes"})


def test_attention_of_ones_own_is_what_trains_and_what_samples(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    folio.train(book, **SMALL)
    plain = folio.load().model.state_dict()

    example = names_in("04")
    forward, calls = example["SoftCappedAttention"].forward, []
    counted = lambda self, x, cache=None: calls.append(x.shape) or forward(self, x, cache)  # noqa: E731
    monkeypatch.setattr(example["SoftCappedAttention"], "forward", counted)
    example["main"](str(book), minutes=None, **SMALL)
    trained = [shape for shape in calls if shape == (4, 16, 16)]  # (B, T, C) of each step
    assert len(trained) >= 20 * 2
    assert len([shape for shape in calls if shape[:2] == (1, 1)]) > 50  # sampled, with a cache
    capped = folio.load().model.state_dict()
    assert set(capped) == set(plain)
    assert not torch.equal(capped["lm_head.weight"], plain["lm_head.weight"])

    # Far below the cap, the function is the usual one.
    layer = folio.load().model.get_submodule("blocks.0.attention")
    assert isinstance(layer, Attention)
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(1)) / 10
    usual = Attention.forward(layer, x)
    assert torch.allclose(forward(layer, x), usual, atol=1e-5)
    assert not torch.allclose(forward(layer, 1000 * x), Attention.forward(layer, 1000 * x))


@pytest.mark.parametrize("fast", ["on", "off"])
def test_an_optimizer_of_ones_own_lowers_the_loss_and_goes_on(
    book: Path, fast: str, caplog: pytest.LogCaptureFixture
):
    device = {"device": SMALL["device"] | {"fast": fast}}
    with caplog.at_level("INFO", "folio"):
        result = names_in("05")["main"](str(book), minutes=None, **SMALL | device)
    assert ("not accelerated" in caplog.text and "Lion" in caplog.text) == (fast == "on")
    first, *_, last = result.run.events("step")
    assert last["loss"] < first["loss"] - 0.05
    longer = resume_run(result.run, {"training": {"max_steps": 22}}, Watcher())
    assert longer is not None and longer.state.step == 22
    del OPTIMIZERS["lion"]
    with pytest.raises(folio.UserError, match=r"optimizer\.kind must be one of .* got 'lion'"):
        resume_run(result.run, {"training": {"max_steps": 24}}, Watcher())


def test_lion_moves_each_weight_by_the_rate_against_the_sign():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    config = OptimizerConfig(learning_rate=0.1)
    lion = names_in("05")["Lion"](Members([weight], [(3,)], weight_decay=0.0), config)
    weight.grad = torch.tensor([5.0, -0.001, 0.0])
    with torch.no_grad():
        lion.step(1.0)
    assert weight.tolist() == pytest.approx([0.9, -1.9, 3.0])


def test_a_corpus_of_ones_own_is_split_by_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("a*.py")):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))  # less of it
    result = names_in("06")["main"](minutes=None, **SMALL)
    record = result.run.corpus()
    assert any(source["source"].startswith("docstrings/") for source in record["sources"])
    assert record["split"] == "clusters"  # of similar documents
