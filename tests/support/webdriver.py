"""A real headless Chromium, driven by W3C WebDriver over plain HTTP; both programs are Debian's packages."""

import base64
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.ports import free_port

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None,
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)


class Browser:
    """One window. Elements are found by CSS selectors; it waits for elements that aren't there yet."""

    def __init__(self, client: httpx2.Client, session: str) -> None:
        self._client = client
        self._session = session

    def command(self, method: str, path: str, **parameters: Any) -> Any:
        """Send one WebDriver command and return its value."""
        body = None if method in ("GET", "DELETE") else parameters
        answer = self._client.request(method, f"/session/{self._session}{path}", json=body).json()
        if isinstance(answer["value"], dict) and "error" in answer["value"]:
            raise AssertionError(f"{answer['value']['error']}: {answer['value']['message']}")
        return answer["value"]

    def open(self, url: str) -> None:
        self.command("POST", "/url", url=url)

    @property
    def url(self) -> str:
        return str(self.command("GET", "/url"))

    def script(self, source: str, *arguments: Any) -> Any:
        """Run a function body in the page and return its value."""
        return self.command("POST", "/execute/sync", script=source, args=list(arguments))

    def wait_for(self, condition: str, *arguments: Any, seconds: float = 60) -> Any:
        """Wait until a JavaScript expression over `arguments` is true in the page; return its value."""
        deadline = time.monotonic() + seconds
        while True:
            value = None
            with suppress(AssertionError):  # the page may be changing
                value = self.script(f"return {condition}", *arguments)
            if value:
                return value
            assert time.monotonic() < deadline, f"never true: {condition} {arguments}"
            time.sleep(0.03)

    def find(self, selector: str) -> str:
        self.wait_for("document.querySelector(arguments[0]) !== null", selector)
        element = self.command("POST", "/element", using="css selector", value=selector)
        return str(element[ELEMENT])

    def _of(self, selector: str, method: str, path: str) -> Any:
        """Send a command about an element, again where the page has replaced the one that was found."""
        while True:
            try:
                return self.command(method, f"/element/{self.find(selector)}/{path}")
            except AssertionError as error:
                if "stale element reference" not in str(error):
                    raise

    def click(self, selector: str) -> None:
        """Click as a person does: where something lies over the element, this fails."""
        self.wait_for("document.querySelector(arguments[0])?.disabled === false", selector)
        self.script(
            "document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})",
            selector,
        )
        self._of(selector, "POST", "click")

    def press(self, key: str) -> None:
        """Press and release one key, wherever the focus is."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.command("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        return str(self._of(selector, "GET", "text"))

    def devtools(self, name: str, **parameters: Any) -> Any:
        """Send one command of the DevTools protocol."""
        return self.command("POST", "/goog/cdp/execute", cmd=name, params=parameters)

    def console(self) -> list[dict[str, Any]]:
        """Return the console's messages since the last call."""
        return list(self.command("POST", "/se/log", type="browser"))

    def screenshot(self, path: Path, *, clip: dict[str, float] | None = None) -> None:
        """Write a picture of the whole page, or of the part with these `x`, `y`, `width` and `height`."""
        part = {} if clip is None else {"clip": {**clip, "scale": 1}}
        picture = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, **part)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def chromium() -> Generator[Browser]:
    """Start a driver and a browser with a fresh profile; stop both at the end."""
    assert CHROMIUM is not None
    assert CHROMEDRIVER is not None
    port = free_port()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen([CHROMEDRIVER, f"--port={port}", "--silent"], stdout=subprocess.DEVNULL) as driver,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        try:
            session = _session(client, profile)
            try:
                yield Browser(client, session)
            finally:
                client.delete(f"/session/{session}")
        finally:
            driver.terminate()


def _session(client: httpx2.Client, profile: str) -> str:
    options = {
        "binary": CHROMIUM,
        "args": [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            "--window-size=1200,900",
            f"--user-data-dir={profile}",
        ],
    }
    capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    body = {"capabilities": {"alwaysMatch": capabilities}}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx2.ConnectError):  # the driver is starting
            answer = client.post("/session", json=body).json()
            assert "sessionId" in answer["value"], answer["value"]
            return str(answer["value"]["sessionId"])
        time.sleep(0.05)
    raise AssertionError("chromedriver doesn't listen")
