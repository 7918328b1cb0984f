"""Helpers for server processes: free ports, readiness, memory."""

import http.client
import re
import subprocess
import time
from pathlib import Path

from image_classifier.platform.sandbox import ports

TIMEOUT_SECONDS = 120

free_port = ports.free_port


def wait_for_ping(process: subprocess.Popen[bytes], port: int) -> None:
    """Poll /ping until it returns 200."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    message = "the server did not become ready"
    raise SystemExit(message)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children, shared pages counted in each."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    own = 1024 * int(found[1]) if found else 0
    return own + sum(map(resident_bytes, children(pid)))


def children(pid: int) -> list[int]:
    """Return the IDs of the child processes."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in listed.split()]
