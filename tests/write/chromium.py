"""A real browser for tests: Chromium, told over a pipe what to do (the DevTools protocol).

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest

PATIENCE = 60
"""Seconds until something that should happen counts as hanging; a server may compile first."""

_START = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_KEYS = {
    **{"Tab": 9, "Enter": 13, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36},
    **{"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Backspace": 8},
}
_HELD = {"Alt": 1, "Ctrl": 2, "Meta": 4, "Shift": 8}


class Browser:
    """One Chromium without windows."""

    def __init__(self, folder: Path) -> None:
        """Start it; its profile and its downloads lie in a folder."""
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if chromium is None:
            pytest.skip("chromium is not installed, which opens the page here")
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
        theirs, self._out = os.pipe()
        self._in, ours = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs), str(ours), *command, "about:blank"],
            pass_fds=(theirs, ours),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._rest = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []
        allowed = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.send("Browser.setDownloadBehavior", allowed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.send("Browser.close", {})  # a killed one leaves a folder in the temporary one
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait(10)
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, given: dict[str, Any], session: str = "") -> dict[str, Any]:
        """Do something, and wait for the answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": given}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            got = os.read(self._in, 1 << 16)
            assert got, "the browser ended"
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path | str, width: int = 1200, height: int = 900) -> Page:
        """A page in a tab of its own."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"], target)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            page.send(f"{domain}.enable")
        page.send("Page.bringToFront")
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)
        page.size(width, height)
        page.go(path)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target

    def send(self, method: str, **given: Any) -> dict[str, Any]:
        """Do something in this tab."""
        return self.browser.send(method, given, self.session)

    def size(self, width: int, height: int, phone: bool = False) -> None:
        """Make it as wide and high as so many pixels."""
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", **shape)

    def go(self, path: Path | str) -> None:
        """Open a file or an address; come back once its scripts have run."""
        address = path.as_uri() if isinstance(path, Path) else path
        self.send("Page.navigate", url=address)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def reload(self) -> None:
        """Open it anew."""
        self.run("window.old = true")
        self.send("Page.reload")
        self.wait("!window.old && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression."""
        done = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, (script, done["exceptionDetails"])
        return done["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Until an expression is true; what it is then."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if value := self.run(condition):
                    return value
            except AssertionError:  # between two documents
                if time.monotonic() > end - 1:
                    raise
            time.sleep(0.01)
        raise AssertionError(f"never true: {condition}; {self.problems()}")

    def key(self, name: str) -> None:
        """Press a key: "Ctrl+Shift+Enter", or a letter."""
        *held, key = name.split("+") if len(name) > 1 else [name]
        letter = len(key) == 1 and key.isalnum() and key.isascii()
        code = f"Digit{key}" if key.isdecimal() else {" ": "Space"}.get(key, key)
        event: dict[str, Any] = {
            "key": key,
            "code": code,
            "modifiers": sum(_HELD[one] for one in held),
            "windowsVirtualKeyCode": _KEYS.get(key) or (ord(key.upper()) if letter else 0),
        }
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        down = {"type": "keyDown", "text": text} if text and not held else {"type": "rawKeyDown"}
        self.send("Input.dispatchKeyEvent", **event, **down)
        self.send("Input.dispatchKeyEvent", **event, type="keyUp")

    def type(self, text: str) -> None:
        """Write, letter by letter."""
        for letter in text:
            self.key({"\n": "Enter"}.get(letter, letter))

    def click(self, selector: str) -> None:
        """On the first element of a selector, with the mouse; as a hand would, once more if it was
        moved or made anew between looking, pressing and releasing, so that it heard nothing.
        """
        chosen, end = json.dumps(selector), time.monotonic() + PATIENCE
        hear = f"({{ target }}) => (clicked ||= !!target.closest({chosen}))"
        while time.monotonic() < end:
            where = self.run(
                f"(() => {{ const e = document.querySelector({chosen}); clicked = false;"
                f"addEventListener('click', {hear}, {{ capture: true, once: true }});"
                "e.scrollIntoView({ block: 'center', behavior: 'instant' });"
                "const r = e.getBoundingClientRect();"
                "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
            )
            at = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
            for kind in ("mousePressed", "mouseReleased"):
                self.send("Input.dispatchMouseEvent", type=kind, **at)
            if self.run("clicked"):
                return
        raise AssertionError(f"never clicked: {selector}; {self.problems()}")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to a field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def download(self, name: str) -> str:
        """What a file that the page saved says."""
        path, end = self.browser.downloads / name, time.monotonic() + PATIENCE
        while not path.exists() or path.with_suffix(path.suffix + ".crdownload").exists():
            assert time.monotonic() < end, [p.name for p in self.browser.downloads.iterdir()]
            time.sleep(0.01)
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return text

    def picture(self, path: Path) -> None:
        """Take a picture of what is seen."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def media(self, **features: str) -> None:
        """As a reader likes it: prefers_color_scheme="dark"."""
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.send("Emulation.setEmulatedMedia", features=named)

    def problems(self) -> list[str]:
        """Errors and warnings in its console until now, those of its policy included."""
        self.run("0")  # what was said comes before the answer
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            given, method = event["params"], event["method"]
            if method == "Runtime.exceptionThrown":
                found.append(str(given["exceptionDetails"].get("exception", given)))
            elif method == "Runtime.consoleAPICalled" and given["type"] != "log":
                found.append(str(given["args"]))
            elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
                found.append(given["entry"]["text"])
        return found

    def close(self) -> None:
        """Close the tab."""
        self.browser.send("Target.closeTarget", {"targetId": self.target})
