"""Unusual and hostile images, each with the expected response.

`docs/reference/images.md` shows these rows, `test_hostile_images.py` sends them.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from backports import zstd
from PIL import Image

from container.classifier.environment import IMAGE_MEMORY_VARIABLE, MB
from container.classifier.jpeg import MAX_SCANS, MAX_SEGMENTS
from container.classifier.preprocessing import (
    MAX_HEADER_PIECES,
    NAMES,
    PIXEL_BYTES,
    Pixels,
)
from container.serving.settings import MIB, ONLINE_PAYLOAD_MB
from tests.artifacts import encode, random_pixels
from tests.odd_images import ORIENTATION

UNSET = "application/octet-stream"
NO_IMAGE = f"not an image of a known format ({NAMES})"
DAMAGED = "the image is damaged: "

PIXELS = random_pixels()
OTHERS = random_pixels(seed=1)
IMAGE = Image.fromarray(PIXELS)
JPEG = encode(PIXELS, "JPEG")
PNG = encode(PIXELS)
PALETTE = IMAGE.quantize(16)
CLEAR = np.asarray(PALETTE)[20, 25].item()
COLOR = (200, 30, 90)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A body and its answer."""

    image: str
    body: Callable[[], bytes]
    sent_as: str = UNSET
    status: int = 200

    answer: str
    """The expected pixels or, for an error, the start of its message."""

    seen: Callable[[], bytes] | None = None
    """A plain image that has the same answer."""


def saved(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def opened(data: bytes, mode: str = "RGB") -> Pixels:
    """Read a JPEG by Pillow alone."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode))


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG of a header and chunks; color 0 is gray, 2 is RGB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def deep_png() -> bytes:
    """Return the image with 16 bits a channel, whose lower 8 are noise."""
    noise = np.random.default_rng(0).integers(0, 256, PIXELS.shape, np.uint16)
    deep: npt.NDArray[np.uint16] = PIXELS.astype(np.uint16) * 256 + noise
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    height, width = PIXELS.shape[:2]
    return png(width, height, chunk(b"IDAT", zlib.compress(rows)), depth=16)


def deep_gray() -> bytes:
    return saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 200))


def see_through() -> Image.Image:
    """Return the image with alpha: the left half opaque, the right half clear."""
    image = IMAGE.convert("RGBA")
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:, PIXELS.shape[1] // 2 :] = 0
    image.putalpha(Image.fromarray(alpha))
    return image


def on_white(pixels: Pixels = PIXELS) -> bytes:
    pixels = pixels.copy()
    pixels[:, pixels.shape[1] // 2 :] = 255
    return encode(pixels)


def clear_palette(kind: str) -> bytes:
    """Return an image whose palette has a clear color, that of its middle."""
    return saved(PALETTE, kind, transparency=CLEAR)


def clear_palette_on_white() -> bytes:
    pixels = np.asarray(PALETTE.convert("RGB")).copy()
    pixels[np.asarray(PALETTE) == CLEAR] = 255
    return encode(pixels)


def animated(kind: str, first: Image.Image) -> bytes:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    others = [Image.fromarray(OTHERS)]
    return saved(first, kind, save_all=True, append_images=others, duration=40, **lossless)


def line(width: int, height: int) -> bytes:
    """Return a line of pixels: ten of the color in its middle, black ones else."""
    pixels = np.zeros((width * height, 3), np.uint8)
    middle = len(pixels) // 2
    pixels[middle - 5 : middle + 5] = COLOR
    return encode(pixels.reshape(height, width, 3))


def plain() -> bytes:
    return saved(Image.new("RGB", (50, 40), COLOR))


def too_large(width: int, height: int) -> str:
    """Return the error of an image of a format that needs PIXEL_BYTES."""
    needed = -(-PIXEL_BYTES * width * height // MB)
    return f"decoding {width} x {height} pixels takes {needed} MB, {IMAGE_MEMORY_VARIABLE} allows"


def endless_scans(before: bytes = b"") -> bytes:
    data = saved(IMAGE, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[data.rindex(b"\xff\xda", 0, last) : last]
    return data[:last] + before + MAX_SCANS * scan + data[last:]


def large_jpeg() -> bytes:
    """Return 200 megapixels of one color."""
    return saved(Image.new("L", (16_320, 12_240), 128), "JPEG")


def bmp_without_alpha() -> bytes:
    """Return the image with four channels, of which the alpha channel is zero."""
    height, width = PIXELS.shape[:2]
    core = struct.pack("<IiiHHIIiiII", 124, width, -height, 1, 32, 3, 0, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    bgra = np.dstack([PIXELS[..., ::-1], np.zeros((height, width), np.uint8)])
    head = core + masks + bytes(124 - len(core) - len(masks))
    return b"BM" + struct.pack("<IHHI", 138 + bgra.size, 0, 0, 138) + head + bgra.tobytes()


def small_frame() -> bytes:
    """Return a GIF of 100 x 80 pixels whose first frame covers its top left quarter."""
    data = bytearray(saved(PALETTE, "GIF"))
    data[6:10] = struct.pack("<HH", 100, 80)
    return bytes(data)


def small_frame_on_white() -> bytes:
    canvas = Image.new("RGB", (100, 80), "white")
    canvas.paste(PALETTE.convert("RGB"))
    return saved(canvas)


def with_wrong_checksum(data: bytes, name: bytes) -> bytes:
    """Change the checksum of a PNG's chunk."""
    start = data.index(name)
    end = start + 4 + int.from_bytes(data[start - 4 : start])
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]


def endless_segments() -> bytes:
    segment = b"\xff\xe1\x00\x12Exif\0\0" + bytes(10)
    return JPEG[:2] + 1_000_000 * segment + JPEG[2:]


def endless_comments() -> bytes:
    """Return a GIF that fills a body, with comments of two bytes, each of which becomes objects."""
    head = saved(PALETTE, "GIF")[:13]
    return head[:10] + b"\0" + head[11:] + b"!\xfe" + b"\2aa" * 8_700_000 + b"\0"


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def noisy(kind: str) -> bytes:
    """Return an image of noise that fills a body."""
    pixels = np.frombuffer(noise(2900 * 2870 * 3), np.uint8).reshape(2870, 2900, 3)
    settings = {"compress_level": 0} if kind == "PNG" else {}
    return saved(Image.fromarray(pixels), kind, **settings)


def wide_gif() -> bytes:
    """Return a GIF of 50 x 40 pixels whose frame claims 65,535 x 65,535."""
    data = bytearray(saved(PALETTE, "GIF"))
    frame = data.index(b",\0\0\0\0" + struct.pack("<HH", 50, 40))
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


def form(disposition: bytes, data: bytes) -> bytes:
    """Return a form of one part."""
    return (
        b"--x\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + data + b"\r\n--x--"
    )


def many_strips() -> bytes:
    """Return a TIFF with a strip for each of its 70,000 rows."""
    count, start = 70_000, 8 + 2 + 9 * 12 + 4
    entries = ((256, 1), (257, count), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1))
    directory = b"".join(
        struct.pack("<HHII", tag, 4, count if tag == 273 else 1, start if tag == 273 else value)
        for tag, value in (*entries, (279, 1))
    )
    head = b"II*\0" + struct.pack("<IH", 8, 9) + directory + bytes(4)
    return head + struct.pack("<I", start) * count


def bmp_header(width: int, height: int) -> bytes:
    """Return a BMP that holds nothing."""
    core = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + core


PROGRESSIVE = saved(IMAGE, "JPEG", progressive=True)
AVIF = encode(PIXELS, "AVIF")
HEIC = (Path(__file__).parent / "drawn.heic").read_bytes()
# As a phone appends it: a name, and a film whose bytes may be anything.
TRAILER = b"\0\0\1\0SEFT\xff\xc4" + np.random.default_rng(1).bytes(3000) + JPEG

BAD_EXIF = b"Exif\0\0II*\0\xff\xff\xff\xff"
LARGEST = ONLINE_PAYLOAD_MB * MIB
HTML = b"<html><script>alert(1)</script></html>"

ROWS = (
    # As cameras, scanners and the web make them.
    Row(
        image="JPEG with EXIF orientation 6, a telephone held upright",
        body=lambda: saved(IMAGE, "JPEG", exif=oriented(6)),
        answer="turned upright",
        seen=lambda: encode(np.rot90(opened(JPEG), -1)),
    ),
    Row(
        image="JPEG with EXIF orientation 2, a mirror",
        body=lambda: saved(IMAGE, "JPEG", exif=oriented(2)),
        answer="mirrored back",
        seen=lambda: encode(opened(JPEG)[:, ::-1]),
    ),
    Row(
        image="PNG with EXIF orientation 3",
        body=lambda: saved(IMAGE, "PNG", exif=oriented(3)),
        answer="turned upright",
        seen=lambda: encode(PIXELS[::-1, ::-1]),
    ),
    Row(
        image="WebP with EXIF orientation 8",
        body=lambda: saved(IMAGE, "WEBP", lossless=True, exif=oriented(8)),
        answer="turned upright",
        seen=lambda: encode(np.rot90(PIXELS)),
    ),
    Row(
        image="EXIF orientation 9, which does not exist",
        body=lambda: saved(IMAGE, "PNG", exif=oriented(9)),
        answer="as it is",
        seen=lambda: PNG,
    ),
    Row(
        image="EXIF that is damaged",
        body=lambda: saved(IMAGE, "JPEG", exif=BAD_EXIF),
        answer="as it is",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="color profile (ICC) that is damaged",
        body=lambda: saved(IMAGE, "JPEG", icc_profile=b"no profile"),
        answer="without the profile; no profile is applied",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="gray JPEG",
        body=lambda: encode(PIXELS[..., 0], "JPEG"),
        answer="as gray RGB",
        seen=lambda: encode(opened(encode(PIXELS[..., 0], "JPEG"))),
    ),
    Row(
        image="CMYK JPEG",
        body=lambda: saved(Image.new("CMYK", (50, 40), (0, 255, 255, 0)), "JPEG", quality=100),
        answer="as RGB, without a color profile",
        seen=lambda: saved(Image.new("RGB", (50, 40), "red")),
    ),
    Row(
        image="PNG of 16 bits a channel",
        body=deep_png,
        answer="the upper 8 bits",
        seen=lambda: PNG,
    ),
    Row(
        image="gray PNG of 16 bits",
        body=deep_gray,
        answer="the upper 8 bits",
        seen=lambda: encode(PIXELS[..., 0]),
    ),
    Row(
        image="black and white PNG of 1 bit",
        body=lambda: saved(Image.fromarray(PIXELS[..., 0] > 100)),
        answer="as 0 and 255",
        seen=lambda: encode((PIXELS[..., 0] > 100).astype(np.uint8) * 255),
    ),
    Row(
        image="palette, in a PNG",
        body=lambda: saved(PALETTE),
        answer="its colors",
        seen=lambda: saved(PALETTE.convert("RGB")),
    ),
    Row(
        image="palette with a clear color, in a PNG",
        body=lambda: clear_palette("PNG"),
        answer="laid on white",
        seen=clear_palette_on_white,
    ),
    Row(
        image="palette with a clear color, in a GIF",
        body=lambda: clear_palette("GIF"),
        answer="laid on white",
        seen=clear_palette_on_white,
    ),
    Row(
        image="alpha, in a PNG",
        body=lambda: saved(see_through()),
        answer="laid on white",
        seen=on_white,
    ),
    Row(
        image="gray with alpha, in a PNG",
        body=lambda: saved(see_through().convert("LA")),
        answer="laid on white",
        seen=lambda: on_white(np.asarray(IMAGE.convert("L").convert("RGB"))),
    ),
    Row(
        image="alpha, in a WebP",
        body=lambda: saved(see_through(), "WEBP", lossless=True, exact=True),
        answer="laid on white",
        seen=on_white,
    ),
    Row(
        image="BMP with an alpha channel that is zero",
        body=bmp_without_alpha,
        answer="without its alpha",
        seen=lambda: PNG,
    ),
    Row(
        image="GIF whose first frame covers a part",
        body=small_frame,
        answer="on white",
        seen=small_frame_on_white,
    ),
    Row(
        image="animated GIF",
        body=lambda: animated("GIF", PALETTE),
        answer="the first frame",
        seen=lambda: saved(PALETTE.convert("RGB")),
    ),
    Row(
        image="animated PNG",
        body=lambda: animated("PNG", IMAGE),
        answer="the first frame",
        seen=lambda: PNG,
    ),
    Row(
        image="animated WebP",
        body=lambda: animated("WEBP", IMAGE),
        answer="the first frame",
        seen=lambda: PNG,
    ),
    Row(
        image="JPEG of several images (MPO)",
        body=lambda: animated("MPO", IMAGE),
        answer="the first one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="progressive JPEG",
        body=lambda: saved(IMAGE, "JPEG", progressive=True),
        answer="as a plain one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image=f"progressive JPEG of more than {MAX_SCANS} scans",
        body=endless_scans,
        status=422,
        answer=f"the image has more than {MAX_SCANS} scans",
    ),
    Row(
        image="the same behind a marker that has no length",
        body=lambda: endless_scans(b"\xff\x01"),
        status=422,
        answer=f"the image has more than {MAX_SCANS} scans",
    ),
    Row(
        image="JPEG of a million segments",
        body=endless_segments,
        status=422,
        answer=f"the image has more than {MAX_SEGMENTS} segments",
    ),
    Row(
        image="GIF of millions of comments",
        body=endless_comments,
        status=422,
        answer=f"the image's header has more than {MAX_HEADER_PIECES} pieces",
    ),
    # Of odd sizes.
    Row(
        image="1 x 1 pixel",
        body=lambda: saved(Image.new("RGB", (1, 1), COLOR)),
        answer="enlarged",
        seen=plain,
    ),
    Row(
        image="60,000 x 1 pixels",
        body=lambda: line(60_000, 1),
        answer="the middle, enlarged",
        seen=plain,
    ),
    Row(
        image="1 x 60,000 pixels",
        body=lambda: line(1, 60_000),
        answer="the middle, enlarged",
        seen=plain,
    ),
    Row(
        image="50 megapixels of one color in 150 KB",
        body=lambda: saved(Image.new("RGB", (10_000, 5_000), COLOR)),
        answer="as any other",
        seen=plain,
    ),
    Row(
        image="JPEG of 200 megapixels",
        body=large_jpeg,
        answer="as any other",
        seen=lambda: saved(Image.new("RGB", (8, 8), (128, 128, 128))),
    ),
    Row(
        image="decompression bomb: a PNG of 65,536 x 65,536 pixels",
        body=lambda: png(2**16, 2**16, chunk(b"IDAT", zlib.compress(bytes(2**20)))),
        status=422,
        answer=too_large(2**16, 2**16),
    ),
    Row(
        image="decompression bomb: a BMP of 100,000 x 100,000 pixels",
        body=lambda: bmp_header(100_000, 100_000),
        status=422,
        answer=too_large(100_000, 100_000),
    ),
    Row(
        image="decompression bomb: a small GIF with a frame of 65,535 x 65,535 pixels",
        body=wide_gif,
        status=422,
        answer=too_large(65_535, 65_535),
    ),
    Row(
        image="decompression bomb: a PNG with 50 MB of text in 50 KB",
        body=lambda: (
            PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 1)) + PNG[33:]
        ),
        answer="as without the text, which is not read",
        seen=lambda: PNG,
    ),
    Row(
        image="PNG with a color profile of 2 MB",
        body=lambda: saved(IMAGE, icc_profile=noise(2_000_000)),
        answer="as without the profile",
        seen=lambda: PNG,
    ),
    Row(
        image="PNG that claims 7,000 x 7,000 pixels and has none",
        body=lambda: png(7000, 7000, chunk(b"IDAT", zlib.compress(b""))),
        status=422,
        answer=DAMAGED + "image file is truncated",
    ),
    Row(
        image="0 x 0 pixels",
        body=lambda: png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
        status=422,
        answer=DAMAGED + "not identified by this driver",
    ),
    # Broken ones.
    Row(
        image="JPEG cut in half",
        body=lambda: JPEG[: len(JPEG) // 2],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="JPEG without its last 100 bytes, with an end marker",
        body=lambda: JPEG[:-100] + b"\xff\xd9",
        status=422,
        answer=DAMAGED + "image file is truncated",
    ),
    Row(
        image="JPEG without its last 100 bytes, with a phone's trailer",
        body=lambda: JPEG[:-100] + TRAILER,
        status=422,
        answer=DAMAGED + "image file is truncated",
    ),
    Row(
        image="progressive JPEG without its last scan",
        body=lambda: PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xc4")],
        status=422,
        answer=DAMAGED + "image file is truncated",
    ),
    Row(
        image="JPEG without its end marker",
        body=lambda: JPEG[:-2],
        answer="as the whole one: every pixel is there",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="progressive JPEG without its end marker",
        body=lambda: PROGRESSIVE[:-2],
        answer="as the whole one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="JPEG with a phone's trailer instead of its end marker",
        body=lambda: JPEG[:-2] + TRAILER,
        answer="as the whole one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="JPEG with 100 bytes of padding before its end marker",
        body=lambda: JPEG[:-2] + bytes(100) + JPEG[-2:],
        answer="as the whole one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="PNG with a wrong checksum of its resolution",
        body=lambda: with_wrong_checksum(saved(IMAGE, dpi=(72, 72)), b"pHYs"),
        answer="as the whole one",
        seen=lambda: PNG,
    ),
    Row(
        image="PNG with a wrong checksum of its header",
        body=lambda: with_wrong_checksum(PNG, b"IHDR"),
        status=422,
        answer=DAMAGED + "broken PNG file (bad header checksum in b'IHDR')",
    ),
    Row(
        image="PNG cut in half",
        body=lambda: PNG[: len(PNG) // 2],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="PNG without its last chunk",
        body=lambda: PNG[:-12],
        answer="as the whole one: every pixel is there",
        seen=lambda: PNG,
    ),
    Row(
        image="WebP cut in half",
        body=lambda: encode(PIXELS, "WEBP")[:-100],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="GIF cut in half",
        body=lambda: saved(PALETTE, "GIF")[:-100],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="BMP cut in half",
        body=lambda: encode(PIXELS, "BMP")[:3000],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="zero bytes",
        body=lambda: b"",
        sent_as="image/jpeg",
        status=400,
        answer="the body is empty",
    ),
    Row(
        image="25 MB of noise",
        body=lambda: noise(LARGEST),
        status=422,
        answer=f"{NO_IMAGE}, {LARGEST} bytes",
    ),
    Row(
        image="25 MB of noise as a PNG's pixels",
        body=lambda: png(3000, 3000, chunk(b"IDAT", noise(LARGEST - 100))),
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="25 MB of noise, as a sound PNG",
        body=lambda: noisy("PNG"),
        answer="as any other",
        seen=lambda: noisy("BMP"),
    ),
    Row(
        image="a byte more than 25 MB",
        body=lambda: bytes(LARGEST + 1),
        status=413,
        answer="the body is larger than 25 MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)",
    ),
    # Two things at once.
    Row(
        image="polyglot: a JPEG that a ZIP archive follows",
        body=lambda: JPEG + b"PK\x03\x04" + noise(1000),
        answer="the image; nothing reads on",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="polyglot: a PNG that a page with a script follows",
        body=lambda: PNG + HTML,
        answer="the image; nothing reads on",
        seen=lambda: PNG,
    ),
    Row(
        image="polyglot: a JPEG whose comment is a program",
        body=lambda: saved(IMAGE, "JPEG", comment=b"<?php system($_GET[0]); ?>"),
        answer="the image; nothing runs",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="a page, and then a JPEG",
        body=lambda: HTML + JPEG,
        status=422,
        answer=NO_IMAGE,
    ),
    Row(
        image="PDF with an image in it",
        body=lambda: saved(IMAGE, "PDF"),
        status=422,
        answer=NO_IMAGE,
    ),
    Row(
        image="SVG",
        body=lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///x'/></svg>",
        status=422,
        answer=NO_IMAGE,
    ),
    Row(
        image="PostScript",
        body=lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        status=422,
        answer=NO_IMAGE,
    ),
    Row(
        image="TIFF",
        body=lambda: saved(IMAGE, "TIFF"),
        answer="as any other",
        seen=lambda: PNG,
    ),
    Row(
        image="compressed TIFF of 16 bits",
        body=lambda: saved(Image.open(io.BytesIO(deep_gray())), "TIFF", compression="tiff_lzw"),
        answer="the upper 8 bits",
        seen=lambda: saved(Image.fromarray(PIXELS[..., 0])),
    ),
    Row(
        image="TIFF of 32-bit numbers",
        body=lambda: saved(IMAGE.convert("F"), "TIFF"),
        status=422,
        answer="a TIFF of 32-bit numbers has no known white: save it with 8 bits",
    ),
    Row(
        image="TIFF of 70,000 strips",
        body=many_strips,
        status=422,
        answer="the image has 70000 strips or tiles, more than 65536",
    ),
    Row(
        image="AVIF",
        body=lambda: AVIF,
        answer="as any other",
        seen=lambda: encode(opened(AVIF)),
    ),
    Row(
        image="HEIC, as phones write it",
        body=lambda: HEIC,
        answer="as any other",
        seen=lambda: encode(opened(HEIC)),
    ),
    Row(
        image="AVIF cut in half",
        body=lambda: AVIF[: len(AVIF) // 2],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        image="HEIC cut in half",
        body=lambda: HEIC[: len(HEIC) // 2],
        status=422,
        answer=DAMAGED,
    ),
    # Under another name.
    Row(
        image="PNG sent as JPEG",
        body=lambda: PNG,
        sent_as="image/jpeg",
        answer="as what its bytes say",
        seen=lambda: PNG,
    ),
    Row(
        image="JPEG sent as curl's form",
        body=lambda: JPEG,
        sent_as="application/x-www-form-urlencoded",
        answer="as what its bytes say",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="PNG sent as JSON",
        body=lambda: PNG,
        sent_as="application/json",
        answer="as what its bytes say",
        seen=lambda: PNG,
    ),
    Row(
        image="PNG sent as an array",
        body=lambda: PNG,
        sent_as="application/x-npy",
        answer="as what its bytes say",
        seen=lambda: PNG,
    ),
    Row(
        image="PNG sent as text",
        body=lambda: PNG,
        sent_as="text/plain",
        answer="as what its bytes say",
        seen=lambda: PNG,
    ),
    Row(
        image="25 MB of noise, sent as JSON",
        body=lambda: noise(LARGEST),
        sent_as="application/json",
        status=400,
        answer="the body is not JSON",
    ),
    Row(
        image="text",
        body=lambda: b"1,2,3",
        sent_as="text/plain",
        status=415,
        answer="Content-Type 'text/plain' is not one of image/*, application/x-image",
    ),
    Row(
        image="PNG as a file of a form",
        body=lambda: form(b'name="image"; filename="a.png"', PNG),
        sent_as="multipart/form-data; boundary=x",
        answer="as any other",
        seen=lambda: PNG,
    ),
    Row(
        image="PNG as a text of a form",
        body=lambda: form(b'name="image"', PNG),
        sent_as="multipart/form-data; boundary=x",
        status=400,
        answer="the form has no file; send one with `curl -F image=@image.jpg`",
    ),
    Row(
        image="JPEG in gzip",
        body=lambda: gzip.compress(JPEG),
        answer="unpacked",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        image="decompression bomb: 1 GB in 33 KB of zstd",
        body=lambda: zstd.compress(bytes(10**9)),
        status=413,
        answer="the unpacked body is larger than 25 MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)",
    ),
)  # fmt: skip


def table() -> str:
    """Return the rows as a document has them."""
    lines = ["| body | sent as | answer |", "|---|---|---|"]
    for row in ROWS:
        words = row.answer if row.status == 200 else f"`{row.answer}`"
        lines.append(f"| {row.image} | `{row.sent_as}` | {row.status}: {words} |")
    return "\n".join(lines)
