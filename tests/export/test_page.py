"""The page that is written computes, reads and draws what Folio does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folio import load, train
from folio.config import from_table
from folio.errors import UserError
from folio.export import page
from folio.export.page_copies import filter_of
from folio.export.targets import export_run
from folio.export.verify import HOSTILE
from folio.generation.readers import PlainReader
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from tests.export.browsers import in_node
from tests.export.making import LLAMA, MODERN, NEOX, SHAPE, TOKENIZERS, random_run
from tests.export.test_graphs import FIELDS
from tests.export.test_hf import describe, some_ids
from tests.generation.writing import write_ids

SHAPES: list[dict[str, Any]] = [
    SHAPE,
    MODERN,
    LLAMA | {"bias": True, "n_kv_heads": 2, "head_dim": 12, "tied_head": False},
    NEOX | {"activation": "relu2", "rope_base": 33.0, "qk_norm": True},
    SHAPE | {"positions": "sinusoidal", "norm_placement": "post", "activation": "gelu_tanh"},
    SHAPE | {"positions": "none", "norm_placement": "none", "activation": "relu", "bias": False},
    SHAPE | {"norm_placement": "both", "scale_embeddings": True, "d_model": 36, "d_ff": 50},
    MODERN | {"norm_placement": "both", "vocab_size": 64, "d_model": 24, "n_kv_heads": 1},
    SHAPE | {"norm_placement": "post", "normalization": "rmsnorm", "activation": "swiglu"},
]


LOGITS_OF_BOTH = """
const plain = loadWeights(data.tensors, fromBase64(found("weights")), fromBase64(""));
const slow = new Model({ ...data.config, ...data.derived }, plain);
return [model, slow].map((each) => given.ids.map((id) => Array.from(each.read(id))));
"""
IDS_AND_PIECES = """
return [given.texts.map((text) => tokenizer.encode(text)),
        Array.from(tokenizer.pieces, (piece) => Array.from(piece))];
"""
GREEDY = """
const ids = given.ids.slice();
while (ids.length < given.ids.length + given.n) {
  const logits = reader.step(ids, ids.length);
  if (logits) ids.push(draw(logits, { temperature: 0 }));
}
return ids.slice(given.ids.length);
"""
MARKS = """
const bits = fromBase64(found("seen"));
return Array.from(copiedCharacters(given.text, { ...data.copies, bits }));
"""


def greedy(model: Any, opened: Any, prompt: list[int], n: int) -> list[int]:
    unknown = np.arange(opened.tokenizer.vocab_size) == opened.tokenizer.unknown
    config = SamplingConfig(temperature=0)
    steps = write_ids(PlainReader(model), [prompt], config, max_tokens=n, excluded=unknown)
    return [int(step[0]) for step in steps]


def exported(opened: Any) -> tuple[Path, torch.nn.Module]:
    """The page, and Folio's model with the weights that the page has."""
    path, _, _ = export_run(opened, "html")
    return path, page.read_page_file(path).model()


@pytest.mark.parametrize("settings", SHAPES, ids=describe)
def test_the_page_computes_the_logits_of_its_weights_with_and_without_the_kernel(
    settings: dict[str, Any], tmp_path: Path
):
    opened = random_run(tmp_path, **settings)
    path, model = exported(opened)
    ids = some_ids(opened, 1, 24)
    ours = model(ids)[0]
    for theirs in torch.tensor(in_node(path, LOGITS_OF_BOTH, ids=ids[0].tolist())):
        assert (ours - theirs).abs().max() < 1e-4 * (ours.max() - ours.min())


@pytest.mark.parametrize("name", FIELDS)
def test_every_value_of_a_setting_has_a_case(name: str):
    configs = [from_table(ModelConfig, {"vocab_size": 64} | shape) for shape in SHAPES]
    assert {getattr(config, name) for config in configs} == set(FIELDS[name])


@pytest.mark.parametrize("slow", [False, True])
def test_the_kernel_runs_unless_it_is_missing(slow: bool, tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **MODERN))
    assert in_node(path, "return weights.fast;", slow=slow) is not slow


def test_bytes_are_the_nearest_ones_of_each_row():
    x = torch.randn(5, 11)
    table, packed = page.pack_tensors({"x": x, "y": x[0]})
    again = page.unpack_tensors(table, packed)
    step = x.abs().amax(dim=1, keepdim=True) / 127
    assert ((again["x"] - x).abs() <= step * 0.5001).all()
    assert torch.equal(again["y"], x[0])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_page_gives_the_ids_of_the_run(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    path, _ = exported(opened)
    texts = [*HOSTILE, "I'ſ 'ſ 'S'T'RE'Ll ΑΣ. İ", "<think>a<think><unk><|stop|>"]
    theirs, pieces = in_node(path, IDS_AND_PIECES, texts=texts)
    assert theirs == [opened.tokenizer.encode(text).tolist() for text in texts]
    assert [bytes(piece) for piece in pieces] == list(opened.tokenizer.pieces)


@pytest.mark.parametrize(("name", "prompt"), [("character", "cat?"), ("word", "cat dog")])
def test_what_the_model_cannot_read_is_said(name: str, prompt: str, tmp_path: Path):
    path, _ = exported(random_run(tmp_path, name, **MODERN))
    script = "try { encodePrompt(tokenizer, given.text, null, 0) } catch (e) { return e.message }"
    strange = '"?"' if name == "character" else '"dog"'
    message = in_node(path, script, text=prompt)
    assert message.startswith(f"The vocabulary lacks {strange}, so the model cannot")


@pytest.mark.parametrize("settings", [SHAPE, MODERN], ids=["gpt2", "modern"])
def test_greedy_text_is_that_of_folio_beyond_the_context(settings: dict[str, Any], tmp_path: Path):
    opened = random_run(tmp_path, **settings)
    path, model = exported(opened)
    prompt = some_ids(opened, 1, 3)[0].tolist()
    assert in_node(path, GREEDY, ids=prompt, n=100) == greedy(model, opened, prompt, 100)


def test_a_trained_model_writes_as_folio_and_tells_what_it_is(book: Path, tmp_path: Path):
    opened = load(
        train(
            str(book),
            name="book",
            preset="gpt2",
            model=SHAPE,
            tokenizer={"kind": "character"},
            training={"batch_size": 4, "max_steps": 40, "evaluation_interval": 40},
            optimizer={"learning_rate": 1e-2},
            device={"kind": "cpu", "precision": "float32", "threads": 1},
        ).run.path
    )
    path, _, verified = export_run(opened, "html")
    assert abs(verified.loss - verified.other_loss) < 0.003
    model = page.read_page_file(path).model()
    prompt = opened.tokenizer.encode("The ").tolist()
    assert in_node(path, GREEDY, ids=prompt, n=300) == greedy(model, opened, prompt, 300)
    text = path.read_text(encoding="utf-8")
    assert "<td>book.txt</td>" in text and f"{opened.model.config.n_parameters:,}</td>" in text
    copied = "The 3th line of verse 3 sings of the 3 winds."
    marks = in_node(path, MARKS, text=f"Quite another thing altogether, my friend. {copied}")
    assert sum(marks[:40]) == 0 and all(marks[-len(copied) :])


@pytest.mark.parametrize("n", [29, 30, 100])
def test_copied_text_is_marked_from_thirty_characters_on(n: int, tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **MODERN))
    letters = np.random.default_rng(0).integers(0x61, 0x7B, 2000)
    text = "".join(map(chr, letters))
    bits = filter_of([text[:1010], text[1010:]], 4000)
    marks = in_node(
        path,
        "return Array.from(copiedCharacters(given.text, { ...given, window: 24, run: 30 }));",
        text="\U0001f600" * 50 + text[1000 : 1000 + n] + "#" * 50,
        bits=bits.tolist(),
    )
    assert marks == [0] * 50 + [int(n >= 30)] * n + [0] * 50


def test_top_k_top_p_and_min_p_draw_what_stays_as_often_as_its_probability(tmp_path: Path):
    path, _ = exported(random_run(tmp_path, **MODERN))
    script = (
        "const logits = Float32Array.from([0.4, 0.3, 0.2, 0.1].map(Math.log));"
        "const counts = (settings) => { const n = [0, 0, 0, 0], random = randomFrom(7);"
        "for (let i = 0; i < 20000; i++) n[draw(logits, settings, random)]++;"
        "return n.map((x) => x / 20000); };"
        "return [[0, 1], [2, 1], [0, 0.6], [3, 0.5], [0, 1, 0.6]].map(([top_k, top_p, min_p]) =>"
        "counts({ temperature: 1, top_k, top_p, min_p }));"
    )
    expected = [[0.4, 0.3, 0.2, 0.1], [4 / 7, 3 / 7, 0, 0], [4 / 7, 3 / 7, 0, 0]]
    expected.append([4 / 7, 3 / 7, 0, 0])  # of three 4/9, 3/9, 2/9; the first two reach 0.5
    expected.append([4 / 7, 3 / 7, 0, 0])  # at least 0.6 of 0.4
    np.testing.assert_allclose(in_node(path, script), expected, atol=0.015)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    first, _, _ = export_run(opened, "html", out=tmp_path / "a.html")
    second, _, _ = export_run(opened, "html", out=tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()


def test_a_model_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page, "MOST_PARAMETERS", 1000)
    with pytest.raises(
        UserError, match=r"a page carries 1,000 at most\. Write with it by folio serve"
    ):
        export_run(random_run(tmp_path, **MODERN), "html")
