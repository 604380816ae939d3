"""What the page shows is what the model computes."""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import folio
import folio.errors
from folio.cli.main import main
from folio.config import Table
from folio.explain import page as page_module
from folio.explain.look import look_at, map_embeddings
from folio.explain.page import write_page
from folio.explain.tensors import print_tensors
from folio.model.attention import Attention
from folio.run.model import Model
from tests.conftest import copied, write_book
from tests.export.making import random_run

TEXT = "The 3th line\n"


def train(book: Path, tokenizer: Table | None = None, **model: object) -> Model:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "context_length": 16, "qk_norm": False}
    result = folio.train(
        str(book),
        name="seen",
        preset="gpt2",
        model=shape | model,
        tokenizer=tokenizer or {"kind": "character"},
        training={"batch_size": 4, "max_steps": 20, "evaluation_interval": 20},
        optimizer={"learning_rate": 1e-2},
        device={"kind": "cpu", "precision": "float32", "threads": 1},
    )
    return folio.load(str(result.run.path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_RUNS", str(folder))
        return train(write_book(folder)).run.path


@pytest.fixture
def opened(made: Path) -> Model:
    """Of a copy of a run that is trained once for all tests here."""
    return folio.load(copied(made).path)


def page_data(path: Path) -> dict[str, Any]:
    (found,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(found.replace("<\\/", "</"))


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-3, abs=1e-5)


def test_surprisal_and_alternatives_equal_a_direct_forward_pass(opened: Model, tmp_path: Path):
    write_page(opened, TEXT, tmp_path / "page.html")
    data = page_data(tmp_path / "page.html")
    token_ids = opened.tokenizer.encode(TEXT).tolist()
    assert data["token_ids"] == token_ids and "".join(data["pieces"]) == TEXT
    with torch.no_grad():
        probabilities = opened.model(torch.tensor([token_ids]))[0].softmax(dim=1)
    assert data["surprisal"][0] is None
    for i, target in enumerate(token_ids[1:]):
        assert data["surprisal"][i + 1] == close(-math.log(probabilities[i, target]))
        shown = data["alternatives"][i]
        order = probabilities[i].argsort(descending=True)[:10].tolist()
        assert [token_id for _, _, token_id in shown] == order
        assert [p for _, p, _ in shown] == [close(probabilities[i, j].item()) for j in order]
        assert shown[0][0] == opened.tokenizer.decode([order[0]])


@pytest.mark.parametrize(
    "model",
    [{}, {"positions": "rope", "qk_norm": True, "n_heads": 4, "n_kv_heads": 2}],
    ids=["gpt2", "rope, shared keys"],
)
def test_attention_on_the_page_gives_the_output_of_the_layer(
    book: Path, model: dict[str, Any], tmp_path: Path
):
    opened = train(book, **model)
    write_page(opened, TEXT, tmp_path / "page.html")
    shown = page_data(tmp_path / "page.html")["attention"]
    seen: list[tuple[Attention, torch.Tensor, torch.Tensor]] = []
    layers = [module for module in opened.model.modules() if isinstance(module, Attention)]

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        assert isinstance(layer, Attention)
        seen.append((layer, given[0], out))

    for layer in layers:
        layer.register_forward_hook(note)
    with torch.no_grad():
        opened.model(torch.from_numpy(opened.tokenizer.encode(TEXT)[None].astype("int64")))
        assert len(shown) == len(seen) == 2
        for look, (layer, given, out) in zip(shown, seen):
            weights = torch.tensor(look["weights"])  # (H, T, T)
            values = layer.qkv_proj(given)[0].split(layer.widths, dim=1)[2]
            values = values.unflatten(1, (layer.n_kv_heads, -1)).transpose(0, 1)
            values = values.repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=0)
            mixed = (weights @ values).transpose(0, 1).flatten(1)
            torch.testing.assert_close(layer.out_proj(mixed), out[0], rtol=1e-2, atol=1e-3)
            # And the weights are the softmax of the scores, of which the page hides the future.
            scores = torch.tensor(look["scores"])
            future = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
            softmax = scores.masked_fill(future, float("-inf")).softmax(dim=2)
            torch.testing.assert_close(weights, softmax, rtol=1e-2, atol=1e-4)
            assert not (weights[future]).any()


def test_looking_leaves_no_hook_behind(opened: Model):
    look_at(opened, TEXT)
    assert not any(module._forward_pre_hooks for module in opened.model.modules())


def test_the_map_keeps_the_distances_that_two_components_can(opened: Model):
    found = map_embeddings(opened, [0])
    chosen = opened.model.token_embedding.weight.detach()[found.token_ids].numpy()
    centred = chosen - chosen.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)  # another way to the same plane
    plane = centred @ vectors[:, -2:]
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    points = found.points.numpy()
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-4)
    assert found.explained == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-4)


def test_the_map_has_the_most_frequent_tokens_and_none_that_was_never_seen(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = train(book, {"kind": "bpe", "vocab_size": 300})
    seen = Counter(opened.training().tolist())
    assert len(seen) < 150 < opened.tokenizer.vocab_size  # most bytes are not in the book
    never = next(i for i in range(256) if i not in seen)
    assert set(map_embeddings(opened, [never]).token_ids) == {never, *seen}
    monkeypatch.setattr("folio.explain.look.MAPPED", 5)
    found = map_embeddings(opened, [never]).token_ids
    fifth = sorted(seen.values())[-5]
    assert len(found) == 6 and all(seen[i] >= fifth for i in found if i != never)


def test_neighbours_are_the_nearest_by_cosine(opened: Model):
    found = map_embeddings(opened, [0])
    table = opened.model.token_embedding.weight.detach().double().numpy()
    special = set(opened.tokenizer.special_tokens.values())
    for token_id, neighbours in zip(found.token_ids, found.neighbours):
        cosines = {
            other: table[token_id] @ table[other]
            / np.linalg.norm(table[token_id]) / np.linalg.norm(table[other])
            for other in range(opened.tokenizer.vocab_size)
            if other != token_id and other not in special
        }  # fmt: skip
        best = sorted(cosines, key=cosines.__getitem__, reverse=True)[: len(neighbours)]
        assert [other for other, _ in neighbours] == best
        assert neighbours[0][1] == pytest.approx(cosines[best[0]], abs=1e-5)


def test_the_page_has_the_map_that_was_made(opened: Model, tmp_path: Path):
    write_page(opened, TEXT, tmp_path / "page.html")
    shown, decode = page_data(tmp_path / "page.html")["map"], opened.tokenizer.decode
    made = map_embeddings(opened, opened.tokenizer.encode(TEXT).tolist())
    assert shown["token_ids"] == made.token_ids
    assert shown["pieces"] == [decode([token_id]) for token_id in made.token_ids]
    assert shown["explained"] == close(made.explained)
    np.testing.assert_allclose(shown["points"], made.points.numpy(), rtol=1e-3)
    for row, neighbours in zip(shown["neighbours"], made.neighbours, strict=True):
        assert row == [[decode([i]), close(cosine), i] for i, cosine in neighbours]


def test_the_page_says_the_mean_surprise(opened: Model, tmp_path: Path):
    write_page(opened, TEXT, tmp_path / "page.html")
    data = page_data(tmp_path / "page.html")
    assert f"{np.mean(data['surprisal'][1:]):.3f} nats per token" in data["about"]


def test_positions_are_the_tables_of_the_model(opened: Model, tmp_path: Path):
    write_page(opened, TEXT, tmp_path / "page.html")
    tables = {table["name"]: table for table in page_data(tmp_path / "page.html")["positions"]}
    assert set(tables) == {"learned", "sinusoidal"}
    # Vaswani et al. 2017, section 3.5: sines and cosines take turns, slower and slower.
    angles = np.arange(16)[:, None] / 10_000 ** (np.arange(0, 16, 2) / 16)
    waves = np.stack((np.sin(angles), np.cos(angles)), axis=2).reshape(16, 16)
    learned = opened.model.get_parameter("positions.weight").detach().numpy()
    for name, expected in (("learned", learned), ("sinusoidal", waves)):
        table = tables[name]
        assert (table["rows"], table["columns"]) == expected.shape == (16, 16)
        levels = np.frombuffer(base64.b64decode(table["bytes"]), dtype=np.uint8)
        values = (levels.astype(float) - 128) / 127 * table["scale"]
        np.testing.assert_allclose(values.reshape(16, 16), expected, atol=table["scale"] / 200)


def test_the_page_is_one_file_that_asks_for_nothing(book: Path, tmp_path: Path):
    nasty = tmp_path / "nasty.txt"
    nasty.write_text(book.read_text() + "</script><b>&amp;" * 200)
    opened = train(nasty)
    path = tmp_path / "page.html"
    write_page(opened, "</script><b>", path)
    page = path.read_text()
    assert "".join(page_data(path)["pieces"]) == "</script><b>"
    assert page.count("</script>") == 2  # that of the data and that of the code
    assert not re.search(r"""(?:src|href)=|url\(|@import|fetch\(|https?://(?!www\.w3\.org)""", page)


def test_a_longer_text_is_cut_and_one_token_is_refused(opened: Model):
    look = look_at(opened, TEXT * 3)
    assert "".join(look.pieces) == (TEXT * 3)[:16] and look.left_out == 3 * len(TEXT) - 16
    with pytest.raises(folio.errors.UserError, match="has 1 token; a second one"):
        look_at(opened, "T")


def test_tensors_show_the_triangle(opened: Model):
    look = look_at(opened, TEXT)
    printed = print_tensors(look)
    assert printed.count("after the softmax") == 4
    block = printed.split("layer 1, head 1: after the softmax\n")[1].split("\n\n")[0]
    rows = [line.split()[-10:] for line in block.splitlines()[1:]]
    assert len(rows) == 10
    for i, row in enumerate(rows):
        assert float(row[i]) > 0 and set(row[i + 1 :]) <= {"0.00"}
        assert sum(map(float, row)) == pytest.approx(1, abs=0.06)
    short = look_at(opened, TEXT[:3])
    assert f"{short.token_ids[:2]} -> {short.token_ids[2]}\n\n" in print_tensors(short)
    masked = printed.split("layer 2, head 2: after the mask\n")[1].splitlines()[1]
    assert masked.split().count("-inf") == 9
    before = printed.split("layer 2, head 2: scores, before the mask\n")[1].splitlines()[1]
    scores = look.attention[1].scores[1, 0, :10].tolist()
    assert before.split()[-10:] == [f"{score:.2f}" for score in scores]
    ids = opened.tokenizer.encode(TEXT).tolist()
    assert f"{ids[:2]} -> {ids[2]}" in printed


def test_the_command_writes_beside_the_run_or_where_told(
    opened: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    main(["explain", "--text", str(text)])
    path = opened.run.path / "explain.html"
    assert capfd.readouterr().out.strip() == str(path)
    assert page_data(path)["pieces"] == list(TEXT)
    main(["explain", "seen", "--text", TEXT, "--out", str(tmp_path / "x.html")])
    assert (tmp_path / "x.html").read_text() == path.read_text()
    main(["explain", "seen", "--text", TEXT * 2, "--tensors"])
    captured = capfd.readouterr()
    assert "after the mask" in captured.out and "10 after them are left out" in captured.err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_pipe_is_read_and_a_device_refused_where_a_folder_s_name_is_a_text(
    opened: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "The line").mkdir()
    reading, writing = os.pipe()
    os.write(writing, TEXT.encode())
    os.close(writing)
    for given, read in ((f"/dev/fd/{reading}", TEXT), ("The line", "The line")):
        main(["explain", "seen", "--text", given, "--out", "x.html"])
        assert page_data(tmp_path / "x.html")["pieces"] == list(read)
    os.close(reading)
    with pytest.raises(SystemExit):
        main(["explain", "seen", "--text", "/dev/null"])
    assert "/dev/null must be a file, and is a device" in capfd.readouterr().err


def test_what_stands_in_the_training_text_is_underlined(opened: Model, book: Path):
    stretch = book.read_text()[1000:1030]
    text = "winds winds" + stretch + "sings sings"
    pieces = page_module.copied_pieces(opened, opened.tokenizer.encode(text).tolist())
    at = text.index(stretch)
    assert min(pieces[at : at + 30]) >= 30, "of each character of it"
    assert pieces[0] == 0 and pieces[-1] == 0
    assert page_module.copied_pieces(opened, opened.tokenizer.encode("sings winds").tolist()) == [
        0
    ] * len("sings winds")


def test_rows_that_pad_a_vocabulary_are_no_alternatives(tmp_path: Path):
    opened = random_run(tmp_path, vocab_size=400)
    assert opened.tokenizer.vocab_size < 100
    trace = look_at(opened, "The cat")
    for i in range(7):
        assert all(token_id < 100 for token_id, _ in trace.alternatives(i))
    write_page(opened, "The cat", tmp_path / "page.html")
