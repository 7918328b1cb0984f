"""TCP ports of this machine."""

import argparse
import socket


def parse_port(text: str) -> int:
    """Parse the port of a command line.

    Raises:
        ArgumentTypeError: it is not a TCP port.
    """
    if not text.isdecimal() or not 1 <= int(text) <= 65535:  # noqa: PLR2004 - TCP's highest
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def free_port() -> int:
    """Return a port that no program uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def why_taken(port: int, address: str = "127.0.0.1") -> str | None:
    """Return why a server cannot listen on a port; None: it can."""
    with socket.socket() as probe:
        # Like servers: a port with connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.strerror
    return None
