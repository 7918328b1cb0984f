"""TCP sockets of other processes, as Linux lists them in /proc."""

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED, _LISTENING = "01", "0A"
# State and inode of a Unix domain socket.
_UNACCEPTED = ["02", "0"]

_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Socket:
    """One TCP socket."""

    address: str
    port: int
    peer_port: int
    is_listening: bool
    unread: int
    """Bytes that the program has not read yet."""
    inode: str

    @property
    def is_reachable(self) -> bool:
        """Whether other machines can connect to it."""
        return self.is_listening and self.address in _WILDCARDS | {"::ffff:0.0.0.0"}


def of_processes(pids: Sequence[int], *, own_network: bool) -> list[Socket] | None:
    """Return the sockets of processes; None if this system does not show them.

    Args:
        pids: process IDs.
        own_network: whether all sockets of the first one's network namespace belong to them.
    """
    if not pids:
        return None
    try:
        found = list(_table(Path(f"/proc/{pids[0]}/net")))
    except OSError:
        return None
    if own_network:
        return found
    inodes = {inode for pid in pids for inode in _inodes(pid)}
    # A connection that the program has not accepted yet has inode 0.
    ports = {each.port for each in found if each.is_listening and each.inode in inodes}
    return [
        each
        for each in found
        if each.inode in inodes or (each.port in ports and not each.is_listening)
    ]


def has_unaccepted(pids: Sequence[int], front_port: int, *, own_network: bool) -> bool:
    """Return whether the program has sent data to its back end, which still starts.

    The back end listens, and does not accept connections yet, such as gunicorn behind nginx while
    its workers load.

    Args:
        pids: process IDs.
        front_port: TCP port of the server that other programs send requests to.
        own_network: whether all sockets of the first one's network namespace belong to them.
    """
    found = of_processes(pids, own_network=own_network)
    if found is None:
        return False
    if any(each.inode == "0" and each.unread and each.port != front_port for each in found):
        return True
    inodes = {inode for pid in pids for inode in _inodes(pid)}
    try:
        lines = Path(f"/proc/{pids[0]}/net/unix").read_text().splitlines()[1:]
    except OSError:
        return False
    # After the flags: type, state, inode, path.
    rows = [fields[5:8] for fields in map(str.split, lines) if len(fields) > 7]  # noqa: PLR2004
    own = {path for _, inode, path in rows if own_network or inode in inodes}
    return any(row[:2] == _UNACCEPTED and row[2] in own for row in rows)


def parse(text: str) -> Iterator[Socket]:
    """Yield the sockets in a table of /proc/net."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if fields[3] in {_ESTABLISHED, _LISTENING}:
            address, port = fields[1].split(":")
            yield Socket(
                address=_address(address),
                port=int(port, 16),
                peer_port=int(fields[2].split(":")[1], 16),
                is_listening=fields[3] == _LISTENING,
                unread=int(fields[4].split(":")[1], 16),
                inode=fields[9],
            )


def _table(folder: Path) -> Iterator[Socket]:
    yield from parse((folder / "tcp").read_text())
    # Without IPv6 the second file does not exist.
    if (folder / "tcp6").exists():
        yield from parse((folder / "tcp6").read_text())


def _inodes(pid: int) -> Iterator[str]:
    try:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            target = str(file.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        # It has ended, or belongs to another user.
        return


def _address(text: str) -> str:
    # Words of 32 bits in the byte order of the machine.
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed)
