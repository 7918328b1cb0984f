"""Labels of containers and networks: what they belong to, and which process started them.

If a process is killed, its containers, networks and child processes remain. They are found by their
labels, and the child processes by an environment variable.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from image_classifier.platform.sandbox import process_tree
from image_classifier.platform.sandbox.launch import Launch

FOLDER = "image-classifier.folder"
STARTER = "image-classifier.starter"

# The same as STARTER, of processes.
STARTER_VARIABLE = "IMAGE_CLASSIFIER_STARTER"

# Label of a server that outlives its starter: its port.
PORT = "image-classifier.port"


def of_command() -> dict[str, str]:
    """Return the labels of a container or a network that this process removes again."""
    return {STARTER: f"{socket.gethostname()} {os.getpid()} {_start_of(os.getpid())}"}


def variables() -> dict[str, str]:
    """Return the environment variables of a process that this process ends again."""
    return {STARTER_VARIABLE: of_command()[STARTER]}


def of(launch: Launch) -> dict[str, str]:
    """Return the labels of a program that this process starts."""
    labels = {**of_command(), FOLDER: str(launch.base_dir.resolve())}
    return labels if launch.published is None else {**labels, PORT: str(launch.published[1])}


def is_server_of(labels: Mapping[str, str], folder: Path) -> bool:
    """Return whether it is a server below a folder that outlives its starter."""
    return PORT in labels and Path(labels.get(FOLDER, "/")).is_relative_to(folder.resolve())


def is_left(labels: Mapping[str, str]) -> bool:
    """Return whether a process of this machine started it, and ended without removing it."""
    host, _, process = labels.get(STARTER, "").partition(" ")
    pid, _, start = process.partition(" ")
    is_here = PORT not in labels and host == socket.gethostname() and pid.isdecimal()
    return is_here and _start_of(int(pid)) != start


def _start_of(pid: int) -> str | None:
    """Return when a process started, in ticks since the boot; None: it does not run."""
    try:
        # After the name in parentheses, from the state on.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self").exists() or not _is_running(pid) else ""
    return None if fields[0] == "Z" else fields[19]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def left_processes() -> Iterator[int]:
    """Yield the processes that a process of this machine left."""
    for pid, starter in process_tree.with_variable(STARTER_VARIABLE):
        if is_left({STARTER: starter}):
            yield pid
