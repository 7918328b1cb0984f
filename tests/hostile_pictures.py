"""Pictures that a server must not be surprised by, each with the answer that it has to give.

`docs/pictures.md` shows these rows, `test_hostile_pictures.py` sends them.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from container.classifier.preprocessing import (
    MAX_HEADER_PIECES,
    MAX_PIXELS,
    MAX_SCANS,
    MAX_SEGMENTS,
    Pixels,
)
from container.serving.settings import MIB, ONLINE_PAYLOAD_MB
from tests.artifacts import encode, random_pixels
from tests.odd_pictures import ORIENTATION

UNSET = "application/octet-stream"
NO_PICTURE = "not a picture of a known format (JPEG, PNG, WEBP, GIF, BMP)"
DAMAGED = "the picture is damaged: "
TOO_LARGE = f"the picture has more than {MAX_PIXELS} pixels"

PIXELS = random_pixels()
OTHERS = random_pixels(seed=1)
IMAGE = Image.fromarray(PIXELS)
JPEG = encode(PIXELS, "JPEG")
PNG = encode(PIXELS)
PALETTE = IMAGE.quantize(16)
CLEAR = np.asarray(PALETTE)[20, 25].item()
COLOUR = (200, 30, 90)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A body and its answer."""

    picture: str
    body: Callable[[], bytes]
    sent_as: str = UNSET
    status: int = 200

    answer: str
    """What is seen of the picture or, where there is an error, how its message begins."""

    seen: Callable[[], bytes] | None = None
    """A plain picture that has the same answer."""


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


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG of a header and chunks; colour 0 is grey, 2 is RGB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def deep_png() -> bytes:
    """Return the picture with 16 bits a channel, whose lower 8 are noise."""
    noise = np.random.default_rng(0).integers(0, 256, PIXELS.shape, np.uint16)
    deep: npt.NDArray[np.uint16] = PIXELS.astype(np.uint16) * 256 + noise
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    height, width = PIXELS.shape[:2]
    return png(width, height, chunk(b"IDAT", zlib.compress(rows)), depth=16)


def deep_grey() -> bytes:
    return saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 200))


def see_through() -> Image.Image:
    """Return the picture with alpha: the left half opaque, the right half clear."""
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
    """Return a picture whose palette has a clear colour, that of its middle."""
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
    """Return a line of pixels: ten of the colour in its middle, black ones else."""
    pixels = np.zeros((width * height, 3), np.uint8)
    middle = len(pixels) // 2
    pixels[middle - 5 : middle + 5] = COLOUR
    return encode(pixels.reshape(height, width, 3))


def plain() -> bytes:
    return saved(Image.new("RGB", (50, 40), COLOUR))


def endless_scans(before: bytes = b"") -> bytes:
    data = saved(IMAGE, "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + before + MAX_SCANS * last_scan + data[-2:]


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
    """Return a picture of noise that fills a body."""
    pixels = np.frombuffer(noise(2900 * 2870 * 3), np.uint8).reshape(2870, 2900, 3)
    settings = {"compress_level": 0} if kind == "PNG" else {}
    return saved(Image.fromarray(pixels), kind, **settings)


def wide_gif() -> bytes:
    """Return a GIF of 50 x 40 pixels whose frame says that it has 65,535 x 65,535."""
    data = bytearray(saved(PALETTE, "GIF"))
    frame = data.index(b",\0\0\0\0" + struct.pack("<HH", 50, 40))
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


def bmp_header(width: int, height: int) -> bytes:
    """Return a BMP that holds nothing."""
    core = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + core


BAD_EXIF = b"Exif\0\0II*\0\xff\xff\xff\xff"
LARGEST = ONLINE_PAYLOAD_MB * MIB
HTML = b"<html><script>alert(1)</script></html>"

ROWS = (
    # As cameras, scanners and the web make them.
    Row(
        picture="JPEG with EXIF orientation 6, a telephone held upright",
        body=lambda: saved(IMAGE, "JPEG", exif=oriented(6)),
        answer="turned upright",
        seen=lambda: encode(np.rot90(opened(JPEG), -1)),
    ),
    Row(
        picture="JPEG with EXIF orientation 2, a mirror",
        body=lambda: saved(IMAGE, "JPEG", exif=oriented(2)),
        answer="mirrored back",
        seen=lambda: encode(opened(JPEG)[:, ::-1]),
    ),
    Row(
        picture="PNG with EXIF orientation 3",
        body=lambda: saved(IMAGE, "PNG", exif=oriented(3)),
        answer="turned upright",
        seen=lambda: encode(PIXELS[::-1, ::-1]),
    ),
    Row(
        picture="WebP with EXIF orientation 8",
        body=lambda: saved(IMAGE, "WEBP", lossless=True, exif=oriented(8)),
        answer="turned upright",
        seen=lambda: encode(np.rot90(PIXELS)),
    ),
    Row(
        picture="EXIF orientation 9, which does not exist",
        body=lambda: saved(IMAGE, "PNG", exif=oriented(9)),
        answer="as it is",
        seen=lambda: PNG,
    ),
    Row(
        picture="EXIF that is damaged",
        body=lambda: saved(IMAGE, "JPEG", exif=BAD_EXIF),
        answer="as it is",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture="colour profile (ICC) that is damaged",
        body=lambda: saved(IMAGE, "JPEG", icc_profile=b"no profile"),
        answer="without the profile; no profile is applied",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture="grey JPEG",
        body=lambda: encode(PIXELS[..., 0], "JPEG"),
        answer="as grey RGB",
        seen=lambda: encode(opened(encode(PIXELS[..., 0], "JPEG"))),
    ),
    Row(
        picture="CMYK JPEG",
        body=lambda: saved(Image.new("CMYK", (50, 40), (0, 255, 255, 0)), "JPEG", quality=100),
        answer="as RGB, without a colour profile",
        seen=lambda: saved(Image.new("RGB", (50, 40), "red")),
    ),
    Row(
        picture="PNG of 16 bits a channel",
        body=deep_png,
        answer="the upper 8 bits",
        seen=lambda: PNG,
    ),
    Row(
        picture="grey PNG of 16 bits",
        body=deep_grey,
        answer="the upper 8 bits",
        seen=lambda: encode(PIXELS[..., 0]),
    ),
    Row(
        picture="black and white PNG of 1 bit",
        body=lambda: saved(Image.fromarray(PIXELS[..., 0] > 100)),
        answer="as 0 and 255",
        seen=lambda: encode((PIXELS[..., 0] > 100).astype(np.uint8) * 255),
    ),
    Row(
        picture="palette, in a PNG",
        body=lambda: saved(PALETTE),
        answer="its colours",
        seen=lambda: saved(PALETTE.convert("RGB")),
    ),
    Row(
        picture="palette with a clear colour, in a PNG",
        body=lambda: clear_palette("PNG"),
        answer="laid on white",
        seen=clear_palette_on_white,
    ),
    Row(
        picture="palette with a clear colour, in a GIF",
        body=lambda: clear_palette("GIF"),
        answer="laid on white",
        seen=clear_palette_on_white,
    ),
    Row(
        picture="alpha, in a PNG",
        body=lambda: saved(see_through()),
        answer="laid on white",
        seen=on_white,
    ),
    Row(
        picture="grey with alpha, in a PNG",
        body=lambda: saved(see_through().convert("LA")),
        answer="laid on white",
        seen=lambda: on_white(np.asarray(IMAGE.convert("L").convert("RGB"))),
    ),
    Row(
        picture="alpha, in a WebP",
        body=lambda: saved(see_through(), "WEBP", lossless=True, exact=True),
        answer="laid on white",
        seen=on_white,
    ),
    Row(
        picture="animated GIF",
        body=lambda: animated("GIF", PALETTE),
        answer="the first frame",
        seen=lambda: saved(PALETTE.convert("RGB")),
    ),
    Row(
        picture="animated PNG",
        body=lambda: animated("PNG", IMAGE),
        answer="the first frame",
        seen=lambda: PNG,
    ),
    Row(
        picture="animated WebP",
        body=lambda: animated("WEBP", IMAGE),
        answer="the first frame",
        seen=lambda: PNG,
    ),
    Row(
        picture="JPEG of several pictures (MPO)",
        body=lambda: animated("MPO", IMAGE),
        answer="the first one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture="progressive JPEG",
        body=lambda: saved(IMAGE, "JPEG", progressive=True),
        answer="as a plain one",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture=f"progressive JPEG of more than {MAX_SCANS} scans",
        body=endless_scans,
        status=422,
        answer=f"the picture has more than {MAX_SCANS} scans",
    ),
    Row(
        picture="the same behind a marker that has no length",
        body=lambda: endless_scans(b"\xff\x01"),
        status=422,
        answer=f"the picture has more than {MAX_SCANS} scans",
    ),
    Row(
        picture="JPEG of a million segments",
        body=endless_segments,
        status=422,
        answer=f"the picture has more than {MAX_SEGMENTS} segments",
    ),
    Row(
        picture="GIF of millions of comments",
        body=endless_comments,
        status=422,
        answer=f"the picture's header has more than {MAX_HEADER_PIECES} pieces",
    ),
    # Of odd sizes.
    Row(
        picture="1 x 1 pixel",
        body=lambda: saved(Image.new("RGB", (1, 1), COLOUR)),
        answer="enlarged",
        seen=plain,
    ),
    Row(
        picture="60,000 x 1 pixels",
        body=lambda: line(60_000, 1),
        answer="the middle, enlarged",
        seen=plain,
    ),
    Row(
        picture="1 x 60,000 pixels",
        body=lambda: line(1, 60_000),
        answer="the middle, enlarged",
        seen=plain,
    ),
    Row(
        picture="50 megapixels of one colour in 150 KB",
        body=lambda: saved(Image.new("RGB", (10_000, 5_000), COLOUR)),
        answer="as any other",
        seen=plain,
    ),
    Row(
        picture="decompression bomb: a PNG of 65,536 x 65,536 pixels",
        body=lambda: png(2**16, 2**16, chunk(b"IDAT", zlib.compress(bytes(2**20)))),
        status=422,
        answer=TOO_LARGE,
    ),
    Row(
        picture="decompression bomb: a BMP of 100,000 x 100,000 pixels",
        body=lambda: bmp_header(100_000, 100_000),
        status=422,
        answer=TOO_LARGE,
    ),
    Row(
        picture="decompression bomb: a small GIF with a frame of 65,535 x 65,535 pixels",
        body=wide_gif,
        status=422,
        answer=TOO_LARGE,
    ),
    Row(
        picture="decompression bomb: a PNG with 50 MB of text in 50 KB",
        body=lambda: png(50, 40, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 1))),
        status=422,
        answer=DAMAGED + "Decompressed data too large",
    ),
    Row(
        picture="PNG that says 7,000 x 7,000 pixels and holds none",
        body=lambda: png(7000, 7000, chunk(b"IDAT", zlib.compress(b""))),
        status=422,
        answer=DAMAGED + "image file is truncated",
    ),
    Row(
        picture="0 x 0 pixels",
        body=lambda: png(0, 0, chunk(b"IDAT", zlib.compress(b""))),
        status=422,
        answer=NO_PICTURE,
    ),
    # Broken ones.
    Row(
        picture="JPEG cut in half",
        body=lambda: JPEG[: len(JPEG) // 2],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        picture="JPEG without its last two bytes",
        body=lambda: JPEG[:-2],
        status=422,
        answer=DAMAGED + "image file is truncated",
    ),
    Row(
        picture="PNG cut in half",
        body=lambda: PNG[: len(PNG) // 2],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        picture="PNG without its last chunk",
        body=lambda: PNG[:-12],
        answer="as the whole one: every pixel is there",
        seen=lambda: PNG,
    ),
    Row(
        picture="WebP cut in half",
        body=lambda: encode(PIXELS, "WEBP")[:-100],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        picture="GIF cut in half",
        body=lambda: saved(PALETTE, "GIF")[:-100],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        picture="BMP cut in half",
        body=lambda: encode(PIXELS, "BMP")[:3000],
        status=422,
        answer=DAMAGED,
    ),
    Row(
        picture="zero bytes",
        body=lambda: b"",
        sent_as="image/jpeg",
        status=400,
        answer="the body is empty",
    ),
    Row(
        picture="25 MB of noise",
        body=lambda: noise(LARGEST),
        status=422,
        answer=f"{NO_PICTURE}, {LARGEST} bytes",
    ),
    Row(
        picture="25 MB of noise as a PNG's pixels",
        body=lambda: png(3000, 3000, chunk(b"IDAT", noise(LARGEST - 100))),
        status=422,
        answer=DAMAGED,
    ),
    Row(
        picture="25 MB of noise, as a sound PNG",
        body=lambda: noisy("PNG"),
        answer="as any other",
        seen=lambda: noisy("BMP"),
    ),
    Row(
        picture="a byte more than 25 MB",
        body=lambda: bytes(LARGEST + 1),
        status=413,
        answer="the body is larger than 25 MB (SAGEMAKER_MAX_PAYLOAD_IN_MB)",
    ),
    # Two things at once.
    Row(
        picture="polyglot: a JPEG that a ZIP archive follows",
        body=lambda: JPEG + b"PK\x03\x04" + noise(1000),
        answer="the picture; nothing reads on",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture="polyglot: a PNG that a page with a script follows",
        body=lambda: PNG + HTML,
        answer="the picture; nothing reads on",
        seen=lambda: PNG,
    ),
    Row(
        picture="polyglot: a JPEG whose comment is a program",
        body=lambda: saved(IMAGE, "JPEG", comment=b"<?php system($_GET[0]); ?>"),
        answer="the picture; nothing runs",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture="a page, and then a JPEG",
        body=lambda: HTML + JPEG,
        status=422,
        answer=NO_PICTURE,
    ),
    Row(
        picture="PDF with a picture in it",
        body=lambda: saved(IMAGE, "PDF"),
        status=422,
        answer=NO_PICTURE,
    ),
    Row(
        picture="SVG",
        body=lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///x'/></svg>",
        status=422,
        answer=NO_PICTURE,
    ),
    Row(
        picture="PostScript",
        body=lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        status=422,
        answer=NO_PICTURE,
    ),
    Row(
        picture="TIFF",
        body=lambda: saved(IMAGE, "TIFF"),
        status=422,
        answer=NO_PICTURE,
    ),
    # Under another name.
    Row(
        picture="PNG, said to be a JPEG",
        body=lambda: PNG,
        sent_as="image/jpeg",
        answer="as what its bytes say",
        seen=lambda: PNG,
    ),
    Row(
        picture="JPEG, said to be curl's form",
        body=lambda: JPEG,
        sent_as="application/x-www-form-urlencoded",
        answer="as what its bytes say",
        seen=lambda: encode(opened(JPEG)),
    ),
    Row(
        picture="PNG, said to be JSON",
        body=lambda: PNG,
        sent_as="application/json",
        status=400,
        answer="the body is not JSON",
    ),
    Row(
        picture="large PNG, said to be JSON",
        body=lambda: noisy("PNG"),
        sent_as="application/json",
        status=400,
        answer="the body is not JSON",
    ),
    Row(
        picture="PNG, said to be an array",
        body=lambda: PNG,
        sent_as="application/x-npy",
        status=422,
        answer="not a NumPy file of version 1.0 or 2.0, or a damaged one",
    ),
    Row(
        picture="PNG, said to be text",
        body=lambda: PNG,
        sent_as="text/plain",
        status=415,
        answer="Content-Type 'text/plain' is not one of image/jpeg, image/jpg, image/png",
    ),
    Row(
        picture="PNG in a browser's form",
        body=lambda: b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + PNG + b"--x--",
        sent_as="multipart/form-data; boundary=x",
        status=415,
        answer="Content-Type 'multipart/form-data' is not one of image/jpeg",
    ),
)  # fmt: skip


def table() -> str:
    """Return the rows as a document has them."""
    lines = ["| body | sent as | answer |", "|---|---|---|"]
    for row in ROWS:
        words = row.answer if row.status == 200 else f"`{row.answer}`"
        lines.append(f"| {row.picture} | `{row.sent_as}` | {row.status}: {words} |")
    return "\n".join(lines)
