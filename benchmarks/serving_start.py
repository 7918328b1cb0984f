"""Measure the seconds from the start of the server to its first 200 on /ping, with ResNet-18.

    python -m benchmarks.serving_start               as a process
    python -m benchmarks.serving_start IMAGE         as a container of that container image

The artifact has random weights, ten classes, an image size of 224 and eight golden images. The
first start fills the page cache and is not counted. As a process, every other start has the
precision set that the server has chosen: the difference is what its measurement takes.
"""

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.conditions import conditions
from benchmarks.rivals.commands import Command, ours
from benchmarks.serving import LOG, PYTHON, Contender, running
from benchmarks.serving_artifact import add_int8, make_artifact


def main() -> None:
    """Start the server several times; print a line and a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "image", nargs="?", help="a serving container image; default: a plain process"
    )
    parser.add_argument("--rounds", type=int, default=5, help="starts that count (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        images = _write_noise(base_dir / "images")
        make_artifact(base_dir / "model", "resnet18", images)
        add_int8(base_dir / "model", images)
        contenders: dict[str, Contender] = {}
        if arguments.image:
            contenders[arguments.image] = partial(_container, arguments.image)
        else:
            contenders["process"] = default = partial(ours, "", PYTHON)
            with running(default, base_dir):
                log = (base_dir / LOG).read_text(encoding="utf-8")
            chosen = re.findall(r"precision=(\w+)", log)[-1]
            contenders[f"process, precision {chosen} set"] = partial(ours, chosen, PYTHON)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.rounds + 1):
            for name, contender in contenders.items():
                with running(contender, base_dir) as server:
                    seconds[name].append(server.start_seconds)
    for name, (_, *taken) in seconds.items():
        print(f"{name}: seconds to /ping 200: median {statistics.median(taken):.2f}", end=" ")
        print(f"({min(taken):.2f} to {max(taken):.2f}, n={len(taken)})")
    facts = conditions(["openvino", "gunicorn", "flask"])
    if arguments.image:
        command = ["docker", "image", "inspect", "-f", "{{.Size}}", arguments.image]
        facts["image_bytes"] = subprocess.check_output(command, text=True).strip()
    print(json.dumps({"seconds": seconds, "conditions": facts}))


def _container(image: str, base_dir: Path, port: int) -> Command:
    # In the foreground, where docker forwards SIGTERM to the container.
    volume, address = f"{base_dir / 'model'}:/opt/ml/model:ro", f"{port}:8080"
    return Command(
        ["docker", "run", "--rm", "-v", volume, "-p", address, image, "serve"], {}, base_dir
    )


def _write_noise(folder: Path) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        pixels = random.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return sorted(folder.iterdir())


if __name__ == "__main__":
    main()
