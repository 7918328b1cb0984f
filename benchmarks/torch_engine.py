"""PyTorch's engine alone, behind decoding, and as a server with 64 clients, in one run.

    python -m benchmarks.torch_engine --data FOLDER

FOLDER holds ants-bees.tar, whose photographs (shorter side 320 pixels, or `--side`) are the bodies.
The network has random weights of ResNet-50 (or `--network`) and ten classes; speed does not depend
on weights. It computes on the GPU where there is one, else on the processor, which shows that the
command works and nothing more. In each round:

- engine: full batches, one behind the other, nothing decoded;
- decoding: photographs on all processors, nothing predicted;
- server: the whole of it, over HTTP, the clients on the same processors.

Where the server comes close to neither of the first two, HTTP and Python are what limits it.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from benchmarks import load
from benchmarks.conditions import conditions
from benchmarks.rivals.commands import ours
from benchmarks.serving import PYTHON, running
from benchmarks.serving_artifact import SETTINGS, make_artifact, write_images
from container.classifier.artifact import Artifact
from container.classifier.machine import usable_cpus
from container.classifier.preprocessing import preprocess
from container.serving.model import torch_engine
from container.serving.settings import ENGINE, TORCH

PACKAGES = ("flask", "gunicorn", "torch", "torchvision", "pillow", "numpy")


def rate(work: Sequence[Callable[[], int]], seconds: float) -> float:
    """Have a thread for each of `work` repeat it; return images a second."""
    start = time.perf_counter()

    def repeat(work_once: Callable[[], int]) -> int:
        done = 0
        while time.perf_counter() < start + seconds:
            done += work_once()
        return done

    with ThreadPoolExecutor(len(work)) as threads:
        done = sum(threads.map(repeat, work))
    return done / (time.perf_counter() - start)


def engine_rate(
    directory: Path, bodies: Sequence[bytes], precision: str, size: int, seconds: float
) -> float:
    """Return images a second of full batches on every lane."""
    artifact = Artifact.read(directory)
    variant = next(
        each for each in torch_engine.variants(artifact, precision) if each.precision == precision
    )
    network = torch_engine.Network(
        torch_engine.load_network(artifact.manifest, variant.network),
        image_size=SETTINGS.image_size,
        precision=precision,
        max_batch_size=size,
    )
    classes = len(artifact.manifest.class_names)
    images = [preprocess(body, SETTINGS) for body in bodies]
    batch = [images[number % len(images)] for number in range(size)]
    lanes = [
        torch_engine.Lane(network, classes) for _ in range(torch_engine.LANES[network.device.type])
    ]

    def work(lane: torch_engine.Lane) -> Callable[[], int]:
        return lambda: len(lane.infer(batch))

    rate([work(lane) for lane in lanes], 0.5)
    return rate([work(lane) for lane in lanes], seconds)


def decoding_rate(bodies: Sequence[bytes], seconds: float) -> float:
    """Return photographs a second that all processors decode and fit."""

    def work() -> int:
        return len([preprocess(body, SETTINGS) for body in bodies[:8]])

    return rate([work] * math.ceil(usable_cpus()), seconds)


def server_row(
    base_dir: Path, bodies: Sequence[bytes], precision: str, clients: int, seconds: float
) -> dict[str, float]:
    """Ask the server by so many clients without a pause."""
    requests = load.invocations(bodies)
    with running(partial(ours, precision, PYTHON), base_dir) as server:
        asyncio.run(load.closed_loop(server.port, requests, clients=clients, seconds=1))
        loop = load.closed_loop(server.port, requests, clients=clients, seconds=seconds)
        return asyncio.run(loop).summary() | {"start": server.start_seconds}


def main() -> None:
    """Measure, print a line a round and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with ants-bees.tar")
    parser.add_argument("--network", default="resnet50", help="torchvision's name")
    parser.add_argument("--side", type=int, help="shorter side of the photographs, in pixels")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--max-batch-size", type=int, default=32)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    arguments = parser.parse_args()
    os.environ[ENGINE] = TORCH
    os.environ["SAGEMAKER_CLASSIFIER_MAX_BATCH_SIZE"] = str(arguments.max_batch_size)
    precision, seconds = arguments.precision, arguments.seconds
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = write_images(base_dir / "images", arguments.data, arguments.side)
        make_artifact(base_dir / "model", arguments.network, images)
        bodies = [path.read_bytes() for path in images]
        for _ in range(arguments.rounds):
            size = arguments.max_batch_size
            row = {
                "engine": engine_rate(base_dir / "model", bodies, precision, size, seconds),
                "decoding": decoding_rate(bodies, seconds),
                **server_row(base_dir, bodies, precision, arguments.clients, seconds),
            }
            row["share of engine"] = row["per_second"] / row["engine"]
            row["share of decoding"] = row["per_second"] / row["decoding"]
            rows.append(row)
            print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(json.dumps({"results": medians, "conditions": {"gpu": device, **conditions(PACKAGES)}}))


if __name__ == "__main__":
    main()
