"""Drives a headless Chromium over two pipes with the DevTools protocol."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")

WAIT_SECONDS = 20


class Browser:
    """One page of a browser."""

    def __init__(self, commands: IO[bytes], messages: IO[bytes]) -> None:
        """Open an empty page."""
        self._commands, self._messages = commands, messages
        self._number = 0
        self._session = ""
        self.requested: list[str] = []
        """URLs that the page has requested."""
        self.errors: list[str] = []
        """Error messages on the console."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: object) -> Mapping[str, Any]:
        """Send a command and return its result; record the events received meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            received = json.loads(self._read())
            if received.get("id") == self._number:
                assert "error" not in received, received["error"]
                result: Mapping[str, Any] = received["result"]
                return result
            self._record(received)

    def open(self, address: str) -> None:
        """Open a URL and wait until the page has loaded."""
        self.command("Page.navigate", url=address)
        self.wait_for(f"document.readyState === 'complete' && location.href === '{address}'")

    def run(self, script: str) -> Any:  # noqa: ANN401 - any JSON
        """Evaluate a JavaScript expression and return its value."""
        evaluated = self.command("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in evaluated, evaluated
        return evaluated["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.run(condition):
            assert time.monotonic() < deadline, (condition, self.run("document.body.innerText"))
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """Return the visible text of an element; empty if it is hidden."""
        found = f"document.querySelector('{selector}')"
        text: str = self.run(f"{found}.checkVisibility() ? {found}.innerText : ''")
        return text

    def choose(self, selector: str, path: Path) -> None:
        """Set the file of a file input, as the file dialog does."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop(self, selector: str, path: Path) -> None:
        """Drop a file on the center of an element."""
        box = self.run(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector('{selector}').getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

    def _read(self) -> bytes:
        message = bytearray()
        while (byte := self._messages.read(1)) != b"\0":
            assert byte, "the browser has exited"
            message += byte
        return bytes(message)

    def _record(self, received: Mapping[str, Any]) -> None:
        match received.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(received["params"]["request"]["url"])
            case "Log.entryAdded":
                self.errors.append(received["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(received["params"]["exceptionDetails"]))


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start a browser with its profile in `folder`."""
    assert PROGRAM
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    options += ["--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}/user"]
    ours, theirs = _pipes()
    # Chromium reads commands from 3 and writes to 4.
    script = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    with (
        (folder / "chromium.log").open("wb") as log,
        subprocess.Popen(
            ["bash", "-c", script, "bash", PROGRAM, *options],  # noqa: S607 - bash is on the PATH
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
        os.fdopen(ours[0], "wb") as commands,
        os.fdopen(ours[1], "rb") as messages,
    ):
        for end in theirs:
            os.close(end)
        try:
            yield Browser(commands, messages)
        finally:
            process.kill()


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """Return our file descriptors (write, read) and the browser's (read, write)."""
    reading, we_write = os.pipe()
    we_read, writing = os.pipe()
    theirs = []
    for end in (reading, writing):
        # Above the numbers that the shell redirects.
        theirs.append(fcntl.fcntl(end, fcntl.F_DUPFD, 10))
        os.close(end)
    return (we_write, we_read), (theirs[0], theirs[1])
