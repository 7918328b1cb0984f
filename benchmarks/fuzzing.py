"""Mutated bodies against the real server: no 500, no crash, memory flat, no answer too late.

    python -m benchmarks.fuzzing --bodies 100000

Small images of every format that is served, arrays, JSON documents, lines, forms and packed bodies
are changed at random (bytes, numbers, pieces, ends; of PNG with checksums made right again, of JSON
in the image within as well) and sent by 8 clients without a pause. Memory is that of an idle
server, between ten parts. It ends with 1 when anything but 200, 400, 413, 415, 422 or 503 was
answered, a worker died, or a traceback was logged; the first bodies of that kind are kept in the
working folder.
"""

import argparse
import asyncio
import base64
import gzip
import io
import itertools
import json
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from backports import zstd
from PIL import Image

from benchmarks import load
from benchmarks.conditions import print_results
from benchmarks.rivals.commands import ours
from benchmarks.serving import LOG, PYTHON, running
from benchmarks.serving_artifact import make_artifact
from tests.processes import children, resident_bytes

CLIENTS, PARTS = 8, 10

# Pillow cannot write it.
HEIC = Path(__file__).parents[1] / "tests" / "drawn.heic"

# The document whose image is mutated within.
WITH_OBJECTS = b'{"instances": ["'

# SageMaker's own. Nothing comes near it.
DEADLINE_SECONDS = 60.0

FINE = frozenset({200, 400, 413, 415, 422, 503})

KEPT = 5

# What decoders' arithmetic goes wrong at.
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

MOST_MUTATIONS = 6

# Shares of the bodies: of JSON mutated in an image, of PNG with right checksums, without a type.
IN_IMAGE, WITH_CHECKSUMS, UNNAMED = 0.5, 0.8, 0.1

# Of a PNG: its signature, and a chunk's length, name and checksum.
SIGNATURE_BYTES, CHUNK_BYTES = 8, 12


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends."""

    content_type: str
    data: bytes

    def request(self) -> bytes:
        """Return it with its head."""
        head = (
            "POST /invocations HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.data)}\r\n\r\n"
        )
        return head.encode() + self.data


@dataclass(slots=True)
class Outcome:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    """0 counts connections that broke and answers that did not come in time."""

    slowest_seconds: float = 0.0

    wrong: list[Body] = field(default_factory=list)
    """The first bodies with an unexpected response."""


def seeds() -> Sequence[Body]:
    """Return sound bodies, the same each time up to the codecs."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [
        Body("image/jpeg", _saved(image, "JPEG", exif=exif)),
        Body("image/jpeg", _saved(image, "JPEG", progressive=True)),
        Body("image/jpeg", _saved(image.convert("CMYK"), "JPEG")),
        Body("image/png", _saved(image, "PNG", exif=exif)),
        Body("image/png", _saved(image.quantize(16), "PNG", transparency=0)),
        Body("image/png", _saved(image.convert("RGBA"), "PNG")),
        Body("image/png", _saved(image, "PNG", save_all=True, append_images=[image.rotate(90)])),
        Body("image/webp", _saved(image, "WEBP", exif=exif)),
        Body("image/webp", _saved(image.convert("RGBA"), "WEBP", lossless=True)),
        Body("image/webp", _saved(image, "WEBP", save_all=True, append_images=[image.rotate(90)])),
        Body("image/gif", _saved(image.quantize(16), "GIF", transparency=0)),
        Body("image/bmp", _saved(image, "BMP")),
        Body("image/tiff", _saved(image, "TIFF")),
        Body("image/tiff", _saved(image.convert("RGBA"), "TIFF", compression="tiff_lzw")),
        Body("image/tiff", _saved(image, "TIFF", compression="jpeg")),
        Body("image/avif", _saved(image, "AVIF", exif=exif)),
        Body("image/avif", _saved(image.convert("RGBA"), "AVIF")),
        *[Body("image/heif", HEIC.read_bytes())] * 2,
    ]
    array = io.BytesIO()
    np.save(array, np.asarray(image))
    texts = [base64.b64encode(seed.data).decode() for seed in seeds[::4]]
    document = {"instances": [texts[0], *({"b64": text} for text in texts[1:])]}
    arrays = [Body("application/x-npy", array.getvalue())] * 3
    documents = [Body("application/json", json.dumps(document).encode())] * 3
    lines = "".join(json.dumps(each) + "\n" for each in document["instances"]).encode()
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + data
        + b"\r\n"
        for data in (seeds[0].data, seeds[3].data)
    )
    packed = [
        Body("image/jpeg", gzip.compress(seeds[0].data)),
        Body("application/json", zstd.compress(documents[0].data)),
    ]
    return [
        *(*seeds, *arrays, *documents, *packed),
        Body("application/x-ndjson", lines),
        Body("multipart/form-data; boundary=x", form + b"--x--\r\n"),
        # As in TensorFlow Serving, with a data URL.
        Body(
            "application/json",
            b'{"instances": [{"image_bytes": {"b64": "%s"}}, "data:image/png;base64,%s"]}'
            % (texts[0].encode(), base64.b64encode(seeds[3].data)),
        ),
    ]


def mutants(seed: int) -> Iterator[Body]:
    """Yield mutated bodies without end, the same for the same number."""
    random = Random(seed)  # noqa: S311  nothing secret
    sound = seeds()
    while True:
        body = random.choice(sound)
        if body.data.startswith(WITH_OBJECTS) and random.random() < IN_IMAGE:
            yield Body(body.content_type, _with_mutated_image(body.data, random))
            continue
        data = _mutated(body.data, random.choice(sound).data, random)
        if body.content_type == "image/png" and random.random() < WITH_CHECKSUMS:
            data = _with_checksums(data)
        is_unnamed = random.random() < UNNAMED
        yield Body("application/octet-stream" if is_unnamed else body.content_type, data)


async def send(port: int, bodies: Iterator[Body], outcome: Outcome) -> None:
    """Send bodies, by several clients, and add to an outcome what comes back."""

    async def ask_on() -> None:
        connection = load.Connection(port)
        # One iterator for all clients.
        for body in bodies:
            sample, start = load.Sample(), time.perf_counter()
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await connection.ask(body.request(), sample)
            except TimeoutError:
                sample.statuses[0] += 1
                connection.close()
            outcome.slowest_seconds = max(outcome.slowest_seconds, time.perf_counter() - start)
            outcome.statuses += sample.statuses
            if not FINE.issuperset(sample.statuses) and len(outcome.wrong) < KEPT:
                outcome.wrong.append(body)
        connection.close()

    await asyncio.gather(*(ask_on() for _ in range(CLIENTS)))


def main() -> int:
    """Measure, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcome, memory = Outcome(), []
    bodies = mutants(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        base_dir = Path(scratch)
        image = base_dir / "image.jpg"
        image.write_bytes(seeds()[0].data)
        make_artifact(base_dir / "model", "small", [image])
        with running(partial(ours, "float32", PYTHON), base_dir) as server:
            workers = children(server.process.pid)
            start = time.monotonic()
            for part in range(1, PARTS + 1):
                share = itertools.islice(bodies, arguments.bodies // PARTS)
                asyncio.run(send(server.port, share, outcome))
                memory.append(resident_bytes(server.process.pid) / 1e6)
                print(f"{part}/{PARTS}  {memory[-1]:.0f} MB  {outcome.statuses}", flush=True)
            seconds = time.monotonic() - start
            is_alive = children(server.process.pid) == workers
        has_traceback = "Traceback" in (base_dir / LOG).read_text(encoding="utf-8")
    for number, body in enumerate(outcome.wrong):
        Path(f"body-{number}").write_bytes(body.request())
    results = {
        "bodies": outcome.statuses.total(),
        "seconds": seconds,
        "statuses": dict(sorted(outcome.statuses.items())),
        "slowest_seconds": outcome.slowest_seconds,
        "memory_mb": memory,
        "same workers": is_alive,
        "traceback": has_traceback,
    }
    packages = ("pillow", "numpy", "openvino", "flask", "gunicorn")
    print_results(packages, results=results)
    return int(not FINE.issuperset(outcome.statuses) or not is_alive or has_traceback)


def _saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def _mutated(data: bytes, other: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, MOST_MUTATIONS)):
        random.choice(MUTATIONS)(changed, other, random)
    return bytes(changed)


def _change_byte(data: bytearray, _other: bytes, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _change_head(data: bytearray, _other: bytes, random: Random) -> None:
    """Change a byte where formats say what they are."""
    if data:
        data[random.randrange(min(len(data), 128))] = random.randrange(256)


def _write_number(data: bytearray, _other: bytes, random: Random) -> None:
    place = random.randrange(len(data) + 1)
    number = struct.pack(random.choice("<>") + "I", random.choice(NUMBERS))
    size = random.choice((1, 2, 4))
    piece = number[:size] if number[0] else number[-size:]
    data[place : place + size] = piece


def _cut(data: bytearray, _other: bytes, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _drop(data: bytearray, _other: bytes, random: Random) -> None:
    place = random.randrange(len(data) + 1)
    del data[place : place + random.randint(1, 16)]


def _insert(data: bytearray, _other: bytes, random: Random) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = random.randbytes(random.randint(1, 16))


def _repeat(data: bytearray, _other: bytes, random: Random) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = data[place : place + random.randint(1, 64)] * random.randint(1, 8)


def _splice(data: bytearray, other: bytes, random: Random) -> None:
    """Continue with another body from a random position."""
    place = random.randrange(min(len(data), len(other)) + 1)
    data[place:] = other[place:]


MUTATIONS: Sequence[Callable[[bytearray, bytes, Random], None]] = (
    *(_change_byte, _change_byte, _change_head, _change_head, _write_number, _write_number),
    *(_cut, _drop, _insert, _repeat, _splice),
)


def _with_checksums(png: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right, or no decoder would look into these."""
    data, place = bytearray(png), SIGNATURE_BYTES
    while place + CHUNK_BYTES <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + CHUNK_BYTES + length
        if end > len(data):
            break
        struct.pack_into(">I", data, end - 4, zlib.crc32(data[place + 4 : end - 4]))
        place = end
    return bytes(data)


def _with_mutated_image(document: bytes, random: Random) -> bytes:
    parsed = json.loads(document)
    number = random.randrange(1, len(parsed["instances"]))
    data = base64.b64decode(parsed["instances"][number]["b64"])
    changed = _mutated(data, data[::-1], random)
    parsed["instances"][number]["b64"] = base64.b64encode(changed).decode()
    return json.dumps(parsed).encode()


if __name__ == "__main__":
    raise SystemExit(main())
