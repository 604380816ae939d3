"""The page reads its model beside n-grams as Folio does, from a few bytes each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folio.errors import UserError
from folio.export import page_ngrams
from folio.export.page import read_page_file
from folio.export.page_ngrams import pack_ngrams, unpack_ngrams
from folio.export.targets import export_run
from tests.export.browsers import in_node
from tests.export.making import MODERN, SHAPE, counted, random_run_beside_ngrams
from tests.export.test_ngrams import PADDED, seen_ids
from tests.export.test_page import GREEDY, greedy
from tests.export.test_page_worker import looked_at

LOGITS_OF_EACH_PREFIX = """
const all = [], reader = new Reader(model, [], ngrams);
for (let n = 1; n <= given.ids.length; n++) {
  let logits = null;
  while (!logits) logits = reader.step(given.ids, n);
  all.push(Array.from(logits));
}
return all;
"""


@pytest.mark.parametrize("name", ["character", "bpe-gpt2"])
@pytest.mark.parametrize("settings", [MODERN, PADDED], ids=["modern", "padded"])
def test_the_page_computes_the_product_of_its_model_and_the_n_grams(
    name: str, settings: dict[str, Any], tmp_path: Path
):
    opened = random_run_beside_ngrams(tmp_path, name, **settings)
    path, _, _ = export_run(opened, "html")
    model = read_page_file(path).model()
    ids = seen_ids(opened)[:1]
    ours = model(ids)[0]
    theirs = torch.tensor(in_node(path, LOGITS_OF_EACH_PREFIX, ids=ids[0].tolist()))
    assert (ours - theirs).abs().max() < 1e-4 * (ours.max() - ours.min())


@pytest.mark.parametrize("settings", [SHAPE, MODERN], ids=["gpt2", "modern"])
def test_greedy_text_is_that_of_folio_beyond_the_context(settings: dict[str, Any], tmp_path: Path):
    opened = random_run_beside_ngrams(tmp_path, **settings)
    path, _, _ = export_run(opened, "html")
    prompt = seen_ids(opened)[0, :3].tolist()
    theirs = in_node(path, GREEDY, ids=prompt, n=100)
    assert theirs == greedy(read_page_file(path).model(), opened, prompt, 100)


def test_each_token_has_the_log_probability_that_folio_gives(tmp_path: Path):
    opened = random_run_beside_ngrams(tmp_path, **MODERN)
    path, _, _ = export_run(opened, "html")
    text = "The cat sat on the mats."
    (look,) = looked_at(path, text)
    ids = torch.from_numpy(opened.tokenizer.encode(text).astype(np.int64))
    logits = read_page_file(path).model()(ids[None])[0]
    assert opened.tokenizer.unknown is not None
    logits[:, opened.tokenizer.unknown] = -math.inf
    expected = logits.log_softmax(1)
    for i, token in enumerate(look["tokens"][1:]):
        assert token["logprob"] == pytest.approx(float(expected[i, ids[i + 1]]), abs=1e-4)


@pytest.mark.parametrize(("n_ids", "n_bytes"), [(200, 3), (300, 4), (70_000, 6)])
def test_n_grams_take_few_bytes_and_come_back_as_they_were(n_ids: int, n_bytes: int):
    beside = counted(n_ids, n_ids)
    table, packed = pack_ngrams(beside, "a")
    again = unpack_ngrams(table, packed)
    assert again.weights == beside.weights
    assert np.array_equal(again.ngrams.discounts, beside.ngrams.discounts)
    ours, theirs = beside.ngrams.levels, again.ngrams.levels
    assert all(np.array_equal(x, y) for a, b in zip(ours, theirs) for x, y in zip(a, b))
    large = sum(int((level.counts > 254).sum() + (level.children > 254).sum()) for level in ours)
    assert large > 0 and len(packed) == n_bytes * len(beside.ngrams) + 4 * large


def test_n_grams_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page_ngrams, "MOST_BYTES", 1000)
    opened = random_run_beside_ngrams(tmp_path, **MODERN)
    words = r"n-grams beside the model take .* MB; a page carries 0\.001 MB of them at most"
    with pytest.raises(UserError, match=words + r"\. Leave them out .* --alone, or .* folio serve"):
        export_run(opened, "html")
    export_run(opened, "html", alone=True)
