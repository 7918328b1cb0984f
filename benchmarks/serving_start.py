"""Measure the seconds from the start of the server to its first 200 on /ping, with ResNet-18.

    python -m benchmarks.serving_start               as a process
    python -m benchmarks.serving_start IMAGE         as a container of that container image

The artifact has random weights, ten classes, an image size of 224 and eight golden images. The
first start fills the page cache and is not counted.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.conditions import conditions
from benchmarks.rivals.commands import Command, ours
from benchmarks.serving import PYTHON, running
from benchmarks.serving_artifact import make_artifact


def main() -> None:
    """Start the server several times; print a line and a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "image", nargs="?", help="a serving container image; default: a plain process"
    )
    parser.add_argument("--rounds", type=int, default=5, help="starts that count (default 5)")
    arguments = parser.parse_args()
    contender = (
        partial(_container, arguments.image) if arguments.image else partial(ours, "", PYTHON)
    )
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        make_artifact(base_dir / "model", "resnet18", _write_noise(base_dir / "images"))
        for _ in range(arguments.rounds + 1):
            with running(contender, base_dir) as server:
                seconds.append(server.start_seconds)
    del seconds[0]
    print(f"seconds to /ping 200: median {statistics.median(seconds):.2f}", end=" ")
    print(f"({min(seconds):.2f} to {max(seconds):.2f}, n={len(seconds)})")
    facts = conditions(["openvino", "gunicorn", "flask"])
    if arguments.image:
        command = ["docker", "image", "inspect", "-f", "{{.Size}}", arguments.image]
        facts["image_bytes"] = subprocess.check_output(command, text=True).strip()
    print(json.dumps({"seconds": seconds, "image": arguments.image, "conditions": facts}))


def _container(image: str, base_dir: Path, port: int) -> Command:
    # In the foreground, where docker forwards SIGTERM to the container.
    volume, address = f"{base_dir / 'model'}:/opt/ml/model:ro", f"{port}:8080"
    return Command(["docker", "run", "--rm", "-v", volume, "-p", address, image, "serve"], {})


def _write_noise(folder: Path) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        pixels = random.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return sorted(folder.iterdir())


if __name__ == "__main__":
    main()
