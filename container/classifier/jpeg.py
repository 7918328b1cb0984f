"""JPEG files: their scans, and their pixels by libjpeg-turbo.

Pillow's own decoder fills missing data with gray without an error, and rejects a file without an
end marker even if every pixel is there.
"""

import re
from dataclasses import dataclass

from PIL import Image
from simplejpeg import decode_jpeg

from container.classifier.errors import ImageError

START_OF_IMAGE, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"

# Each scan of a progressive JPEG covers all of its pixels. Encoders write about ten; a file of
# 200 KB with thousands would take minutes.
MAX_SCANS = 100

# Segments are tables, profiles and so on: a large profile has a hundred. Pillow joins the segments
# of EXIF in quadratic time.
MAX_SEGMENTS = 1000

# Markers of segments with a length, and of the image's start and end. Without a length are stuffed
# bytes and restarts, which are within a scan, and markers that Pillow or libjpeg skip.
MARKER = re.compile(rb"\xff([^\x00-\xbf\xc8\xd0-\xd7\xf0-\xfd\xff])", re.DOTALL)

# The first byte pair that ends the data of a scan for libjpeg.
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)

START_OF_SCAN = 0xDA
SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1, 0xC9})
PROGRESSIVE_FRAMES = frozenset({0xC2, 0xCA})

# libjpeg's warnings that data are missing. It fills the rest with gray.
MISSING_DATA = re.compile("premature end|0xd9 instead of RST", re.IGNORECASE)
TRUNCATED = "the image is damaged: image file is truncated"

# Bytes of an 8 x 8 block's coefficient in memory.
COEFFICIENT_BYTES = 2


@dataclass(slots=True)
class Jpeg:
    """A JPEG file without what is between its segments or follows its last scan."""

    data: bytes = b""
    """The file, with an end marker."""

    components: int = 0
    """3 for color, 1 for gray, 4 for CMYK, 0 without a frame."""

    is_progressive: bool = False

    scans: int = 0

    def needed_bytes(self, width: int, height: int, scale: int) -> int:
        """Return the memory that decoding needs, at `1 / scale` of the size."""
        is_cmyk = self.components > len("RGB")
        # libjpeg's output, Pillow's copy of it, and RGB for CMYK: 4 bytes per pixel each.
        decoded = (12 if is_cmyk else 8) * width * height // scale**2
        # All scans are collected before pixels are computed from them.
        is_collected = self.is_progressive or self.scans > 1
        return decoded + is_collected * COEFFICIENT_BYTES * self.components * width * height

    def decode(self, width: int, height: int, scale: int) -> Image.Image:
        """Decode to RGB or CMYK at `1 / scale` of the size, rounded up.

        Raises:
            ImageError: data are missing.
            ValueError: the file is damaged.
        """
        is_cmyk = self.components > len("RGB")
        colors = "CMYK" if is_cmyk else "RGBX"
        sides = {"min_width": -(-width // scale), "min_height": -(-height // scale)}
        try:
            pixels = decode_jpeg(self.data, colors, **sides)
        except ValueError as warning:
            if MISSING_DATA.search(str(warning)):
                raise ImageError(TRUNCATED) from warning
            # Another warning: extraneous bytes, an unknown version and so on.
            pixels = decode_jpeg(self.data, colors, **sides, strict=False)
        size = (pixels.shape[1], pixels.shape[0])
        # Programs invert the colors of a CMYK JPEG, as Adobe does.
        mode, raw_mode = ("CMYK", "CMYK;I") if is_cmyk else ("RGB", colors)
        return Image.frombytes(mode, size, memoryview(pixels).cast("B"), "raw", raw_mode)


def read_jpeg(data: bytes) -> Jpeg:
    """Find the scans of a JPEG file.

    The image is complete when every coefficient has been sent. What follows, such as a phone's
    trailer or the next image, is ignored, and its end marker may be missing.

    Raises:
        ImageError: there are too many segments or scans, or scans are missing.
    """
    jpeg, segments, position = Jpeg(), 0, len(START_OF_IMAGE)
    missing: dict[int, set[int]] = {}
    parts = [START_OF_IMAGE]
    while match := MARKER.search(data, position):
        start, position, marker = match.start(), match.end(), match[1][0]
        if match[0] in {START_OF_IMAGE, END_OF_IMAGE}:
            if not jpeg.scans:
                # Pillow continues if there was no image yet.
                continue
            if match[0] == END_OF_IMAGE:
                jpeg.data = b"".join((*parts, END_OF_IMAGE))
                return jpeg
            break
        segments += 1
        jpeg.scans += marker == START_OF_SCAN
        if jpeg.scans > MAX_SCANS or segments > MAX_SEGMENTS:
            kind, most = (
                ("scans", MAX_SCANS) if jpeg.scans > MAX_SCANS else ("segments", MAX_SEGMENTS)
            )
            raise ImageError(f"the image has more than {most} {kind}")
        # A segment starts with its length; its content, such as a thumbnail, is skipped.
        length = max(2, int.from_bytes(data[position : position + 2]))
        segment = data[position + 2 : position + length]
        position += length
        if marker in SEQUENTIAL_FRAMES | PROGRESSIVE_FRAMES:
            jpeg.is_progressive = marker in PROGRESSIVE_FRAMES
            missing = {component: set(range(64)) for component in segment[6::3]}
            jpeg.components = len(missing)
        elif marker == START_OF_SCAN:
            _subtract(missing, segment, is_progressive=jpeg.is_progressive)
            end = SCAN_END.search(data, position)
            position = end.start() if end else len(data)
            if missing and not any(missing.values()):
                jpeg.data = b"".join((*parts, data[start:position], END_OF_IMAGE))
                return jpeg
        # Bytes between segments, such as a segment with a damaged marker, are left out.
        parts.append(data[start:position])
    if jpeg.scans:
        raise ImageError(TRUNCATED)
    jpeg.data = data
    return jpeg


def _subtract(missing: dict[int, set[int]], scan: bytes, *, is_progressive: bool) -> None:
    """Remove the coefficients that a scan sends to their last bit, by its header."""
    count = scan[0] if scan else 0
    first, last, bits = scan[1 + 2 * count : 4 + 2 * count].ljust(3, b"\0")
    for component in scan[1 : 1 + 2 * count : 2]:
        sent = range(first, last + 1) if is_progressive else range(64)
        if bits & 0xF == 0 or not is_progressive:
            missing.get(component, set()).difference_update(sent)
