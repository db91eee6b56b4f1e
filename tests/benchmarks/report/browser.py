"""A headless Chromium through the WebDriver protocol, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "about:blank",
)  # fmt: skip
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str:
    """Why there is no browser to test with; "" where there is one."""
    if not chromium():
        return f"no Chromium: set $CHROMIUM or install one of {', '.join(NAMES)}"
    return "" if shutil.which("chromedriver") else "no chromedriver on PATH"


def chromium() -> str | None:
    """The browser's executable."""
    return next(
        (found for name in (os.environ.get("CHROMIUM", ""), *NAMES) if name and (found := shutil.which(name))), None
    )


class Browser:
    """One session. Errors of the protocol raise RuntimeError with the browser's message."""

    def __init__(self, address: str, session: str) -> None:
        self.address, self.session = address, session

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One command of the session."""
        return send(f"{self.address}/session/{self.session}/{path}", body)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file anew, with a fragment behind it."""
        self.call("url", {"url": "about:blank"})
        self.call("url", {"url": path.as_uri() + fragment})

    def run(self, script: str, *args: object) -> Any:
        """What a script in the page returns."""
        return self.call("execute/sync", {"script": script, "args": list(args)})

    def find(self, css: str, text: str = "") -> str:
        """The first shown element of a selector that holds a text; AssertionError where there is none."""
        found = self.run(
            "return [...document.querySelectorAll(arguments[0])].find("
            "(e) => e.textContent.includes(arguments[1]) && e.checkVisibility())", css, text,
        )  # fmt: skip
        assert found, f"no {css} with {text!r}"
        return str(found[ELEMENT])

    def click(self, css: str, text: str = "") -> None:
        """Click as a person does: scrolled to and not covered."""
        self.call(f"element/{self.find(css, text)}/click", {})

    def type(self, css: str, text: str) -> None:
        """Type into an element that is emptied before."""
        place = self.find(css)
        self.call(f"element/{place}/clear", {})
        self.call(f"element/{place}/value", {"text": text})

    def keys(self, text: str) -> None:
        """Press keys one after the other wherever the focus is."""
        pressed = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.call("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": pressed}]})

    def texts(self, css: str) -> list[str]:
        """The shown text of every element of a selector."""
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())", css))

    def logs(self, kind: str) -> list[Mapping[str, Any]]:
        """What the browser logged since the last call: "browser" or "performance"."""
        return list(self.call("se/log", {"type": kind}))

    def picture(self, path: Path) -> None:
        """The window as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("screenshot")))


def send(address: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> Any:
    """One request of the WebDriver protocol: GET without a body, POST with one."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"]) from None


@contextmanager
def browser(
    downloads: Path,
    width: int = 1400,
    height: int = 1000,
    emulate: Mapping[str, Any] | None = None,
    flags: tuple[str, ...] = (),
) -> Iterator[Browser]:
    """A fresh browser with an empty profile. emulate: device metrics, for windows narrower than a desktop's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options: dict[str, Any] = {
            "binary": chromium(),
            "args": [*FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={width},{height}"],
            "prefs": {"download.default_directory": str(downloads)},
        }
        if emulate:
            options["mobileEmulation"] = {"deviceMetrics": dict(emulate)}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        session = ""
        try:
            await_driver(address)
            session = send(f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            yield Browser(address, session)
        finally:
            if session:
                send(f"{address}/session/{session}", method="DELETE")
            driver.terminate()
            driver.wait(10)


def await_driver(address: str) -> None:
    """Wait until the driver answers."""
    for _ in range(200):
        try:
            if send(f"{address}/status")["ready"]:
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("chromedriver did not start")
