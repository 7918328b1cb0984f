"""Processes that a program has started, as Linux lists them in /proc."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_NANOSECONDS = 1e9


def descendants(root: int) -> list[int]:
    """Return a process, and those that it and they have started; without those that ended."""
    children: dict[int, list[int]] = {}
    for pid, fields in _statuses():
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def of_session(leader: int) -> Iterator[int]:
    """Yield the processes of the session that a process leads; without those that ended."""
    for pid, fields in _statuses():
        if int(fields[3]) == leader and fields[0] != "Z":
            yield pid


def with_variable(name: str) -> Iterator[tuple[int, str]]:
    """Yield the processes that have an environment variable, and its value.

    Only of this user, unless it is root; none without /proc, as on macOS.
    """
    start = f"{name}=".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            for pair in path.read_bytes().split(b"\0"):
                if pair.startswith(start):
                    yield int(path.parent.name), pair.removeprefix(start).decode(errors="replace")


def has_ended(pid: int) -> bool:
    """Return whether all threads of a process have ended, and so have closed their files."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}:
                return False
    return True


def ignores(pid: int, number: int) -> bool:
    """Return whether a signal has no effect on a process if it is process 1 of a container.

    False, too, for a signal that is blocked, because a thread may wait for it.
    """
    with suppress(OSError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text()
        masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
        handled = int(masks["SigCgt"], 16) | int(masks["SigBlk"], 16)
        return not handled >> (number - 1) & 1
    return False


def names(pids: Iterable[int]) -> Iterator[str]:
    """Yield the names of programs, of which Linux keeps 15 characters."""
    for pid in pids:
        with suppress(OSError):
            yield Path(f"/proc/{pid}/comm").read_text().strip()


def cpu_waits(pids: Iterable[int]) -> Mapping[str, float]:
    """Return for how many seconds each thread was ready to run, and had no processor.

    Systems other than Linux have none.
    """
    waits = {}
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            # A thread may end meanwhile.
            with suppress(OSError, ValueError, IndexError):
                waits[path.parent.name] = int(path.read_text().split()[1]) / _NANOSECONDS
    return waits


def _statuses() -> Iterator[tuple[int, list[str]]]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name in parentheses: state, parent, group, session.
            fields = status.read_text().rpartition(")")[2].split()
            yield int(status.parent.name), fields
