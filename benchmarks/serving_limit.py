"""Pictures a second without HTTP: decode, resize and infer in a plain loop on all cores.

    python -m benchmarks.serving_limit ARTIFACT PRECISION PICTURES SECONDS

PICTURES is a folder. `benchmarks.serving` calls it; its output is the number.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from classifier.preprocessing import preprocess
from serving.limits import usable_processors
from serving.predictor import Predictor


def main() -> None:
    """Predict on all cores, print pictures a second."""
    artifact, precision, folder, duration = sys.argv[1:]
    streams = usable_processors()
    predictor = Predictor.load(Path(artifact), streams=streams, precision=precision)
    pictures = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    seconds = float(duration)
    start = time.perf_counter()

    def work(first: int) -> int:
        number = first
        while time.perf_counter() < start + seconds:
            data = pictures[number % len(pictures)]
            predictor.predict(preprocess(data, predictor.preprocessing), alone=False)
            number += streams
        return (number - first) // streams

    with ThreadPoolExecutor(streams) as threads:
        done = sum(threads.map(work, range(streams)))
    print(done / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
