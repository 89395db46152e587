"""A headless Chromium for tests, driven through ChromeDriver over plain HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
_DRIVER = shutil.which("chromedriver")
#: Why there is no Chromium, "" if there is.
MISSING = (
    "" if _BROWSER and _DRIVER else "needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)

#: Begins a script: `looks` is how often a text was looked through from then on.
COUNT_LOOKS = (
    "let looks = 0; const includes = String.prototype.includes; "
    "String.prototype.includes = function (word) { looks += 1; return includes.call(this, word); }; "
)

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Whatever is asked of the network fails at once, and is logged.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


class Browser:
    """One tab."""

    def __init__(self, session: str):
        self._session = session

    def open(self, url: str) -> None:
        """Goes to an address and waits until it is loaded."""
        _call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns in the page."""
        return _call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def type(self, selector: str, text: str) -> None:
        """Types into an element."""
        _call("POST", f"{self._element(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        _call("POST", f"{self._element(selector)}/click", {})

    def press(self, *keys: str) -> None:
        """Presses keys one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        _call(
            "POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]}
        )

    def emulate(self, width: int, scheme: str) -> None:
        """Shows pages at a width, in pixels, and in the "light" or "dark" scheme from now on."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        commands = {"Emulation.setDeviceMetricsOverride": size, "Emulation.setEmulatedMedia": scheme}
        for command, parameters in commands.items():
            _call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def errors(self) -> list[str]:
        """What the console has said since the last call: refused scripts, failed requests, exceptions."""
        return [entry["message"] for entry in _call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def _element(self, selector: str) -> str:
        found = _call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return f"{self._session}/element/{next(iter(found.values()))}"


@contextmanager
def chromium(profile: str) -> Iterator[Browser]:
    """Starts a browser, and ends it.

    Args:
      profile: an empty folder for what it writes.
    """
    driver = subprocess.Popen(
        [_DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        root = f"http://127.0.0.1:{line.rstrip().rstrip('.').rpartition(' ')[2]}"
        options = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": _BROWSER, "args": [*_FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = _call("POST", f"{root}/session", {"capabilities": {"alwaysMatch": options}})
        address = f"{root}/session/{session['sessionId']}"
        try:
            yield Browser(address)
        finally:
            _call("DELETE", address)
    finally:
        driver.terminate()
        driver.wait(60)
        driver.stdout.close()


def wait_until(condition, seconds: float = 60) -> None:
    """Waits until a condition holds; fails if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _call(method: str, url: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        url, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    request.method = method
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(error.read().decode()[:2000]) from error
