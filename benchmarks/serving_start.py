"""Seconds from the start of the server to its first 200 on /ping, with ResNet-18.

    python -m benchmarks.serving_start               as a process
    python -m benchmarks.serving_start IMAGE         as a container of that image

The artifact is made on the spot: ResNet-18 at 224 pixels for ten classes, with random weights and
eight golden images. The first start, which fills the page cache, is not counted.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.conditions import conditions
from container.classifier.manifest import Manifest
from container.classifier.preprocessing import Preprocessing
from container.networks.network import Classifier, build
from container.training.output.export import write_artifact

TIMEOUT_SECONDS = 120


def main() -> None:
    """Start the server several times, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "image", nargs="?", help="a serving container image; default: a plain process"
    )
    parser.add_argument("--rounds", type=int, default=5, help="starts that count (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        _make_artifact(base_dir)
        seconds = [_start(arguments.image, base_dir) for _ in range(arguments.rounds + 1)][1:]
    print(f"seconds to /ping 200: median {statistics.median(seconds):.2f}", end=" ")
    print(f"({min(seconds):.2f} to {max(seconds):.2f}, n={len(seconds)})")
    facts = conditions(["openvino", "gunicorn", "flask"])
    if arguments.image:
        facts["image_bytes"] = _output(
            "docker", "image", "inspect", "-f", "{{.Size}}", arguments.image
        )
    print(json.dumps({"seconds": seconds, "image": arguments.image, "conditions": facts}))


def _make_artifact(base_dir: Path) -> None:
    torch.manual_seed(0)
    images = base_dir / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        pixels = random.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.jpg")
    manifest = Manifest(
        class_names=tuple("abcdefghij"),
        network="resnet18",
        preprocessing=Preprocessing(image_size=224),
    )
    classifier = Classifier(build("resnet18", len(manifest.class_names)).module)
    write_artifact(base_dir / "model", manifest, classifier, sorted(images.iterdir()))


def _start(image: str | None, base_dir: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = time.monotonic()
    if image:
        model = f"{base_dir / 'model'}:/opt/ml/model:ro"
        command = ["docker", "run", "--rm", "--detach", "-v", model, "-p", f"{port}:8080", image]
        container = _output(*command, "serve")
        seconds = _wait_for_ping(port, start)
        _output("docker", "stop", container)
        return seconds
    environment = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base_dir),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "container.serving", "serve"], env=environment
    ) as process:
        try:
            return _wait_for_ping(port, start)
        finally:
            process.send_signal(signal.SIGTERM)


def _wait_for_ping(port: int, start: float) -> float:
    while (seconds := time.monotonic() - start) < TIMEOUT_SECONDS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return time.monotonic() - start
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise SystemExit(f"the server was not ready after {seconds:.0f} s")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
