"""Programs without a network: in a network namespace, or in containers without a route."""

import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Commands that start a program without a network: for users, if the system lets them, and for root.
_UNSHARE = (
    ("unshare", "--user", "--map-current-user", "--keep-caps", "--net"),
    ("unshare", "--net"),
)
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def restart(arguments: Sequence[str]) -> None:
    """Replace this process by one without a network; return if this system does not permit it."""
    for command in _UNSHARE:
        try:
            subprocess.run([*command, "true"], capture_output=True, check=True)
        except FileNotFoundError:
            return
        except subprocess.CalledProcessError:
            continue
        program = [*command, sys.executable, *arguments, "--isolated"]
        os.execvp(program[0], program)  # noqa: S606 - a fixed program


@contextmanager
def without_network(*, in_containers: bool, is_isolated: bool) -> Iterator[str]:
    """Yield what separates the programs from the network."""
    if is_isolated:
        # A new namespace has the loopback interface, but switched off.
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
        yield "none: a network namespace with the loopback interface alone"
    elif in_containers:
        # Servers have a network without a route, and trainings none.
        yield "none for containers; proxies that do not exist for the commands around them"
    else:
        yield "proxies that do not exist, because this system permits no network namespace"
