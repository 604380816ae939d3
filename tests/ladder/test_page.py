"""The ladder's page shows what was trained, all of the code, and exercises that can be solved."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.ladder import check
from folio.ladder.exercises import EXERCISES, Exercise
from folio.ladder.page import side_by_side, source_of, write_page
from folio.ladder.steps import STEPS
from folio.ladder.training import LadderResult, climb
from folio.recipe.prepare import prepare
from folio.recipe.recipe import make_recipe
from tests.cli.conftest import caller
from tests.conftest import write_book


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[LadderResult]:
    book = write_book(tmp_path_factory.mktemp("ladder"))
    table = {"corpus": {"sources": [str(book)]}, "tokenizer": {"kind": "character"}}
    text = prepare(make_recipe(table), lambda line: None)
    return [climb(step, text, max_steps=2, evaluation_interval=1) for step in STEPS]


@pytest.fixture
def page(results: list[LadderResult], tmp_path: Path) -> str:
    path = tmp_path / "ladder.html"
    write_page(path, results, "book <one>")
    return path.read_text(encoding="utf-8")


def test_losses_and_sizes_are_those_of_the_models_that_were_trained(
    page: str, results: list[LadderResult]
):
    for result in results:
        row = re.search(rf"<td[^>]*>{result.step.number}</td>.*", page)
        assert row is not None and f"{result.n_parameters:,}" in row[0]
        assert f">{result.validation_loss:.4f}<" in row[0]
        assert f">{result.evaluations[-1].training_loss:.4f}<" in row[0]
    pictures = re.findall(r'<svg viewBox="0 0 440 270" role="img" aria-label="([^"]+)"', page)
    assert len(pictures) == 2
    for result in results:
        first, last = (e.validation_loss for e in result.evaluations)
        words = f"{result.step.number}  {result.step.idea}: from {first:.4g} to {last:.4g}"
        assert any(words in unescape(picture) for picture in pictures)
    assert "2 steps on book &lt;one&gt;" in page


def test_every_line_of_every_step_is_on_the_page_and_what_is_new_is_marked(page: str):
    text = unescape(page)
    for step in STEPS:
        words, code = source_of(step)
        assert words.partition("\n")[0].rstrip(".") in text
        for line in code.splitlines():
            assert line in text
    new = [unescape(line) for line in re.findall(r'<td class="new">\+ (.*?)</td>', page)]
    assert "class MultiHead(nn.Module):" in new and "from torch import Tensor, nn" not in new
    gone = re.findall(r'<td class="gone">- (.*?)</td>', page)
    assert "class Bigram(nn.Module):" in gone


def test_it_loads_nothing_and_every_region_that_scrolls_has_the_keyboard(page: str):
    assert not re.search(r"<(script|link|iframe|img)\b|@import|url\((?!#)", page)
    assert page.count("<h1>") == 1 and page.count("<h2>") == len(STEPS) + 1
    for region in re.findall(r'<div class="wide"[^>]*><table class="beside">', page):
        assert 'tabindex="0" role="region" aria-label="Code of steps' in region
    assert not re.search(r"<pre(?! tabindex)", page)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_each_side_is_its_text(before: list[str], after: list[str]):
    rows = side_by_side("\n".join(before), "\n".join(after))
    assert [left for left, _ in rows if left is not None] == before
    assert [right for _, right in rows if right is not None] == after
    assert before != after or all(left == right for left, right in rows)


# ---- exercises ---------------------------------------------------------------------------

HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
MODEL = "from folio.ladder.step1_head import LanguageModel\n"
SOLUTIONS = {
    0: """
class Table(nn.Module):
    def __init__(self, v):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(v, v))
    def forward(self, token_ids):
        return F.one_hot(token_ids, len(self.weight)).float() @ self.weight
def build(sizes):
    return Table(sizes.vocab_size)
""",
    1: """
class Loop(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(c, c, bias=False) for _ in range(3))
    def forward(self, x):
        q, k, v, rows = self.q(x), self.k(x), self.v(x), []
        for t in range(x.shape[1]):
            scores = q[:, t : t + 1] @ k[:, : t + 1].transpose(1, 2) / q.shape[2] ** 0.5
            rows.append(scores.softmax(dim=2) @ v[:, : t + 1])
        return torch.cat(rows, dim=1)
def build(sizes):
    return LanguageModel(sizes, Loop(sizes.d_model))
""",
    2: """
class Heads(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.n, self.qkv = sizes.n_heads, nn.Linear(sizes.d_model, 3 * sizes.d_model, bias=False)
    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5)
        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf"))
        return (scores.softmax(dim=3) @ v).transpose(1, 2).reshape(b, t, c)
def build(sizes):
    return LanguageModel(sizes, Heads(sizes))
""",
    3: """
from folio.ladder.step2_heads import MultiHead
def build(sizes):
    layer = nn.Sequential(nn.Linear(sizes.d_model, sizes.d_model), nn.GELU())
    return LanguageModel(sizes, nn.Sequential(MultiHead(sizes), layer))
""",
    4: """
from folio.ladder.step4_blocks import Block
def build(sizes):
    block = Block(sizes)
    return LanguageModel(sizes, nn.Sequential(block, block, block))
""",
    5: """
from folio.ladder import step5_residuals
class Block(step5_residuals.Block):
    def forward(self, x):
        x = (x + self.attention(x)) / 2**0.5
        return (x + self.feed_forward(x)) / 2**0.5
def build(sizes):
    return LanguageModel(sizes, nn.Sequential(*(Block(sizes) for _ in range(sizes.n_layers))))
""",
    6: """
from folio.ladder import step6_layer_norm
class RMSNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
    def forward(self, x):
        return x * (x.pow(2).mean(dim=2, keepdim=True) + 1e-5).rsqrt() * self.weight
def build(sizes):
    model = step6_layer_norm.build(sizes)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, RMSNorm(sizes.d_model))
    return model
""",
}


def test_each_step_has_an_exercise():
    assert [exercise.step for exercise in EXERCISES] == [step.number for step in STEPS]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.step)
def test_an_exercise_has_a_solution_that_passes_its_check(exercise: Exercise, tmp_path: Path):
    path = tmp_path / "solved.py"
    path.write_text(HEAD + MODEL + SOLUTIONS[exercise.step], encoding="utf-8")
    step, learner = STEPS[exercise.step], check.load(path)
    assert len(list(check.look(step, learner))) == 4
    check.check_size(step, learner, 67)


def test_the_command_trains_the_steps_and_writes_the_page(
    book: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("folio.cli.ladder.STEPS", STEPS[:2])
    folio = caller(capfd, "ladder")
    out = tmp_path / "page.html"
    code, said, _ = folio("--page", str(book), "--max-steps", "2", "--out", str(out))
    assert code == 0 and said == f"{out}\n"
    assert "Step 1: one self-attention head" in out.read_text(encoding="utf-8")
    code, _, err = folio("--page", str(book), "--seeds", "3")
    assert code == 2 and "--seeds is for folio ladder all or 9" in err
