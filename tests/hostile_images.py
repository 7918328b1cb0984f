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
    FORMAT_NAMES,
    MAX_HEADER_PIECES,
    PIXEL_BYTES,
    Pixels,
)
from container.serving.settings import MIB, ONLINE_PAYLOAD_MB
from tests.artifacts import encode, random_pixels
from tests.odd_images import ORIENTATION

UNSET = "application/octet-stream"
NO_IMAGE = f"not an image of a known format ({FORMAT_NAMES})"
DAMAGED = "the image is damaged: "

PIXELS = random_pixels()
OTHERS = random_pixels(seed=1)
IMAGE = Image.fromarray(PIXELS)
JPEG = encode(PIXELS, "JPEG")
PNG = encode(PIXELS)
PALETTE = IMAGE.quantize(16)
CLEAR = np.asarray(PALETTE)[20, 25].item()
COLOR = (200, 30, 90)


@dataclass(frozen=True)
class Row:
    """A body and its response."""

    image: str
    body: Callable[[], bytes]

    expected: str
    """The pixels or, for an error, the start of its message."""

    same_as: Callable[[], bytes] | None = None
    """A plain image that has the same response."""

    sent_as: str = UNSET
    status: int = 200


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
        "JPEG with EXIF orientation 6, a telephone held upright",
        lambda: saved(IMAGE, "JPEG", exif=oriented(6)),
        "turned upright",
        lambda: encode(np.rot90(opened(JPEG), -1)),
    ),
    Row(
        "JPEG with EXIF orientation 2, a mirror",
        lambda: saved(IMAGE, "JPEG", exif=oriented(2)),
        "mirrored back",
        lambda: encode(opened(JPEG)[:, ::-1]),
    ),
    Row(
        "PNG with EXIF orientation 3",
        lambda: saved(IMAGE, "PNG", exif=oriented(3)),
        "turned upright",
        lambda: encode(PIXELS[::-1, ::-1]),
    ),
    Row(
        "WebP with EXIF orientation 8",
        lambda: saved(IMAGE, "WEBP", lossless=True, exif=oriented(8)),
        "turned upright",
        lambda: encode(np.rot90(PIXELS)),
    ),
    Row(
        "EXIF orientation 9, which does not exist",
        lambda: saved(IMAGE, "PNG", exif=oriented(9)),
        "as it is",
        lambda: PNG,
    ),
    Row(
        "EXIF that is damaged",
        lambda: saved(IMAGE, "JPEG", exif=BAD_EXIF),
        "as it is",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "color profile (ICC) that is damaged",
        lambda: saved(IMAGE, "JPEG", icc_profile=b"no profile"),
        "without the profile; no profile is applied",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "gray JPEG",
        lambda: encode(PIXELS[..., 0], "JPEG"),
        "as gray RGB",
        lambda: encode(opened(encode(PIXELS[..., 0], "JPEG"))),
    ),
    Row(
        "CMYK JPEG",
        lambda: saved(Image.new("CMYK", (50, 40), (0, 255, 255, 0)), "JPEG", quality=100),
        "as RGB, without a color profile",
        lambda: saved(Image.new("RGB", (50, 40), "red")),
    ),
    Row("PNG of 16 bits a channel", deep_png, "the upper 8 bits", lambda: PNG),
    Row("gray PNG of 16 bits", deep_gray, "the upper 8 bits", lambda: encode(PIXELS[..., 0])),
    Row(
        "black and white PNG of 1 bit",
        lambda: saved(Image.fromarray(PIXELS[..., 0] > 100)),
        "as 0 and 255",
        lambda: encode((PIXELS[..., 0] > 100).astype(np.uint8) * 255),
    ),
    Row(
        "palette, in a PNG",
        lambda: saved(PALETTE),
        "its colors",
        lambda: saved(PALETTE.convert("RGB")),
    ),
    Row(
        "palette with a clear color, in a PNG",
        lambda: clear_palette("PNG"),
        "laid on white",
        clear_palette_on_white,
    ),
    Row(
        "palette with a clear color, in a GIF",
        lambda: clear_palette("GIF"),
        "laid on white",
        clear_palette_on_white,
    ),
    Row("alpha, in a PNG", lambda: saved(see_through()), "laid on white", on_white),
    Row(
        "gray with alpha, in a PNG",
        lambda: saved(see_through().convert("LA")),
        "laid on white",
        lambda: on_white(np.asarray(IMAGE.convert("L").convert("RGB"))),
    ),
    Row(
        "alpha, in a WebP",
        lambda: saved(see_through(), "WEBP", lossless=True, exact=True),
        "laid on white",
        on_white,
    ),
    Row(
        "BMP with an alpha channel that is zero",
        bmp_without_alpha,
        "without its alpha",
        lambda: PNG,
    ),
    Row("GIF whose first frame covers a part", small_frame, "on white", small_frame_on_white),
    Row(
        "animated GIF",
        lambda: animated("GIF", PALETTE),
        "the first frame",
        lambda: saved(PALETTE.convert("RGB")),
    ),
    Row("animated PNG", lambda: animated("PNG", IMAGE), "the first frame", lambda: PNG),
    Row("animated WebP", lambda: animated("WEBP", IMAGE), "the first frame", lambda: PNG),
    Row(
        "JPEG of several images (MPO)",
        lambda: animated("MPO", IMAGE),
        "the first one",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "progressive JPEG",
        lambda: saved(IMAGE, "JPEG", progressive=True),
        "as a plain one",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        f"progressive JPEG of more than {MAX_SCANS} scans",
        endless_scans,
        f"the image has more than {MAX_SCANS} scans",
        status=422,
    ),
    Row(
        "the same behind a marker that has no length",
        lambda: endless_scans(b"\xff\x01"),
        f"the image has more than {MAX_SCANS} scans",
        status=422,
    ),
    Row(
        "JPEG of a million segments",
        endless_segments,
        f"the image has more than {MAX_SEGMENTS} segments",
        status=422,
    ),
    Row(
        "GIF of millions of comments",
        endless_comments,
        f"the image's header has more than {MAX_HEADER_PIECES} pieces",
        status=422,
    ),
    # Of odd sizes.
    Row("1 x 1 pixel", lambda: saved(Image.new("RGB", (1, 1), COLOR)), "enlarged", plain),
    Row("60,000 x 1 pixels", lambda: line(60_000, 1), "the middle, enlarged", plain),
    Row("1 x 60,000 pixels", lambda: line(1, 60_000), "the middle, enlarged", plain),
    Row(
        "50 megapixels of one color in 150 KB",
        lambda: saved(Image.new("RGB", (10_000, 5_000), COLOR)),
        "as any other",
        plain,
    ),
    Row(
        "JPEG of 200 megapixels",
        large_jpeg,
        "as any other",
        lambda: saved(Image.new("RGB", (8, 8), (128, 128, 128))),
    ),
    Row(
        "decompression bomb: a PNG of 65,536 x 65,536 pixels",
        lambda: png(2**16, 2**16, chunk(b"IDAT", zlib.compress(bytes(2**20)))),
        too_large(2**16, 2**16),
        status=422,
    ),
    Row(
        "decompression bomb: a BMP of 100,000 x 100,000 pixels",
        lambda: bmp_header(100_000, 100_000),
        too_large(100_000, 100_000),
        status=422,
    ),
    Row(
        "decompression bomb: a small GIF with a frame of 65,535 x 65,535 pixels",
        wide_gif,
        too_large(65_535, 65_535),
        status=422,
    ),
    Row(
        "decompression bomb: a PNG with 50 MB of text in 50 KB",
        lambda: (
            PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 1)) + PNG[33:]
        ),
        "as without the text, which is not read",
        lambda: PNG,
    ),
    Row(
        "PNG with a color profile of 2 MB",
        lambda: saved(IMAGE, icc_profile=noise(2_000_000)),
        "as without the profile",
        lambda: PNG,
    ),
    Row(
        "PNG that claims 7,000 x 7,000 pixels and has none",
        lambda: png(7000, 7000, chunk(b"IDAT", zlib.compress(b""))),
        DAMAGED + "image file is truncated",
        status=422,
    ),
    Row(
        "0 x 0 pixels",
        lambda: png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
        DAMAGED + "not identified by this driver",
        status=422,
    ),
    # Broken ones.
    Row("JPEG cut in half", lambda: JPEG[: len(JPEG) // 2], DAMAGED, status=422),
    Row(
        "JPEG without its last 100 bytes, with an end marker",
        lambda: JPEG[:-100] + b"\xff\xd9",
        DAMAGED + "image file is truncated",
        status=422,
    ),
    Row(
        "JPEG without its last 100 bytes, with a phone's trailer",
        lambda: JPEG[:-100] + TRAILER,
        DAMAGED + "image file is truncated",
        status=422,
    ),
    Row(
        "progressive JPEG without its last scan",
        lambda: PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xc4")],
        DAMAGED + "image file is truncated",
        status=422,
    ),
    Row(
        "JPEG without its end marker",
        lambda: JPEG[:-2],
        "as the whole one: every pixel is there",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "progressive JPEG without its end marker",
        lambda: PROGRESSIVE[:-2],
        "as the whole one",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "JPEG with a phone's trailer instead of its end marker",
        lambda: JPEG[:-2] + TRAILER,
        "as the whole one",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "JPEG with 100 bytes of padding before its end marker",
        lambda: JPEG[:-2] + bytes(100) + JPEG[-2:],
        "as the whole one",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "PNG with a wrong checksum of its resolution",
        lambda: with_wrong_checksum(saved(IMAGE, dpi=(72, 72)), b"pHYs"),
        "as the whole one",
        lambda: PNG,
    ),
    Row(
        "PNG with a wrong checksum of its header",
        lambda: with_wrong_checksum(PNG, b"IHDR"),
        DAMAGED + "broken PNG file (bad header checksum in b'IHDR')",
        status=422,
    ),
    Row("PNG cut in half", lambda: PNG[: len(PNG) // 2], DAMAGED, status=422),
    Row(
        "PNG without its last chunk",
        lambda: PNG[:-12],
        "as the whole one: every pixel is there",
        lambda: PNG,
    ),
    Row("WebP cut in half", lambda: encode(PIXELS, "WEBP")[:-100], DAMAGED, status=422),
    Row("GIF cut in half", lambda: saved(PALETTE, "GIF")[:-100], DAMAGED, status=422),
    Row("BMP cut in half", lambda: encode(PIXELS, "BMP")[:3000], DAMAGED, status=422),
    Row("zero bytes", lambda: b"", "the body is empty", sent_as="image/jpeg", status=400),
    Row("25 MB of noise", lambda: noise(LARGEST), f"{NO_IMAGE}, {LARGEST} bytes", status=422),
    Row(
        "25 MB of noise as a PNG's pixels",
        lambda: png(3000, 3000, chunk(b"IDAT", noise(LARGEST - 100))),
        DAMAGED,
        status=422,
    ),
    Row(
        "25 MB of noise, as a sound PNG", lambda: noisy("PNG"), "as any other", lambda: noisy("BMP")
    ),
    Row(
        "a byte more than 25 MB",
        lambda: bytes(LARGEST + 1),
        "the body is larger than 25 MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)",
        status=413,
    ),
    # Two things at once.
    Row(
        "polyglot: a JPEG that a ZIP archive follows",
        lambda: JPEG + b"PK\x03\x04" + noise(1000),
        "the image; nothing reads on",
        lambda: encode(opened(JPEG)),
    ),
    Row(
        "polyglot: a PNG that a page with a script follows",
        lambda: PNG + HTML,
        "the image; nothing reads on",
        lambda: PNG,
    ),
    Row(
        "polyglot: a JPEG whose comment is a program",
        lambda: saved(IMAGE, "JPEG", comment=b"<?php system($_GET[0]); ?>"),
        "the image; nothing runs",
        lambda: encode(opened(JPEG)),
    ),
    Row("a page, and then a JPEG", lambda: HTML + JPEG, NO_IMAGE, status=422),
    Row("PDF with an image in it", lambda: saved(IMAGE, "PDF"), NO_IMAGE, status=422),
    Row(
        "SVG",
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///x'/></svg>",
        NO_IMAGE,
        status=422,
    ),
    Row(
        "PostScript",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        NO_IMAGE,
        status=422,
    ),
    Row("TIFF", lambda: saved(IMAGE, "TIFF"), "as any other", lambda: PNG),
    Row(
        "compressed TIFF of 16 bits",
        lambda: saved(Image.open(io.BytesIO(deep_gray())), "TIFF", compression="tiff_lzw"),
        "the upper 8 bits",
        lambda: saved(Image.fromarray(PIXELS[..., 0])),
    ),
    Row(
        "TIFF of 32-bit numbers",
        lambda: saved(IMAGE.convert("F"), "TIFF"),
        "a TIFF of 32-bit numbers has no known white: save it with 8 bits",
        status=422,
    ),
    Row(
        "TIFF of 70,000 strips",
        many_strips,
        "the image has 70000 strips or tiles, more than 65536",
        status=422,
    ),
    Row("AVIF", lambda: AVIF, "as any other", lambda: encode(opened(AVIF))),
    Row("HEIC, as phones write it", lambda: HEIC, "as any other", lambda: encode(opened(HEIC))),
    Row("AVIF cut in half", lambda: AVIF[: len(AVIF) // 2], DAMAGED, status=422),
    Row("HEIC cut in half", lambda: HEIC[: len(HEIC) // 2], DAMAGED, status=422),
    # Under another name.
    Row(
        "PNG sent as JPEG", lambda: PNG, "as what its bytes say", lambda: PNG, sent_as="image/jpeg"
    ),
    Row(
        "JPEG sent as curl's form",
        lambda: JPEG,
        "as what its bytes say",
        lambda: encode(opened(JPEG)),
        sent_as="application/x-www-form-urlencoded",
    ),
    Row(
        "PNG sent as JSON",
        lambda: PNG,
        "as what its bytes say",
        lambda: PNG,
        sent_as="application/json",
    ),
    Row(
        "PNG sent as an array",
        lambda: PNG,
        "as what its bytes say",
        lambda: PNG,
        sent_as="application/x-npy",
    ),
    Row(
        "PNG sent as text", lambda: PNG, "as what its bytes say", lambda: PNG, sent_as="text/plain"
    ),
    Row(
        "25 MB of noise, sent as JSON",
        lambda: noise(LARGEST),
        "the body is not JSON",
        sent_as="application/json",
        status=400,
    ),
    Row(
        "text",
        lambda: b"1,2,3",
        "Content-Type 'text/plain' is not one of image/*, application/x-image",
        sent_as="text/plain",
        status=415,
    ),
    Row(
        "PNG as a file of a form",
        lambda: form(b'name="image"; filename="a.png"', PNG),
        "as any other",
        lambda: PNG,
        sent_as="multipart/form-data; boundary=x",
    ),
    Row(
        "PNG as a text of a form",
        lambda: form(b'name="image"', PNG),
        "the form has no file; send one with `curl -F image=@image.jpg`",
        sent_as="multipart/form-data; boundary=x",
        status=400,
    ),
    Row("JPEG in gzip", lambda: gzip.compress(JPEG), "unpacked", lambda: encode(opened(JPEG))),
    Row(
        "decompression bomb: 1 GB in 33 KB of zstd",
        lambda: zstd.compress(bytes(10**9)),
        "the unpacked body is larger than 25 MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)",
        status=413,
    ),
)


def table() -> str:
    """Return the rows as a document has them."""
    lines = ["| body | sent as | response |", "|---|---|---|"]
    for row in ROWS:
        words = row.expected if row.status == 200 else f"`{row.expected}`"
        lines.append(f"| {row.image} | `{row.sent_as}` | {row.status}: {words} |")
    return "\n".join(lines)
