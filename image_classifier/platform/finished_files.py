"""The files that an interrupted job has finished."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path


class FinishedFiles(AbstractContextManager["FinishedFiles"]):
    """A file of JSON lines: the job, then each finished file with its size and time.

    A file that has changed since is not finished, and neither is any file of another job.
    """

    def __init__(self, path: Path, job: Mapping[str, object]) -> None:
        """Read the file of an earlier run of the same job, or else begin a new one."""
        self._known: dict[str, list[int]] = {}
        first = json.dumps(job, sort_keys=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        is_same = lines[:1] == [first]
        for line in lines[1:] if is_same else []:
            # The last line of a killed process can be incomplete.
            with suppress(ValueError):
                name, *state = json.loads(line)
                self._known[name] = state
        self._file = path.open("a" if is_same else "w")
        # Ends an incomplete line, too.
        print("" if is_same else first, file=self._file, flush=True)

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def has(self, name: str, path: Path) -> bool:
        """Return whether a file is finished, and has not changed."""
        return name in self._known and self._known[name] == _state(path)

    def add(self, name: str, path: Path) -> None:
        """Record that a file is finished."""
        print(json.dumps([name, *_state(path)]), file=self._file, flush=True)


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
