"""Measure images a second without HTTP, in a plain loop on all cores.

    python -m benchmarks.serving_limit ARTIFACT PRECISION IMAGES SECONDS

IMAGES is a folder. `benchmarks.serving` runs this program. It prints two numbers: images that are
decoded, resized and predicted (the server's limit), and only predicted (the engine's limit).
"""

import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from container.classifier.machine import usable_cpus
from container.classifier.preprocessing import preprocess
from container.serving.model.predictor import Predictor


def main() -> None:
    """Predict on all cores and print images a second."""
    artifact, precision, folder, duration = sys.argv[1:]
    streams = math.ceil(usable_cpus())
    predictor = Predictor.load(Path(artifact), streams=streams, precision=precision)
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    images = [preprocess(data, predictor.preprocessing) for data in files]

    def decode_and_predict(number: int) -> None:
        image = preprocess(files[number % len(files)], predictor.preprocessing)
        predictor.predict(image, is_idle=False)

    def predict(number: int) -> None:
        predictor.predict(images[number % len(images)], is_idle=False)

    # As many threads as the server has: one image more waits in the engine, one more is decoded.
    print(_per_second(decode_and_predict, streams + 2, float(duration)))
    print(_per_second(predict, streams + 1, float(duration)))


def _per_second(work: Callable[[int], None], threads: int, seconds: float) -> float:
    start = time.perf_counter()

    def repeat(first: int) -> int:
        number = first
        while time.perf_counter() < start + seconds:
            work(number)
            number += threads
        return (number - first) // threads

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(repeat, range(threads)))
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
