"""Every preset leaves in every size to every target. Ids do not depend on the shape, so one
tokenizer is enough here; test_hf, test_gguf and test_page have all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from folio.config import merge
from folio.export.page import read_page_file
from folio.export.targets import export_run
from folio.recipe.presets import FAMILIES, SIZES
from folio.recipe.recipe import make_recipe
from folio.run.model import Model
from tests.export.browsers import LOGITS, in_node
from tests.export.conftest import BY_TRANSFORMERS
from tests.export.making import random_run
from tests.export.oracles import LlamaCpp, their_logits
from tests.export.test_hf import some_ids

pytestmark = BY_TRANSFORMERS


def made(family: str, size: str, folder: Path) -> Model:
    model = make_recipe({"preset": family, "size": size}).model
    shape = {name: value for name, value in vars(model).items() if name != "vocab_size"}
    return random_run(folder, **merge(shape, {"n_layers": 1}))  # one block is as good as many


# What adds n-grams has the shapes of another one, and leaves in test_ngrams.py.
CASES = [
    (family, size) for family in FAMILIES if "ngrams" not in FAMILIES[family] for size in SIZES
]
CASES.remove(("modern", "small"))  # seconds each: of the two that are large, each family has one
CASES.remove(("gpt2", "medium"))


@pytest.mark.parametrize(("family", "size"), CASES)
def test_every_size_leaves_to_every_target(family: str, size: str, tmp_path: Path):
    opened = made(family, size, tmp_path)
    ids = some_ids(opened, 1, 60)
    ours = opened.model(ids)

    folder, exported, _ = export_run(opened, "hf")
    assert exported.graph == {"gpt2": "gpt2", "modern": "qwen3"}[family]
    torch.testing.assert_close(their_logits(folder, ids), ours, rtol=1e-5, atol=1e-4)

    path, exported, _ = export_run(opened, "gguf")
    assert exported.graph == {"gpt2": "gpt2", "modern": "qwen3"}[family]
    theirs = LlamaCpp(path).log_probabilities(ids[0, :5].tolist(), ours.shape[2])
    tolerance = 1e-4 if family == "modern" else 5e-3  # GELU by tanh, from a table of float16
    expected = ours[0, :5].log_softmax(1)
    torch.testing.assert_close(theirs, expected, rtol=2e-5, atol=tolerance)

    page, _, _ = export_run(opened, "html")
    expected = read_page_file(page).model()(ids[:, :12])[0]  # its weights are of 8 bits
    theirs = torch.tensor(in_node(page, LOGITS, ids=ids[0, :12].tolist()))
    assert (theirs - expected).abs().max() < 1e-4 * (expected.max() - expected.min())
