"""Entries of a cache that many use at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from container.training.data import cache
from container.training.data.cache import Cache
from container.training.sagemaker.stop import StopRequest


def test_a_key_is_never_locked_twice_and_an_entry_never_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "POLL_SECONDS", 0)
    shared = Cache(tmp_path)
    inside: list[int] = []

    def use(number: int) -> None:
        with shared.locked("key", StopRequest()) as file:
            inside.append(number)
            entry = shared.find("key")
            if entry is not None:
                with entry:
                    assert entry.read() == b"whole"
                # For the next one to make it again.
                (tmp_path / "decoded-key.pixels").unlink()
            file.write(b"whole")
            assert inside == [number]
            inside.clear()
            if entry is None:
                shared.publish("key", file)

    # Locks are of open files, not of processes: threads stand for them.
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(300)))
