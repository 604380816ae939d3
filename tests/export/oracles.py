"""What other programs make of our files: transformers, offline, and llama.cpp by its server."""

from __future__ import annotations

import json
import os
import urllib.request
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from folio.storage import cache_folder


@cache
def transformers() -> Any:
    """Loaded once, without a network, and with a cache of its own."""
    folder = str(cache_folder() / "hf")  # in a test that is one of pytest's, which it removes
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "TOKENIZERS_PARALLELISM": "false"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("transformers")
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
    return module


@contextmanager
def quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def their_model(folder: Path, trust: bool = False) -> Any:
    """The model of a folder, in float32; every tensor of the file has its place in it."""
    with quiet():
        model, info = transformers().AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=trust,
            output_loading_info=True,
            **({} if trust else {"attn_implementation": "eager"}),
        )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (key, info[key])
    return model.eval()


def their_logits(folder: Path, token_ids: Tensor, trust: bool = False) -> Tensor:
    with torch.no_grad(), quiet():
        return their_model(folder, trust)(input_ids=token_ids).logits


def their_tokenizer(folder: Path) -> Any:
    with quiet():
        return transformers().AutoTokenizer.from_pretrained(folder)


class LlamaCpp:
    """llama.cpp's server with one model, in float32, on one thread."""

    def __init__(self, path: Path, exact: bool = True) -> None:
        x = pytest.importorskip("xllamacpp")
        params = x.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 256, 1, 0
        params.warmup, params.verbosity = False, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        if exact:
            params.cache_type_k = params.cache_type_v = x.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = x.Server(params)

    def encode(self, text: str, begin: bool = False) -> list[int]:
        body = {"content": text, "add_special": begin, "parse_special": False}
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["tokens"]

    def apply_template(self, messages: Sequence[dict[str, str]]) -> str:
        request = urllib.request.Request(
            f"{self.server.listening_address}/apply-template",
            data=json.dumps({"messages": list(messages)}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["prompt"]

    def complete(self, prompt: Sequence[int], **settings: Any) -> dict[str, Any]:
        body = {"prompt": list(prompt), "cache_prompt": False, "temperature": 0.0} | settings
        answer = self.server.handle_completions(body)
        assert "choices" in answer, answer
        return answer["choices"][0]

    def log_probabilities(self, token_ids: Sequence[int], n_ids: int) -> Tensor:
        """(T, V) of the next token after each of the T."""
        # A token that is no whole character is held back, so one that is one is made to come.
        (letter,) = self.encode("t")
        rows = torch.full((len(token_ids), n_ids), float("nan"))
        for t in range(len(token_ids)):
            choice = self.complete(
                token_ids[: t + 1], n_predict=1, n_probs=n_ids, logit_bias=[[letter, 1000]]
            )
            for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
                rows[t, entry["id"]] = entry["logprob"]
        assert not rows.isnan().any()
        return rows
