"""A learner's version of a step passes if it is one, and gets one clear line if it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from folio.errors import UserError
from folio.ladder import check
from folio.ladder.steps import STEPS, Step
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import make_recipe
from tests.cli.conftest import caller

FOLDER = Path(check.__file__).parent

HEADS = '''
import torch
from torch import nn
from folio.ladder.step1_head import LanguageModel

class Heads(nn.Module):
    """All heads in one matrix product."""
    def __init__(self, sizes):
        super().__init__()
        self.n, self.d = sizes.n_heads, sizes.head_dim
        self.qkv = nn.Linear(sizes.d_model, 3 * sizes.d_model, bias=False)
    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n, self.d).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) / self.d ** 0.5
        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf"))
        return (scores.softmax(dim=3) @ v).transpose(1, 2).reshape(b, t, c)

def build(sizes):
    return LanguageModel(sizes, Heads(sizes))
'''
MASK = '        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf"))\n'


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "my_heads.py"


def looked(path: Path, number: int = 2) -> list[str]:
    return list(check.look(STEPS[number], check.load(path)))


@pytest.fixture
def text(book: Path) -> Prepared:
    table = {"corpus": {"sources": [str(book)]}, "tokenizer": {"kind": "character"}}
    return prepare(make_recipe(table), lambda line: None)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.module)
def test_each_step_passes_its_own_check(step: Step):
    learner = check.load(FOLDER / f"{step.module}.py")
    assert len(list(check.look(step, learner))) == 4
    assert "parameters" in check.check_size(step, learner, 67)


def test_another_way_to_compute_a_step_passes(own: Path):
    own.write_text(HEADS, encoding="utf-8")
    assert len(looked(own)) == 4


def test_both_models_are_trained_alike(text: Prepared):
    said = check.compare(STEPS[2], check.load(FOLDER / "step2_heads.py"), text, max_steps=6)
    (ours, own) = re.findall(r"\d\.\d{4}", said)
    assert ours == own and "after 6 steps" in said


MISTAKES = {
    "no mask": ((MASK, ""), "position 0 sees position 1"),
    "a mask of the diagonal": (("torch.ones(t, t).tril()", "torch.eye(t)"), "see the first one"),
    "no embedding": (
        ("LanguageModel(sizes, Heads(sizes))", "Heads(sizes)"),
        "line 13: the model raised",
    ),
    "heads that are lost": (
        ("reshape(b, t, c)", "reshape(b, t, c)[:, :1]"),
        "must have the shape (2, 5, 11)",
    ),
    "a syntax error": (("def forward(self, x):", "def forward(self, x)"), "line 12: expected ':'"),
    "an unknown name": (("import torch\n", ""), "NameError: name 'torch' is not defined"),
    "no build": (("def build", "def built"), "no function build(sizes)"),
    "no model": (
        ("return LanguageModel", "LanguageModel"),
        "must return a torch.nn.Module, got NoneType",
    ),
    "a weight that idles": (
        ("self.qkv = ", "self.idle = nn.Linear(2, 2); self.qkv = "),
        "does not depend on body.idle.weight",
    ),
    "logits that know nothing": (
        ("LanguageModel(sizes, Heads(sizes))", "nn.Embedding(sizes.vocab_size, sizes.vocab_size)"),
        "does not see the first one",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_is_wrong_gets_one_line(own: Path, mistake: str):
    (old, new), said = MISTAKES[mistake]
    assert old in HEADS
    own.write_text(HEADS.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        looked(own)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(own) in str(caught.value)


def test_step_0_sees_its_own_token_alone():
    with pytest.raises(UserError, match="more than its own token"):
        looked(FOLDER / "step1_head.py", 0)


def test_dropout_is_no_leak(own: Path):
    own.write_text(
        HEADS.replace("Heads(sizes))", "nn.Sequential(Heads(sizes), nn.Dropout(0.5)))"), "utf-8"
    )
    assert len(looked(own)) == 4


def test_a_wider_model_is_refused_before_it_is_trained(own: Path):
    wide = HEADS.replace(
        "3 * sizes.d_model, bias=False)",
        "3 * sizes.d_model)\n        self.more = nn.Linear(99, 99)",
    )
    own.write_text(wide, encoding="utf-8")
    with pytest.raises(UserError, match="would not compare"):
        check.check_size(STEPS[2], check.load(own), 67)


def test_a_model_that_learns_worse_is_told_both_losses(own: Path, text: Prepared):
    still = HEADS.replace(
        "LanguageModel(sizes, Heads(sizes))", "frozen(LanguageModel(sizes, Heads(sizes)))"
    )
    still += """
def frozen(model):
    model.lm_head.weight.requires_grad_(False).mul_(9)
    return model
"""
    own.write_text(still, encoding="utf-8")
    with pytest.raises(UserError, match=r"validation loss \d.* step 2 \d.* at most 0.05 higher"):
        check.compare(STEPS[2], check.load(own), text, max_steps=30)


def test_the_command_says_what_holds_and_ends_with_the_step(
    own: Path,
    book: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(check, "TOLERANCE", 1.0)  # after few steps weights differ by their draw
    folio = caller(capfd, "ladder", "check")
    own.write_text(HEADS, encoding="utf-8")
    code, out, _ = folio("2", str(own), str(book), "--max-steps", "4")
    assert code == 0 and out.count("yes  ") == 6
    assert "Your file is step 2, four heads side by side." in out
    own.write_text(HEADS.replace(MASK, ""), encoding="utf-8")
    code, out, err = folio("2", str(own), str(book))
    assert code == 2 and out.count("yes  ") == 1
    assert err.startswith("error: ") and err.count("\n") == 1 and "-inf before the softmax" in err


@pytest.mark.parametrize("words", [[], ["2"], ["7", "x.py"], ["two", "x.py"]])
def test_a_check_without_a_step_or_a_file_is_one_line(
    words: list[str], capfd: pytest.CaptureFixture[str]
):
    code, _, err = caller(capfd, "ladder", "check")(*words)
    assert code == 2 and "folio ladder check 2 my_heads.py" in err
