"""TCP ports of this machine."""

import socket


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
