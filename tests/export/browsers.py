"""Node and Chromium: what runs the script of an exported page, where they are installed."""

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
const tokenizer = makeTokenizer(data.tokenizer);
"""
LOGITS = "return given.ids.map((id) => Array.from(model.read(id)));"


def in_node(page: Path, script: str, **given: Any) -> Any:
    """What `script` returns, run behind the page's own script with its model and tokenizer."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, which runs the page's script here")
    text = page.read_text(encoding="utf-8")
    own = re.findall(r"<script>\n(.*?)</script>", text, re.DOTALL)[0]
    begin = (
        f'const page = require("fs").readFileSync({json.dumps(str(page))}, "utf-8");\n'
        f"const given = {json.dumps(given)};\n"
    )
    run = f"console.log(JSON.stringify((() => {{\n{script}\n}})()));\n"
    done = subprocess.run(
        [node, "-"], input=own + begin + _START + run, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def in_chromium(page: Path, folder: Path, *options: str) -> str:
    """The document of a page from file://, after five seconds of its own time."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed, which opens the page here")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
