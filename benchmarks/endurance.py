"""Measure the memory of the server over many requests.

    python -m benchmarks.endurance --data FOLDER --requests 100000

FOLDER holds ants-bees.tar. Eight clients send its photographs in closed loops. After each tenth of
the requests, the resident memory of all processes is read while the server is idle. The exit status
is 1 if a response was not 200.
"""

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import load
from benchmarks.conditions import print_results
from benchmarks.rivals.commands import ours
from benchmarks.serving import PACKAGES, PYTHON, running
from benchmarks.serving_artifact import add_int8, make_artifact, write_images
from container.classifier.manifest import INT8
from container.serving.settings import PRECISIONS
from tests.processes import resident_bytes

CLIENTS, PARTS, WARM_UP_REQUESTS = 8, 10, 500


async def ask(port: int, requests: Iterator[bytes], sample: load.Sample) -> None:
    """Send the requests from all clients."""

    async def send_repeatedly() -> None:
        connection = load.Connection(port)
        for request in requests:
            await connection.ask(request, sample)
        connection.close()

    await asyncio.gather(*(send_repeatedly() for _ in range(CLIENTS)))


def main() -> int:
    """Measure; print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ants-bees.tar")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--precision", choices=PRECISIONS, default=INT8)
    arguments = parser.parse_args()
    sample, memory = load.Sample(), []
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = write_images(base_dir / "images", arguments.data, None)
        make_artifact(base_dir / "model", "resnet18", images)
        if arguments.precision == INT8:
            add_int8(base_dir / "model", images)
        requests = load.invocations([path.read_bytes() for path in images])
        with running(partial(ours, arguments.precision, PYTHON), base_dir) as server:
            parts = [WARM_UP_REQUESTS, *[arguments.requests // PARTS] * PARTS]
            for number, count in enumerate(parts):
                asyncio.run(ask(server.port, itertools.islice(requests, count), sample))
                memory.append(resident_bytes(server.process.pid) / 1e6)
                print(f"{number}/{PARTS}  {memory[-1]:.1f} MB  {sample.statuses}", flush=True)
    results = {
        "precision": arguments.precision,
        "statuses": dict(sample.statuses),
        "memory_mb": memory,
    }
    print_results(PACKAGES, results=results)
    return 0 if set(sample.statuses) == {200} else 1


if __name__ == "__main__":
    raise SystemExit(main())
