"""Our server against what people write, side by side, and against its own limit without HTTP.

    PYTHONPATH=container:. python -m benchmarks.serving --data FOLDER --rounds 5
    PYTHONPATH=container:. python -m benchmarks.serving --data FOLDER --overload 60

FOLDER holds dogs.tar, whose photographs (shorter side 320 pixels, or `--side`) are the bodies. All
contenders take turns in every round: each is started, asked by 1, 8 and 32 clients that ask again
once they are answered, and stopped. The network has random weights of ResNet-18 (or `--network`),
normalisation statistics of the photographs and ten classes; speed does not depend on weights.

`--overload SECONDS` tells instead how ours does under more than it can serve: 256 clients without a
pause, an open loop at three times the peak, and one at 70 % of it.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks import load
from benchmarks.conditions import ROOT, conditions
from benchmarks.processes import free_port, resident_bytes, wait_for_ping
from benchmarks.serving_artifact import make_artifact, write_pictures

CLIENTS = (1, 8, 32)
PACKAGES = ("flask", "gunicorn", "openvino", "torch", "torchvision", "pillow", "numpy")
NAIVE = "flask + gunicorn sync + torch"

Row: TypeAlias = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server under measurement."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float


@contextmanager
def running(name: str, base_dir: Path) -> Iterator[Running]:
    """Start a contender, wait for its /ping, end it."""
    port = free_port()
    variables = {"PYTHONPATH": f"{ROOT / 'container'}:{ROOT}"}
    if name == NAIVE:
        arguments = ["gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
        arguments += ["benchmarks.naive_server:app"]
        variables["ARTIFACT"] = str(base_dir / "model")
    else:
        arguments = ["serving", "serve"]
        variables["SAGEMAKER_BASE_DIR"] = str(base_dir)
        variables["SAGEMAKER_BIND_TO_PORT"] = str(port)
        variables["SAGEMAKER_CLASSIFIER_PRECISION"] = name
    start = time.monotonic()
    with (
        (base_dir / f"{name}.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=os.environ | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_for_ping(process, port)
            yield Running(process=process, port=port, start_seconds=time.monotonic() - start)
        finally:
            process.terminate()


def measure(name: str, base_dir: Path, bodies: Sequence[bytes], seconds: float) -> Row:
    """Ask one contender, more and more."""
    with running(name, base_dir) as server:
        row = {"start": server.start_seconds, "idle_mb": resident_bytes(server.process.pid) / 1e6}
        requests = load.invocations(bodies)
        asyncio.run(load.closed_loop(server.port, requests, clients=4, seconds=1))
        for clients in CLIENTS:
            loop = load.closed_loop(server.port, requests, clients=clients, seconds=seconds)
            summary = asyncio.run(loop).summary()
            row |= {f"{clients} {key}": value for key, value in summary.items()}
        row["loaded_mb"] = resident_bytes(server.process.pid) / 1e6
    return row


def limit(precision: str, base_dir: Path, seconds: float) -> float:
    """Return pictures a second without HTTP."""
    program = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.serving_limit", base_dir / "model", precision),
            *(base_dir / "pictures", str(seconds)),
        ],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'container'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(program.stdout.splitlines()[-1])


def compare(
    precisions: Sequence[str],
    base_dir: Path,
    bodies: Sequence[bytes],
    rounds: int,
    seconds: float,
) -> dict[str, list[Row]]:
    """Return every contender's rows, one a round."""
    rows: dict[str, list[Row]] = {name: [] for name in (NAIVE, *precisions)}
    for _ in range(rounds):
        for name, measured in rows.items():
            row = measure(name, base_dir, bodies, seconds)
            if name != NAIVE:
                row["limit"] = limit(name, base_dir, seconds)
                row["8 share of limit"] = row["8 per_second"] / row["limit"]
                for clients in CLIENTS:
                    peer = rows[NAIVE][-1][f"{clients} per_second"]
                    row[f"{clients} ratio"] = row[f"{clients} per_second"] / peer
            measured.append(row)
            print(name, "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


async def flood(server: Running, requests: Iterator[bytes], seconds: float) -> Mapping[str, Row]:
    """Ask for the peak, then for more than that, and for less."""
    results = {}
    peak = (await load.closed_loop(server.port, requests, clients=8, seconds=10)).summary()
    results["peak, 8 clients"] = peak
    alone = (await load.closed_loop(server.port, requests, clients=1, seconds=5)).summary()
    results["1 client"] = alone
    rate = peak["per_second"]
    for name, loop in (
        ("256 clients", load.closed_loop(server.port, requests, clients=256, seconds=seconds)),
        ("3 x peak", load.open_loop(server.port, requests, rate=3 * rate, seconds=seconds)),
        ("70 % of peak", load.open_loop(server.port, requests, rate=0.7 * rate, seconds=seconds)),
    ):
        stop = asyncio.Event()
        pinging = asyncio.create_task(load.pings(server.port, stop))
        sample = await loop
        after = load.Sample()
        await load.Connection(server.port).ask(next(requests), after)
        stop.set()
        results[name] = sample.summary() | {
            "of peak": len(sample.latencies) / sample.seconds / rate,
            "slowest ping": max(await pinging),
            "next after": after.latencies[0] / 1000 if after.latencies else float("inf"),
            "p99 of p50 alone": sample.summary()["p99"] / alone["p50"],
        }
    return results


def main() -> None:
    """Measure, print tables and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with dogs.tar")
    parser.add_argument("--network", default="resnet18", help="torchvision's name")
    parser.add_argument("--side", type=int, help="shorter side of the photographs, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each number of clients")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--overload", type=float, help="seconds of each kind of overload")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        pictures = write_pictures(base_dir / "pictures", arguments.data, arguments.side)
        make_artifact(base_dir / "model", arguments.network, pictures)
        bodies = [path.read_bytes() for path in pictures]
        if arguments.overload:
            results: dict[str, object] = {}
            for name in arguments.precisions:
                with running(name, base_dir) as server:
                    loops = flood(server, load.invocations(bodies), arguments.overload)
                    results[name] = found = asyncio.run(loops)
                for kind, row in found.items():
                    print(name, kind, "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
        else:
            rows = compare(
                arguments.precisions, base_dir, bodies, arguments.rounds, arguments.seconds
            )
            results = {name: _medians(measured) for name, measured in rows.items()}
    print(json.dumps({"results": results, "conditions": conditions(PACKAGES)}))


def _medians(rows: Sequence[Row]) -> Row:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    main()
