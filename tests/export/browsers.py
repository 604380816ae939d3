"""Node: what runs the scripts of a page, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_START = """
const found = (id) => page.match(new RegExp(`<script id="${id}" type="[^"]*">([^<]*)</script>`))[1];
const data = JSON.parse(found("data"));
const kernel = fromBase64(given.slow ? "" : data.kernel);
const weights = loadWeights(data.tensors, fromBase64(found("weights")), kernel);
const model = new Model({ ...data.config, ...data.derived }, weights);
const ngrams = data.ngrams && new NGrams(data.ngrams, fromBase64(found("ngrams")));
const reader = new Reader(model, data.never, ngrams);
const makeWorker = () => new Engine(data, ...["weights", "ngrams", "seen"].map(found));
const tokenizer = makeTokenizer(data.tokenizer);
"""
LOGITS = "return given.ids.map((id) => Array.from(model.read(id)));"


def in_node(page: Path, script: str, **given: Any) -> Any:
    """What `script` returns, run behind the page's own script with its model and tokenizer."""
    text = page.read_text(encoding="utf-8")
    (own,) = re.findall(r'<script id="worker"[^>]*>\n(.*?)</script>', text, re.DOTALL)
    begin = (
        f'const page = require("fs").readFileSync({json.dumps(str(page))}, "utf-8");\n'
        f"const given = {json.dumps(given)};\n"
    )
    return run_in_node(own + begin + _START, script)


def run_in_node(before: str, script: str) -> Any:
    """What `script` returns, the body of an asynchronous function, behind other JavaScript."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, which runs the page's scripts here")
    run = f"(async () => {{\n{script}\n}})().then((r) => console.log(JSON.stringify(r)));\n"
    done = subprocess.run(
        [node, "-"], input=before + run, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
