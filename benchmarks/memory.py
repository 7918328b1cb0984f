"""Peak memory of a training on some images and on ten times as many, by the real program.

    python -m benchmarks.memory

The images are noisy JPEGs of two classes, drawn on the spot. Anonymous memory (RssAnon in
/proc/PID/status) is what the program needs. Mapped memory (RssFile) is its code and those pages
of the decoded images' file that were read: Linux takes them back when memory gets scarce.
"""

import argparse
import io
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.conditions import print_results
from benchmarks.job import environment, write_configuration

SAMPLE_SECONDS = 0.02

# Much to hold and little to compute: 49 KB and 0.014 GFLOPs an image.
HYPERPARAMETERS = {
    "network": "shufflenet_v2_x0_5",
    "pretrained": "false",
    "image_size": "128",
    "epochs": "1",
}

# Two full batches of the evaluation, at either size.
VALIDATION_IMAGES = 512


def main() -> None:
    """Train at both sizes, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=500, help="fewer images (default 500)")
    arguments = parser.parse_args()
    results = []
    for count in (arguments.images, 10 * arguments.images):
        with tempfile.TemporaryDirectory() as scratch:
            base_dir = Path(scratch)
            _make_job(base_dir, count)
            peaks = _train(base_dir)
            size = sum(path.stat().st_size for path in (base_dir / "cache").iterdir())
        result = {"images": count, "cache_mb": size / 1e6, **peaks}
        results.append(result)
        print("  ".join(f"{name} {value:.0f}" for name, value in result.items()), flush=True)
    print_results(["torch", "numpy", "pillow"], results=results)


def _make_job(base_dir: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(-VALIDATION_IMAGES, count):
        channel = "validation" if number < 0 else "training"
        class_name = ("dark", "light")[number % 2]
        directory = base_dir / "input" / "data" / channel / class_name
        directory.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(64 * (number % 2), 192 + 64 * (number % 2), (96, 128, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
        (directory / f"{number}.jpg").write_bytes(file.getvalue())
    write_configuration(base_dir, HYPERPARAMETERS)


def _train(base_dir: Path) -> dict[str, float]:
    """Run the program; return its peaks and how long it took."""
    peaks = {"anonymous_mb": 0.0, "mapped_mb": 0.0}
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "container.training", "train"],
        # On GPUs as well: the memory of one process is measured.
        env=environment(base_dir, SAGEMAKER_CLASSIFIER_PROCESSES="1"),
        stdout=sys.stderr,
    ) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            text = status.read_text(encoding="utf-8")
            for name, field in (("anonymous_mb", "RssAnon"), ("mapped_mb", "RssFile")):
                # An ended process has none.
                if match := re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE):
                    peaks[name] = max(peaks[name], int(match[1]) * 1024 / 1e6)
            time.sleep(SAMPLE_SECONDS)
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    return {**peaks, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    main()
