"""A real Chromium without a window, driven by its DevTools protocol over two pipes."""

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
        """Addresses that the page has asked for."""
        self.complaints: list[str] = []
        """What its console has of errors."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: object) -> Mapping[str, Any]:
        """Send a command and return its result; note what is told meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            told = json.loads(self._read())
            if told.get("id") == self._number:
                assert "error" not in told, told["error"]
                result: Mapping[str, Any] = told["result"]
                return result
            self._note(told)

    def open(self, address: str) -> None:
        """Go to a page and wait until it is there."""
        self.command("Page.navigate", url=address)
        self.wait_for(f"document.readyState === 'complete' && location.href === '{address}'")

    def run(self, script: str) -> Any:  # noqa: ANN401 - any JSON
        """Return an expression's value."""
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
        """Return what a person reads in an element; nothing where it is hidden."""
        found = f"document.querySelector('{selector}')"
        text: str = self.run(f"{found}.checkVisibility() ? {found}.innerText : ''")
        return text

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file as a person does in the dialogue."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop(self, selector: str, path: Path) -> None:
        """Drag a file from the desktop onto the middle of an element."""
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
            assert byte, "the browser has ended"
            message += byte
        return bytes(message)

    def _note(self, told: Mapping[str, Any]) -> None:
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"]))


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start a browser whose files are in a folder of ours."""
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
    """Return our ends, to write and to read, and the browser's, to read and to write."""
    reading, we_write = os.pipe()
    we_read, writing = os.pipe()
    theirs = []
    for end in (reading, writing):
        # Above those numbers that the shell gives them.
        theirs.append(fcntl.fcntl(end, fcntl.F_DUPFD, 10))
        os.close(end)
    return (we_write, we_read), (theirs[0], theirs[1])
