"""Concurrent use of cache entries."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from container.training.data import cache
from container.training.data.cache import Cache
from container.training.sagemaker.stop import StopRequest


def test_key_is_locked_once_and_entries_never_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "POLL_SECONDS", 0)
    shared = Cache(tmp_path)
    holders: list[int] = []

    def use(number: int) -> None:
        with shared.locked("key", StopRequest()) as file:
            holders.append(number)
            entry = shared.find("key")
            if entry is not None:
                with entry:
                    assert entry.read() == b"complete"
                # So that the next thread creates it again.
                (tmp_path / "decoded-key.pixels").unlink()
            file.write(b"complete")
            assert holders == [number]
            holders.clear()
            if entry is None:
                shared.publish("key", file)

    # flock locks belong to open files, not to processes, so threads can replace processes.
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(300)))
