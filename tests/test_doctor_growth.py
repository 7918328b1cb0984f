"""The doctor distinguishes memory that is kept from memory that warms up."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from image_classifier.platform.doctor.growth import steady
from image_classifier.platform.sandbox import process_tree

MIB = 2**20
BATCH = 20


def test_equal_growth_of_all_batches_is_a_leak() -> None:
    growth = steady([100 * MIB + number * MIB for number in range(41)], BATCH)

    assert growth is not None
    assert (growth.before, growth.after, growth.requests) == (110 * MIB, 140 * MIB, 600)
    assert str(growth) == "110 MiB, and 140 MiB after 600 more requests"


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [100 * MIB] * 3,
        [100 * MIB] * 40,
        # A cache that fills, or an allocator that warms up.
        [100 * MIB + min(number, 20) * MIB for number in range(40)],
        # A collector frees its garbage.
        [100 * MIB + number % 13 * MIB for number in range(40)],
        # One large buffer.
        [100 * MIB + (number > 25) * 64 * MIB for number in range(40)],
        # Less than allocators take.
        [100 * MIB + number * MIB // 8 for number in range(40)],
    ],
)
def test_other_memory_is_no_leak(sizes: list[int]) -> None:
    assert steady(sizes, BATCH) is None


def test_garbage_of_late_collectors_is_no_leak() -> None:
    sizes = [100 * MIB + number * MIB for number in range(40)]

    assert steady(sizes, BATCH, least=MIB) is None


@pytest.fixture(params=["SIG_IGN", "SIG_DFL", "print", "sigwait"])
def process(request: pytest.FixtureRequest) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    handling = {
        "print": "signal(SIGTERM, print)",
        "sigwait": "pthread_sigmask(SIG_BLOCK, [SIGTERM])",
    }
    line = handling.get(request.param, f"signal(SIGTERM, {request.param})")
    program = f"from signal import *; {line}; print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield request.param, running
        running.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_processes_are_found_with_their_handlers(
    process: tuple[str, subprocess.Popen[str]],
) -> None:
    handling, running = process

    assert process_tree.ignores(running.pid, 15) == (handling in {"SIG_IGN", "SIG_DFL"})
    assert running.pid in process_tree.descendants(os.getpid())
    assert process_tree.cpu_waits([running.pid]).keys() == {str(running.pid)}
