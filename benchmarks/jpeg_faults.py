"""Faulty JPEG files: what is shown by this project, by libjpeg-turbo's djpeg and by Chromium.

    python -m benchmarks.jpeg_faults --files 10000

Whole JPEG files are cut at the end, get a trailer, or have a marker damaged. An image is whole in a
program that shows the pixels of the sound file, within 2. Data are missing if djpeg warns of a
premature end of a scan, of the file as it is or with an end marker. It ends with 1 when both other
programs show a whole image and this project rejects it or shows other pixels, or when data are
missing and it is accepted. Needs `djpeg` (Debian: libjpeg-turbo-progs) and Chromium.
"""

import argparse
import base64
import io
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.conditions import print_results
from container.classifier.errors import ImageError
from container.classifier.preprocessing import Pixels, decode_image
from tests.chromium import Browser, browsing

WIDTH, HEIGHT = 80, 60
TOLERANCE = 2
BATCH = 100

END = b"\xff\xd9"
MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
MISSING = "premature end of data segment"

SCRIPT = """
(async () => {
  const shown = [];
  for (const text of %s) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const image = new Image();
    const done = new Promise((resolve) => { image.onload = image.onerror = resolve; });
    image.src = URL.createObjectURL(new Blob([bytes], {type: 'image/jpeg'}));
    await done;
    const width = image.naturalWidth, height = image.naturalHeight;
    if (!width) { shown.push(null); continue; }
    const context = new OffscreenCanvas(width, height).getContext('2d');
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data;
    shown.push([width, height, btoa(String.fromCharCode(...pixels))]);
    URL.revokeObjectURL(image.src);
  }
  return shown;
})()
"""


@dataclass(frozen=True, slots=True)
class Sound:
    """A whole file, and its pixels in each program."""

    data: bytes
    ours: Pixels
    djpeg: Pixels
    chromium: Pixels


def sound_files() -> Sequence[bytes]:
    """Return baseline and progressive files, gray and in color, with and without restarts."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 6, WIDTH // 6, 3), np.uint8)
    image = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    kinds: Sequence[dict[str, object]] = [
        {},
        {"subsampling": 0, "quality": 92},
        {"restart_marker_rows": 1},
        {"optimize": True},
        {"progressive": True},
        {"progressive": True, "subsampling": 0},
        {"comment": b"x" * 300, "dpi": (72, 72)},
    ]
    return [_saved(image, **kind) for kind in kinds] + [_saved(image.convert("L"))]


def mutated(data: bytes, random: Random) -> tuple[str, bytes]:
    """Return the kind of a fault and the file with it."""
    kind = random.choice(("end cut", "end marker missing", "trailer", "marker damaged"))
    if kind == "end cut":
        cut = data[: -random.choice((3, 4, 8, 20, random.randrange(3, len(data) // 2)))]
        return kind, cut + random.choice((b"", END))
    trailer = random.choice(
        (b"", bytes(50), random.randbytes(random.randint(1, 500)), data, b"\0SEFT" + data[:300])
    )
    if kind == "end marker missing":
        return kind, data[:-2] + trailer
    if kind == "trailer":
        return kind, data + trailer
    changed = bytearray(data)
    places = [match.start() for match in MARKER.finditer(data, 2)]
    changed[random.choice(places) + random.randrange(2)] = random.randrange(256)
    return kind, bytes(changed)


def by_djpeg(data: bytes) -> tuple[Pixels | None, str]:
    """Return djpeg's pixels and its warnings."""
    found = subprocess.run(["djpeg", "-ppm"], input=data, capture_output=True, check=False)  # noqa: S607
    warnings = found.stderr.decode()
    try:
        with Image.open(io.BytesIO(found.stdout), formats=["PPM"]) as image:
            return np.asarray(image.convert("RGB")), warnings
    except OSError:
        return None, warnings


def by_chromium(browser: Browser, files: Sequence[bytes]) -> list[Pixels | None]:
    """Return Chromium's pixels of files."""
    texts = json.dumps([base64.b64encode(file).decode() for file in files])
    found = browser.command(
        "Runtime.evaluate", expression=SCRIPT % texts, awaitPromise=True, returnByValue=True
    )
    shown: list[Pixels | None] = []
    for answer in found["result"]["value"]:
        if answer is None:
            shown.append(None)
            continue
        width, height, text = answer
        pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
        shown.append(pixels[..., :3])
    return shown


def by_us(data: bytes) -> Pixels | None:
    """Return this project's pixels."""
    try:
        return np.asarray(decode_image(data))
    except ImageError:
        return None


def is_same(first: Pixels | None, second: Pixels | None) -> bool:
    """Return whether pixels are equal within TOLERANCE."""
    if first is None or second is None or first.shape != second.shape:
        return False
    return int(np.abs(first.astype(int) - second).max()) <= TOLERANCE


def compare(sound: Sound, data: bytes, chromium: Pixels | None) -> tuple[str, bool]:
    """Return what the programs show of a file, and whether ours is right."""
    (djpeg, warnings), (_, more) = by_djpeg(data), by_djpeg(data + END)
    ours = by_us(data)
    answer = "rejected" if ours is None else "accepted"
    if MISSING in warnings + more:
        return f"data missing, {answer}", ours is None
    if is_same(djpeg, sound.djpeg) and is_same(chromium, sound.chromium):
        return f"whole in both, {answer}", is_same(ours, sound.ours)
    shown = "whole in one" if is_same(djpeg, sound.djpeg) else "otherwise damaged"
    return f"{shown}, {answer}", True


def main() -> int:
    """Compare, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = Random(arguments.seed)  # noqa: S311  nothing secret
    counts: Counter[str] = Counter()
    wrong: list[bytes] = []
    with tempfile.TemporaryDirectory() as scratch, browsing(Path(scratch)) as browser:
        files = sound_files()
        sound = []
        for data, chromium in zip(files, by_chromium(browser, files), strict=True):
            (djpeg, _), ours = by_djpeg(data), by_us(data)
            if ours is None or djpeg is None or chromium is None or not is_same(ours, djpeg):
                raise SystemExit("the programs differ for a sound file")
            sound.append(Sound(data, ours, djpeg, chromium))
        with ThreadPoolExecutor(4) as pool:
            for _ in range(0, arguments.files, BATCH):
                chosen = [random.choice(sound) for _ in range(BATCH)]
                faults = [mutated(one.data, random) for one in chosen]
                bodies = [data for _, data in faults]
                compared = pool.map(compare, chosen, bodies, by_chromium(browser, bodies))
                for (kind, data), (shown, is_right) in zip(faults, compared, strict=True):
                    counts[f"{kind}: {shown}{'' if is_right else ', WRONG'}"] += 1
                    if not is_right:
                        wrong.append(data)
    for number, data in enumerate(wrong[:5]):
        Path(f"wrong-{number}.jpg").write_bytes(data)
    for name, count in sorted(counts.items()):
        print(f"{count:6}  {name}")
    results = {"files": counts.total(), "wrong": len(wrong), "counts": dict(sorted(counts.items()))}
    print_results(("pillow", "simplejpeg"), results=results)
    return int(bool(wrong))


def _saved(image: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **settings)
    return file.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
