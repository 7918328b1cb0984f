"""Measure how well and how fast copies and wrong labels are found among images.

    python -m benchmarks.preparation --data FOLDER

Recall: copies of hurricane.tar's training images, exact, re-encoded and resized, are planted in
its validation split. Speed: the audit of its 10,000 training images, decoding included. Size:
random hashes and thumbnails, a tenth of them near copies of others.
"""

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.conditions import print_results
from benchmarks.job import unpacked
from benchmarks.rivals.budget import processor_seconds
from image_classifier.preparation.audit import audit, find_copies
from image_classifier.preparation.features import EDGES_SHAPE
from image_classifier.preparation.findings import Finding
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.pipeline import Reading, audit_source
from image_classifier.preparation.scan import Measured, Scan

EACH = 200
SYNTHETIC = (25_000, 50_000, 100_000)


def main() -> None:
    """Measure; print the results and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of hurricane.tar")
    parser.add_argument("--synthetic", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.synthetic:
        print(json.dumps(_synthetic(arguments.synthetic)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = unpacked(arguments.data, "hurricane", Path(scratch)) / "hurricane"
        results = {"speed": _speed(folder), "recall": _recall(folder)}
    sizes = []
    for count in SYNTHETIC:
        # In separate processes, because the peak memory is measured per process.
        command = [sys.executable, "-m", "benchmarks.preparation", "--synthetic", str(count)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        sizes.append(json.loads(output))
        print(sizes[-1], flush=True)
    print_results(["numpy", "pillow"], **results, synthetic=sizes)


def _speed(folder: Path) -> dict[str, float]:
    """Audit 10,000 images."""
    start, busy = time.monotonic(), processor_seconds()
    found = audit_source(folder / "train_another", Reading(), quiet=True)
    seconds, busy = time.monotonic() - start, processor_seconds() - busy
    result = {"images": len(found.images), "seconds": seconds, "processor_seconds": busy}
    print(result, flush=True)
    return result


def _recall(folder: Path) -> dict[str, dict[str, int]]:
    """Plant copies, and count those that the audit finds."""
    before = audit_source(folder, Reading(), quiet=True)
    known = {name for finding in before.findings for name in (finding.path, *finding.others)}
    random = np.random.default_rng(0)
    paths = sorted((folder / "train_another").rglob("*.jpeg"))
    kinds = ("exact", "JPEG 70", "JPEG 40", "WebP 60", "half", "three quarters", "double")
    planted: dict[str, list[tuple[str, str]]] = {kind: [] for kind in kinds}
    for number, index in enumerate(random.permutation(len(paths))[: EACH * len(kinds)]):
        kind, path = kinds[number % len(kinds)], paths[index]
        copy = folder / "validation_another" / path.parent.name / f"planted{number}"
        planted[kind].append((_copy(kind, path, copy), path.relative_to(folder).as_posix()))
    found = audit_source(folder, Reading(), quiet=True)
    result = {}
    for kind, copies in planted.items():
        prefix = "exact" if kind == "exact" else "near"
        named = _together(found.findings, f"{prefix}-copy-across-splits")
        correct = sum(
            any({f"validation_another/{copy}", original} <= names for names in named)
            for copy, original in copies
        )
        result[kind] = {"planted": len(copies), "found": correct}
        print(kind, result[kind], flush=True)
    exact = _together(found.findings, "exact-copy")
    contents = [{(folder / name).read_bytes() for name in names} for names in exact]
    false = sum(len(of_one) > 1 for of_one in contents)
    names = {name for copies in planted.values() for pair in copies for name in pair}
    new = [
        finding
        for finding in found.findings
        if "copy" in finding.kind
        and not {Path(name).name for name in (finding.path or "", *finding.others)}
        & ({Path(name).name for name in names} | {Path(name or "").name for name in known})
    ]
    result["false"] = {"exact": false, "near": len(new)}
    print(result["false"], flush=True)
    return result


def _together(findings: list[Finding], kind: str) -> list[set[str]]:
    """Return the images of each finding whose kind starts with `kind`."""
    return [{item.path or "", *item.others} for item in findings if item.kind.startswith(kind)]


def _copy(kind: str, path: Path, target: Path) -> str:
    """Write a copy of an image; return its path in the split."""
    if kind == "exact":
        target = target.with_suffix(".jpeg")
        shutil.copyfile(path, target)
        return f"{target.parent.name}/{target.name}"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = {"half": 0.5, "three quarters": 0.75, "double": 2.0}.get(kind, 1.0)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS)
    form = "WEBP" if kind.startswith("WebP") else "JPEG"
    quality = int(kind.rsplit(maxsplit=1)[-1]) if kind[-1].isdecimal() else 85
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    target = target.with_suffix(".webp" if form == "WEBP" else ".jpeg")
    target.write_bytes(file.getvalue())
    return f"{target.parent.name}/{target.name}"


def _synthetic(count: int) -> dict[str, float]:
    """Audit random hashes and thumbnails without image files."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, count, dtype=np.uint64)
    coarse = random.integers(0, 256, (count, 4, 4, 3), np.uint8)
    thumbnails = coarse.repeat(4, axis=1).repeat(4, axis=2)
    near = np.arange(0, count - 1, 10)
    hashes[near + 1] = hashes[near] ^ np.uint64(0b1000001)
    thumbnails[near + 1] = np.clip(thumbnails[near].astype(np.int16) + 1, 0, 255)
    measured = [
        Measured(3000, f"{number:064x}", "JPEG", "RGB", 128, 128) for number in range(count)
    ]
    images = [
        Labeled(
            f"train/{number % 10}/{number}.jpeg",
            str(number % 10),
            f"{number}.jpeg",
            "validation" if number % 5 == 1 else "train",
        )
        for number in range(count)
    ]
    edges = random.random((count, *EDGES_SHAPE), np.float32).astype(np.float16)
    scan = Scan(measured, hashes, thumbnails, edges, {})
    start = time.monotonic()
    copies = find_copies(scan)
    searched = time.monotonic() - start
    found = audit(images, scan, copies)
    return {
        "images": count,
        "search_seconds": searched,
        "audit_seconds": time.monotonic() - start,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "near_planted": len(near),
        # A pair can have two findings, for its splits and for its labels.
        "near_found": len(
            {finding.path for finding in found.findings if finding.kind.startswith("near-copy")}
        ),
    }


if __name__ == "__main__":
    main()
